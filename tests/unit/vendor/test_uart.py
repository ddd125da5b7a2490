"""The 16550 as the PC16550D data sheet documents it."""

from __future__ import annotations

import ctypes
import errno

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vfiomig.vendor.uart import FIFO_SIZE, Uart, UartState, check_state

# Written as numbers, as the data sheet does, and not taken from the module.
RBR = THR = DLL = 0
IER = DLM = 1
IIR = FCR = 2
LCR, MCR, LSR, MSR, SCR = 3, 4, 5, 6, 7

DR, OE, THRE, TEMT = 0x01, 0x02, 0x20, 0x40
NO_INTERRUPT, LINE_STATUS, DATA, TIMEOUT, THR_EMPTY, MODEM = 1, 6, 4, 12, 2, 0


def make_uart() -> Uart:
    """Return a UART with 8-bit words, otherwise as after power-on."""
    uart = Uart(bytearray(ctypes.sizeof(UartState)))
    uart.write(LCR, 0x03)
    return uart


def make_fifo_uart(trigger: int = 0x00) -> Uart:
    uart = make_uart()
    uart.write(FCR, 0x01 | trigger)
    return uart


def interrupt(uart: Uart) -> int:
    return uart.read(IIR) & 0x0F


# -- registers


@pytest.mark.parametrize(
    ("register", "value"),
    [(RBR, 0), (IER, 0), (IIR, 0x01), (LCR, 0), (MCR, 0), (LSR, 0x60), (MSR, 0)],
)
def test_power_on_values_are_those_of_the_reset_table(
    register: int, value: int
) -> None:
    assert Uart(bytearray(ctypes.sizeof(UartState))).read(register) == value


@pytest.mark.parametrize(
    ("register", "kept"),
    [(IER, 0x0F), (LCR, 0xFF), (MCR, 0x1F), (SCR, 0xFF)],
)
def test_a_register_keeps_the_bits_that_it_has(register: int, kept: int) -> None:
    uart = make_uart()
    uart.write(register, 0xFF)
    assert uart.read(register) == kept


@pytest.mark.parametrize("register", [LSR, MSR])
def test_status_registers_are_read_only(register: int) -> None:
    uart = make_uart()
    before = uart.read(register)
    uart.write(register, 0xFF)
    assert uart.read(register) == before


@pytest.mark.parametrize("register", [-1, 8, 9])
def test_there_are_eight_registers(register: int) -> None:
    uart = make_uart()
    with pytest.raises(ValueError, match="no register"):
        uart.read(register)
    with pytest.raises(ValueError, match="no register"):
        uart.write(register, 0)


def test_dlab_puts_the_divisor_where_the_data_and_ier_are() -> None:
    uart = make_uart()
    uart.write(IER, 0x05)
    uart.write(LCR, 0x83)
    uart.write(DLL, 0x34)
    uart.write(DLM, 0x12)
    assert (uart.read(DLL), uart.read(DLM)) == (0x34, 0x12)
    assert uart.state.divisor == 0x1234
    uart.write(LCR, 0x03)
    assert uart.read(IER) == 0x05
    assert uart.read(LSR) == THRE | TEMT
    assert uart.step() is None


def test_half_of_the_divisor_leaves_the_other_half() -> None:
    uart = make_uart()
    uart.write(LCR, 0x80)
    uart.write(DLL, 0xFF)
    uart.write(DLM, 0xEE)
    uart.write(DLL, 0x01)
    assert uart.state.divisor == 0xEE01


# -- transmitting


def test_a_byte_is_in_flight_for_one_character_time() -> None:
    uart = make_uart()
    uart.write(THR, 0x41)
    assert uart.read(LSR) == THRE
    assert uart.step() == 0x41
    assert uart.read(LSR) == THRE | TEMT
    assert uart.step() is None


def test_without_fifos_one_byte_waits_behind_the_one_in_flight() -> None:
    uart = make_uart()
    uart.write(THR, 1)
    uart.write(THR, 2)
    assert uart.read(LSR) == 0
    assert [uart.step(), uart.step(), uart.step()] == [1, 2, None]


def test_without_fifos_a_third_byte_replaces_the_waiting_one() -> None:
    uart = make_uart()
    for byte in (1, 2, 3):
        uart.write(THR, byte)
    assert [uart.step(), uart.step(), uart.step()] == [1, 3, None]


def test_the_transmit_fifo_holds_sixteen_behind_the_one_in_flight() -> None:
    uart = make_fifo_uart()
    for byte in range(20):
        uart.write(THR, byte)
    assert [uart.step() for _ in range(18)] == [*range(17), None]


def test_thre_says_that_the_fifo_is_empty_not_that_it_has_room() -> None:
    uart = make_fifo_uart()
    for byte in range(3):
        uart.write(THR, byte)
    seen = []
    for _ in range(4):
        seen.append(uart.read(LSR))
        uart.step()
    assert seen == [0, 0, THRE, THRE | TEMT]


@pytest.mark.parametrize(
    ("word_length", "sent"), [(0, 0x1F), (1, 0x3F), (2, 0x7F), (3, 0xFF)]
)
def test_a_short_word_has_only_its_low_bits(word_length: int, sent: int) -> None:
    uart = make_uart()
    uart.write(LCR, word_length)
    uart.write(THR, 0xFF)
    assert uart.step() == sent


# -- receiving


def test_a_received_byte_is_read_once() -> None:
    uart = make_uart()
    uart.receive(0x5A)
    assert uart.read(LSR) & DR
    assert uart.read(RBR) == 0x5A
    assert not uart.read(LSR) & DR


def test_without_fifos_an_overrun_loses_the_older_byte() -> None:
    uart = make_uart()
    uart.receive(1)
    uart.receive(2)
    assert uart.read(LSR) & (DR | OE) == DR | OE
    assert uart.read(RBR) == 2


def test_with_fifos_an_overrun_loses_the_newer_byte() -> None:
    uart = make_fifo_uart()
    for byte in range(FIFO_SIZE + 2):
        uart.receive(byte)
    assert uart.read(LSR) & OE
    assert [uart.read(RBR) for _ in range(FIFO_SIZE)] == list(range(FIFO_SIZE))
    assert not uart.read(LSR) & DR


def test_a_full_fifo_alone_is_no_overrun() -> None:
    uart = make_fifo_uart()
    for byte in range(FIFO_SIZE):
        uart.receive(byte)
    assert not uart.read(LSR) & OE


def test_reading_lsr_clears_the_overrun() -> None:
    uart = make_uart()
    uart.receive(1)
    uart.receive(2)
    assert uart.read(LSR) & OE
    assert not uart.read(LSR) & OE


@settings(max_examples=30, deadline=None)
@given(st.lists(st.one_of(st.none(), st.integers(0, 255)), max_size=60))
def test_the_receive_fifo_is_a_queue_of_sixteen(arrivals: list[int | None]) -> None:
    """Each ``None`` reads RBR, each number arrives."""
    uart = make_fifo_uart()
    queue: list[int] = []
    for byte in arrivals:
        if byte is None:
            assert uart.read(RBR) == (queue.pop(0) if queue else 0)
        else:
            uart.receive(byte)
            queue = [*queue, byte][:FIFO_SIZE]
        assert bool(uart.read(LSR) & DR) == bool(queue)


# -- FIFO control


def test_iir_says_whether_there_are_fifos() -> None:
    uart = make_uart()
    assert uart.read(IIR) == 0x01
    uart.write(FCR, 0x01)
    assert uart.read(IIR) == 0xC1
    uart.write(FCR, 0x00)
    assert uart.read(IIR) == 0x01


@pytest.mark.parametrize(("before", "after"), [(0x00, 0x01), (0x01, 0x00)])
def test_changing_the_mode_empties_both_fifos(before: int, after: int) -> None:
    uart = make_uart()
    uart.write(FCR, before)
    uart.receive(1)
    uart.write(THR, 2)
    uart.write(THR, 3)
    uart.write(FCR, after)
    assert uart.read(LSR) == THRE
    assert [uart.step(), uart.step()] == [2, None]


@pytest.mark.parametrize(
    ("reset", "line_status", "sent"), [(0x02, 0, [2, 3]), (0x04, THRE | DR, [2, None])]
)
def test_a_fifo_reset_empties_one_fifo_and_not_the_shift_register(
    reset: int, line_status: int, sent: list[int | None]
) -> None:
    uart = make_fifo_uart()
    uart.receive(1)
    uart.write(THR, 2)
    uart.write(THR, 3)
    uart.write(FCR, 0x01 | reset)
    assert uart.read(LSR) == line_status
    assert [uart.step(), uart.step()] == sent


def test_fcr_bits_without_the_enable_bit_are_not_programmed() -> None:
    uart = make_uart()
    uart.receive(1)
    uart.write(FCR, 0xC6)
    assert uart.read(LSR) & DR
    assert uart.state.fcr == 0


# -- interrupts


def test_nothing_interrupts_unless_it_is_enabled() -> None:
    uart = make_uart()
    uart.receive(1)
    uart.receive(2)
    uart.set_inputs(0x10)
    assert not uart.interrupt_pending
    assert uart.read(IIR) == 0x01


def test_interrupts_come_in_the_order_of_their_priority() -> None:
    uart = make_uart()
    uart.write(IER, 0x0F)
    uart.set_inputs(0x10)
    uart.receive(1)
    uart.receive(2)
    seen = [interrupt(uart)]
    uart.read(LSR)
    seen.append(interrupt(uart))
    uart.read(RBR)
    seen.append(interrupt(uart))  # THRE: reading IIR clears it
    seen.append(interrupt(uart))
    uart.read(MSR)
    seen.append(interrupt(uart))
    assert seen == [LINE_STATUS, DATA, THR_EMPTY, MODEM, NO_INTERRUPT]


def test_looking_at_the_pin_changes_nothing() -> None:
    memory = bytearray(ctypes.sizeof(UartState))
    uart = Uart(memory)
    uart.write(IER, 0x0F)
    before = bytes(memory)
    assert uart.interrupt_pending
    assert uart.interrupt_pending
    assert bytes(memory) == before


@pytest.mark.parametrize(
    ("trigger", "level"), [(0x00, 1), (0x40, 4), (0x80, 8), (0xC0, 14)]
)
def test_data_interrupts_at_the_trigger_level(trigger: int, level: int) -> None:
    uart = make_fifo_uart(trigger)
    uart.write(IER, 0x01)
    for byte in range(level - 1):
        uart.receive(byte)
    assert interrupt(uart) == NO_INTERRUPT
    uart.receive(0)
    assert interrupt(uart) == DATA
    uart.read(RBR)
    assert interrupt(uart) == NO_INTERRUPT


def test_data_below_the_trigger_level_interrupts_after_four_character_times() -> None:
    uart = make_fifo_uart(0x80)
    uart.write(IER, 0x01)
    uart.receive(1)
    uart.receive(2)
    seen = []
    for _ in range(4):
        seen.append(interrupt(uart))
        uart.step()
    assert seen == [NO_INTERRUPT] * 4
    assert interrupt(uart) == TIMEOUT
    uart.read(RBR)
    assert interrupt(uart) == NO_INTERRUPT


def test_an_arriving_byte_starts_the_timeout_again() -> None:
    uart = make_fifo_uart(0x80)
    uart.write(IER, 0x01)
    uart.receive(1)
    for _ in range(4):
        uart.step()
    uart.receive(2)
    assert interrupt(uart) == NO_INTERRUPT


def test_an_empty_fifo_never_times_out() -> None:
    uart = make_fifo_uart()
    uart.write(IER, 0x01)
    for _ in range(6):
        uart.step()
    assert not uart.interrupt_pending
    uart.write(FCR, 0x81)
    uart.receive(1)
    assert not uart.interrupt_pending


def test_enabling_the_thre_interrupt_while_thr_is_empty_raises_it() -> None:
    uart = make_uart()
    uart.write(IER, 0x02)
    assert interrupt(uart) == THR_EMPTY
    assert interrupt(uart) == NO_INTERRUPT
    uart.write(IER, 0x02)
    assert interrupt(uart) == NO_INTERRUPT


def test_the_thre_interrupt_comes_when_the_last_waiting_byte_moves_on() -> None:
    uart = make_fifo_uart()
    for byte in range(2):
        uart.write(THR, byte)
    uart.write(IER, 0x02)
    assert interrupt(uart) == NO_INTERRUPT
    uart.step()
    assert interrupt(uart) == THR_EMPTY


def test_writing_thr_clears_the_thre_interrupt() -> None:
    uart = make_fifo_uart()
    uart.write(THR, 1)
    uart.write(IER, 0x02)
    assert uart.interrupt_pending
    uart.write(THR, 2)
    assert not uart.interrupt_pending


def test_iir_clears_the_thre_interrupt_only_when_it_reports_it() -> None:
    uart = make_uart()
    uart.write(IER, 0x03)
    uart.receive(1)
    assert interrupt(uart) == DATA
    uart.read(RBR)
    assert interrupt(uart) == THR_EMPTY


# -- modem lines and loop-back


def test_a_line_that_changes_shows_with_its_delta_once() -> None:
    uart = make_uart()
    uart.set_inputs(0xB0)
    assert uart.read(MSR) == 0xBB
    assert uart.read(MSR) == 0xB0
    uart.set_inputs(0xA0)
    assert uart.read(MSR) == 0xA1


def test_ring_indicator_counts_its_trailing_edge_only() -> None:
    uart = make_uart()
    uart.set_inputs(0x40)
    assert uart.read(MSR) == 0x40
    uart.set_inputs(0x00)
    assert uart.read(MSR) == 0x04


@pytest.mark.parametrize(
    ("output", "line"), [(0x01, 0x20), (0x02, 0x10), (0x04, 0x40), (0x08, 0x80)]
)
def test_loop_back_connects_the_modem_outputs_to_the_inputs(
    output: int, line: int
) -> None:
    uart = make_uart()
    uart.set_inputs(0xF0 ^ line)
    uart.write(MCR, 0x10 | output)
    assert uart.read(MSR) & 0xF0 == line
    assert uart.outputs == 0
    uart.write(MCR, output)
    assert uart.read(MSR) & 0xF0 == 0xF0 ^ line
    assert uart.outputs == output


def test_in_loop_back_a_byte_arrives_where_it_left() -> None:
    uart = make_fifo_uart()
    uart.write(MCR, 0x10)
    uart.write(THR, 0x77)
    assert not uart.read(LSR) & DR
    assert uart.step() is None
    assert uart.read(LSR) == DR | THRE | TEMT
    assert uart.read(RBR) == 0x77


def test_in_loop_back_the_line_is_not_heard() -> None:
    uart = make_uart()
    uart.write(MCR, 0x10)
    uart.receive(1)
    assert not uart.read(LSR) & DR


def test_loop_back_overruns_like_any_line() -> None:
    uart = make_fifo_uart()
    uart.write(MCR, 0x10)
    for byte in range(17):
        uart.write(THR, byte)
    for _ in range(17):
        uart.step()
    assert uart.read(LSR) & OE


# -- the state


guest = st.lists(
    st.one_of(
        st.tuples(st.just("read"), st.integers(0, 7), st.just(0)),
        st.tuples(st.just("write"), st.integers(0, 7), st.integers(0, 255)),
        st.tuples(st.just("receive"), st.just(0), st.integers(0, 255)),
        st.tuples(st.just("lines"), st.just(0), st.sampled_from([0, 0x50, 0xF0])),
        st.tuples(st.just("step"), st.just(0), st.just(0)),
    ),
    max_size=60,
)


def act(uart: Uart, action: str, register: int, value: int) -> int | None:
    match action:
        case "read":
            return uart.read(register)
        case "write":
            uart.write(register, value)
        case "receive":
            uart.receive(value)
        case "lines":
            uart.set_inputs(value)
        case _:
            return uart.step()
    return None


@settings(max_examples=40, deadline=None)
@given(guest, guest)
def test_the_memory_is_all_that_a_uart_is(
    before: list[tuple[str, int, int]], after: list[tuple[str, int, int]]
) -> None:
    memory = bytearray(ctypes.sizeof(UartState))
    uart = Uart(memory)
    for action in before:
        act(uart, *action)
    twin = Uart(bytearray(memory))
    assert [act(uart, *a) for a in after] == [act(twin, *a) for a in after]


@settings(max_examples=60, deadline=None)
@given(guest)
def test_whatever_a_guest_does_the_state_is_a_possible_one(
    actions: list[tuple[str, int, int]],
) -> None:
    uart = make_uart()
    for action in actions:
        act(uart, *action)
        check_state(uart.state)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("ier", 0x10),
        ("fcr", 0x02),
        ("fcr", 0x11),
        ("fcr", 0xC0),
        ("mcr", 0x20),
        ("inputs", 0x01),
        ("deltas", 0x10),
        ("overrun", 2),
        ("thre_interrupt", 2),
        ("idle", 1),
        ("in_flight", 2),
        ("shift_register", 1),
        ("receive.head", 16),
        ("receive.count", 2),
        ("transmit.head", 255),
        ("transmit.count", 1),
    ],
)
def test_a_state_that_no_uart_can_be_in_is_refused(field: str, value: int) -> None:
    state = UartState()
    check_state(state)
    part, _, name = field.rpartition(".")
    setattr(getattr(state, part) if part else state, name, value)
    with pytest.raises(OSError, match=field) as refused:
        check_state(state)
    assert refused.value.errno == errno.EINVAL
