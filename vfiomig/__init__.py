"""Prove a VFIO migration driver: simulate it, check it, attach QEMU to it.

Importing this package imports nothing else: what it offers to driver authors is
looked up on first use, so that a test runner can load the plugin in every session.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from vfiomig.conformance.library import NonConformingError, check_vendor_driver
    from vfiomig.frontends.pytest_plugin import vfiomig_rules
    from vfiomig.host.device_ops import VendorDriver
    from vfiomig.host.pci import Bar, Bus, PciDevice, PciIdentity
    from vfiomig.protocol.bench import Bench
    from vfiomig.protocol.region import MigrationRegion, SparseMmapArea
    from vfiomig.protocol.v1.registers import Register
    from vfiomig.vendor.data_section import DataSection
    from vfiomig.vendor.register_bank import RegisterBank

__version__ = "0.1.0"

__all__ = [
    "Bar",
    "Bench",
    "Bus",
    "DataSection",
    "MigrationRegion",
    "NonConformingError",
    "PciDevice",
    "PciIdentity",
    "Register",
    "RegisterBank",
    "SparseMmapArea",
    "VendorDriver",
    "__version__",
    "check_vendor_driver",
    "vfiomig_rules",
]

# Where each public name lives.  The table is the whole of the public surface.
_HOMES: Final = {
    "Bar": "vfiomig.host.pci",
    "Bench": "vfiomig.protocol.bench",
    "Bus": "vfiomig.host.pci",
    "DataSection": "vfiomig.vendor.data_section",
    "MigrationRegion": "vfiomig.protocol.region",
    "NonConformingError": "vfiomig.conformance.library",
    "PciDevice": "vfiomig.host.pci",
    "PciIdentity": "vfiomig.host.pci",
    "Register": "vfiomig.protocol.v1.registers",
    "RegisterBank": "vfiomig.vendor.register_bank",
    "SparseMmapArea": "vfiomig.protocol.region",
    "VendorDriver": "vfiomig.host.device_ops",
    "check_vendor_driver": "vfiomig.conformance.library",
    "vfiomig_rules": "vfiomig.frontends.pytest_plugin",
}


def __getattr__(name: str) -> object:
    """Look a public name up where it lives (PEP 562)."""
    if (home := _HOMES.get(name)) is None:
        message = f"module 'vfiomig' has no attribute {name!r}"
        raise AttributeError(message)
    return getattr(importlib.import_module(home), name)


def __dir__() -> list[str]:
    """Name what can be looked up."""
    return __all__
