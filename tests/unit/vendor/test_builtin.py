"""The table of built-in devices."""

from __future__ import annotations

import pytest

from vfiomig.vendor.builtin import BUILTIN, parse_size

EVERY_OPTION = [
    (device, option) for device, each in BUILTIN.items() for option in each.options
]


def defaults(device: str) -> dict[str, object]:
    """Return what `Builtin.make` is given for a target without options."""
    return {
        name.replace("-", "_"): option.parse(option.default)
        for name, option in BUILTIN[device].options.items()
    }


def test_there_are_four_devices() -> None:
    assert set(BUILTIN) == {"reference", "serial", "accelerator", "opaque"}


@pytest.mark.parametrize("device", BUILTIN)
def test_the_defaults_make_a_driver(device: str) -> None:
    driver = BUILTIN[device].make(**defaults(device))
    driver.work(3)
    assert any(bytes(driver.snapshot()))
    driver.close()


@pytest.mark.parametrize("device", BUILTIN)
@pytest.mark.parametrize(
    ("text", "areas"), [("trapped", []), ("mapped", [8192]), ("split", [4096])]
)
def test_the_data_section_is_reached_as_asked(
    device: str, text: str, areas: list[int]
) -> None:
    options = BUILTIN[device].options
    values = defaults(device) | {
        "data_section": options["data-section"].parse(text),
        "section": options["section"].parse("8K"),
    }
    driver = BUILTIN[device].make(**values)
    assert driver.migration_region.size == 4096 + 8192
    assert [area.size for area in driver.migration_region.areas] == areas
    driver.close()


@pytest.mark.parametrize(
    ("device", "kind"),
    [
        ("reference", "mapped"),
        ("serial", "trapped"),
        ("accelerator", "mapped"),
        ("opaque", "mapped"),
    ],
)
def test_only_the_serial_card_is_trapped_by_default(device: str, kind: str) -> None:
    assert BUILTIN[device].options["data-section"].default == kind


def test_options_reach_the_device() -> None:
    for device, option, text, size in [
        ("reference", "state", "8K", 8192 + 4096),
        ("serial", "ports", "1", 72),
        ("serial", "ports", "2", 144),
        ("accelerator", "memory", "1M", (1 << 20) + 8192),
        ("opaque", "state", "10", 10),
        ("opaque", "state", "0", 0),
    ]:
        value = BUILTIN[device].options[option].parse(text)
        driver = BUILTIN[device].make(**defaults(device) | {option: value})
        assert len(driver.snapshot()) == size
        driver.close()


def test_a_spread_beyond_the_memory_is_refused_when_both_are_known() -> None:
    with pytest.raises(ValueError, match="the spread"):
        BUILTIN["accelerator"].make(
            **defaults("accelerator") | {"memory": 8192, "spread": 12288}
        )


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("4096", 4096),
        ("64K", 1 << 16),
        ("64k", 1 << 16),
        ("16M", 1 << 24),
        ("1G", 1 << 30),
    ],
)
def test_a_size_is_bytes_or_has_a_unit(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text",
    ["", "K", "-1", "+1", "1.5M", "1 K", "1KB", "0x10", "1T", "1_0", "٣", "9" * 5000],
)
def test_any_other_text_is_no_size(text: str) -> None:
    with pytest.raises(ValueError, match="is not a size"):
        parse_size(text)


@pytest.mark.parametrize(
    ("device", "option", "text", "why"),
    [
        ("reference", "state", "0", "not from 4K to 4G"),
        ("reference", "state", "6000", "not a multiple of 4K"),
        ("accelerator", "memory", "0", "not from 4K to 4G"),
        ("accelerator", "memory", "5G", "not from 4K to 4G"),
        ("accelerator", "memory", "-1", "not a size"),
        ("accelerator", "spread", "0", "not from 4K to 4G"),
        ("opaque", "state", "-1", "not a size"),
        ("opaque", "state", "5G", "not from 0 to 4G"),
        ("opaque", "section", "4K", "not from 8K to 1G"),
        ("opaque", "section", "2G", "not from 8K to 1G"),
        ("opaque", "section", "9000", "not a multiple of 4K"),
        ("serial", "ports", "0", "1 or 2"),
        ("serial", "ports", "3", "1 or 2"),
        ("serial", "ports", "two", "1 or 2"),
        ("serial", "data-section", "mappped", "trapped, mapped, split"),
    ],
)
def test_an_impossible_option_is_refused_with_what_is_possible(
    device: str, option: str, text: str, why: str
) -> None:
    with pytest.raises(ValueError, match=why):
        BUILTIN[device].options[option].parse(text)


@pytest.mark.parametrize(("device", "option"), EVERY_OPTION)
def test_every_option_says_what_it_is(device: str, option: str) -> None:
    assert BUILTIN[device].summary
    assert BUILTIN[device].options[option].summary
