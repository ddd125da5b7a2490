"""The commands as a user types them: exit codes, one-line errors, outputs."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from vfiomig.frontends.exit_codes import (
    DONE,
    INTERRUPTED,
    MISUSE,
    NOT_AS_EXPECTED,
    NOT_STARTED,
)

if TYPE_CHECKING:
    from tests.unit.frontends.conftest import Vfiomig

EXAMPLES = Path(__file__).parents[3] / "examples"

SMALL = '[[device]]\ntarget = "reference"\nname = "pad"\n'
SMALL_COUNTER = f"{EXAMPLES / '01_smallest_driver.py'}:Counter"

# Drivers that fail in one way each; BODY goes into read().
DRIVER = """
import errno
from vfiomig import MigrationRegion
class Driver:
    migration_region = MigrationRegion(size=4096)
    def __init__(self): {init}
    def read(self, offset, size): {read}
    def write(self, offset, data): {write}
    def reset(self): pass
    def close(self): {close}
"""
HARMLESS = {
    "init": "pass",
    "read": "return {0: 1}.get(offset, 0).to_bytes(size, 'little')",
    "write": "pass",
    "close": "pass",
}


def driver(**bodies: str) -> str:
    """Write a driver of one file and return its target."""
    Path("driver.py").write_text(DRIVER.format(**{**HARMLESS, **bodies}))
    return "driver.py:Driver"


def test_migrate_alone_ends_in_state_verified(vfiomig: Vfiomig) -> None:
    code, output, errors = vfiomig("migrate")
    assert (code, errors) == (DONE, "")
    assert output.splitlines()[-1] == "state verified"


def test_the_same_seed_gives_the_same_run_to_the_byte(vfiomig: Vfiomig) -> None:
    for number in "12":
        outputs = [f"--{kind}={kind}{number}" for kind in ("json", "history", "stream")]
        assert vfiomig("migrate", *outputs)[0] == DONE
    for kind in ("json", "history", "stream"):
        assert Path(f"{kind}1").read_bytes() == Path(f"{kind}2").read_bytes()


@pytest.mark.parametrize("transport", ["unix", "tcp"])
def test_a_socket_gives_the_same_figures_as_memory(
    vfiomig: Vfiomig, transport: str
) -> None:
    Path("a.toml").write_text(f'name = "a"\n{SMALL}')
    Path("b.toml").write_text(f'name = "a"\ntransport = "{transport}"\n{SMALL}')
    metrics = []
    for name in "ab":
        assert vfiomig("migrate", f"{name}.toml", "--json", f"{name}.json")[0] == DONE
        metrics.append(json.loads(Path(f"{name}.json").read_text())["metrics"])
    # Which side's change is noted first is up to whose turn it was.
    for found in metrics:
        found["state_changes"].sort(key=lambda c: (c["party"], c["at"]))
    assert metrics[0] == metrics[1]


def test_the_json_has_the_digests_that_prove_it(vfiomig: Vfiomig) -> None:
    assert vfiomig("migrate", "--device", SMALL_COUNTER, "--json", "f.json")[0] == DONE
    report = json.loads(Path("f.json").read_text())
    (device,) = report["devices"]
    digests = device["snapshots"]
    assert digests["destination_after"] == digests["source_at_stop"]
    assert digests["destination_after"] != digests["destination_before"]
    assert report["verified"] == "state verified"


def test_the_history_begins_with_its_header(vfiomig: Vfiomig) -> None:
    arguments = ("--device", SMALL_COUNTER, "--history", "h.jsonl")
    assert vfiomig("migrate", *arguments)[0] == DONE
    header, *lines = map(json.loads, Path("h.jsonl").read_text().splitlines())
    assert header["schema"] == 1
    assert header["devices"] == {
        "source/Counter": {"size": 40, "areas": []},
        "destination/Counter": {"size": 40, "areas": []},
    }
    assert {"device": "source/Counter", "bench": "work", "amount": 1000} in lines
    first = {"device": "source/Counter", "access": "read", "size": 4, "value": "0x1"}
    assert lines[0] == first


def test_a_device_without_snapshot_is_said_to_be_unverified(vfiomig: Vfiomig) -> None:
    target = f"{EXAMPLES / '03_mapped_data.py'}:FrameBuffer"
    code, output, _ = vfiomig("migrate", "--device", target)
    assert code == DONE
    assert "unverified: FrameBuffer has no snapshot()" in output
    assert "state verified" not in output


def test_a_device_that_never_worked_has_nothing_to_move(vfiomig: Vfiomig) -> None:
    Path("idle.toml").write_text("warm_up = 0\n" + SMALL + "work = 0\n")
    code, output, _ = vfiomig("migrate", "idle.toml")
    assert code == DONE
    assert output.splitlines()[-1] == "nothing to move"


def stream_size(vfiomig: Vfiomig, scenario: str) -> int:
    Path("whole.toml").write_text(scenario)
    assert vfiomig("migrate", "whole.toml", "--stream", "stream")[0] == DONE
    return Path("stream").stat().st_size


@pytest.mark.parametrize(
    "target", ["serial,section=8K", "opaque,state=300", SMALL_COUNTER]
)
def test_any_flipped_bit_ends_in_exit_1(vfiomig: Vfiomig, target: str) -> None:
    scenario = f'[[device]]\ntarget = "{target}"\n'
    size = stream_size(vfiomig, scenario)
    step = max(1, size // 12)
    for byte in [*range(0, size, step), size - 1]:
        flip = f"{{ byte = {byte}, bit = {byte % 8} }}"
        Path("flip.toml").write_text(f"{scenario}[link]\nflip = {flip}\n")
        code, output, errors = vfiomig("migrate", "flip.toml")
        assert (code, errors) == (NOT_AS_EXPECTED, ""), (byte, output)
        assert "state verified" not in output


@pytest.mark.slow
def test_every_single_flipped_bit_ends_in_exit_1(vfiomig: Vfiomig) -> None:
    scenario = f'[[device]]\ntarget = "{SMALL_COUNTER}"\n'
    for bit in range(8 * stream_size(vfiomig, scenario)):
        flip = f"{{ byte = {bit // 8}, bit = {bit % 8} }}"
        Path("flip.toml").write_text(f"{scenario}[link]\nflip = {flip}\n")
        code, output, _ = vfiomig("migrate", "flip.toml")
        assert (code, "state verified" in output) == (NOT_AS_EXPECTED, False), bit


@pytest.mark.parametrize("key", ["flip = { byte = 9000000 }", "cut = 9000000"])
def test_a_break_behind_the_streams_end_is_misuse(vfiomig: Vfiomig, key: str) -> None:
    Path("late.toml").write_text(f"{SMALL}[link]\n{key}\n")
    code, _, errors = vfiomig("migrate", "late.toml")
    assert code == MISUSE
    assert re.fullmatch(
        r"vfiomig: late.toml: link\.\w+(\.byte)?: the stream has only \d+ bytes\n",
        errors,
    )


def test_a_cut_link_leaves_the_source_unharmed(vfiomig: Vfiomig) -> None:
    Path("cut.toml").write_text(f"{SMALL}[link]\ncut = 40000\n")
    code, output, _ = vfiomig("migrate", "cut.toml")
    assert code == NOT_AS_EXPECTED
    assert "the link was cut at byte 40000; the source runs on unharmed" in output


DEATHS = {
    "raises": ("read", "1 / 0", "ZeroDivisionError: division by zero"),
    "no errno": ("read", "raise OSError('bus error')", "OSError: bus error"),
    "wrong type": ("read", "return 7", "it answered with int"),
    "too much": ("read", "return bytes(size + 1)", "it answered with 5 bytes"),
    "exits": ("read", "raise SystemExit(3)", "SystemExit: 3"),
    "write": ("write", "{}['x']", "KeyError: 'x'"),
    "close": ("close", "raise RuntimeError('late')", "RuntimeError: late"),
}


@pytest.mark.parametrize("death", DEATHS)
def test_a_driver_that_dies_is_named_with_its_line(
    vfiomig: Vfiomig, death: str
) -> None:
    member, body, what = DEATHS[death]
    code, output, errors = vfiomig("migrate", "--device", driver(**{member: body}))
    assert (code, errors) == (NOT_AS_EXPECTED, "")
    line = "\n" + " ".join(output.split())
    assert "died" in line
    assert what in line
    assert re.search(r"driver\.py:\d+", line)
    assert "Traceback" not in line


def test_a_driver_that_dies_in_work_is_told_so(vfiomig: Vfiomig) -> None:
    target = driver()
    with Path("driver.py").open("a") as file:
        file.write("    def work(self, amount): raise LookupError(amount)\n")
    code, output, _ = vfiomig("migrate", "--device", target)
    assert code == NOT_AS_EXPECTED
    assert "LookupError: 1000 at work(1000)" in " ".join(output.split())


def test_the_history_ends_with_the_access_that_killed_the_driver(
    vfiomig: Vfiomig,
) -> None:
    target = driver(write="1 / 0")
    code, _, _ = vfiomig("migrate", "--device", target, "--history", "h.jsonl")
    assert code == NOT_AS_EXPECTED
    died = [
        json.loads(line)
        for line in Path("h.jsonl").read_text().splitlines()
        if '"died"' in line
    ]
    write = {"device": "source/Driver", "access": "write", "size": 4, "value": "0x1"}
    assert died == [{**write, "died": True}]


def test_a_death_in_work_is_that_of_the_device_that_worked(vfiomig: Vfiomig) -> None:
    driver()
    with Path("driver.py").open("a") as file:
        file.write("    def work(self, amount): amount == 1000 or {}['busy']\n")
    Path("two.toml").write_text(
        '[[device]]\ntarget = "driver.py:Driver"\nwork = 1000000\nname = "first"\n'
        '[[device]]\ntarget = "reference"\nname = "second"\n'
    )
    code, output, _ = vfiomig("migrate", "two.toml")
    assert code == NOT_AS_EXPECTED
    assert "died: source, first: KeyError: 'busy'" in " ".join(output.split())


def test_a_source_that_loses_state_when_cancelled_is_not_called_unharmed(
    vfiomig: Vfiomig,
) -> None:
    Path("lossy.py").write_text(
        "from vfiomig.vendor.reference import ReferenceDriver\n"
        "from vfiomig.vendor.scratchpad import ScratchpadModel\n"
        "class Lossy(ScratchpadModel):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.end_saving = lambda: self.work(1)\n"
        "def Driver(): return ReferenceDriver(Lossy())\n"
    )
    Path("cancel.toml").write_text(
        '[[device]]\ntarget = "lossy.py:Driver"\nwork = 0\nname = "lossy"\n'
        '[limits]\ncancel_at = "1us"\n[expect]\noutcome = "cancelled"\n'
    )
    _, output, _ = vfiomig("migrate", "cancel.toml")
    assert "its state changed while it ran: lossy" in " ".join(output.split())
    assert "unharmed" not in output


def test_a_driver_that_refuses_everything_only_fails(vfiomig: Vfiomig) -> None:
    target = driver(write="raise OSError(errno.EIO, 'no')")
    code, output, _ = vfiomig("migrate", "--device", target)
    assert code == NOT_AS_EXPECTED
    assert "EIO (no)" in output


def test_a_target_whose_factory_raises_does_not_start(vfiomig: Vfiomig) -> None:
    target = driver(init="raise RuntimeError('no card')")
    code, _, errors = vfiomig("migrate", "--device", target)
    assert code == NOT_STARTED
    assert "no card" in errors
    assert errors.count("\n") == 1


MISUSES = {
    "no scenario": ("migrate", "missing.toml"),
    "no target": ("migrate", "--device", "nothing.py:Driver"),
    "no built-in": ("migrate", "--device", "accelerator,memory=lots"),
    "no option": ("migrate", "--nonsense"),
    "no command": ("nonsense",),
    "no folder for output": ("migrate", "--json", "missing/f.json"),
    "output is a folder": ("migrate", "--history", "."),
    "disk full": ("migrate", "--json", "/dev/full"),
    "history on a full disk": ("migrate", "--history", "/dev/full"),
    "no sysfs": ("doctor", "--sysfs-root", "missing"),
}


@pytest.mark.parametrize("misuse", MISUSES)
def test_misuse_is_one_line_and_exit_2(vfiomig: Vfiomig, misuse: str) -> None:
    code, _, errors = vfiomig(*MISUSES[misuse])
    assert code == MISUSE
    assert re.fullmatch(r"vfiomig: .*\n", errors)


def test_a_failed_run_leaves_no_half_written_output(vfiomig: Vfiomig) -> None:
    target = driver(init="raise RuntimeError('no card')")
    vfiomig("migrate", "--device", target, "--stream", "s", "--history", "h")
    assert sorted(path.name for path in Path().iterdir()) == ["driver.py"]


def test_a_fault_needs_a_device_that_can_have_it(vfiomig: Vfiomig) -> None:
    Path("f.toml").write_text(
        f'[[device]]\ntarget = "{SMALL_COUNTER}"\nname = "c"\n'
        '[[fault]]\nparty = "source"\ndevice = "c"\non = "data"\nerrno = "EIO"\n'
        'at = "start"\n'
    )
    code, _, errors = vfiomig("migrate", "f.toml")
    assert code == MISUSE
    assert errors == "vfiomig: f.toml: fault[0].device: c has no fail()\n"


def test_elsewhere_than_on_linux_it_says_so(
    vfiomig: Vfiomig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    code, output, errors = vfiomig("migrate")
    assert (code, output) == (MISUSE, "")
    assert errors == "vfiomig: vfiomig runs on Linux only, and this is darwin\n"


def test_ctrl_c_ends_with_what_was_found_so_far(vfiomig: Vfiomig) -> None:
    body = (
        "import os, signal; offset == 16 and os.kill(os.getpid(), signal.SIGINT); "
        "return {0: 3, 8: 9, 16: 32}.get(offset, 0).to_bytes(size, 'little')"
    )
    code, output, _ = vfiomig("migrate", "--device", driver(read=body))
    assert code == INTERRUPTED
    assert "interrupted" in output
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_doctor_reads_the_tree_that_migrate_makes(
    vfiomig: Vfiomig, tmp_path: Path
) -> None:
    from vfiomig.host.mdev import MdevParent, MdevType
    from vfiomig.host.sysfs import Sysfs

    sysfs = Sysfs(tmp_path / "sys")
    kind = MdevType(name="serial", make_driver=lambda: NotImplemented, instances=1)
    sysfs.register_parent(MdevParent("vfiomig", [kind]))
    uuid = "83b8f4f2-509f-382f-3c1e-e6bfe0fa1001"
    create = "/devices/virtual/vfiomig/mdev_supported_types/vfiomig-serial/create"
    sysfs.write(create, uuid)
    code, output, _ = vfiomig("doctor", uuid, "--sysfs-root", str(tmp_path / "sys"))
    assert code == DONE
    assert f"device {uuid}" in output
    assert "0 problems" in output


@pytest.mark.slow
def test_a_closed_pipe_is_no_error() -> None:
    command = f"{sys.executable} -m vfiomig migrate --help | head -1"
    done = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
