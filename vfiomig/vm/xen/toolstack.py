"""What the store holds before a guest has written to it: the host's and a disk's nodes.

The first ones are QEMU's (hw/i386/kvm/xen_xenstore.c, 10.0), but for the console's and
the node that it writes with an empty name.  The disk's are what a toolstack, or QEMU's
xen-block, writes for one to come up.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from vfiomig.vm.xen.xenstore_rules import home

if TYPE_CHECKING:
    from vfiomig.vm.xen.xenstore import XenStore

DISK: Final = "device/vbd/51712"  # xvda: major 202, minor 0, of the guest's home

# Of a guest: path in its home, value.  The host owns the first, the guest the others.
_HOSTS: Final = (
    ("domid", "{domid}"),
    ("control/platform-feature-xs_reset_watches", "1"),
    ("control/platform-feature-multiprocessor-suspend", "1"),
    ("platform/acpi", "1"),
    ("platform/acpi_s3", "1"),
    ("platform/acpi_s4", "1"),
    ("platform/acpi_laptop_slate", "0"),
    ("store/port", "{port}"),
    ("store/ring-ref", "{ring}"),
)
_GUESTS: Final = (
    *("attr", "data", "device", "drivers", "error", "feature", "control/shutdown"),
    *(
        f"control/feature-{each}"
        for each in ("poweroff", "reboot", "suspend", "s3", "s4")
    ),
)


def back_end_of(domid: int) -> str:
    """Return the path of the disk's back end."""
    return f"/local/domain/0/backend/vbd/{domid}/51712"


def populate(store: XenStore, *, port: int, ring: int) -> None:
    """Write the nodes that a guest finds.

    ``port`` is its event channel to the store, ``ring`` the frame of their page.
    """
    domid = store.domid
    readable, own = ["n0", f"r{domid}"], [f"n{domid}"]
    values = {"domid": domid, "port": port, "ring": ring}
    _write(store, home(domid).rstrip("/"), "", readable)
    for path, value in _HOSTS:
        _write(store, home(domid) + path, value.format(**values), readable)
    for path in _GUESTS:
        value = "1" if "feature-" in path else ""
        _write(store, home(domid) + path, value, own)


def add_disk(store: XenStore) -> None:
    """Write the nodes of a disk, whose two ends have not met."""
    domid = store.domid
    back, front = back_end_of(domid), home(domid) + DISK
    for path, value in (("frontend", front), ("frontend-id", domid), ("state", 1)):
        _write(store, f"{back}/{path}", str(value), ["n0", f"r{domid}"])
    _write(store, front, "", [f"n{domid}", "r0"])
    for path, value in (
        ("backend", back),
        ("backend-id", 0),
        ("virtual-device", 51712),
        ("state", 1),
    ):
        _write(store, f"{front}/{path}", str(value), [f"n{domid}", "r0"])


def _write(store: XenStore, path: str, value: str, perms: list[str]) -> None:
    store.write(0, 0, path, value.encode())
    store.set_perms(0, 0, path, perms)
