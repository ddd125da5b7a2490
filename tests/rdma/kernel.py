"""The VM's kernel, and the modules that it loads with all that they depend on.

Both are unpacked here, where that takes a second: TCG takes six for it.
"""

from __future__ import annotations

import contextlib
import gzip
import lzma
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

# 9p and overlayfs for the files of this machine, a network card, and soft-RoCE on it.
# rxe computes its checksums by crc32, which modules.dep does not know: without it
# `rdma link add` fails with ENOENT.
_WANTED: Final = (
    *("virtio_pci", "9pnet_virtio", "9p", "overlay", "virtio_net"),
    *("crc32_generic", "rdma_ucm", "ib_uverbs", "rdma_rxe"),
)
_OPENERS: Final[dict[str, Callable[[bytes], bytes]]] = {
    ".ko": bytes,
    ".gz": gzip.decompress,
    ".xz": lzma.decompress,
}


# Documentation/arch/x86/boot.rst, "The Real-Mode Kernel Header".
_SETUP_SECTORS: Final = 0x1F1
_PAYLOAD: Final = struct.Struct("<II")  # offset behind the setup's sectors, length
_PAYLOAD_AT: Final = 0x248
_SECTOR: Final = 512
_MAGICS: Final[dict[bytes, Callable[[bytes], bytes]]] = {
    b"\xfd7zXZ\0": lzma.decompress,
    b"\x1f\x8b\x08": gzip.decompress,
}


class ModuleMissingError(LookupError):
    """A kernel without a module that is needed; one line says which."""


def unpacked(kernel: Path) -> bytes:
    """Return the ELF file in a kernel, or all of it if it cannot be unpacked here."""
    image = kernel.read_bytes()
    with contextlib.suppress(struct.error, lzma.LZMAError, OSError, EOFError):
        offset, length = _PAYLOAD.unpack_from(image, _PAYLOAD_AT)
        start = (image[_SETUP_SECTORS] + 1) * _SECTOR + offset
        payload = image[start : start + length - 4]  # without its size when unpacked
        for magic, decompress in _MAGICS.items():
            if payload.startswith(magic):
                return decompress(payload)
    return image


def folder_of(kernel: Path) -> Path:
    """Return where the modules of ``/boot/vmlinuz-VERSION`` are."""
    return Path("/lib/modules", kernel.name.removeprefix("vmlinuz-"))


def has_rxe(folder: Path) -> bool:
    """Tell whether a kernel's modules are here, soft-RoCE among them."""
    try:
        to_load(folder)
    except ModuleMissingError:
        return False
    return True


def to_load(folder: Path) -> tuple[Path, ...]:
    """Return the modules in the order of loading.

    Raises ModuleMissingError.
    """
    needed = _needed(folder)
    order: dict[str, None] = {}
    for name in _WANTED:
        if name in _built_in(folder):
            continue
        if name not in needed:
            message = f"the module {name} of {folder}"
            raise ModuleMissingError(message)
        order |= dict.fromkeys(needed[name])
    return tuple(folder / path for path in order)


def contents(module: Path) -> bytes:
    """Return a module as the kernel takes it, whatever it was packed with.

    Raises ModuleMissingError.
    """
    if (opener := _OPENERS.get(module.suffix)) is None:
        message = f"a module that this can unpack ({module} is {module.suffix[1:]})"
        raise ModuleMissingError(message)
    return opener(module.read_bytes())


def _needed(folder: Path) -> dict[str, list[str]]:
    """Return for each module what to load for it, itself last."""
    lines = [line.partition(":") for line in _lines(folder / "modules.dep")]
    return {_name(path): [*reversed(others.split()), path] for path, _, others in lines}


def _built_in(folder: Path) -> set[str]:
    return {_name(path) for path in _lines(folder / "modules.builtin")}


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text().splitlines()
    except OSError:
        return []


def _name(path: str) -> str:
    """Return a module's name; files have it with dashes at times."""
    return Path(path).name.partition(".")[0].replace("-", "_")
