"""A whole migration of a serial card, against a bare replay of its accesses."""

from __future__ import annotations

from tests.bench.figures import best_of, show, timed
from tests.bench.machines import Side, migrate

from vfiomig.client.device import DeviceHandle
from vfiomig.client.recorder import HistoryLog, Recorder
from vfiomig.client.region import find_migration_region
from vfiomig.host.device_fd import DeviceFd
from vfiomig.protocol.history import Access
from vfiomig.protocol.v1.registers import REGISTERS_SIZE
from vfiomig.vendor.reference import ReferenceDriver
from vfiomig.vendor.serial import SerialModel

MIGRATIONS = 40


def make_driver() -> ReferenceDriver:
    return ReferenceDriver(SerialModel(), data_section="trapped")


def migrate_once() -> None:
    source = Side.of(make_driver(), "source")
    destination = Side.of(make_driver(), "destination")
    migrate(source, destination)
    source.fd.close()
    destination.fd.close()


def recorded_accesses() -> list[tuple[bool, bool, int, int, bytes]]:
    """Return the accesses of a migration: at the source?, a read?, place, size, data."""
    log = HistoryLog()

    def recording(fd: DeviceFd, party: str) -> DeviceHandle:
        return Recorder(fd, find_migration_region(fd), log, device=party)

    source = Side.of(make_driver(), "source", recording)
    destination = Side.of(make_driver(), "destination", recording)
    base = find_migration_region(source.fd).offset
    migrate(source, destination)
    source.fd.close()
    destination.fd.close()
    accesses = []
    for record in log.records:
        assert isinstance(record, Access)
        data = _value(record) if record.access == "write" else b""
        is_read = record.access == "read"
        at_source = record.device == "source"
        accesses.append((at_source, is_read, base + record.offset, record.size, data))
    return accesses


def _value(record: Access) -> bytes:
    if record.offset < REGISTERS_SIZE:
        return int(record.value, 16).to_bytes(record.size, "little")
    return bytes.fromhex(record.value)


def test_a_migration_of_serial() -> None:
    accesses = recorded_accesses()

    def replay_once() -> None:
        source, destination = DeviceFd(make_driver()), DeviceFd(make_driver())
        for at_source, is_read, place, size, data in accesses:
            fd = source if at_source else destination
            if is_read:
                fd.pread(size, place)
            else:
                fd.pwrite(data, place)
        source.close()
        destination.close()

    bare, whole = best_of(
        lambda: timed(lambda: [replay_once() for _ in range(MIGRATIONS)]),
        lambda: timed(lambda: [migrate_once() for _ in range(MIGRATIONS)]),
    )
    print(f"\n{len(accesses)} accesses")
    show("a migration of serial", whole / bare, 2, "a bare replay of its accesses")
