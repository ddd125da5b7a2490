"""What a migration moved, part by part, in words for a reader."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from vfiomig.frontends.plain_text import plain
from vfiomig.frontends.report.units import bytes_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vfiomig.frontends.run_report import RunReport, XenReport
    from vfiomig.migration.metrics import Metrics


def pre_copy_words(report: RunReport) -> tuple[str, str]:
    """Say what went while the source ran, and what of it was what."""
    metrics = report.metrics
    devices, ram = metrics.precopy_device_bytes, metrics.precopy_ram_bytes
    total = bytes_text(devices + ram)
    if report.scenario.machine is None:
        return total, ""
    return total, f"{bytes_text(ram)} of RAM, {bytes_text(devices)} of devices"


def stop_and_copy_words(report: RunReport) -> tuple[str, str]:
    """Say what went while nobody ran, and what of it was what."""
    metrics = report.metrics
    devices, ram = metrics.stop_and_copy_device_bytes, metrics.stop_and_copy_ram_bytes
    rest = metrics.config_bytes + metrics.vmdesc_bytes
    xen = metrics.xen_bytes + metrics.xenstore_bytes
    total = bytes_text(devices + ram + rest + metrics.hart_bytes + xen)
    if report.scenario.machine is None:
        return total, ""
    parts = f"{bytes_text(ram)} of RAM, {bytes_text(devices)} of devices"
    if metrics.hart_bytes:
        parts += f", {bytes_text(metrics.hart_bytes)} of harts"
    if xen:
        parts += f", {bytes_text(metrics.xenstore_bytes)} of XenStore"
        parts += f", {bytes_text(metrics.xen_bytes)} of event channels"
    return total, f"{parts}, {bytes_text(rest)} of configuration"


def rounds_words(metrics: Metrics) -> str:
    """Count the rounds."""
    count = len(metrics.rounds)
    return "1 round" if count == 1 else f"{count} rounds"


def machine_figures(report: RunReport) -> Iterator[tuple[str, str, str]]:
    """Yield what is told of a machine only: what, how much, and beside it."""
    if report.scenario.machine is None:
        return
    metrics = report.metrics
    pages = f"{metrics.normal_pages} pages, {metrics.zero_pages} zero pages"
    syncs = f"{metrics.dirty_syncs} dirty syncs"
    if metrics.cpu_throttle:
        syncs += f", the guest throttled by {metrics.cpu_throttle} %"
    yield "RAM", pages, syncs
    yield "status", " > ".join(each.status for each in metrics.statuses), ""
    if report.xen is not None:
        yield from _xen_figures(report.xen)


def _xen_figures(xen: XenReport) -> Iterator[tuple[str, str, str]]:
    events, store, disk = xen.events, xen.store, xen.disk
    sent = events.sent_at_source + events.sent_at_destination
    ends = (
        f"{events.handled_at_source:,} handled at the source, "
        f"{events.handled_at_destination:,} at the destination"
    )
    yield "events", f"{sent:,} sent", f"{ends}, {events.lost:,} lost"
    share = store.share_of_downtime
    beside = "" if share is None else f"{share:.1%} of the downtime"
    open_ones = f"{store.transactions:,} open transactions"
    if ended := store.committed + store.conflicted + store.unknown:
        open_ones += f", of {ended:,} the guest held {store.committed:,} committed"
    yield "XenStore", f"{store.nodes:,} nodes, {open_ones}", beside
    ends = f"{disk.connections_at_source:,} at the source"
    met = f"{ends}, {disk.connections_at_destination:,} at the destination"
    yield "disk connected", met, ""


HART_HEADINGS: Final = ("hart", "role", "at stop", "on arrival", "in U", "in S", "")


def hart_rows(report: RunReport) -> Iterator[tuple[str, ...]]:
    """Yield the cells of each hart, under `HART_HEADINGS`."""
    for each in report.harts:
        yield (
            str(each.hart),
            each.role,
            each.source or "-",
            each.destination or "-",
            f"{each.retired_user:,}",
            f"{each.retired_supervisor:,}",
            plain(each.befell),
        )
