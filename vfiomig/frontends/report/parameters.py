"""What a run was made from, and the command that repeats it, for a reader."""

from __future__ import annotations

import errno
import shlex
from typing import TYPE_CHECKING

from vfiomig.frontends.link_scenario import RSOCKETS
from vfiomig.frontends.plain_text import plain
from vfiomig.frontends.report.units import bytes_text, rate_text, time_text
from vfiomig.frontends.scenario import builtin_scenario

if TYPE_CHECKING:
    from vfiomig.frontends.scenario import Fault, Scenario


def command_of(scenario: Scenario) -> str:
    """Return the command that runs ``scenario`` again."""
    words = ["vfiomig", "migrate"]
    own = scenario.devices == builtin_scenario().devices
    if scenario.file is not None:
        words.append(str(scenario.file))
        own = all(device.folder is not None for device in scenario.devices)
    if not own:
        for device in scenario.devices:
            words += ["--device", device.target]
    return plain(shlex.join(words))


def parameters(scenario: Scenario) -> list[tuple[str, str]]:
    """Return the scenario as rows of a table: what, and how much."""
    link, limits, load = scenario.link, scenario.limits, scenario.load_bandwidth
    rows = [
        ("file", plain(str(scenario.file)) if scenario.file else "built-in"),
        ("seed", str(scenario.seed)),
        ("conduct", scenario.conduct),
        ("transport", _transport_text(scenario)),
        ("warm-up", f"{scenario.warm_up} units of guest traffic"),
        *_machine_rows(scenario),
        ("link", f"{rate_text(link.bandwidth)}, {time_text(link.latency)} one way"),
        ("access at the source", time_text(scenario.source_access_cost)),
        ("access at the destination", time_text(scenario.destination_access_cost)),
        ("loading at the destination", rate_text(load) if load else "takes no time"),
        ("downtime limit", time_text(limits.downtime)),
        ("rounds limit", f"{limits.rounds}, then {limits.when_not_converging}"),
    ]
    if limits.cancel_at is not None:
        rows.append(("cancelled", f"at {time_text(limits.cancel_at)}"))
    if link.cut is not None:
        rows.append(("link cut", f"at byte {link.cut} ({bytes_text(link.cut)})"))
    if link.flip is not None:
        rows.append(("flipped", f"bit {link.flip.bit} of byte {link.flip.byte}"))
    rows += [("fault", _fault_text(fault)) for fault in scenario.faults]
    return [*rows, ("expected", scenario.expected.value)]


def _transport_text(scenario: Scenario) -> str:
    if scenario.transport not in RSOCKETS:
        return scenario.transport
    return f"{scenario.transport}, waits by {scenario.rsocket.wait}"


def _machine_rows(scenario: Scenario) -> list[tuple[str, str]]:
    machine, given = scenario.machine, scenario.parameters
    if machine is None:
        return []
    ram = f"{bytes_text(machine.ram)}, {bytes_text(machine.filled)} of it filled"
    rows = [("machine", machine.type), ("RAM", ram)]
    for load in machine.loads:
        where = bytes_text(load.working_set or machine.ram - load.offset)
        rate = rate_text(load.dirty_rate)
        rows.append(("load", f"{rate} into {where}, {load.pattern}"))
    limit = rate_text(given.max_bandwidth) if given.max_bandwidth else "none"
    if (harts := machine.harts) is not None:
        policies = " to ".join(dict.fromkeys((harts.policy, harts.destination_policy)))
        roles = ", ".join(role.value for role in harts.roles)
        rows += [("harts", roles), ("registers synchronised", policies)]
    if (xen := machine.xen) is not None:
        vcpus = "1 vCPU" if xen.vcpus == 1 else f"{xen.vcpus} vCPUs"
        page = f"{xen.page}, {xen.layout} bits, {vcpus}, vcpu_info {xen.vcpu_info}"
        nodes = f"{xen.nodes} nodes of {bytes_text(xen.node_size)} more"
        nodes += f", {xen.watches} watches, {xen.transactions} transactions held"
        if xen.replaced_at:
            page += f", replaced at {', '.join(map(time_text, xen.replaced_at))}"
        disk = f"{xen.requests:,} requests a second"
        if xen.renegotiate:
            disk += f", connected anew every {time_text(xen.renegotiate)}"
        quirks = "QEMU's" if xen.quirks == "qemu" else "none"
        rows += [("shared_info", page), ("XenStore", nodes), ("its defects", quirks)]
        rows.append(("disk", disk))
    rows += [("QEMU's loop", machine.qemu), ("max-bandwidth", limit)]
    if given.auto_converge:
        rows.append(("auto-converge", "on"))
    if given.multifd:
        rows.append(("multifd", f"{given.multifd_channels} channels"))
    return rows


def _fault_text(fault: Fault) -> str:
    code = errno.errorcode.get(fault.code, str(fault.code))
    moment = fault.at if fault.number is None else f"{fault.at} {fault.number}"
    return (
        f"{code} on {fault.on} of {plain(fault.device)}, {fault.party}, from {moment}"
    )
