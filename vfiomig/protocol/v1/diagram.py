"""The transition table as a Mermaid state diagram and as Markdown.

Nothing is written here: specs/v1/README.md shows both, and a test compares it with
them.  To change the picture, change ``ARCS`` and run
``python tests/unit/protocol/v1/test_diagram.py``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from vfiomig.protocol.v1.states import ARCS, DEFAULT_STATE, ArcClass, state_name

if TYPE_CHECKING:
    from collections.abc import Iterator

# Mermaid's state diagrams know one kind of line, so a label says whether the header
# draws the arc.  What is refused is not drawn.
_DRAWN: Final = (ArcClass.REQ, ArcClass.EXP, ArcClass.OPT)


def mermaid() -> str:
    """Return the source of the diagram, one arc a line."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    yield "stateDiagram-v2"
    yield f"    [*] --> {DEFAULT_STATE.name}: open"
    for arc_class in _DRAWN:
        for arc in ARCS:
            if arc.arc_class is arc_class:
                source, target = state_name(arc.source), state_name(arc.target)
                yield f"    {source} --> {target}: {arc_class.name}"
    yield f"    ERROR --> {DEFAULT_STATE.name}: VFIO_DEVICE_RESET"


def table() -> str:
    """Return the 8x8 table in Markdown: rows are from, columns are to."""
    values = range(8)
    head = "| from / to | " + " | ".join(map(_title, values)) + " |"
    rule = "|---" * 9 + "|"
    classes = {(arc.source, arc.target): arc.arc_class.name for arc in ARCS}
    rows = (
        f"| **{_title(source)}** | "
        + " | ".join(classes[source, target] for target in values)
        + " |"
        for source in values
    )
    return "\n".join((head, rule, *rows)) + "\n"


def _title(value: int) -> str:
    name = state_name(value)
    return name if name.endswith("b") else f"{value:03b} {name}"
