"""One client: its commands answered, in their order, by a device of its own.

Rule 1: the first message is VFIO_USER_VERSION; the device is made once both agree.

Rule 2: a command that cannot be read or that fails is answered with an errno, and the
connection survives.  A header that cannot be believed ends it, and so does a reply to
nothing.

Rule 3: a driver that died is not asked for anything again, and the client hears nothing
more: `DriverDiedError` passes through here.
"""

from __future__ import annotations

import errno
import os
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple, NoReturn

from vfiomig.host.region import NUM_REGIONS, OFFSET_SHIFT
from vfiomig.protocol.errors import DriverDiedError, MessageError
from vfiomig.protocol.vfio_user.dma import DirtyPages, DmaMap, DmaUnmap
from vfiomig.protocol.vfio_user.framing import (
    FramingError,
    error_message,
    reply_message,
)
from vfiomig.protocol.vfio_user.messages import (
    DeviceInfo,
    IrqInfo,
    RegionAccess,
    RegionData,
    RegionInfo,
    RegionIoFds,
    SetIrqs,
    require_nothing,
)
from vfiomig.protocol.vfio_user.negotiation import Capabilities, Version, agreed
from vfiomig.serve.vfio_user.channel import (
    FLAGS,
    MAX_FDS,
    ROOM_FOR_FDS,
    Channel,
    ClientLostError,
    Message,
    refuse,
)
from vfiomig.serve.vfio_user.client_memory import ClientMemory
from vfiomig.serve.vfio_user.served_device import ServedDevice
from vfiomig.uapi.vfio_user import (
    VFIO_USER_DEVICE_GET_INFO,
    VFIO_USER_DEVICE_GET_IRQ_INFO,
    VFIO_USER_DEVICE_GET_REGION_INFO,
    VFIO_USER_DEVICE_GET_REGION_IO_FDS,
    VFIO_USER_DEVICE_RESET,
    VFIO_USER_DEVICE_SET_IRQS,
    VFIO_USER_DIRTY_PAGES,
    VFIO_USER_DMA_MAP,
    VFIO_USER_DMA_UNMAP,
    VFIO_USER_F_TYPE_REPLY,
    VFIO_USER_REGION_READ,
    VFIO_USER_REGION_WRITE,
    VFIO_USER_VERSION,
)

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Mapping

    from vfiomig.host.device_ops import TrappedDriver

# A whole VFIO_USER_REGION_READ, and all but the data of a write, and of both replies.
_ACCESS: Final = struct.Struct("<HHIIIQII")
_ACCESS_SIZE: Final = _ACCESS.size
_REPLY: Final = VFIO_USER_F_TYPE_REPLY
_SMALL: Final = 4096  # bytes of data that are answered without more ado


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a client may make us wait for, and send.

    ``patience`` are seconds: for the rest of a message, for a reply, and for the room
    to send.  ``max_data_size`` are bytes of data in a message.
    """

    patience: float = 10.0
    max_data_size: int = 1 << 20


class _Answer(NamedTuple):
    """What a reply carries."""

    payload: bytes = b""
    fds: tuple[int, ...] = ()


_NOTHING: Final = _Answer()


class Session:
    """A connected client, whose socket is ours from now on.

    ``accesses`` counts reads and writes of regions.
    """

    def __init__(
        self,
        connection: socket.socket,
        make_driver: Callable[[], TrappedDriver],
        limits: Limits,
    ) -> None:
        self._make_driver = make_driver
        self._limits = limits
        self._max_data_size = limits.max_data_size
        self._can_send_fds = False
        self.accesses = 0
        self._channel = Channel(
            connection, limit=limits.patience, max_data_size=limits.max_data_size
        )

    def run(self) -> str:
        """Serve the client until it is gone; return why, or nothing if it just left.

        Raises:
            DriverDiedError: the driver raised something without an errno.
            Exception: what the factory of drivers raises.
        """
        try:
            version = self._negotiate()
            memory = ClientMemory(self._channel.ask, max_data_size=self._max_data_size)
            try:
                self._serve(version, memory)
            finally:
                memory.close()
        except (ClientLostError, FramingError) as error:
            return str(error)
        finally:
            self._channel.close()

    # -- beginning and end -------------------------------------------------------------

    def _negotiate(self) -> Message:
        """Receive the version, and keep to what the client can take.

        Raises:
            ClientLostError, FramingError: there is no client to be served.
        """
        message = self._channel.receive(is_limited=True)
        header = message.header
        message.close()
        try:
            if header.command != VFIO_USER_VERSION or header.is_reply:
                refuse(f"command {header.command} comes before the version")
            said = Version.decode(message.payload)
            self._agreed = agreed(said, self._offer())
        except MessageError as error:
            self._fail(message, error.code)
            raise ClientLostError(str(error)) from error
        self._max_data_size = min(
            said.capabilities.max_data_xfer_size, self._max_data_size
        )
        self._can_send_fds = said.capabilities.max_msg_fds > 0
        return message

    def _offer(self) -> Capabilities:
        return Capabilities(
            max_msg_fds=MAX_FDS,
            max_data_xfer_size=self._limits.max_data_size,
            pgsize=os.sysconf("SC_PAGESIZE"),
        )

    def _serve(self, version: Message, memory: ClientMemory) -> NoReturn:
        driver = self._make_driver()
        try:
            device = ServedDevice(driver, memory)
        except OSError as error:  # as the open of a real device would fail
            self._fail(version, error.errno or errno.EIO)
            raise ClientLostError(f"its device cannot be opened: {error}") from error
        try:
            self._reply(version, _Answer(self._agreed.encode()))
            self._converse(device, memory)
        except DriverDiedError:
            device.let_go()
            raise
        except BaseException:
            self._close(device)
            raise

    def _close(self, device: ServedDevice) -> None:
        try:
            device.close()
        except OSError:
            # What a release of a driver returns, the kernel ignores.
            return

    # -- the conversation --------------------------------------------------------------

    def _converse(self, device: ServedDevice, memory: ClientMemory) -> NoReturn:
        """Answer until the client is lost, which is an exception."""
        channel = self._channel
        while True:
            if not channel.waiting and not channel.have:
                self._answer_accesses(device.pread, device.pwrite)
            message = channel.receive()
            try:
                self._answer(message, device, memory)
            finally:
                message.close()

    def _answer_accesses(
        self,
        pread: Callable[[int, int], bytes],
        pwrite: Callable[[bytes, int], int],
    ) -> None:
        """Answer small accesses that come whole and alone, until something else comes.

        The same as `_answer` does, without an object for a message: nearly all that is
        ever sent is accesses of registers.
        """
        channel = self._channel
        receive, send, waiting = (
            channel.socket.recvmsg_into,
            channel.send,
            channel.waiting,
        )
        buffer = channel.buffer
        buffers = [buffer]
        unpack, pack = _ACCESS.unpack_from, _ACCESS.pack
        most = min(_SMALL, self._max_data_size)
        while not waiting and not channel.have:
            try:
                count, control, flags, _ = receive(buffers, ROOM_FOR_FDS, FLAGS)
            except ConnectionError as error:
                raise ClientLostError("") from error
            if control or flags != FLAGS or count < _ACCESS_SIZE:
                channel.took(count, control, flags)
                return
            number, command, size, kind, _, offset, region, length = unpack(buffer)
            if size != count or kind or length > most or offset >> OFFSET_SHIFT:
                channel.took(count, control, flags)
                return
            place = region << OFFSET_SHIFT | offset
            data = b""
            try:
                if command == VFIO_USER_REGION_READ and size == _ACCESS_SIZE:
                    data = pread(length, place)
                    length = len(data)
                elif (
                    command == VFIO_USER_REGION_WRITE and size == _ACCESS_SIZE + length
                ):
                    length = pwrite(bytes(buffer[_ACCESS_SIZE:size]), place)
                else:
                    channel.took(count, control, flags)
                    return
            except OSError as error:
                send(error_message(number, command, error.errno or errno.EIO))
            else:
                size = _ACCESS_SIZE + len(data)
                send(
                    pack(number, command, size, _REPLY, 0, offset, region, length)
                    + data
                )
            self.accesses += 1

    def _answer(
        self, message: Message, device: ServedDevice, memory: ClientMemory
    ) -> None:
        header = message.header
        if header.is_reply:
            raise FramingError(f"a reply to nothing, command {header.command}")
        perform = _COMMANDS.get(header.command)
        try:
            if perform is None:
                refuse(f"command {header.command} is unknown here")
            answer = perform(self, message, device, memory)
        except MessageError as error:
            self._fail(message, error.code)
        except OSError as error:
            self._fail(message, error.errno or errno.EIO)
        else:
            self._reply(message, answer)

    def _reply(self, message: Message, answer: _Answer) -> None:
        header = message.header
        if not header.wants_no_reply:
            reply = reply_message(header.msg_id, header.command, answer.payload)
            self._channel.send(reply, answer.fds)

    def _fail(self, message: Message, code: int) -> None:
        header = message.header
        if not header.wants_no_reply:
            self._channel.send(error_message(header.msg_id, header.command, code))

    # -- the commands ------------------------------------------------------------------

    def _dma_map(
        self, message: Message, _: ServedDevice, memory: ClientMemory
    ) -> _Answer:
        memory.map(DmaMap.decode(message.payload), message.fds)
        return _NOTHING

    def _dma_unmap(
        self, message: Message, _: ServedDevice, memory: ClientMemory
    ) -> _Answer:
        return _Answer(memory.unmap(DmaUnmap.decode(message.payload)).encode())

    def _dirty_pages(
        self, message: Message, _: ServedDevice, memory: ClientMemory
    ) -> _Answer:
        return _Answer(memory.dirty_pages(DirtyPages.decode(message.payload)))

    def _device_info(
        self, message: Message, device: ServedDevice, _: ClientMemory
    ) -> _Answer:
        return _Answer(device.info(DeviceInfo.decode(message.payload)))

    def _region_info(
        self, message: Message, device: ServedDevice, _: ClientMemory
    ) -> _Answer:
        payload, fd = device.region_info(RegionInfo.decode(message.payload))
        if fd is None or not self._can_send_fds:
            return _Answer(payload)
        return _Answer(payload, (fd,))

    def _region_io_fds(
        self, message: Message, _: ServedDevice, __: ClientMemory
    ) -> _Answer:
        asked = RegionIoFds.decode(message.payload)
        if asked.index >= NUM_REGIONS:
            refuse(f"no region has the index {asked.index}")
        return _Answer(RegionIoFds(index=asked.index).encode())

    def _irq_info(
        self, message: Message, device: ServedDevice, _: ClientMemory
    ) -> _Answer:
        return _Answer(device.irq_info(IrqInfo.decode(message.payload)))

    def _set_irqs(
        self, message: Message, device: ServedDevice, _: ClientMemory
    ) -> _Answer:
        device.set_irqs(SetIrqs.decode(message.payload), message.fds)
        return _NOTHING

    def _region_read(
        self, message: Message, device: ServedDevice, _: ClientMemory
    ) -> _Answer:
        asked = RegionAccess.decode(message.payload)
        if asked.count > self._max_data_size:
            refuse(f"a read of {asked.count} bytes", errno.E2BIG)
        place = self._place(asked.region, asked.offset)
        self.accesses += 1
        data = device.pread(asked.count, place)
        return _Answer(RegionData(asked.offset, asked.region, data).encode())

    def _region_write(
        self, message: Message, device: ServedDevice, _: ClientMemory
    ) -> _Answer:
        asked = RegionData.decode(message.payload)
        if len(asked.data) > self._limits.max_data_size:
            refuse(f"a write of {len(asked.data)} bytes", errno.E2BIG)
        place = self._place(asked.region, asked.offset)
        self.accesses += 1
        taken = device.pwrite(asked.data, place)
        return _Answer(RegionAccess(asked.offset, asked.region, taken).encode())

    def _place(self, region: int, offset: int) -> int:
        """Return where an access goes on the device fd."""
        if offset >> OFFSET_SHIFT:
            refuse(f"no region has a byte at {offset:#x}")
        return region << OFFSET_SHIFT | offset

    def _reset(
        self, message: Message, device: ServedDevice, _: ClientMemory
    ) -> _Answer:
        require_nothing(message.payload, "reset")
        device.reset()
        return _NOTHING


_COMMANDS: Final[
    Mapping[int, Callable[[Session, Message, ServedDevice, ClientMemory], _Answer]]
] = {
    VFIO_USER_DMA_MAP: Session._dma_map,
    VFIO_USER_DMA_UNMAP: Session._dma_unmap,
    VFIO_USER_DEVICE_GET_INFO: Session._device_info,
    VFIO_USER_DEVICE_GET_REGION_INFO: Session._region_info,
    VFIO_USER_DEVICE_GET_REGION_IO_FDS: Session._region_io_fds,
    VFIO_USER_DEVICE_GET_IRQ_INFO: Session._irq_info,
    VFIO_USER_DEVICE_SET_IRQS: Session._set_irqs,
    VFIO_USER_REGION_READ: Session._region_read,
    VFIO_USER_REGION_WRITE: Session._region_write,
    VFIO_USER_DEVICE_RESET: Session._reset,
    VFIO_USER_DIRTY_PAGES: Session._dirty_pages,
}
