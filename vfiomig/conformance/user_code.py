"""Code that is not ours: running a file of it, and naming the line that is to blame.

Rule 1: a file is compiled from its source in every process and leaves no bytecode
behind: what is judged is what the file says now.

Rule 2: a line of the user's is one outside vfiomig, the standard library and installed
packages, unless the target itself lives there: ``home`` is the folder that holds it.
"""

from __future__ import annotations

import hashlib
import importlib.machinery
import importlib.util
import inspect
import re
import sys
import sysconfig
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from types import ModuleType

_LIBRARIES: Final = frozenset(
    {
        Path(__file__).parents[1],
        *map(Path, map(sysconfig.get_path, ("stdlib", "purelib", "platlib"))),
    }
)
# This package calls the user's code even when vfiomig is the target's home.
_CALLERS: Final = Path(__file__).parent
# A message is one line; what a user's exception says may be a page.
_LONGEST_REASON: Final = 300


def run_file(path: Path, source: bytes) -> ModuleType:
    """Run a file as a module, once in a process.

    Its name is made of the path, so it is the same in every process and never that of
    a module that the user imports; it is registered because dataclasses and pickle
    look there. What the file raises passes, and nothing stays registered then.
    """
    stem = re.sub(r"[^0-9A-Za-z]", "_", path.stem)
    digest = hashlib.blake2b(bytes(path), digest_size=6).hexdigest()
    name = f"vfiomig_target_{stem}_{digest}"
    if (loaded := sys.modules.get(name)) is not None:
        return loaded
    code = compile(source, str(path), "exec", dont_inherit=True)
    loader = importlib.machinery.SourceFileLoader(name, str(path))
    spec = importlib.machinery.ModuleSpec(name, loader, origin=str(path))
    spec.has_location = True
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        exec(code, module.__dict__)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def put_on_path(*folders: Path) -> None:
    """Let the user's code import from these folders, in this order, as a script can."""
    missing = [str(folder) for folder in folders if str(folder) not in sys.path]
    sys.path[:0] = dict.fromkeys(missing)
    # A file written since the last look into its folder is to be found, too.
    importlib.invalidate_caches()


def home_of(module: str) -> Path | None:
    """Return the folder of a module's outermost package, None where there is none.

    Imports nothing of it.
    """
    try:
        spec = importlib.util.find_spec(module.partition(".")[0])
    except (ImportError, ValueError):
        return None
    if spec is None or spec.origin is None:
        return None
    return Path(spec.origin).parent if spec.has_location else None


def raising_line(error: BaseException, home: Path | None) -> str | None:
    """Return ``file:line`` of the innermost line of the user's that raised."""
    libraries = [
        folder
        for folder in _LIBRARIES
        if home is None or not home.is_relative_to(folder)
    ]
    found = None
    for frame, line in traceback.walk_tb(error.__traceback__):
        file = Path(frame.f_code.co_filename)
        if file.name.startswith("<") or file.is_relative_to(_CALLERS):
            continue
        if not any(file.is_relative_to(folder) for folder in libraries):
            found = f"{shown(file)}:{line}"
    return found


def defining_line(thing: object) -> str | None:
    """Return ``file:line`` of a class or function, None where that is not to be had."""
    if not (inspect.isclass(thing) or inspect.isroutine(thing)):
        return None
    try:
        file = inspect.getsourcefile(thing)
        _, line = inspect.getsourcelines(thing)
    except (OSError, TypeError, SyntaxError, IndexError):
        return None
    return f"{shown(Path(file))}:{line}" if file else None


def reason(error: BaseException) -> str:
    """Return what an exception says, in one line that is not too long."""
    try:
        text = " ".join(str(error).split())
    except Exception:  # the user's own __str__
        text = ""
    if len(text) > _LONGEST_REASON:
        text = f"{text[:_LONGEST_REASON]}..."
    kind = type(error).__name__
    return f"{kind}: {text}" if text else kind


def shown(path: Path) -> str:
    """Return a path as a person in the current folder would write it."""
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)
