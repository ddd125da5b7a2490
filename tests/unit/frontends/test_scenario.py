"""From SCENARIO.toml to a scenario, or to one line that says what is wrong."""

from __future__ import annotations

import datetime
import errno
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vfiomig.frontends.device_scenario import DeviceSpec
from vfiomig.frontends.link_scenario import Flip, Link
from vfiomig.frontends.machine_scenario import LoadSpec, MachineSpec
from vfiomig.frontends.scenario import (
    KEYS,
    Fault,
    Limits,
    Scenario,
    ScenarioError,
    builtin_scenario,
    load_scenario,
    with_targets,
)
from vfiomig.frontends.toml_values import key_paths
from vfiomig.migration.loop_rules import LOOP_RULES
from vfiomig.migration.metrics import Outcome
from vfiomig.migration.parameters import Parameters
from vfiomig.protocol.errors import VfiomigError

if TYPE_CHECKING:
    from collections.abc import Callable

SERIAL = '[[device]]\ntarget = "serial"\n'
FAULT = f"""{SERIAL}
[[fault]]
party = "source"
device = "serial"
on = "data_size"
errno = "EIO"
at = "start"
"""
PATHS = sorted(path for path, _ in key_paths(KEYS))


@pytest.fixture
def load(tmp_path: Path) -> Callable[[str], Scenario]:
    def load_text(text: str) -> Scenario:
        path = tmp_path / "slow.toml"
        path.write_text(text)
        return load_scenario(path)

    return load_text


def refusal(load: Callable[[str], Scenario], text: str) -> str:
    """Return what is said of a scenario, less its folder."""
    with pytest.raises(ScenarioError) as refused:
        load(text)
    file, _, said = str(refused.value).partition(": ")
    assert Path(file).name == "slow.toml"
    return said


def test_a_target_alone_is_a_scenario_with_qemus_defaults(tmp_path: Path) -> None:
    path = tmp_path / "slow.toml"
    path.write_text(SERIAL)
    assert load_scenario(path) == Scenario(
        name="slow",
        file=path,
        seed=1,
        conduct="qemu-7.2",
        transport="memory",
        warm_up=1000,
        devices=(
            DeviceSpec(name="serial", target="serial", work=1000, folder=tmp_path),
        ),
        link=Link(bandwidth=134_217_728, latency=100_000, cut=None, flip=None),
        source_access_cost=1000,
        destination_access_cost=1000,
        load_bandwidth=None,
        limits=Limits(
            downtime=300_000_000,
            rounds=30,
            when_not_converging="fail",
            cancel_at=None,
        ),
        faults=(),
        expected=Outcome.COMPLETED,
    )


def test_every_key_is_read(tmp_path: Path) -> None:
    path = tmp_path / "all.toml"
    path.write_text("""
name = "two devices on a tight link"
seed = 7
conduct = "strict"
transport = "tcp"
warm_up = 0
[[device]]
target = "accelerator,memory=64M"
name = "gpu0"
work = 20000
slot = 7
[[device]]
target = "drivers.py:Port"
[machine]
type = "q35"
ram = "64M"
filled = "16M"
qemu = "9.0"
[[machine.load]]
dirty_rate = "2M"
working_set = "8M"
offset = "4M"
pattern = "random"
[parameters]
max-bandwidth = "1G"
downtime-limit = 60
avail-switchover-bandwidth = "2G"
multifd-channels = 4
throttle-trigger-threshold = 40
cpu-throttle-initial = 30
cpu-throttle-increment = 5
cpu-throttle-tailslow = true
max-cpu-throttle = 80
[capabilities]
auto-converge = true
multifd = true
pause-before-switchover = true
[link]
bandwidth = "64K"
latency = "1ms"
cut = 123456
flip = { byte = 1000, bit = 3 }
[source]
access_cost = "2us"
[destination]
access_cost = "3us"
load_bandwidth = "1G"
[limits]
downtime = "50ms"
rounds = 3
when_not_converging = "switch-over"
cancel_at = "1s"
[[fault]]
party = "destination"
device = "Port"
on = "data"
errno = 28
at = "buffer"
number = 0
[expect]
outcome = "not-converged"
""")
    assert load_scenario(path) == Scenario(
        name="two devices on a tight link",
        file=path,
        seed=7,
        conduct="strict",
        transport="tcp",
        warm_up=0,
        devices=(
            DeviceSpec(
                name="gpu0",
                target="accelerator,memory=64M",
                work=20_000,
                folder=tmp_path,
                slot=7,
            ),
            DeviceSpec(
                name="Port", target="drivers.py:Port", work=1000, folder=tmp_path
            ),
        ),
        link=Link(bandwidth=65_536, latency=10**6, cut=123_456, flip=Flip(1000, 3)),
        source_access_cost=2000,
        destination_access_cost=3000,
        load_bandwidth=1 << 30,
        limits=Limits(
            downtime=60_000_000,
            rounds=3,
            when_not_converging="switch-over",
            cancel_at=10**9,
        ),
        faults=(
            Fault(
                party="destination",
                device="Port",
                on="data",
                code=errno.ENOSPC,
                at="buffer",
                number=0,
            ),
        ),
        expected=Outcome.NOT_CONVERGED,
        machine=MachineSpec(
            type="pc-q35-7.2",
            ram=64 << 20,
            filled=16 << 20,
            qemu="9.0",
            loads=(
                LoadSpec(
                    dirty_rate=2 << 20,
                    working_set=8 << 20,
                    offset=4 << 20,
                    pattern="random",
                ),
            ),
        ),
        parameters=Parameters(
            max_bandwidth=1 << 30,
            downtime_limit=60_000_000,
            avail_switchover_bandwidth=2 << 30,
            multifd_channels=4,
            throttle_trigger_threshold=40,
            cpu_throttle_initial=30,
            cpu_throttle_increment=5,
            cpu_throttle_tailslow=True,
            max_cpu_throttle=80,
            auto_converge=True,
            multifd=True,
            pause_before_switchover=True,
            rules=LOOP_RULES["9.0"],
        ),
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "device: is missing ([[device]])"),
        ("device = []", "device: at least 1 must be there ([[device]])"),
        ("device = 3", "device: must be written [[device]], not as 3"),
        ("[device]", "device: must be written [[device]], not as a table"),
        ("device = [1]", "device[0]: must be a table ([[device]]), not 1"),
        ("[[device]]", "device[0].target: is missing"),
        (
            f'{SERIAL}[machine]\nram = "64M"\nfilled = "65M"',
            "machine.filled: is 68157440 bytes, and there are 67108864 of RAM",
        ),
        (
            f"{SERIAL}[machine]\nram = 5000",
            "machine.ram: must be whole pages of 4096 bytes, not 5000",
        ),
        (
            f'{SERIAL}[machine]\nram = "1M"\ntype = "arm"',
            "machine.type: must be a PC of QEMU such as "
            '"pc", "q35" or "pc-i440fx-7.2", or RISC-V\'s "virt", not "arm"',
        ),
        (
            f'{SERIAL}[machine]\nram = "16M"\ntype = "virt"',
            'machine.harts: is missing: type "virt" has [machine.harts]',
        ),
        (
            f'{SERIAL}[machine]\nram = "16M"\n[machine.harts]\nroles = ["user"]',
            'machine.harts: are of RISC-V: type = "virt", not "pc-i440fx-7.2"',
        ),
        (
            f'{SERIAL}[machine]\nram = "4K"\ntype = "virt"\n'
            '[machine.harts]\nroles = ["user"]',
            "machine.ram: must be at least 40960 bytes: the harts' program is there",
        ),
        (
            f'{SERIAL}[machine]\nram = "16M"\ntype = "virt"\n'
            '[machine.harts]\nroles = ["user"]\n[[machine.load]]\ndirty_rate = 1',
            "machine.load[0].offset: must be at least 40960: below is the harts' "
            "program",
        ),
        (
            f'{SERIAL}[machine]\nram = "16M"\ntype = "virt"\n'
            '[machine.harts]\nroles = ["never-started", "user"]',
            'machine.harts.roles[0]: cannot be "never-started": hart 0 boots the guest',
        ),
        (
            f'{SERIAL}[machine]\nram = "16M"\ntype = "virt"\n'
            '[machine.harts]\nroles = ["user", "idle"]',
            'machine.harts.roles[1]: must be one of "user", "supervisor", "waiting", '
            '"stopped", "never-started", not "idle"',
        ),
        (
            f'{SERIAL}[machine]\nram = "16M"\ntype = "virt"\n'
            "[machine.harts]\nroles = []",
            "machine.harts.roles: must have 1 to 32 values, not 0",
        ),
        (
            f'{SERIAL}[machine]\nram = "16M"\ntype = "virt"\n'
            '[machine.harts]\nroles = "user"',
            'machine.harts.roles: must be a list, not "user"',
        ),
        (
            f'transport = "rsocket"\n{SERIAL}',
            "rsocket.address: is missing: the RDMA interface's "
            '(address = "10.78.0.1")',
        ),
        (
            f'{SERIAL}[rsocket]\nwait = "poll"',
            'rsocket: does not go with transport = "memory"',
        ),
        (
            f'transport = "rsocket"\n{SERIAL}[rsocket]\naddress = "10.78.0"',
            'rsocket.address: must be an IPv4 address such as "10.78.0.1", not '
            '"10.78.0"',
        ),
        (
            f'{SERIAL}[machine]\nram = "1M"\n[[machine.load]]\ndirty_rate = 1\n'
            'working_set = "2M"',
            "machine.load[0].working_set: ends at byte 2097152 of 1048576 of RAM",
        ),
        (
            f"{SERIAL}[capabilities]\nmultifd = true",
            "parameters: these are of a machine: there is no [machine] with RAM",
        ),
        (
            f"{SERIAL}slot = 3\n{SERIAL}slot = 3\n[machine]\nram = 4096",
            "device[1].slot: 3 is device[0]'s already",
        ),
        (
            f"{SERIAL * 31}[machine]\nram = 4096",
            "device[30]: there is no free slot on the bus of the machine",
        ),
        (
            f'{SERIAL}[[device]]\ntarget = "serial"\nwork = "fast"',
            'device[1].work: must be a whole number, not "fast"',
        ),
        (
            f"{SERIAL}[link]\nbandwith = 3",
            'link.bandwith: unknown key; did you mean "bandwidth"?',
        ),
        (
            f"{SERIAL}[expect]\nxyz = 1",
            "expect.xyz: unknown key; known: outcome",
        ),
        (f"{SERIAL}[link]\nbandwidth = 0", "link.bandwidth: must be at least 1, not 0"),
        (f"link = 3\n{SERIAL}", "link: must be a table ([link]), not 3"),
        (
            f"{SERIAL}[link]\nflip = {{ bit = 1 }}",
            "link.flip.byte: is missing",
        ),
        (
            f"{SERIAL}[link]\nflip = {{ byte = 1, bit = 8 }}",
            "link.flip.bit: must be at most 7, not 8",
        ),
        (
            f"{'k' * 1000} = 1\n{SERIAL}",
            f"{'k' * 60}: unknown key; known: name, seed, conduct, ",
        ),
        (
            f'{SERIAL}[expect]\noutcome = "interrupted"',
            'expect.outcome: must be one of "completed", "failed", "cancelled", '
            '"not-converged", "died", not "interrupted"',
        ),
        (f"seed = -1\n{SERIAL}", "seed: must be at least 0, not -1"),
        (f"{SERIAL}[limits]\nrounds = 0", "limits.rounds: must be at least 1, not 0"),
        (
            f'conduct = "qemu"\n{SERIAL}',
            'conduct: must be one of "qemu-7.2", "strict", not "qemu"; '
            'did you mean "qemu-7.2"?',
        ),
        (
            f'{SERIAL}name = "a"\n{SERIAL}name = "a"',
            'device[1].name: "a" is device[0] already',
        ),
        (
            f'{SERIAL}name = "a b"',
            "device[0].name: must be 1 to 64 letters, digits, dots, dashes or "
            'underscores, not "a b"',
        ),
        (
            FAULT.replace('device = "serial"', 'device = "gpu0"'),
            'fault[0].device: no device is called "gpu0"; there is serial',
        ),
        (
            FAULT.replace('at = "start"', 'at = "buffer"'),
            'fault[0].at: must be one of "start", "round", "stop" at the source, '
            'not "buffer"',
        ),
        (
            FAULT.replace('at = "start"', 'at = "round"'),
            "fault[0].number: is missing: which round, from 1?",
        ),
        (
            FAULT.replace('at = "start"', 'at = "round"\nnumber = 0'),
            "fault[0].number: must be at least 1, not 0",
        ),
        (f"{FAULT}number = 1", 'fault[0].number: does not go with at = "start"'),
        ("seed = 1\nseed 2", "line 2, column 6: Expected '=' after a key in a "),
    ],
)
def test_what_is_wrong_is_named_by_its_key(
    load: Callable[[str], Scenario], text: str, said: str
) -> None:
    assert refusal(load, text).startswith(said)


def test_devices_of_one_target_get_names_of_their_own(
    load: Callable[[str], Scenario],
) -> None:
    scenario = load(f'{SERIAL}{SERIAL}{SERIAL}name = "serial"\n')
    assert [device.name for device in scenario.devices] == [
        "serial-2",
        "serial-3",
        "serial",
    ]


def test_a_file_that_is_missing_is_one_line_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError) as refused:
        load_scenario(tmp_path / "no\nsuch.toml")
    assert str(refused.value) == f"{tmp_path}/no\\nsuch.toml: No such file or directory"


def test_a_scenario_error_is_one_of_vfiomigs() -> None:
    assert issubclass(ScenarioError, VfiomigError)


# -- the built-in one, and --device ----------------------------------------------------


def test_the_builtin_scenario_has_a_busy_accelerator_and_a_serial() -> None:
    scenario = builtin_scenario()
    assert [device.target for device in scenario.devices] == [
        "accelerator,memory=16M",
        "serial",
    ]
    assert all(device.work > 0 for device in scenario.devices)
    assert scenario.file is None
    assert scenario.expected is Outcome.COMPLETED


def test_targets_replace_the_devices_and_nothing_else(
    load: Callable[[str], Scenario],
) -> None:
    scenario = load(f"seed = 5\n{SERIAL}")
    replaced = with_targets(scenario, ["my.py:Gpu", "opaque", "opaque"])
    names = [device.name for device in replaced.devices]
    assert names == ["Gpu", "opaque", "opaque-2"]
    # What is typed on a command line begins where it is typed.
    assert {device.folder for device in replaced.devices} == {None}
    assert replaced.seed == 5
    assert replaced.file == scenario.file


def test_no_targets_leave_the_devices() -> None:
    assert with_targets(builtin_scenario(), []) == builtin_scenario()


def test_a_fault_whose_device_is_replaced_is_refused(
    load: Callable[[str], Scenario], tmp_path: Path
) -> None:
    with pytest.raises(ScenarioError) as refused:
        with_targets(load(FAULT), ["opaque"])
    assert str(refused.value) == (
        f"{tmp_path}/slow.toml: fault[0].device: "
        'no device is called "serial"; there is opaque'
    )


def test_a_fault_whose_device_comes_back_by_name_stays(
    load: Callable[[str], Scenario],
) -> None:
    assert with_targets(load(FAULT), ["serial"]).faults == load(FAULT).faults


# -- whatever is written ---------------------------------------------------------------

SCALARS = (
    st.booleans()
    | st.integers()
    | st.sampled_from([0, -1, 2**63, -(2**64), 10**40])
    | st.floats()
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
    | st.sampled_from(["1s", "-1s", "0", "64K", "serial", "EIO", "start", "fail"])
    | st.dates()
    | st.times()
    | st.datetimes()
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["byte", "bit", "target", ""]), inner)
    ),
    max_leaves=4,
)


def toml(value: object) -> str:
    """Write a value as TOML does."""
    match value:
        case bool():
            return str(value).lower()
        case str():
            escaped = (f"\\U{ord(character):08X}" for character in value)
            return f'"{"".join(escaped)}"'
        case list():
            return f"[{', '.join(map(toml, value))}]"
        case dict():
            pairs = (f"{toml(key)} = {toml(inner)}" for key, inner in value.items())
            return f"{{{', '.join(pairs)}}}"
        case datetime.datetime() | datetime.date() | datetime.time():
            return value.isoformat()
        case _:
            return str(value)


SEVERAL = {"device", "fault", "machine.load"}


def complete(path: str, value: object) -> str:
    """Return a scenario that is whole, but for the one key that has ``value``."""
    table, _, key = path.rpartition(".")
    machine = ['ram = "16M"']
    if table == "machine.harts":
        machine.append('type = "virt"')
    lines: dict[str, list[str]] = {
        "": [],
        "device": ['target = "serial"'],
        "fault": FAULT.partition("[[fault]]\n")[2].splitlines(),
        "link.flip": ["byte = 1"] if table == "link.flip" else [],
        "machine": machine if table.startswith("machine") else [],
        "machine.load": ["dirty_rate = 1"] if table == "machine.load" else [],
        "machine.harts": ['roles = ["user"]'] if table == "machine.harts" else [],
    }
    lines.setdefault(table, [])
    kept = [line for line in lines[table] if not line.startswith(f"{key} =")]
    lines[table] = [*kept, f"{key} = {toml(value)}"]
    text = "\n".join(lines.pop("")) + "\n"
    for name, content in lines.items():
        if not content:
            continue
        head = f"[[{name}]]" if name in SEVERAL else f"[{name}]"
        text += "\n".join([head, *content]) + "\n"
    return text


def loads_or_says_why(path: Path) -> None:
    try:
        load_scenario(path)
    except ScenarioError as refused:
        said = str(refused)
    else:
        return
    assert said.isprintable()
    assert said.startswith(f"{path}: ")


@given(path=st.sampled_from(PATHS), value=VALUES)
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_value_of_any_key_is_taken_or_refused_in_one_line(
    tmp_path: Path, path: str, value: object
) -> None:
    file = tmp_path / "any.toml"
    file.write_text(complete(path, value))
    loads_or_says_why(file)


@pytest.mark.parametrize("path", PATHS)
def test_a_table_where_no_key_has_one_is_refused_by_its_key(
    path: str, tmp_path: Path
) -> None:
    file = tmp_path / "any.toml"
    file.write_text(complete(path, {"x": 1}))
    place = re.sub(r"^(device|fault|machine\.load)\.", r"\1[0].", path)
    with pytest.raises(ScenarioError, match=re.escape(f"{file}: {place}: must be ")):
        load_scenario(file)


@given(content=st.binary(max_size=60))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_are_taken_or_refused_in_one_line(
    tmp_path: Path, content: bytes
) -> None:
    file = tmp_path / "any.toml"
    file.write_bytes(content)
    loads_or_says_why(file)
