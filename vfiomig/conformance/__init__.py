"""Judging what crosses the boundary: targets, conversations, rules, findings."""

from vfiomig.conformance.target import (
    Target,
    TargetError,
    TargetStartError,
    load_target,
)

__all__ = ["Target", "TargetError", "TargetStartError", "load_target"]
