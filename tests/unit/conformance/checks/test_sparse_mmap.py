from __future__ import annotations

import pytest

from tests.unit.conformance.histories import rulings
from vfiomig.conformance.ruling import HELD, Broken

Areas = tuple[tuple[int, int], ...]

SECTION = "sparse_mmap"
MAPPED: Areas = ((0x1000, 0x1000),)  # and 0x2000 to 0x3000 is trapped


def judged(check: str, *lines: str, areas: Areas = MAPPED) -> list[str]:
    found = rulings(f"{SECTION}:{check}", *lines, areas=areas)
    return ["held" if ruling is HELD else "broken" for ruling in found]


def broken(check: str, *lines: str, areas: Areas = MAPPED) -> Broken:
    found = rulings(f"{SECTION}:{check}", *lines, areas=areas)
    (ruling,) = (each for each in found if each is not HELD)
    assert isinstance(ruling, Broken)
    return ruling


def buffer(offset: int, size: int, pending: int = 1) -> tuple[str, ...]:
    return (
        f"read pending_bytes -> {pending:#x}",
        f"read data_offset -> {offset:#x}",
        f"read data_size -> {size:#x}",
    )


# -- listed_areas_can_be_mapped --------------------------------------------------------


@pytest.mark.parametrize("length", ["0x1000", "0x800"])
def test_a_listed_area_can_be_mapped(length: str) -> None:
    assert judged("listed_areas_can_be_mapped", f"mmap 0x1000 {length}") == ["held"]


@pytest.mark.parametrize("code", ["EINVAL", "ENODEV", "ENXIO", "EOPNOTSUPP"])
def test_an_area_that_is_listed_and_cannot_be_mapped_is_blamed(code: str) -> None:
    found = broken("listed_areas_can_be_mapped", f"mmap 0x1000 0x1000 -> {code}")
    assert found.because[0].endswith("the listed area 0x1000 to 0x2000")


@pytest.mark.parametrize(
    "line",
    [
        "mmap 0x1000 0x1000 -> ENOMEM",
        "mmap 0x1000 0x1000 -> died",
        "mmap 0x2000 0x1000 -> EINVAL",
        "mmap 0x1000 0x2000 -> EINVAL",
        "mmap 0x1800 0x800 -> EINVAL",
        "mmap 0x1000 0 -> EINVAL",
        "mmap 0x2000 0x1000",
    ],
)
def test_other_mappings_may_fail(line: str) -> None:
    assert judged("listed_areas_can_be_mapped", line) == []


def test_an_area_of_half_pages_is_not_owed() -> None:
    line, areas = "mmap 0x1000 0x800 -> EINVAL", ((0x1000, 0x800),)
    assert judged("listed_areas_can_be_mapped", line, areas=areas) == []


# -- mapped_chunk_page_aligned ---------------------------------------------------------


@pytest.mark.parametrize("pending", [1, 0x5000])
def test_a_mapped_chunk_begins_a_page(pending: int) -> None:
    lines = ("write device_state 2", *buffer(0x1000, 0x10, pending))
    assert judged("mapped_chunk_page_aligned", *lines) == ["held"]


@pytest.mark.parametrize("state", [2, 3])
@pytest.mark.parametrize("offset", [0x1001, 0x1800, 0x1FFF])
def test_a_mapped_chunk_inside_a_page_is_blamed(state: int, offset: int) -> None:
    lines = (f"write device_state {state}", *buffer(offset, 0x800))
    found = broken("mapped_chunk_page_aligned", *lines)
    assert found.actual == f"data_offset = {offset:#x}"


def test_a_trapped_chunk_may_begin_anywhere() -> None:
    lines = ("write device_state 2", *buffer(0x2008, 0x10))
    assert judged("mapped_chunk_page_aligned", *lines) == []
    assert judged("mapped_chunk_page_aligned", *lines, areas=()) == []


def test_a_chunk_that_begins_trapped_may_reach_into_an_area() -> None:
    lines = ("write device_state 2", *buffer(0x2008, 0x800))
    areas = ((0x2000 + 0x1000, 0x1000),)
    assert judged("mapped_chunk_page_aligned", *lines, areas=areas) == []


@pytest.mark.parametrize(
    "lines",
    [
        ("write device_state 2", *buffer(0x1800, 0)),
        ("write device_state 2", *buffer(0x1800, 0x10, pending=0)),
        ("write device_state 2", *buffer(0, 0x10)[1:]),
        buffer(0x1800, 0x10),
        ("read data_offset -> 0x1800", "write data_size 16"),
    ],
    ids=["empty", "nothing pending", "never asked", "running", "not resuming"],
)
def test_where_there_is_no_chunk_any_offset_will_do(lines: tuple[str, ...]) -> None:
    assert judged("mapped_chunk_page_aligned", *lines) == []


def test_a_chunk_is_judged_once() -> None:
    lines = ("write device_state 2", *buffer(0x1000, 0x10), "read data_size -> 0x10")
    assert judged("mapped_chunk_page_aligned", *lines) == ["held"]


def test_a_place_to_load_at_begins_a_page_as_well() -> None:
    load = ("write device_state 4", "read data_offset -> 0x1000")
    more = ("write 0x1000 16", "write data_size 16")
    assert judged("mapped_chunk_page_aligned", *load, *more) == ["held"]
    load = ("write device_state 4", "read data_offset -> 0x1010")
    assert judged("mapped_chunk_page_aligned", *load, *more) == ["broken"]


@pytest.mark.parametrize("line", ["write data_size 16 -> EINVAL", "write data_size 0"])
def test_where_nothing_is_loaded_any_offset_will_do(line: str) -> None:
    lines = ("write device_state 4", "read data_offset -> 0x1010", line)
    assert judged("mapped_chunk_page_aligned", *lines) == []


# -- reads_work_without_mapping --------------------------------------------------------

SAVING = ("write device_state 2", *buffer(0x1000, 0x1800))


@pytest.mark.parametrize("line", ["read 0x1000 16", "read 0x1000 0x1800"])
def test_a_trapped_read_works_where_data_is_mapped(line: str) -> None:
    assert judged("reads_work_without_mapping", *SAVING, line) == ["held"]


@pytest.mark.parametrize("line", ["read 0x1008 8 -> EINVAL", "read 0x1fff 2 -> EIO"])
def test_a_trapped_read_that_fails_where_data_is_mapped_is_blamed(line: str) -> None:
    found = broken("reads_work_without_mapping", *SAVING, line)
    assert found.because[-1] == "however, A failed"


@pytest.mark.parametrize(
    "lines",
    [
        (*SAVING, "unseen read 0x1000 16"),
        (*SAVING, "read 0x2000 16 -> EIO"),
        (*SAVING, "read 0x2800 16 -> EIO"),
        (*SAVING, "read 0x1000 0x1801 -> EINVAL"),
        (*SAVING, "fail data 5", "read 0x1000 16 -> EIO"),
        ("fail data 5", *SAVING, "read 0x1000 16 -> EIO"),
        (*SAVING, "read data_size -> EIO", "read 0x1000 16 -> EIO"),
        (*SAVING, "read pending_bytes -> 0x1", "read 0x1000 16 -> EIO"),
        (*SAVING[:-1], "read 0x1000 16 -> EIO"),
        ("write device_state 0", "read 0x1000 16 -> EIO"),
    ],
    ids=[
        "mapped",
        "trapped part",
        "behind the buffer",
        "over its end",
        "armed",
        "armed long before",
        "failed before",
        "acknowledged",
        "size unknown",
        "not saving",
    ],
)
def test_other_reads_may_fail(lines: tuple[str, ...]) -> None:
    assert judged("reads_work_without_mapping", *lines) == []


def test_once_it_worked_a_failure_is_not_about_mapping() -> None:
    lines = (*SAVING, "read 0x1000 16", "read 0x1010 1 -> EINVAL")
    assert judged("reads_work_without_mapping", *lines) == ["held"]


# -- only_listed_areas_mapped ----------------------------------------------------------


@pytest.mark.parametrize("outcome", ["", " -> ENOMEM"])
def test_a_mapping_inside_an_area_is_right(outcome: str) -> None:
    line = f"mmap 0x1000 0x1000{outcome}"
    assert judged("only_listed_areas_mapped", line) == ["held"]


def test_areas_that_touch_count_as_one() -> None:
    line, areas = "mmap 0x1000 0x2000", ((0x2000, 0x1000), (0x1000, 0x1000))
    assert judged("only_listed_areas_mapped", line, areas=areas) == ["held"]


@pytest.mark.parametrize(
    "line", ["mmap 0x0 0x1000", "mmap 0x2000 0x1000 -> EINVAL", "mmap 0x1000 0x2000"]
)
def test_a_mapping_outside_the_areas_is_blamed(line: str) -> None:
    assert judged("only_listed_areas_mapped", line) == ["broken"]


def test_where_no_area_is_listed_nothing_is_mapped() -> None:
    found = broken("only_listed_areas_mapped", "mmap 0x1000 0x1000", areas=())
    assert found.because[0] == "the sparse mmap capability lists no area"


# -- areas_well_formed -----------------------------------------------------------------


@pytest.mark.parametrize(
    "areas",
    [
        ((0x1000, 0x2000),),
        ((0x2000, 0x1000), (0x1000, 0x1000)),
        ((0x2000, 0x1000),),
    ],
)
def test_whole_pages_in_the_data_section_are_well_formed(areas: Areas) -> None:
    assert judged("areas_well_formed", areas=areas) == ["held"]


def test_a_region_without_areas_has_none_to_judge() -> None:
    assert judged("areas_well_formed", areas=()) == []


@pytest.mark.parametrize(
    ("areas", "flaw"),
    [
        (((0x1000, 0),), "it is empty"),
        (((0, 0x1000),), "it covers the registers"),
        (((0x20, 0x1000),), "it is not of whole pages"),
        (((0x1000, 0x800),), "it is not of whole pages"),
        (((0x2000, 0x2000),), "it leaves the region of 0x3000 bytes"),
        (
            ((0x2000, 0x1000), (0x1000, 0x2000)),
            "it overlaps 0x1000 to 0x3000",
        ),
    ],
)
def test_an_area_that_nobody_can_map_is_blamed(areas: Areas, flaw: str) -> None:
    found = broken("areas_well_formed", areas=areas)
    assert found.because[-1] == f"however, {flaw}"
    assert found.witnesses[0].index == 0


# -- straddling_chunk_readable ---------------------------------------------------------


@pytest.mark.parametrize("line", ["read 0x2000 16", "read 0x2000 0x800"])
def test_the_trapped_part_of_a_straddling_chunk_can_be_read(line: str) -> None:
    assert judged("straddling_chunk_readable", *SAVING, line) == ["held"]


def test_a_trapped_part_that_cannot_be_read_is_blamed() -> None:
    line = "read 0x2000 0x800 -> EINVAL"
    assert judged("straddling_chunk_readable", *SAVING, line) == ["broken"]


@pytest.mark.parametrize(
    "lines",
    [
        (*SAVING, "read 0x1000 16 -> EIO"),
        (*SAVING, "read 0x1ff8 16 -> EIO"),
        (*SAVING, "fail data 5", "read 0x2000 16 -> EIO"),
        ("write device_state 2", *buffer(0x2000, 0x800), "read 0x2000 16 -> EIO"),
        ("write device_state 2", *buffer(0x1000, 0x1000), "read 0x2000 16 -> EIO"),
    ],
    ids=["mapped part", "both parts", "armed", "all trapped", "all mapped"],
)
def test_other_reads_are_not_about_straddling(lines: tuple[str, ...]) -> None:
    assert judged("straddling_chunk_readable", *lines) == []
