"""Numbers of QEMU's migration stream, of 7.2 and, where it says so, of 10.0.

migration/savevm.c, migration/ram.c, hw/vfio/migration.c.  All of them stand in the
stream big-endian.
"""

from __future__ import annotations

from typing import Final

QEMU_VM_FILE_MAGIC: Final = 0x5145564D
QEMU_VM_FILE_VERSION: Final = 3

QEMU_VM_EOF: Final = 0x00
QEMU_VM_SECTION_START: Final = 0x01
QEMU_VM_SECTION_PART: Final = 0x02
QEMU_VM_SECTION_END: Final = 0x03
QEMU_VM_SECTION_FULL: Final = 0x04
QEMU_VM_SUBSECTION: Final = 0x05
QEMU_VM_VMDESCRIPTION: Final = 0x06
QEMU_VM_CONFIGURATION: Final = 0x07
QEMU_VM_COMMAND: Final = 0x08
QEMU_VM_SECTION_FOOTER: Final = 0x7E

# enum qemu_vm_cmd
MIG_CMD_INVALID: Final = 0
MIG_CMD_OPEN_RETURN_PATH: Final = 1
MIG_CMD_PING: Final = 2
MIG_CMD_POSTCOPY_ADVISE: Final = 3
MIG_CMD_POSTCOPY_LISTEN: Final = 4
MIG_CMD_POSTCOPY_RUN: Final = 5
MIG_CMD_POSTCOPY_RAM_DISCARD: Final = 6
MIG_CMD_PACKAGED: Final = 7
MIG_CMD_ENABLE_COLO: Final = 8
MIG_CMD_POSTCOPY_RESUME: Final = 9
MIG_CMD_RECV_BITMAP: Final = 10
MIG_CMD_SWITCHOVER_START: Final = 11  # 10.0

# The low bits of a word of the RAM section; the rest is an address.
RAM_SAVE_FLAG_ZERO: Final = 0x02
RAM_SAVE_FLAG_MEM_SIZE: Final = 0x04
RAM_SAVE_FLAG_PAGE: Final = 0x08
RAM_SAVE_FLAG_EOS: Final = 0x10
RAM_SAVE_FLAG_CONTINUE: Final = 0x20
RAM_SAVE_FLAG_XBZRLE: Final = 0x40
RAM_SAVE_FLAG_HOOK: Final = 0x80
RAM_SAVE_FLAG_COMPRESS_PAGE: Final = 0x100  # gone in 10.0
RAM_SAVE_FLAG_MULTIFD_FLUSH: Final = 0x200  # 8.1

ENCODING_FLAG_XBZRLE: Final = 0x1

MAPPED_RAM_HDR_VERSION: Final = 1  # 9.0
MAPPED_RAM_FILE_OFFSET_ALIGNMENT: Final = 0x100000

VFIO_MIG_FLAG_END_OF_STATE: Final = 0xFFFFFFFFEF100001
VFIO_MIG_FLAG_DEV_CONFIG_STATE: Final = 0xFFFFFFFFEF100002
VFIO_MIG_FLAG_DEV_SETUP_STATE: Final = 0xFFFFFFFFEF100003
VFIO_MIG_FLAG_DEV_DATA_STATE: Final = 0xFFFFFFFFEF100004
VFIO_MIG_FLAG_DEV_INIT_DATA_SENT: Final = 0xFFFFFFFFEF100005  # 8.1

# Messages of the return path (migration/migration.c): type and length, 16 bits each.
MIG_RP_MSG_SHUT: Final = 1
