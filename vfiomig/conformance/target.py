"""From a TARGET, as written on a command line or in a scenario, to fresh drivers.

Rule 1: text that names no driver is the writer's mistake, `TargetError`; a driver that
is named and does not start is the target's own, `TargetStartError`.  Both are one line
that begins with the place: the text, or file:line in the user's code.

Rule 2: of what the user's code raises, SystemExit included, only KeyboardInterrupt
passes.
"""

from __future__ import annotations

import contextlib
import ctypes
import difflib
import importlib
import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn, TypeGuard, cast

from vfiomig.conformance.target_errors import TargetError, TargetStartError
from vfiomig.conformance.user_code import (
    defining_line,
    home_of,
    put_on_path,
    raising_line,
    reason,
    run_file,
    shown,
)
from vfiomig.conformance.vfio_user.target import is_vfio_user, vfio_user_target
from vfiomig.uapi.migration_v1 import vfio_device_migration_info
from vfiomig.vendor.builtin import BUILTIN

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from types import ModuleType

    from vfiomig.conformance.vfio_user.servers import Servers
    from vfiomig.host.device_ops import TrappedDriver
    from vfiomig.vendor.builtin import Builtin

__all__ = ["Target", "TargetError", "TargetStartError", "load_target"]

_FORMS: Final = (
    "path/file.py:NAME, package.module:NAME, DEVICE[,OPTION=VALUE...] "
    "or vfio-user:/path/to.sock"
)
_NOT_YET: Final = {"vfio:": "real devices"}
_METHODS: Final = ("read", "write", "reset", "close")
_REGISTERS_END: Final = ctypes.sizeof(vfio_device_migration_info)


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A driver under test: what it was called, and how to make a fresh one.

    ``text`` is the TARGET as given. ``name`` is short, for display and section ids: of
    the class or function, or of the built-in device. ``make_driver`` returns a driver
    in its default state, each time another. It raises TargetStartError when the
    target's code raises or what it returns is not a driver, and TargetError when a
    built-in device refuses how its options go together. ``servers`` are where its
    drivers live, None for this process.
    """

    text: str
    name: str
    make_driver: Callable[[], TrappedDriver]
    servers: Servers | None = None


def load_target(
    text: str,
    *,
    folder: Path | None = None,
    builtin: Mapping[str, Builtin] = BUILTIN,
) -> Target:
    """Find what ``text`` names, and import it if it is the user's.

    ``folder`` is where relative file paths begin, by default the current folder;
    ``builtin`` has the built-in devices by name. Raises TargetError for text that names
    no driver, and TargetStartError when importing the user's code raises.
    """
    text = text.strip()
    _refuse_forms_without_a_driver(text)
    if is_vfio_user(text):
        served = vfio_user_target(text, folder or Path())
        return Target(
            text=text,
            name=served.name,
            make_driver=served.make_driver,
            servers=served.servers,
        )
    device, *options = text.split(",")
    place, _, name = text.rpartition(":")
    if device in builtin:
        return _builtin_target(text, device, builtin[device], options)
    if _is_file_like(place or name):
        return _file_target(text, place, name, folder or Path())
    if _is_dotted(place):
        return _module_target(text, place, name)
    message = (
        f"{text}: no built-in device is called {device!r}"
        f"{_did_you_mean(device, builtin)} ({_known(builtin)}); "
        "a driver of your own is path/file.py:NAME or package.module:NAME"
    )
    raise TargetError(message)


def _refuse_forms_without_a_driver(text: str) -> None:
    if not text:
        raise TargetError(f"the target is empty: give {_FORMS}")
    if not text.isprintable():
        raise TargetError(f"{text!r}: a target is one line of printable text")
    for prefix, what in _NOT_YET.items():
        if text.startswith(prefix):
            raise TargetError(f"{text}: {what} are not supported yet; give {_FORMS}")


def _is_file_like(place: str) -> bool:
    return "/" in place or place.endswith(".py")


def _is_dotted(name: str) -> bool:
    return all(part.isidentifier() for part in name.split("."))


def _require_name(text: str, place: str, name: str) -> None:
    if not name:
        raise TargetError(f"{text}: which driver of it? Write {place}:NAME")
    if not _is_dotted(name):
        hint = "; only built-in devices have options" if "," in name else ""
        raise TargetError(f"{text}: {name!r} is not a NAME{hint}")


# -- built-in devices ------------------------------------------------------------------


def _builtin_target(
    text: str, name: str, device: Builtin, options: Iterable[str]
) -> Target:
    values = _option_values(text, device, options)

    def make() -> TrappedDriver:
        with _blaming(text, f"making {name}"):
            try:
                return device.make(**values)
            except ValueError as error:
                raise TargetError(f"{text}: {error}") from error

    return Target(text=text, name=name, make_driver=make)


def _option_values(
    text: str, device: Builtin, options: Iterable[str]
) -> dict[str, object]:
    """Return the value of every option, given or default, by its name in Python."""
    texts = {key: option.default for key, option in device.options.items()}
    given: set[str] = set()
    for option in options:
        key, equals, value = (part.strip() for part in option.partition("="))
        if key not in texts:
            hint = _did_you_mean(key, texts)
            _refuse_option(text, device, f"unknown option {key!r}{hint}")
        if not equals:
            _refuse_option(text, device, f"{key} has no value, write {key}=VALUE")
        if key in given:
            _refuse_option(text, device, f"{key} is given twice")
        given.add(key)
        texts[key] = value
    values: dict[str, object] = {}
    for key, value in texts.items():
        try:
            values[key.replace("-", "_")] = device.options[key].parse(value)
        except ValueError as error:
            _refuse_option(text, device, f"{key}: {error}")
    return values


def _refuse_option(text: str, device: Builtin, why: str) -> NoReturn:
    raise TargetError(f"{text}: {why} (options {_known(device.options)})")


# -- the user's code -------------------------------------------------------------------


def _file_target(text: str, place: str, name: str, folder: Path) -> Target:
    _require_name(text, place or name, name if place else "")
    try:
        path = (folder / place).resolve()
        if path.exists() and not path.is_file():  # a pipe would be waited for
            raise TargetError(f"{shown(path)}: not a file")
        source = path.read_bytes()
    except OSError as error:
        raise TargetError(f"{shown(folder / place)}: {error.strerror}") from error
    except RuntimeError as error:  # a loop of links
        raise TargetError(f"{shown(folder / place)}: {error}") from error
    if b"\0" in source:
        raise TargetError(f"{shown(path)}: it holds a NUL byte, so it is not Python")
    put_on_path(path.parent, Path.cwd())
    with _importing(text, shown(path), path.parent):
        module = run_file(path, source)
    return _target_in(module, text, name, path.parent)


def _module_target(text: str, place: str, name: str) -> Target:
    _require_name(text, place, name)
    put_on_path(Path.cwd())
    home = home_of(place)
    with _importing(text, place, home):
        try:
            module = importlib.import_module(place)
        except ModuleNotFoundError as error:
            # No line of the user's: it is this import that found nothing.
            if raising_line(error, home) is None:
                raise TargetError(f"{text}: {error}") from error
            raise
    return _target_in(module, text, name, home)


def _target_in(module: ModuleType, text: str, name: str, home: Path | None) -> Target:
    factory = _look_up(module, text, name, home)

    def make() -> TrappedDriver:
        with _blaming(text, f"{name}()", factory, home=home):
            driver = factory()
        try:
            with _blaming(text, f"a look at {name}()", type(driver), home=home):
                problem = _problem_of(driver)
            if problem:
                place = defining_line(type(driver)) or defining_line(factory) or text
                raise TargetStartError(f"{place}: {name}() gave {problem}")
        except TargetStartError:
            _let_go(driver)
            raise
        return cast("TrappedDriver", driver)

    return Target(text=text, name=name.rpartition(".")[2], make_driver=make)


def _look_up(
    module: ModuleType, text: str, name: str, home: Path | None
) -> Callable[[], object]:
    found: object = module
    for part in name.split("."):
        owner = found
        with _blaming(text, f"a look at {part}", home=home):
            try:
                found = getattr(owner, part)
            except AttributeError as error:
                names = _callables(owner)
                hint = _did_you_mean(part, names)
                message = f"{text}: there is no {part}{hint} ({_known(names)})"
                raise TargetError(message) from error
    if not callable(found):
        raise TargetError(f"{text}: {name} is {_kind(found)}, which cannot be called")
    try:
        inspect.signature(found).bind()
    except ValueError:
        pass  # it does not tell what it takes
    except TypeError as error:
        place = defining_line(found) or text
        message = f"{place}: {name} is called without arguments: {error}"
        raise TargetError(message) from error
    return found


@contextlib.contextmanager
def _importing(text: str, what: str, home: Path | None) -> Iterator[None]:
    """Tell a file that cannot be read from one that raises."""
    with _blaming(text, f"importing {what}", home=home):
        try:
            yield
        except SyntaxError as error:
            # One that eval() raised names no file.
            if error.filename is None or not Path(error.filename).is_file():
                raise
            place = f"{shown(Path(error.filename))}:{error.lineno or 1}"
            raise TargetError(
                f"{place}: {type(error).__name__}: {error.msg}"
            ) from error


@contextlib.contextmanager
def _blaming(
    text: str, what: str, defined: object = None, *, home: Path | None = None
) -> Iterator[None]:
    """Turn what the target's code raises into one line that names its place.

    That is the line that raised; where it is none of the user's, as for a call that
    fails before it enters the function, where ``defined`` is; and else the target.
    """
    try:
        yield
    except (KeyboardInterrupt, TargetError, TargetStartError):
        raise
    except BaseException as error:
        place = raising_line(error, home) or defining_line(defined) or text
        message = f"{place}: {what} raised {reason(error)}"
        raise TargetStartError(message) from error


# -- what a driver must have -----------------------------------------------------------


def _problem_of(driver: object) -> str | None:
    """Say what ``driver`` lacks of what the host will use, None for nothing."""
    region = _member(driver, "migration_region")
    lacking = [] if region is not None else ["migration_region"]
    methods = list(_METHODS)
    if region is not None:
        if problem := _problem_of_region(region):
            return f"{_kind(driver)} with {problem}"
        if _areas_of(region):
            methods.append("mmap")
    lacking += [f"{m}()" for m in methods if not callable(_member(driver, m))]
    if not lacking:
        return None
    why = ", though its region has areas" if lacking == ["mmap()"] else ""
    return f"{_kind(driver)} without {', '.join(lacking)}{why}"


def _member(driver: object, name: str) -> object:
    """Return a member, None if there is none; what it raises itself passes."""
    try:
        return cast("object", getattr(driver, name))
    except AttributeError:
        # A property may have raised this for something else that is missing.
        if inspect.getattr_static(driver, name, None) is None:
            return None
        raise


def _problem_of_region(region: object) -> str | None:
    size = getattr(region, "size", None)
    if not _is_count(size) or size <= _REGISTERS_END:
        wanted = f"an int above {_REGISTERS_END}, where the registers end"
        return f"migration_region.size {_said(size)}, not {wanted}"
    areas = _areas_of(region)
    if areas is None:
        found = _said(getattr(region, "areas", None))
        return f"migration_region.areas {found}, not a tuple of SparseMmapArea"
    for number, area in enumerate(areas):
        for name in ("offset", "size"):
            value = getattr(area, name, None)
            if not _is_count(value):
                place = f"migration_region.areas[{number}].{name}"
                return f"{place} {_said(value)}, not a count of bytes"
    return None


def _areas_of(region: object) -> tuple[object, ...] | None:
    areas = getattr(region, "areas", None)
    return tuple(areas) if isinstance(areas, tuple | list) else None


def _is_count(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _let_go(driver: object) -> None:
    """Close what was refused, if it can be: it may hold descriptors."""
    with contextlib.suppress(Exception, SystemExit):
        close = getattr(driver, "close", None)
        if callable(close):
            close()


# -- words -----------------------------------------------------------------------------


def _kind(thing: object) -> str:
    return "None" if thing is None else f"a {type(thing).__name__}"


def _said(value: object) -> str:
    return repr(value) if isinstance(value, int | float) else _kind(value)


def _known(names: Iterable[str]) -> str:
    return f"known: {', '.join(sorted(names)) or 'none'}"


def _did_you_mean(word: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(word, list(known), n=1)
    return f", did you mean {near[0]}?" if near else ""


def _callables(owner: object) -> list[str]:
    """Name what ``owner`` itself defines and could have been meant."""
    home = getattr(owner, "__name__", None)
    return [
        name
        for name, value in getattr(owner, "__dict__", {}).items()
        if callable(value) and getattr(value, "__module__", None) == home
    ]
