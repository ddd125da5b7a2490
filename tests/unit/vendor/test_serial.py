"""The serial card: its wiring, its guest's driver, and what it refuses to load."""

from __future__ import annotations

import errno

import pytest

from vfiomig.vendor.serial import PortState, SerialModel

HEADER = 16
ROOM = 4096 + 64

both_cards = pytest.mark.parametrize("ports", [1, 2])


def payload_of(model: SerialModel) -> bytearray:
    """Return the one payload of a card that has stopped."""
    payload = bytearray(ROOM)
    model.begin_saving()
    filled = model.save(memoryview(payload), running=False)
    assert model.pending(running=False) == 0
    return payload[:filled]


def load(model: SerialModel, payload: bytearray) -> None:
    model.begin_loading()
    model.load(memoryview(payload))
    model.finish_loading()


def worked(ports: int, amount: int) -> SerialModel:
    model = SerialModel(ports)
    model.work(amount)
    return model


@both_cards
def test_a_port_has_tens_of_bytes_and_they_all_wait_for_the_stop(ports: int) -> None:
    model = worked(ports, 5)
    model.begin_saving()
    assert model.pending(running=True) == 0
    assert model.pending(running=False) == len(model.snapshot()) < 100 * ports


@both_cards
def test_after_most_amounts_bytes_are_on_their_way(ports: int) -> None:
    model = SerialModel(ports)
    waiting = flying = 0
    for _ in range(100):
        model.work(1)
        states = [uart.state for uart in model.uarts]
        waiting += all(state.receive.count for state in states)
        flying += all(state.in_flight for state in states)
    assert waiting > 80
    assert flying > 80


@both_cards
def test_every_byte_arrives_in_order_and_none_is_lost(ports: int) -> None:
    model = worked(ports, 600)
    for port, uart in zip(model.ports, model.uarts, strict=True):
        assert port.mismatches == 0
        assert uart.state.overrun == 0
        # The numbers go round: a byte has 256, and more than that were read.
        assert 550 < port.received <= 600


@both_cards
def test_what_a_port_sent_is_on_the_way_or_at_the_other_end(ports: int) -> None:
    model = worked(ports, 130)
    for index, (port, uart) in enumerate(zip(model.ports, model.uarts, strict=True)):
        peer, end = model.ports[index - 1], model.uarts[index - 1].state
        on_the_way = uart.state.transmit.count + uart.state.in_flight
        assert port.sent == on_the_way + end.receive.count + peer.received


@both_cards
def test_a_byte_that_was_lost_shows_for_ever(ports: int) -> None:
    model = worked(ports, 20)
    model.uarts[0].read(0)
    model.work(40)
    assert model.ports[0].mismatches > 0


@both_cards
def test_the_guest_goes_on_at_the_destination_without_a_byte_missing(
    ports: int,
) -> None:
    source, destination = worked(ports, 123), worked(ports, 7)
    load(destination, payload_of(source))
    destination.work(300)
    for port in destination.ports:
        assert port.mismatches == 0
        assert port.received > 400


def test_two_ports_are_joined_by_a_null_modem() -> None:
    model = worked(2, 1)
    for uart in model.uarts:
        assert uart.read(6) & 0xF0 == 0x10 | 0x20 | 0x80
    model.uarts[0].write(0, 0x41)
    assert not model.uarts[0].read(4) & 0x10


@pytest.mark.parametrize(("writer", "reader"), [(0, 1), (1, 0)])
def test_what_one_port_sends_the_other_one_reads(writer: int, reader: int) -> None:
    model = SerialModel(2)
    for uart in model.uarts:
        uart.write(3, 0x03)  # set up, as far as the guest's driver can tell
    model.uarts[writer].write(0, 0x41)
    model.work(1)
    assert model.uarts[reader].read(0) == 0x41
    assert not model.uarts[writer].read(5) & 0x01


def test_a_single_port_is_looped_back() -> None:
    assert worked(1, 1).uarts[0].read(4) & 0x10


@pytest.mark.parametrize("ports", [-1, 0, 3])
def test_a_card_has_one_or_two_ports(ports: int) -> None:
    with pytest.raises(ValueError, match="one or two"):
        SerialModel(ports)


@both_cards
@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("guest", 2),
        ("uart.ier", 0xFF),
        ("uart.fcr", 0x31),
        ("uart.mcr", 0xFF),
        ("uart.idle", 5),
        ("uart.in_flight", 3),
        ("uart.receive.head", 16),
        ("uart.receive.count", 17),
        ("uart.transmit.head", 200),
        ("uart.transmit.count", 17),
    ],
)
def test_an_impossible_field_of_any_port_is_refused(
    ports: int, field: str, value: int
) -> None:
    payload = payload_of(worked(ports, 20))
    last = len(payload) - len(SerialModel(1).snapshot())
    *parts, name = field.split(".")
    part: object = PortState.from_buffer(payload, last)
    for step in parts:
        part = getattr(part, step)
    setattr(part, name, value)
    destination = worked(ports, 3)
    before = bytes(destination.snapshot())
    with pytest.raises(OSError, match=name) as refused:
        load(destination, payload)
    assert refused.value.errno == errno.EINVAL
    assert bytes(destination.snapshot()) == before


def test_a_card_with_another_number_of_ports_is_refused() -> None:
    for ports, others in ((1, 2), (2, 1)):
        with pytest.raises(OSError, match="bytes") as refused:
            load(SerialModel(ports), payload_of(worked(others, 9)))
        assert refused.value.errno == errno.EINVAL
