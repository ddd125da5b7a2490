"""A report as one self-contained page, made of a template.

Rule 1: a template lays out and does not compute; what it is given is text and numbers.
It escapes all of it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import jinja2

if TYPE_CHECKING:
    from collections.abc import Mapping

_TEMPLATES: Final = Path(__file__).parent / "templates"


def page_of(template: str, facts: Mapping[str, object]) -> bytes:
    """Return the page that a template makes of the facts, in UTF-8.

    Raises:
        jinja2.UndefinedError: the template wants a fact that is not there.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template(template).render(facts).encode()
