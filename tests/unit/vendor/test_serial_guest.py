"""The serial card as a guest has it: through its BARs, with real interrupts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.unit.vendor.guest_8250 import (
    DR,
    IER,
    IIR,
    LCR,
    LSR,
    MCR,
    MSR,
    OE,
    RX,
    SCR,
    TEMT,
    THRE,
    THRI,
    TX,
    Board,
    Guest,
)
from vfiomig.vendor.pci_reference import PciReferenceDriver
from vfiomig.vendor.serial import SerialModel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    MakeBoard = Callable[..., Board]

RESET = 0x3B6F
STOP, RUNNING, SAVING, RESUMING = 0, 1, 2, 4
BASE = 9 << 40
LINES = b"".join(b"line %d of the guest\n" % number for number in range(40))


@pytest.fixture
def make_board() -> Iterator[MakeBoard]:
    boards: list[Board] = []

    def make(**options: Any) -> Board:
        model = SerialModel(**options)
        driver = PciReferenceDriver(model, section=4096, data_section="trapped")
        boards.append(Board(driver))
        return boards[-1]

    yield make
    for board in boards:
        board.close()


@pytest.fixture
def guest(make_board: MakeBoard) -> Guest:
    return started(make_board())


def started(board: Board) -> Guest:
    """Return a guest that has both ports open."""
    guest = Guest(board)
    for port in guest.ports:
        assert port.probe() == "16550A"
        assert port.start() == []
    return guest


def model_of(board: Board) -> SerialModel:
    assert isinstance(board.driver, PciReferenceDriver)
    assert isinstance(board.driver.model, SerialModel)
    return board.driver.model


def snapshot_of(board: Board) -> bytes:
    return bytes(model_of(board).snapshot())


def enter(board: Board, state: int) -> None:
    board.fd.pwrite(state.to_bytes(4, "little"), BASE)


def register(board: Board, place: int) -> int:
    return int.from_bytes(board.fd.pread(8, BASE + place), "little")


def migrate(guest: Guest, destination: Board) -> None:
    """Stop a guest and let it go on at the destination, with what was in its card."""
    source = guest.board
    enter(source, STOP)
    stopped = snapshot_of(source)
    enter(source, SAVING)
    enter(destination, RESUMING)
    while register(source, 8):
        place, size = register(source, 16), register(source, 24)
        data = source.fd.pread(size, BASE + place)
        destination.fd.pwrite(data, BASE + register(destination, 16))
        destination.fd.pwrite(size.to_bytes(8, "little"), BASE + 24)
    enter(source, STOP)
    enter(destination, RUNNING)
    assert snapshot_of(destination) == stopped
    guest.board = destination


# -- the identity ----------------------------------------------------------------------


def test_it_is_the_card_that_8250_pci_takes(make_board: MakeBoard) -> None:
    for ports in (1, 2):
        config = make_board(ports=ports).fd.pread(64, 7 << 40)
        assert config[0:4] == config[0x2C:0x30] == bytes.fromhex("48435332")
        assert config[9:12] == bytes.fromhex("020007")
        assert config[0x3D] == 1
        bars = [config[at : at + 4] for at in range(0x10, 0x28, 4)]
        assert bars == [b"\x01\0\0\0"] * ports + [bytes(4)] * (6 - ports)


# -- the registers ---------------------------------------------------------------------


def test_both_ports_are_found_and_have_no_bugs(guest: Guest) -> None:
    for port in guest.ports:
        port.put(SCR, 0x5A)
        assert port.get(SCR) == 0x5A
        assert port.get(LSR) == THRE | TEMT


def test_a_wide_access_reaches_register_by_register(guest: Guest) -> None:
    one, two = guest.ports
    assert guest.board.fd.pwrite(bytes([0x03, 0x0B]), LCR) == 2  # LCR, MCR
    assert (one.get(LCR), one.get(MCR)) == (0x03, 0x0B)
    assert len(guest.board.fd.pread(8, 0)) == 8
    assert two.get(MSR) & 0xF0 == 0x10 | 0x20 | 0x80


def test_what_one_port_sends_the_other_one_has(make_board: MakeBoard) -> None:
    one, two = Guest(make_board()).ports
    one.put(LCR, 3)
    one.put(TX, 0x41)
    assert two.get(LSR) & DR
    assert two.get(RX) == 0x41
    assert not two.get(LSR) & DR


@pytest.mark.parametrize("ports", [1, 2])
def test_a_guest_in_loop_back_reads_what_it_wrote(
    make_board: MakeBoard, ports: int
) -> None:
    board = make_board(ports=ports)
    one = Guest(board).ports[0]
    one.put(LCR, 3)
    one.put(MCR, 0x10)
    one.put(TX, 0x33)
    assert one.get(RX) == 0x33
    assert model_of(board).ports[0].delivered == 0


# -- interrupts ------------------------------------------------------------------------


def test_a_line_is_sent_by_interrupt_and_read_at_the_other_end(guest: Guest) -> None:
    one, two = guest.ports
    one.send(b"hello\n")
    assert guest.serve() > 0
    assert two.read == b"hello\n"
    assert guest.serve() == 0


def test_both_directions_at_once_lose_nothing(guest: Guest) -> None:
    one, two = guest.ports
    one.send(LINES)
    two.send(LINES[::-1])
    guest.serve()
    assert bytes(two.read) == LINES
    assert bytes(one.read) == LINES[::-1]
    assert one.overruns == two.overruns == 0


def test_an_end_that_is_not_open_does_not_hold_up_the_other(
    make_board: MakeBoard,
) -> None:
    guest = Guest(make_board())
    one = guest.ports[0]
    one.start()
    one.send(LINES)
    guest.serve()
    assert not one.queue
    one.print(b"and this")
    assert model_of(guest.board).ports[0].delivered == len(LINES) + 8


def test_a_console_waits_for_each_byte_and_the_other_end_still_has_them(
    guest: Guest,
) -> None:
    one, two = guest.ports
    one.print(b"eight by")
    guest.serve()
    one.print(b"te")
    guest.serve()
    assert two.read == b"eight byte"


def test_a_poll_does_not_push_a_byte_into_a_full_receiver(guest: Guest) -> None:
    one, two = guest.ports
    for byte in range(18):
        one.put(TX, byte)
        for _ in range(3):
            one.get(LSR)
    assert not two.get(LSR) & OE
    assert [two.get(RX) for _ in range(18)] == list(range(18))


def test_a_byte_below_the_trigger_level_comes_by_timeout(guest: Guest) -> None:
    one, two = guest.ports
    one.print(b"x")
    assert two.get(IIR) & 0x0F == 0x0C
    guest.serve()
    assert two.read == b"x"


def test_the_transmitter_asks_again_whenever_it_is_enabled(guest: Guest) -> None:
    one = guest.ports[0]
    for _ in range(3):
        one.put(IER, THRI)
        assert one.get(IIR) & 0x0F == 2
        assert one.get(IIR) & 0x0F == 1  # reading it was the acknowledgement
        one.put(IER, 0)


def test_an_interrupt_that_was_not_handled_comes_again(guest: Guest) -> None:
    guest.ports[0].put(IER, THRI)
    for _ in range(3):
        assert guest.board.has_fired()
        assert not guest.board.has_fired()
        guest.board.unmask()
    guest.ports[0].get(IIR)
    assert guest.board.has_fired()  # of the last unmasking, and it was too late
    guest.board.unmask()
    assert not guest.board.has_fired()


# -- the built-in driver ---------------------------------------------------------------


def test_until_a_guest_comes_there_is_traffic_and_no_interrupt(
    make_board: MakeBoard,
) -> None:
    board = make_board()
    before = snapshot_of(board)
    model_of(board).work(50)
    assert snapshot_of(board) != before
    assert not board.has_fired()


def test_once_a_guest_came_the_card_is_his_until_it_is_reset(guest: Guest) -> None:
    before = snapshot_of(guest.board)
    model_of(guest.board).work(100)
    assert snapshot_of(guest.board) == before
    guest.board.fd.ioctl(RESET)
    assert not any(snapshot_of(guest.board))
    model_of(guest.board).work(1)
    assert any(snapshot_of(guest.board))


# -- migration -------------------------------------------------------------------------


def under_way(board: Board) -> int:
    """Count the bytes that were sent and have not left."""
    states = [uart.state for uart in model_of(board).uarts]
    return sum(state.in_flight + state.transmit.count for state in states)


def test_a_stopped_card_neither_answers_nor_changes(guest: Guest) -> None:
    one = guest.ports[0]
    one.send(LINES)
    enter(guest.board, STOP)
    before = snapshot_of(guest.board)
    assert guest.board.fd.pread(8, 0) == b"\xff" * 8
    one.put(TX, 1)
    model_of(guest.board).work(5)
    assert snapshot_of(guest.board) == before


class Traveller:
    """Moves a guest to and fro between its board and another, every few accesses."""

    def __init__(self, guest: Guest, other: Board, every: int) -> None:
        self._guest, self._other, self._every = guest, other, every
        self._accesses = 0
        self.journeys = 0
        self.most_under_way = 0

    def travel(self) -> None:
        self._accesses += 1
        if self._accesses % self._every == 0:
            left = self._guest.board
            self.most_under_way = max(self.most_under_way, under_way(left))
            migrate(self._guest, self._other)
            self._other = left
            self.journeys += 1


@pytest.mark.parametrize("every", [1, 2, 3, 7, 50, 101])
def test_a_guest_that_is_moved_between_accesses_loses_no_byte(
    make_board: MakeBoard, guest: Guest, every: int, tmp_path: Path
) -> None:
    """From A to B, back to A, and so on, in the midst of whatever it does."""
    one, two = guest.ports
    traveller = Traveller(guest, make_board(), every)
    guest.before_access = traveller.travel
    text = LINES[: 20 * every + 100]
    one.send(text)
    two.send(text[::-1])
    guest.serve()
    assert traveller.journeys > 10
    assert traveller.most_under_way > 0
    assert bytes(two.read) == text
    assert bytes(one.read) == text[::-1]
    assert one.overruns == two.overruns == 0
    counts = [port.delivered for port in model_of(guest.board).ports]
    assert counts == [len(text)] * 2


def test_an_interrupt_that_waits_is_raised_at_the_destination(
    make_board: MakeBoard, guest: Guest
) -> None:
    guest.ports[0].send(b"x")
    assert guest.board.has_fired()  # and this machine's is lost with it
    migrate(guest, make_board())
    assert guest.serve() > 0
    assert guest.ports[1].read == b"x"


def test_a_guest_that_goes_on_is_interrupted_once_in_any_case(
    make_board: MakeBoard, guest: Guest
) -> None:
    """QEMU may hold the line high, and await an interrupt to let go of it."""
    guest.serve()
    migrate(guest, make_board())
    assert guest.board.has_fired()
    guest.board.unmask()
    assert not guest.board.has_fired()


def test_what_was_delivered_is_logged_in_order_by_whoever_runs(
    make_board: MakeBoard, tmp_path: Path
) -> None:
    log = str(tmp_path / "line")
    guest = started(make_board(log=log))
    traveller = Traveller(guest, make_board(log=log), 97)
    guest.before_access = traveller.travel
    guest.ports[0].send(LINES)
    guest.ports[1].send(b"back")
    guest.serve()
    assert traveller.journeys > 10
    assert (tmp_path / "line.0").read_bytes() == LINES
    assert (tmp_path / "line.1").read_bytes() == b"back"


def test_each_of_two_logs_has_its_part(make_board: MakeBoard, tmp_path: Path) -> None:
    guest = started(make_board(log=str(tmp_path / "a")))
    guest.ports[0].print(b"here, ")
    migrate(guest, make_board(log=str(tmp_path / "b")))
    guest.ports[0].print(b"there")
    assert (tmp_path / "a.0").read_bytes() == b"here, "
    assert (tmp_path / "b.0").read_bytes() == b"there"
    assert model_of(guest.board).ports[0].delivered == 11


def test_a_log_that_cannot_be_opened_is_said_at_once(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        SerialModel(log=str(tmp_path / "no" / "folder"))
