"""Names that nobody gave."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vfiomig.frontends.device_names import LONGEST_NAME, derived_names


@pytest.mark.parametrize(
    ("target", "name"),
    [
        ("serial", "serial"),
        ("accelerator,memory=1G,data-section=split", "accelerator"),
        ("my/drivers.py:Gpu", "Gpu"),
        ("my_package.drivers:make_gpu", "make_gpu"),
        ("vfio-user:/run/gpu.sock", "gpu.sock"),
        ("vfio-user,bench=a/b.toml:/run/gpu.sock", "gpu.sock"),
        ("vfio-user:./bin/my-server -x 3 --at={socket}", "my-server"),
        ("vfio-user:", "device"),
        ("my driver!.py:Gerät", "Ger-t"),
        ("::", "device"),
    ],
)
def test_a_name_is_what_the_target_ends_in(target: str, name: str) -> None:
    assert list(derived_names([target], taken=())) == [name]


def test_a_name_that_is_taken_gets_a_number() -> None:
    names = derived_names(["serial"] * 3, taken=["serial-2"])
    assert list(names) == ["serial", "serial-3", "serial-4"]


TARGETS = st.text(st.sampled_from("ab-,:/.é "), max_size=80)


@given(st.lists(TARGETS, max_size=6), st.sets(st.sampled_from(["device", "a", "b"])))
def test_names_are_valid_and_differ(targets: list[str], taken: set[str]) -> None:
    names = list(derived_names(targets, taken=taken))
    assert len({*names, *taken}) == len(targets) + len(taken)
    valid = re.compile(rf"[A-Za-z0-9._-]{{1,{LONGEST_NAME}}}")
    assert all(valid.fullmatch(name) for name in names)
