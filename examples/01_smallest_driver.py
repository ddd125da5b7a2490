"""The smallest driver of one's own: a counter that moves in one buffer of 8 bytes."""

from vfiomig import MigrationRegion
from vfiomig.uapi.migration_v1 import vfio_device_migration_info


class Counter:
    migration_region = MigrationRegion(size=40)  # the registers, then 8 bytes of data

    def reset(self) -> None:
        self.count, self.memory = 0, bytearray(40)
        self.info = vfio_device_migration_info.from_buffer(self.memory)
        self.info.device_state, self.info.data_offset = 1, 32

    __init__ = close = reset

    def read(self, offset: int, size: int) -> bytes:
        if offset == 8 and self.info.data_size:  # the buffer was taken
            self.info.pending_bytes = self.info.data_size = 0
        if offset == 16 and self.info.pending_bytes:  # the buffer is wanted
            self.info.data_size, self.memory[32:] = 8, self.snapshot()
        return bytes(self.memory[offset : offset + size])

    def write(self, offset: int, data: bytes) -> None:
        before, state = self.info.device_state, data[0]
        if offset >= 32:
            self.memory[offset : offset + len(data)] = data
        elif offset == 0 and state > 4:
            raise OSError(22, f"{state:#b} is no device_state")  # EINVAL
        elif offset == 0 and state != before:
            if before == 4:  # it was RESUMING
                self.count = int.from_bytes(self.memory[32:], "little")
            self.info.device_state, self.info.pending_bytes = state, 8 * (state == 2)

    def work(self, amount: int) -> None:
        self.count += amount * (self.info.device_state & 1)  # only if it runs

    def snapshot(self) -> bytes:
        return self.count.to_bytes(8, "little")
