"""Real devices behind the broker, and a program that migrates one to another."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from vfiomig.conformance.target import load_target
from vfiomig.host.dev_vfio import DevVfio
from vfiomig.serve.broker.device_file import DeviceFile
from vfiomig.serve.mapped_areas import Place

if TYPE_CHECKING:
    from collections.abc import Callable

    from vfiomig.host.device_fd import DeviceFd
    from vfiomig.host.device_ops import TrappedDriver
    from vfiomig.host.user_process import HostFile

GROUP: Final = 7
OTHERS: Final = 8

# What a program needs to open devices, and to use them as linux/vfio.h says.
USE_DEVICES: Final = """
container = group = None
REGION = struct.Struct("=IIIIQQ")
def join(number=7):
    global container, group
    group = os.open(f"/dev/vfio/{number}", os.O_RDWR)
    container = os.open("/dev/vfio/vfio", os.O_RDWR)
    fcntl.ioctl(group, 0x3b68, struct.pack("i", container))
    fcntl.ioctl(container, 0x3b66, 3)
class Device:
    def __init__(self, name):
        self.fd = fcntl.ioctl(group, 0x3b6a, bytearray(name.encode() + b"\\0"))
        info = self.info(9)
        self.size, self.offset = REGION.unpack_from(info)[4:]
        self.areas = []
        at = REGION.unpack_from(info)[3]
        while at:
            kind, _, following = struct.unpack_from("=HHI", info, at)
            if kind == 1:
                count = struct.unpack_from("=I", info, at + 8)[0]
                for n in range(count):
                    self.areas.append(struct.unpack_from("=QQ", info, at + 16 + 16 * n))
            at = following
        self.maps = [
            (start, mmap.mmap(self.fd, size, offset=self.offset + start))
            for start, size in self.areas
        ]
    def info(self, index, argsz=512):
        info = bytearray(512)
        info[:32] = REGION.pack(argsz, 0, index, 0, 0, 0)
        fcntl.ioctl(self.fd, 0x3b6c, info)
        return info
    def get(self, at, size):
        return int.from_bytes(os.pread(self.fd, size, self.offset + at), "little")
    def put(self, at, size, value):
        os.pwrite(self.fd, value.to_bytes(size, "little"), self.offset + at)
    def move(self, at, size, data=None):
        "Read or write data, through a mapping where there is one."
        done = []
        while size:
            for start, there in self.maps:
                if start <= at < start + len(there):
                    n = min(size, start + len(there) - at)
                    if data is None:
                        done.append(there[at - start:at - start + n])
                    else:
                        there[at - start:at - start + n] = data[:n]
                    break
            else:
                ends = [start for start, _ in self.maps if start > at]
                n = min([size, *(each - at for each in ends)])
                if data is None:
                    done.append(os.pread(self.fd, n, self.offset + at))
                else:
                    os.pwrite(self.fd, data[:n], self.offset + at)
            if data is not None:
                data = data[n:]
            at, size = at + n, size - n
        return b"".join(done)
    def save(self):
        self.put(0, 4, 2)
        while self.get(8, 8):
            offset, size = self.get(16, 8), self.get(24, 8)
            yield self.move(offset, size)
        self.put(0, 4, 0)
    def load(self, chunks):
        self.put(0, 4, 4)
        for chunk in chunks:
            self.move(self.get(16, 8), len(chunk), chunk)
            self.put(24, 8, len(chunk))
        self.put(0, 4, 1)
    def close(self):
        for _, there in self.maps:
            there.close()
        os.close(self.fd)
def migrate():
    source, destination = Device("source"), Device("destination")
    chunks = [*source.save()]
    destination.load(chunks)
    return sum(map(len, chunks)), source, destination
"""


class Machine:
    """A /dev/vfio with the groups 7 and 8, and in each two devices of a target.

    ``change`` may make other places of those that the driver gives.
    """

    def __init__(
        self,
        target: str,
        change: Callable[[list[Place]], list[Place]] = lambda places: places,
    ) -> None:
        self.files: list[DeviceFile] = []
        self.unseen: list[tuple[str, int, int]] = []
        self._at_end: dict[str, bytes] = {}
        self._target = load_target(target)
        self._change = change
        devices = {"source": self._worked, "destination": self._target.make_driver}
        others = dict.fromkeys(("one", "other"), self._worked)
        self.dev = DevVfio({GROUP: devices, OTHERS: others}, wrap=self._wrapped)
        self.open = self.dev.open

    def snapshots(self) -> list[bytes]:
        """Return what source and destination were when they were last closed."""
        return [self._at_end[name] for name in ("source", "destination")]

    def _worked(self) -> TrappedDriver:
        driver = self._target.make_driver()
        driver.work(99)  # type: ignore[attr-defined]
        return driver

    def _wrapped(self, name: str, fd: DeviceFd, driver: TrappedDriver) -> HostFile:
        region = driver.migration_region
        places = [Place(area, *fd.area_file(area)) for area in region.areas]

        def unseen(access: str, offset: int, size: int) -> None:
            self.unseen.append((access, offset, size))

        at_end = self._at_end

        class Watched(DeviceFile):
            def close(self) -> None:
                at_end[name] = bytes(driver.snapshot())  # type: ignore[attr-defined]
                super().close()

        file = Watched(fd, region, self._change(places), unseen=unseen)
        self.files.append(file)
        return file
