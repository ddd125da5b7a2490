"""A data section that user applications map: a frame buffer in one chunk."""

import errno

from vfiomig import DataSection, Register, RegisterBank

STOP_AND_COPY, RESUMING = 2, 4


class FrameBuffer:
    def __init__(self) -> None:
        self.section = DataSection(1 << 20)  # sealed, and mapped once
        self.migration_region = self.section.region()  # one area: all of it
        self.bank, self.mmap = RegisterBank(self.section), self.section.mmap
        self.pixels, self.close = bytearray(1 << 20), self.bank.close
        self.reset()

    def reset(self) -> None:
        self.pixels[:], self.bank.registers.device_state = bytes(1 << 20), 1

    def read(self, offset: int, size: int) -> bytes:
        registers = self.bank.registers
        if offset == Register.PENDING_BYTES.offset and registers.data_size:
            registers.pending_bytes = registers.data_size = 0
        if offset == Register.DATA_OFFSET.offset and registers.pending_bytes:
            self.section.view[:], registers.data_size = self.pixels, 1 << 20
        return self.bank.read(offset, size)

    def write(self, offset: int, data: bytes) -> None:
        registers = self.bank.registers
        match self.bank.written(offset, data):
            case (Register.DATA_SIZE, size) if registers.device_state == RESUMING:
                self.pixels[:size] = self.section.view[:size]
            case (Register.DEVICE_STATE, state) if state <= RESUMING:
                registers.pending_bytes = (state == STOP_AND_COPY) << 20
                registers.device_state = state
            case (register, value):
                raise OSError(errno.EINVAL, f"{register.value} = {value:#x}")
