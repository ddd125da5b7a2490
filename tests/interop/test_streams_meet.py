"""Ends meet: QEMU loads what the simulator wrote, and the simulator what QEMU saved.

Device state is compared by digests of snapshots: of the source on entering STOP, of
the destination within the write that lets it run.  RAM is compared byte for byte.
"""

from __future__ import annotations

import json
import random
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pytest

from tests.interop.steered_qemu import SteeredQemu
from vfiomig.migration.image_loading import ImageLoading
from vfiomig.migration.qemu_image import open_image
from vfiomig.protocol.qemu_stream.records import RamPages, VfioConfig
from vfiomig.vm.memory import GuestMemory

if TYPE_CHECKING:
    from pathlib import Path

    from tests.interop.conftest import Vfiomig

pytestmark = pytest.mark.slow

PAGE = 4096
MIB, GIB = 1 << 20, 1 << 30
MASTER = 4  # in the command register
# Below 1 MiB an address may lead to the VGA window or to firmware.
LOW, HIGH = 0xA_0000, 0x10_0000

ACCELERATOR, SERIAL = "accelerator,memory=256K", "serial"


class Guest(NamedTuple):
    """A guest of the simulator, with devices at slots."""

    machine: str
    ram: int  # bytes
    targets: tuple[str, ...]
    slots: tuple[int, ...]
    below: int  # bytes of RAM below 4 GiB
    load_at: int  # offset in RAM at which the guest writes

    @property
    def name(self) -> str:
        return f"{self.machine}-{self.ram // MIB}M-{len(self.targets)}"

    def scenario(self) -> str:
        devices = [
            f'[[device]]\ntarget = "{target}"\nslot = {slot}\nwork = 2000\n'
            for target, slot in zip(self.targets, self.slots, strict=True)
        ]
        return "\n".join(
            [
                *devices,
                f'[machine]\ntype = "{self.machine}"\nram = {self.ram}',
                f"filled = {2 * MIB}",
                "[[machine.load]]",
                f'dirty_rate = "16M"\noffset = {self.load_at}',
                f"working_set = {MIB}",
            ]
        )

    def address(self, offset: int) -> int:
        """Return where a byte of RAM is in guest physical addresses."""
        return offset if offset < self.below else offset - self.below + 4 * GIB


GUESTS = (
    Guest("pc", 16 * MIB, (SERIAL,), (2,), 16 * MIB, 4 * MIB),
    Guest("pc", 64 * MIB, (ACCELERATOR, SERIAL), (5, 4), 64 * MIB, 20 * MIB),
    Guest("pc", 3584 * MIB, ("reference",), (31,), 3 * GIB, 3 * GIB + 5 * MIB),
    Guest(
        "q35", 32 * MIB, ("opaque", ACCELERATOR, SERIAL), (3, 9, 2), 32 * MIB, 9 * MIB
    ),
    Guest("q35", 2816 * MIB, (SERIAL,), (4,), 2 * GIB, 2 * GIB + 700 * MIB),
)


def ram_of(stream: Path) -> dict[int, bytes]:
    """Return the pages of RAM that a stream leaves behind, but those of zeros."""
    pages: dict[int, bytes] = {}
    with open_image(stream) as image:
        for record, *_ in image.records():
            if not isinstance(record, RamPages) or record.block != "pc.ram":
                continue
            numbers = (record.addresses // np.uint64(PAGE)).tolist()
            if record.contents is None:
                for number in numbers:
                    pages.pop(number, None)
            else:
                contents = record.contents
                pages |= {n: bytes(contents[i]) for i, n in enumerate(numbers)}
            del record
    return pages


def memory_of(qemu: SteeredQemu, file: Path, address: int, size: int) -> bytes:
    """Return guest physical memory, as the QEMU has it."""
    qemu.ask("pmemsave", val=address, size=size, filename=str(file))
    return file.read_bytes()


def assert_ram(
    qemu: SteeredQemu, guest: Guest, pages: dict[int, bytes], file: Path
) -> None:
    """Compare the mebibytes of RAM in which something is, and one where nothing is."""
    wanted = {number * PAGE // MIB for number in pages} | {guest.ram // MIB - 1}
    assert len(wanted) > 3, "filled, and written to"
    for number in sorted(wanted):
        begin = number * MIB
        held = memory_of(qemu, file, guest.address(begin), MIB)
        for at in range(begin, begin + MIB, PAGE):
            if LOW <= at < HIGH:
                continue
            page = held[at - begin : at - begin + PAGE]
            assert page == pages.get(at // PAGE, bytes(PAGE)), hex(at)


@pytest.mark.parametrize("guest", GUESTS, ids=lambda guest: guest.name)
def test_qemu_loads_what_the_simulator_wrote(
    folder: Path, vfiomig: Vfiomig, guest: Guest
) -> None:
    (folder / "guest.toml").write_text(guest.scenario())
    ran = vfiomig("migrate", "guest.toml", "--stream", "stream", "--json", "run.json")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert ran.stdout.rstrip().endswith("state verified")
    run = json.loads((folder / "run.json").read_text())
    stopped = [each["snapshots"]["source_at_stop"] for each in run["devices"]]
    pages = ram_of(folder / "stream")
    slots = tuple(f"{slot:02x}" for slot in guest.slots)
    arguments = (
        *("-M", guest.machine, "-m", f"{guest.ram // MIB}M", "-S"),
        *("-incoming", f"exec:cat {folder}/stream"),
    )
    with SteeredQemu(
        folder, "qemu", guest.targets, *arguments, slots=slots, traced=()
    ) as qemu:
        qemu.until("paused")
        assert_ram(qemu, guest, pages, folder / "memory")
        qemu.ask("cont")
        qemu.until("running")
        ended = qemu.end()
    started = [each.at_start for each in ended.accounts.values()]
    assert None not in started
    assert started == stopped[: len(guest.targets)]


# -- the other way round ---------------------------------------------------------------

_NOT_OF_THE_GUEST = ("timer", "cpu", "globalstate")  # some of the many of a PC
_SAVED_RAM = 16 * MIB


def scenario_for(targets: tuple[str, ...], *, slots: bool = True) -> str:
    devices = [
        f'[[device]]\ntarget = "{target}"\n' + (f"slot = {5 + n}\n" if slots else "")
        for n, target in enumerate(targets)
    ]
    return "\n".join([*devices, f"[machine]\nram = {_SAVED_RAM}"])


def saved(
    folder: Path, targets: tuple[str, ...], *more: str, is_stopped: bool = False
) -> dict[str, str | None]:
    """Let a QEMU save to ``stream``; return digests of its devices at their stop.

    Its RAM is in ``memory``: below 640 KiB, and all from 1 MiB on.
    """
    with SteeredQemu(folder, "source", targets, *more, work=500, traced=()) as qemu:
        qemu.until("running")
        if is_stopped:
            qemu.ask("stop")
        qemu.ask("migrate-set-parameters", **{"max-bandwidth": 1 << 40})
        assert qemu.migrated(f"exec:cat > {folder}/stream") == "completed"
        qemu.ask("pmemsave", val=0, size=_SAVED_RAM, filename=f"{folder}/memory")
        accounts = qemu.end().accounts
    devices = {name: {"at_stop": each.at_stop} for name, each in accounts.items()}
    (folder / "qemu.json").write_text(json.dumps({"devices": devices}))
    return {name: each.at_stop for name, each in accounts.items()}


@pytest.mark.parametrize(
    ("targets", "is_stopped"),
    [
        pytest.param((ACCELERATOR, SERIAL), False, id="living"),
        pytest.param((ACCELERATOR, SERIAL), True, id="stopped"),
        pytest.param(("opaque,data-section=trapped", "reference"), False, id="trapped"),
    ],
)
def test_the_simulator_loads_what_qemu_saved(
    folder: Path,
    vfiomig: Vfiomig,
    targets: tuple[str, ...],
    is_stopped: bool,
) -> None:
    digests = saved(folder, targets, is_stopped=is_stopped)
    (folder / "guest.toml").write_text(scenario_for(targets))
    ran = vfiomig(
        *("migrate", "guest.toml", "--incoming", "stream"),
        *("--expect", "qemu.json", "--json", "run.json"),
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    run = json.loads((folder / "run.json").read_text())
    loaded = {each["name"]: each for each in run["devices"]}
    for name, digest in digests.items():
        device = loaded[name.removeprefix("source/")]
        assert device["snapshots"]["destination_after"] == digest
        assert device["device_state"] == "RUNNING"
        has_changed = digest != device["snapshots"]["destination_before"]
        expected = "verified" if has_changed else "nothing-to-move"
        assert device["verdict"] == expected
    assert set(_NOT_OF_THE_GUEST) <= set(run["passed_over"])
    assert run["machine_type"] == "pc-i440fx-7.2"
    assert run["ram"]["missing_pages"] == 0
    # QEMU told nothing of its RAM: that is looked at by itself, below.
    assert run["verified"] == "loaded, unverified: ram"


def test_ram_that_qemu_saved_arrives(folder: Path) -> None:
    blob = random.Random(1).randbytes(300_000)
    (folder / "blob").write_bytes(blob)
    loader = f"loader,file={folder}/blob,addr={9 * MIB},force-raw=on"
    saved(folder, (SERIAL,), "-device", loader)
    held = (folder / "memory").read_bytes()
    with GuestMemory.of_pc(_SAVED_RAM) as memory:
        loading = ImageLoading({}, memory)
        with open_image(folder / "stream") as image:
            for located in image.records():
                loading.take(located)
            del located
        assert loading.ram.is_loaded
        assert loading.ram.missing == 0
        assert memory.read(0, LOW) == held[:LOW]
        assert memory.read(HIGH, _SAVED_RAM - HIGH) == held[HIGH:]
        assert memory.read(9 * MIB, len(blob)) == blob


def test_devices_are_found_by_order_where_no_slot_is_given(
    folder: Path, vfiomig: Vfiomig
) -> None:
    targets = (ACCELERATOR, SERIAL)
    saved(folder, targets)
    arguments = [part for each in targets for part in ("--device", each)]
    ran = vfiomig(
        *("migrate", *arguments, "--incoming", "stream", "--expect", "qemu.json")
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert ran.stdout.rstrip().endswith("state verified")
    one = vfiomig("migrate", "--device", SERIAL, "--incoming", "stream")
    assert one.returncode == 2
    assert "it has 0000:00:05.0/vfio, 0000:00:06.0/vfio" in one.stderr


def test_another_device_at_that_place_is_refused(
    folder: Path, vfiomig: Vfiomig
) -> None:
    saved(folder, (SERIAL,))
    ran = vfiomig("migrate", "--device", ACCELERATOR, "--incoming", "stream")
    assert ran.returncode == 1, ran.stdout + ran.stderr
    assert "failed: accelerator: " in ran.stdout
    assert "RESUMING" in ran.stdout or "ERROR" in ran.stdout


def test_a_state_that_is_another_differs(folder: Path, vfiomig: Vfiomig) -> None:
    saved(folder, (ACCELERATOR,))
    report = json.loads((folder / "qemu.json").read_text())
    (account,) = report["devices"].values()
    account["at_stop"] = account["at_stop"][::-1]
    (folder / "qemu.json").write_text(json.dumps(report))
    ran = vfiomig(
        *("migrate", "--device", ACCELERATOR),
        *("--incoming", "stream", "--expect", "qemu.json"),
    )
    assert ran.returncode == 1
    assert ran.stdout.rstrip().endswith("state differs: accelerator")


def test_configuration_space_is_what_qemu_would_save(
    folder: Path, vfiomig: Vfiomig
) -> None:
    """A guest that has not come to its firmware's PCI setup: no BAR has an address.

    But for the command register: our guest has a driver, which has set bus master.
    """
    targets = (ACCELERATOR, SERIAL, "opaque")
    with SteeredQemu(folder, "source", targets, "-S", traced=()) as qemu:
        assert qemu.migrated(f"exec:cat > {folder}/stream") == "completed"
        qemu.end()
    (folder / "guest.toml").write_text(scenario_for(targets))
    ran = vfiomig("migrate", "guest.toml", "--stream", "ours")
    assert ran.returncode == 0
    theirs, ours = configs_of(folder / "stream"), configs_of(folder / "ours")
    assert len(theirs) == len(targets)
    assert ours == theirs


def configs_of(stream: Path) -> dict[str, tuple[object, ...]]:
    found: dict[str, tuple[object, ...]] = {}
    with open_image(stream) as image:
        for located in image.records():
            record = located.record
            if isinstance(record, VfioConfig):
                assert located.section is not None
                config = bytes(record.config)
                config = config[:4] + bytes([config[4] & ~MASTER]) + config[5:]
                parts = (record.version, config, record.irq, record.msix)
                found[located.section.idstr] = parts
            del record, located
    return found
