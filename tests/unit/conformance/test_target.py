"""A TARGET becomes fresh drivers, or one clear line that names the place."""

from __future__ import annotations

import os
import pickle
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from vfiomig.conformance import Target, TargetError, TargetStartError, load_target
from vfiomig.vendor.builtin import BUILTIN, Builtin, Option, parse_size
from vfiomig.vendor.reference import ReferenceDriver
from vfiomig.vendor.scratchpad import ScratchpadModel

if TYPE_CHECKING:
    from collections.abc import Iterator

# Line 7 is the class, lines 8, 10, 13, 16, 19 and 22 its members.
DRIVER = """\
from types import SimpleNamespace

REGION = SimpleNamespace(size=4096, areas=())
closed = []


class Driver:
    migration_region = REGION

    def read(self, offset, size):
        return bytes(size)

    def write(self, offset, data):
        pass

    def reset(self):
        pass

    def close(self):
        closed.append(self)
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Work in a folder of its own, and forget what was imported there."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path[:])
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def written(name: str, text: str) -> Path:
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def misuse(text: str) -> str:
    """Return what is said of a target that names no driver."""
    with pytest.raises(TargetError) as caught:
        load_target(text)
    return one_line(caught.value)


def start_error(text: str) -> str:
    """Return what is said of a target that does not start."""
    with pytest.raises(TargetStartError) as caught:
        load_target(text).make_driver()
    return one_line(caught.value)


def one_line(error: Exception) -> str:
    assert str(error).isprintable()
    return str(error)


# -- what loads ------------------------------------------------------------------------


def test_a_file_and_a_name_give_fresh_drivers() -> None:
    written("driver.py", DRIVER)
    target = load_target("driver.py:Driver")
    assert (target.text, target.name) == ("driver.py:Driver", "Driver")
    one, other = target.make_driver(), target.make_driver()
    assert one is not other
    assert type(one).__name__ == "Driver"


def test_a_module_and_a_name_give_fresh_drivers() -> None:
    written("pack/__init__.py", "")
    written("pack/driver.py", DRIVER)
    target = load_target("pack.driver:Driver")
    assert target.name == "Driver"
    assert type(target.make_driver()).__module__ == "pack.driver"


def test_a_name_may_lie_inside_another() -> None:
    written("driver.py", DRIVER + "    @classmethod\n    def make(cls): return cls()\n")
    target = load_target("driver.py:Driver.make")
    assert target.name == "make"
    assert type(target.make_driver()).__name__ == "Driver"


def test_a_relative_path_begins_in_the_given_folder() -> None:
    path = written("scenarios/driver.py", DRIVER)
    assert load_target("driver.py:Driver", folder=path.parent).make_driver()
    assert load_target(f"{path.resolve()}:Driver", folder=Path("elsewhere"))


def test_space_around_a_target_does_not_matter() -> None:
    written("driver.py", DRIVER)
    assert load_target(" driver.py:Driver\n").text == "driver.py:Driver"


def test_the_files_folder_and_the_current_one_are_on_the_path() -> None:
    written("here.py", "WORD = 'here'")
    written("there/beside.py", "WORD = 'beside'")
    written("there/driver.py", f"import beside, here\n{DRIVER}")
    load_target("there/driver.py:Driver").make_driver()
    assert sys.modules["beside"].WORD == "beside"
    assert sys.modules["here"].WORD == "here"


def test_a_path_is_added_once() -> None:
    path = written("there/driver.py", DRIVER)
    for _ in range(2):
        load_target("there/driver.py:Driver")
    assert sys.path.count(str(path.resolve().parent)) == 1
    assert sys.path.count(str(Path.cwd())) == 1


def test_a_file_never_stands_for_a_module_of_its_name() -> None:
    written("queue.py", DRIVER)
    module = type(load_target("queue.py:Driver").make_driver()).__module__
    assert module != "queue"
    assert module.startswith("vfiomig_target_queue_")


def test_two_files_of_one_name_are_two_modules() -> None:
    written("a/driver.py", DRIVER)
    written("b/driver.py", DRIVER)
    drivers = [load_target(f"{f}/driver.py:Driver").make_driver() for f in "ab"]
    assert len({type(driver).__module__ for driver in drivers}) == 2


def test_a_file_is_run_once_however_it_is_written() -> None:
    written("driver.py", DRIVER)
    texts = ("driver.py:Driver", "./driver.py:Driver", f"{Path.cwd()}/driver.py:Driver")
    assert len({type(load_target(text).make_driver()) for text in texts}) == 1


def test_dataclasses_and_pickle_find_the_module_of_a_file() -> None:
    source = DRIVER.replace(
        "class Driver:",
        "import dataclasses\n@dataclasses.dataclass\nclass Driver:\n    x: 'int' = 3",
    )
    written("driver.py", f"from __future__ import annotations\n{source}")
    driver = load_target("driver.py:Driver").make_driver()
    assert pickle.loads(pickle.dumps(driver)) == driver


def test_a_file_leaves_no_bytecode_behind() -> None:
    written("driver.py", DRIVER)
    load_target("driver.py:Driver")
    assert os.listdir() == ["driver.py"]  # noqa: PTH208 - names are all we want


def test_a_driver_with_areas_and_mmap_is_a_driver() -> None:
    area = "SimpleNamespace(offset=4096, size=4096)"
    source = DRIVER.replace("areas=()", f"areas=({area},)")
    written("driver.py", source + "    def mmap(self, area): ...\n")
    assert load_target("driver.py:Driver").make_driver().migration_region.areas


def test_a_module_written_since_the_last_look_is_found(folder: Path) -> None:
    written("first.py", DRIVER)
    load_target("first:Driver")
    times = folder.stat()
    written("second.py", DRIVER)
    os.utime(folder, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert load_target("second:Driver").name == "Driver"


# -- the writer's mistakes -------------------------------------------------------------


@pytest.mark.parametrize("text", ["", "  ", "\n"])
def test_an_empty_target_says_what_may_be_given(text: str) -> None:
    assert misuse(text) == (
        "the target is empty: give path/file.py:NAME, package.module:NAME, "
        "DEVICE[,OPTION=VALUE...] or vfio-user:/path/to.sock"
    )


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("vfio:11111111-2222-3333-4444-555555555555", "real devices"),
    ],
)
def test_forms_that_are_to_come_are_known(text: str, what: str) -> None:
    assert misuse(text).startswith(f"{text}: {what} are not supported yet")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("none.py:Driver", "none.py: No such file or directory"),
        ("folder.py:Driver", "folder.py: not a file"),
        ("pipe.py:Driver", "pipe.py: not a file"),
        ("driver.py/x.py:Driver", "driver.py/x.py: Not a directory"),
        ("driver.py", "driver.py: which driver of it? Write driver.py:NAME"),
        ("driver.py:", "driver.py:: which driver of it? Write driver.py:NAME"),
        ("driver.py:1x", "driver.py:1x: '1x' is not a NAME"),
        (
            "driver.py:Driver,memory=1G",
            "driver.py:Driver,memory=1G: 'Driver,memory=1G' is not a NAME; "
            "only built-in devices have options",
        ),
        (
            "driver.py:Drivr",
            "driver.py:Drivr: there is no Drivr, did you mean Driver? (known: Driver)",
        ),
        (
            "driver.py:closed",
            "driver.py:closed: closed is a list, which cannot be called",
        ),
        ("driver:Zzz", "driver:Zzz: there is no Zzz (known: Driver)"),
        ("nowhere:Driver", "nowhere:Driver: No module named 'nowhere'"),
        (
            "driver.sub:Driver",
            "driver.sub:Driver: No module named 'driver.sub'; "
            "'driver' is not a package",
        ),
        ("utf16.py:Driver", "utf16.py: it holds a NUL byte, so it is not Python"),
        ("driver.py:Dri\0ver", r"'driver.py:Dri\x00ver': a target is one line of"),
        ("loop.py:Driver", "loop.py: "),
    ],
)
def test_what_names_no_driver_is_refused(text: str, said: str) -> None:
    written("driver.py", DRIVER)
    Path("utf16.py").write_text(DRIVER, encoding="utf-16")
    Path("folder.py").mkdir()
    Path("loop.py").symlink_to("loop.py")
    os.mkfifo("pipe.py")
    assert misuse(text).startswith(said)


def test_a_name_that_takes_arguments_is_refused_where_it_is_defined() -> None:
    written("driver.py", "\n\ndef make(memory, ports): ...\n")
    assert misuse("driver.py:make") == (
        "driver.py:3: make is called without arguments: "
        "missing a required argument: 'memory'"
    )


@pytest.mark.parametrize("text", ["driver.py:Driver", "driver:Driver", "user:Driver"])
def test_a_syntax_error_is_named_by_file_and_line(text: str) -> None:
    written("driver.py", "x = 1\ndef (:\n")
    written("user.py", "import driver\n")
    assert misuse(text).startswith("driver.py:2: SyntaxError: ")


def test_a_wrong_indentation_is_named_by_file_and_line() -> None:
    written("driver.py", "class Driver:\nx = 1\n")
    assert misuse("driver.py:Driver").startswith("driver.py:2: IndentationError: ")


# -- targets that do not start ---------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("import not_there_at_all", "ModuleNotFoundError: No module named"),
        ("raise ValueError('two\\nlines')", "ValueError: two lines"),
        ("raise ValueError('x' * 10_000)", f"ValueError: {'x' * 300}..."),
        ("eval('1 +')", "SyntaxError: "),
        ("import json; json.loads('{')", "JSONDecodeError: "),
        ("class E(Exception):\n  __str__ = None\nraise E", "E"),
    ],
)
@pytest.mark.parametrize("text", ["driver.py:Driver", "driver:Driver"])
def test_an_import_that_raises_is_named_by_the_line(
    text: str, line: str, said: str
) -> None:
    written("driver.py", f"x = 1\n{line}\n{DRIVER}")
    what = text.removesuffix(":Driver")
    number = 2 + line.count("\n")
    assert start_error(text).startswith(
        f"driver.py:{number}: importing {what} raised {said}"
    )


def test_a_file_that_raised_is_run_again() -> None:
    written("driver.py", "raise ValueError")
    start_error("driver.py:Driver")
    written("driver.py", DRIVER)
    assert load_target("driver.py:Driver").make_driver()


def test_the_innermost_line_of_the_users_is_named() -> None:
    written("deep/inside.py", "import json\n\n\ndef fail(): json.loads('{')\n")
    written("deep/driver.py", "from inside import fail\ndef make(): fail()\n")
    said = start_error("deep/driver.py:make")
    assert said.startswith("deep/inside.py:4: make() raised JSONDecodeError: ")


def test_a_place_outside_the_current_folder_is_named_in_full(folder: Path) -> None:
    path = written("elsewhere/driver.py", "def make(): raise OSError(5, 'gone')")
    Path("work").mkdir()
    os.chdir("work")
    said = start_error("../elsewhere/driver.py:make")
    assert said == f"{folder / path}:1: make() raised OSError: [Errno 5] gone"


def test_a_call_that_fails_outside_the_users_code_names_the_definition() -> None:
    source = "import abc\n\nclass Driver(abc.ABC):\n  @abc.abstractmethod\n"
    written("driver.py", f"{source}  def read(self): ...\n")
    said = start_error("driver.py:Driver")
    assert said.startswith("driver.py:3: Driver() raised TypeError: Can't instantiate")


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("def reset", "def reset_", "without reset()"),
        ("def close", "def close_", "without close()"),
        ("    migration_region", "    region", "without migration_region"),
        ("    def read", "    read = 3\n    def read_", "without read()"),
        ("size=4096", "size=32", "with migration_region.size 32, not an int above 32"),
        ("size=4096", "size=4096.0", "with migration_region.size 4096.0, not"),
        ("size=4096", "size='big'", "with migration_region.size a str, not"),
        ("size=4096", "size=True", "with migration_region.size True, not"),
        ("size=4096, ", "", "with migration_region.size None, not"),
        ("areas=()", "areas=None", "with migration_region.areas None, not a tuple"),
        ("areas=()", "areas=7", "with migration_region.areas 7, not a tuple"),
        (
            "areas=()",
            "areas=((4096, 4096),)",
            "with migration_region.areas[0].offset None, not a count of bytes",
        ),
        (
            "areas=()",
            "areas=[SimpleNamespace(offset=0, size=-1)]",
            "with migration_region.areas[0].size -1, not a count of bytes",
        ),
        (
            "areas=()",
            "areas=[SimpleNamespace(offset=True, size=4096)]",
            "with migration_region.areas[0].offset True, not a count of bytes",
        ),
        (
            "areas=()",
            "areas=[SimpleNamespace(offset=0, size=4096)]",
            "without mmap(), though its region has areas",
        ),
    ],
)
def test_an_object_that_is_no_driver_is_named_by_its_class(
    before: str, after: str, said: str
) -> None:
    assert before in DRIVER
    written("driver.py", DRIVER.replace(before, after, 1))
    assert start_error("driver.py:Driver").startswith(
        f"driver.py:7: Driver() gave a Driver {said}"
    )


def test_a_function_that_returns_nothing_is_named_itself() -> None:
    written("driver.py", "\ndef make(): pass\n")
    assert start_error("driver.py:make") == (
        "driver.py:2: make() gave None without migration_region, read(), write(), "
        "reset(), close()"
    )


@pytest.mark.parametrize("error", ["ValueError", "AttributeError"])
def test_a_member_that_raises_is_named_by_its_line(error: str) -> None:
    member = f"@property\n    def migration_region(self):\n        raise {error}('x')"
    written("driver.py", DRIVER.replace("migration_region = REGION", member))
    said = start_error("driver.py:Driver")
    assert said == f"driver.py:10: a look at Driver() raised {error}: x"


def test_every_driver_is_looked_at() -> None:
    written("driver.py", DRIVER + "\nwell = [Driver()]\n")
    target = load_target("driver.py:well.pop")
    assert target.make_driver()
    with pytest.raises(TargetStartError, match=r"pop\(\) raised IndexError: pop from"):
        target.make_driver()


def test_a_driver_that_is_refused_is_closed() -> None:
    written("driver.py", DRIVER.replace("def reset", "def reset_"))
    before = set(sys.modules)
    driver_class = load_target("driver.py:Driver")
    with pytest.raises(TargetStartError):
        driver_class.make_driver()
    [name] = [each for each in sys.modules if each not in before and "_target_" in each]
    module = sys.modules[name]
    assert len(module.closed) == 1


@pytest.mark.parametrize("where", ["module", "factory"])
def test_an_interrupt_passes(where: str) -> None:
    if where == "module":
        written("driver.py", "raise KeyboardInterrupt")
        with pytest.raises(KeyboardInterrupt):
            load_target("driver.py:make")
    else:
        written("driver.py", "def make(): raise KeyboardInterrupt")
        target = load_target("driver.py:make")
        with pytest.raises(KeyboardInterrupt):
            target.make_driver()


# -- built-in devices ------------------------------------------------------------------


def parse_even(text: str) -> int:
    if text not in ("2", "4"):
        message = f"{text!r} is not 2 or 4"
        raise ValueError(message)
    return int(text)


def make_reference(*, section: int, odd_memory: int, even: int) -> ReferenceDriver:
    if even == 4 and odd_memory == 4096:
        message = "4 takes more than 4096 bytes"
        raise ValueError(message)
    model = ScratchpadModel(odd_memory)
    return ReferenceDriver(model, section=section, data_section="trapped")


def make_none(**_: object) -> ReferenceDriver:
    raise MemoryError


TABLE = {
    "card": Builtin(
        summary="a card",
        options={
            "section": Option(parse=parse_size, default="16K", summary="its section"),
            "odd-memory": Option(parse=parse_size, default="4K", summary="its memory"),
            "even": Option(parse=parse_even, default="2", summary="2 or 4"),
        },
        make=make_reference,
    ),
    "none": Builtin(summary="too large", options={}, make=make_none),
}


def load_card(text: str) -> Target:
    return load_target(text, builtin=TABLE)


@pytest.mark.parametrize("device", sorted(BUILTIN))
def test_every_built_in_device_starts_with_its_defaults(device: str) -> None:
    target = load_target(device)
    assert (target.text, target.name) == (device, device)
    driver = target.make_driver()
    assert driver.migration_region.size > 32
    driver.close()


def test_options_reach_a_built_in_device() -> None:
    target = load_target("accelerator,memory=64K,data-section=trapped,section=8K")
    assert target.name == "accelerator"
    driver = target.make_driver()
    assert driver.migration_region.areas == ()
    driver.close()


def test_an_option_that_is_left_out_has_its_default() -> None:
    sizes = []
    for text in ("card", "card,section=32K", "card, odd-memory = 64K"):
        driver = load_card(text).make_driver()
        sizes.append(driver.migration_region.size)
        driver.close()
    assert sizes[1] - sizes[0] == 16 << 10
    assert sizes[2] == sizes[0]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("crd", "crd: no built-in device is called 'crd', did you mean card? (known: "),
        (
            "zzzzzz,odd=1",
            "zzzzzz,odd=1: no built-in device is called 'zzzzzz' (known: ",
        ),
        ("card,evn=2", "card,evn=2: unknown option 'evn', did you mean even? (opt"),
        ("card,even", "card,even: even has no value, write even=VALUE (opt"),
        ("card,even=2,even=4", "card,even=2,even=4: even is given twice (opt"),
        ("card,even=3", "card,even=3: even: '3' is not 2 or 4 (options known: even,"),
        (
            "card,",
            "card,: unknown option '' (options known: even, odd-memory, section)",
        ),
        ("none,x=1", "none,x=1: unknown option 'x' (options known: none)"),
    ],
)
def test_a_wrong_device_or_option_lists_the_known_ones(text: str, said: str) -> None:
    with pytest.raises(TargetError) as caught:
        load_card(text)
    assert one_line(caught.value).startswith(said)


def test_options_that_do_not_go_together_are_the_writers_mistake() -> None:
    target = load_card("card,even=4")
    with pytest.raises(TargetError, match=r"^card,even=4: 4 takes more than 4096"):
        target.make_driver()


def test_a_built_in_device_that_cannot_be_made_does_not_start() -> None:
    with pytest.raises(TargetStartError, match=r"making none raised MemoryError$"):
        load_card("none").make_driver()
