"""What `make test-rdma` needs of this machine, and the packages that have it."""

from __future__ import annotations

import ctypes
import os
import platform
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from tests import initramfs
from tests.rdma import kernel as kernels

if TYPE_CHECKING:
    from collections.abc import Iterator

CHECKOUT: Final = Path(__file__).parents[2]

_KERNEL: Final = "linux-image-amd64"
_LIBRARIES: Final = {
    "librdmacm.so.1": "librdmacm1",
    "libibverbs.so.1": "libibverbs1",
    "libatomic.so.1": "libatomic1",
}
# Where rdma-core of Debian looks for a driver of soft-RoCE.
_PROVIDERS: Final = Path("/etc/libibverbs.d/rxe.driver")
_SYSTEM_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_OWN_FOLDERS: Final = ("dev", "proc", "sys")  # the VM mounts its own there


class Needs(NamedTuple):
    """What the VM is made of."""

    qemu: str
    kernel: Path
    modules: tuple[Path, ...]  # in the order of loading
    rdma: str  # iproute2's command


def path() -> str:
    """Return where to look for programs: some users' PATH has no sbin."""
    return f"{os.environ.get('PATH', '')}:{_SYSTEM_PATH}"


def collect() -> Needs | str:
    """Return what was found, or one line that names all that is missing."""
    if platform.machine() != "x86_64":
        return f"this machine is {platform.machine()}; the kernel is for x86_64"
    for place in (CHECKOUT, Path(sys.prefix), Path(sys.base_prefix).resolve()):
        if place.parts[1:2] and place.parts[1] in _OWN_FOLDERS:
            return f"{place} lies under /{place.parts[1]}, where the VM has its own"
    qemu = shutil.which("qemu-system-x86_64", path=path())
    rdma = shutil.which("rdma", path=path())
    kernel = _kernel()
    missing = [*_missing(qemu=qemu, rdma=rdma), *_faults_of(kernel)]
    if missing:
        return f"missing: {', '.join(missing)}"
    assert qemu is not None
    assert rdma is not None
    assert kernel is not None
    try:
        return Needs(qemu, kernel, kernels.to_load(kernels.folder_of(kernel)), rdma)
    except kernels.ModuleMissingError as error:
        return f"missing: {_by(str(error), _KERNEL)}"


def _kernel() -> Path | None:
    """Return the newest kernel that has its modules here, or just the newest."""
    found = initramfs.kernels()
    whole = [each for each in found if kernels.has_rxe(kernels.folder_of(each))]
    return next(iter(whole or found), None)


def _faults_of(kernel: Path | None) -> Iterator[str]:
    if kernel is None:
        yield _by("/boot/vmlinuz-*-amd64", _KERNEL)
    elif fault := initramfs.fault_of(kernel):
        yield f"a kernel for this user: {fault}"
    if fault := initramfs.fault_of(initramfs.BUSYBOX):
        yield _by(f"a busybox: {fault}", "busybox-static")


def _missing(*, qemu: str | None, rdma: str | None) -> Iterator[str]:
    if qemu is None:
        yield _by("qemu-system-x86_64", "qemu-system-x86")
    if rdma is None:
        yield _by("rdma", "iproute2")
    for library, package in _LIBRARIES.items():
        try:
            ctypes.CDLL(library)
        except OSError:
            yield _by(library, package)
    if not _PROVIDERS.exists():
        yield _by(str(_PROVIDERS), "ibverbs-providers")


def _by(what: str, package: str) -> str:
    return f"{what} (apt-get install {package})"
