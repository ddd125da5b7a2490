"""Who watches a migration, and when it is told.

The moments are chosen so that whoever holds the bench can do its part exactly there:
take the source's snapshot on entering STOP, the destination's within the write that
enters RUNNING, or arm a fault.  Nothing here changes the run by itself.
"""

from __future__ import annotations

from typing import Protocol


class Observer(Protocol):
    """What is told of the run; times are virtual nanoseconds."""

    def round_began(self, number: int, pending_bytes: int) -> None:
        """Tell that pre-copy round ``number``, counted from 1, begins."""

    def buffer_sent(self, device: str, size: int, now: int) -> None:
        """Tell that a buffer has gone into the stream."""

    def pages_sent(self, count: int, now: int) -> None:
        """Tell that pages of RAM have gone, by the stream or beside it."""

    def source_stopped(self, device: str) -> None:
        """Tell that the write that stops a source device has returned."""

    def source_stops_copying(self) -> None:
        """Tell that every source device is stopped, and stop-and-copy begins."""

    def source_will_continue(self, device: str) -> None:
        """Tell that a source device will be set RUNNING again after a failure."""

    def source_continues(self, device: str) -> None:
        """Tell that the write that sets it RUNNING has returned."""

    def buffer_will_load(self, device: str, number: int, size: int) -> None:
        """Tell that the destination begins with buffer ``number``, counted from 0."""

    def destination_will_run(self, device: str) -> None:
        """Tell that all of a device's data was given to the destination."""

    def destination_runs(self, device: str) -> None:
        """Tell that the write that enters RUNNING has returned."""

    def state_changed(self, party: str, device: str, state: str, now: int) -> None:
        """Tell of a device_state that was reached."""


class Unobserved:
    """An `Observer` that looks away."""

    def round_began(self, number: int, pending_bytes: int) -> None:
        """Look away."""

    def buffer_sent(self, device: str, size: int, now: int) -> None:
        """Look away."""

    def pages_sent(self, count: int, now: int) -> None:
        """Look away."""

    def source_stopped(self, device: str) -> None:
        """Look away."""

    def source_stops_copying(self) -> None:
        """Look away."""

    def source_will_continue(self, device: str) -> None:
        """Look away."""

    def source_continues(self, device: str) -> None:
        """Look away."""

    def buffer_will_load(self, device: str, number: int, size: int) -> None:
        """Look away."""

    def destination_will_run(self, device: str) -> None:
        """Look away."""

    def destination_runs(self, device: str) -> None:
        """Look away."""

    def state_changed(self, party: str, device: str, state: str, now: int) -> None:
        """Look away."""


class Guest(Protocol):
    """The guest at the source, whose traffic keeps the devices at work."""

    def run_until(self, now: int) -> None:
        """Do what a running guest does until the virtual moment ``now``."""


class IdleGuest:
    """A guest that leaves its devices alone."""

    def run_until(self, now: int) -> None:
        """Do nothing."""
