"""Each kind of moment as a plain name, for those who compare many: ``kinds.RESET``.

Before Python 3.12 the look-up of an enum's member takes ten times as long as that of a
module's name, and checks look up several at every access.
"""

from typing import Final

from vfiomig.conformance.moment import Kind

OPEN: Final = Kind.OPEN
READ_DEVICE_STATE: Final = Kind.READ_DEVICE_STATE
WRITE_DEVICE_STATE: Final = Kind.WRITE_DEVICE_STATE
READ_RESERVED: Final = Kind.READ_RESERVED
WRITE_RESERVED: Final = Kind.WRITE_RESERVED
READ_PENDING_BYTES: Final = Kind.READ_PENDING_BYTES
WRITE_PENDING_BYTES: Final = Kind.WRITE_PENDING_BYTES
READ_DATA_OFFSET: Final = Kind.READ_DATA_OFFSET
WRITE_DATA_OFFSET: Final = Kind.WRITE_DATA_OFFSET
READ_DATA_SIZE: Final = Kind.READ_DATA_SIZE
WRITE_DATA_SIZE: Final = Kind.WRITE_DATA_SIZE
READ_ODD: Final = Kind.READ_ODD
WRITE_ODD: Final = Kind.WRITE_ODD
READ_DATA: Final = Kind.READ_DATA
WRITE_DATA: Final = Kind.WRITE_DATA
MMAP: Final = Kind.MMAP
RESET: Final = Kind.RESET
CLOSE: Final = Kind.CLOSE
WORK: Final = Kind.WORK
SNAPSHOT: Final = Kind.SNAPSHOT
FAIL: Final = Kind.FAIL
