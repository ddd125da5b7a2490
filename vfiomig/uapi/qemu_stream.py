"""Numbers of QEMU's migration stream (migration/savevm.c, hw/vfio/migration.c of 7.2).

All of them stand in the stream big-endian.
"""

from __future__ import annotations

from typing import Final

QEMU_VM_FILE_MAGIC: Final = 0x5145564D
QEMU_VM_FILE_VERSION: Final = 3

QEMU_VM_EOF: Final = 0x00
QEMU_VM_SECTION_START: Final = 0x01
QEMU_VM_SECTION_PART: Final = 0x02
QEMU_VM_SECTION_END: Final = 0x03
QEMU_VM_SECTION_FOOTER: Final = 0x7E

VFIO_MIG_FLAG_END_OF_STATE: Final = 0xFFFFFFFFEF100001
VFIO_MIG_FLAG_DEV_CONFIG_STATE: Final = 0xFFFFFFFFEF100002
VFIO_MIG_FLAG_DEV_SETUP_STATE: Final = 0xFFFFFFFFEF100003
VFIO_MIG_FLAG_DEV_DATA_STATE: Final = 0xFFFFFFFFEF100004

# Messages of the return path (migration/migration.c): type and length, 16 bits each.
MIG_RP_MSG_SHUT: Final = 1
