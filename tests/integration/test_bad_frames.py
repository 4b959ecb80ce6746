"""Bytes that are not the protocol: a typed error, then the end of that connection, and nobody else notices."""

import struct
from random import Random

import cbor2
import pytest

from rocksmq.clients.testing import Broker
from rocksmq.protocol.codec import NO_CORRELATION
from rocksmq.protocol.errors import ErrorCode, UnsupportedVersion
from rocksmq.protocol.operations import CreateChannel, DescribeChannel, Empty, Fetch
from tests.helpers.raw import Raw, frame, hello, request_items
from tests.helpers.raw_bystander import check_text, resident_bytes

FRAME_BYTES_MAX = 8 << 20
HANDSHAKE_BYTES_MAX = 4_096
MEMORY_BYTES = 2 << 20  # what a bad frame may cost, with the noise of measuring
TLS_CLIENT_HELLO = bytes.fromhex("16030100c8010000c40303") + bytes(194)


def body(data: bytes) -> bytes:
    """A frame around any bytes."""
    return struct.pack(">I", len(data)) + data


def nested(depth: int) -> bytes:
    return b"\x81" * depth + b"\x00"


GREETING = request_items(1, hello())
Case = tuple[bytes, *tuple[str, ...]]  # what is sent, and what the error says
BEFORE_HELLO: dict[str, Case] = {
    "4 GB": (b"\xff\xff\xff\xff", "4294967295", "handshake_bytes_max"),
    "too long for a handshake": (struct.pack(">I", HANDSHAKE_BYTES_MAX + 1), "4097", "handshake_bytes_max"),
    "HTTP": (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", "handshake_bytes_max"),
    "TLS": (TLS_CLIENT_HELLO, "handshake_bytes_max"),
    "a request": (frame(request_items(1, DescribeChannel("orders"))), "HELLO"),
    "a ping": (frame(request_items(1, Empty())), "HELLO"),
    "another magic": (frame((1, 1, "Kafka", *GREETING[3:])), "RocksMQ"),
    "a short client id": (frame((*GREETING[:6], b"short", None)), "client_id"),
    "a missing field": (frame(GREETING[:-1]), "fields"),
    "text for a number": (frame((*GREETING[:3], "1", *GREETING[4:])), "version_min"),
}
AFTER_HELLO: dict[str, Case] = {
    "4 GB": (b"\xff\xff\xff\xff", "4294967295", "frame_bytes_max"),
    "too long": (struct.pack(">I", FRAME_BYTES_MAX + 1), "8388609", "frame_bytes_max"),
    "an empty frame": (body(b""), "frame"),
    "not an array": (body(cbor2.dumps({1: 2})), "array"),
    "an empty array": (body(b"\x80"), "operation"),
    "a tag": (body(b"\x82\x02\xc1\x00"), "tags"),
    "a float": (body(cbor2.dumps([2, 1.5])), "floats"),
    "an undefined": (body(b"\x82\x02\xf7"), "simple values"),
    "an indefinite length": (body(b"\x9f\x02\x01\xff"), "indefinite"),
    "too deep": (body(nested(7)), "deeper than 6"),
    "too many items": (body(cbor2.dumps([0] * 4_096)), "4096 CBOR items"),
    "many announced items": (body(b"\x9b" + b"\xff" * 8), "4096 CBOR items"),
    "a long text": (frame(request_items(1, DescribeChannel("x" * 4_097))), "4096 bytes"),
    "too much text": (frame((20, 1, ["x" * 4_096] * 257)), "texts of more than 1048576 bytes"),
    "an announced long string": (body(b"\x81\x5b" + b"\x7f" * 8), "cut off"),
    "a truncated frame": (body(frame(request_items(1, DescribeChannel("orders")))[4:-2]), "cut off"),
    "trailing bytes": (body(frame(request_items(1, DescribeChannel("orders")))[4:] + b"\x00"), "behind the end"),
    "text that is not UTF-8": (body(b"\x83\x06\x01\x61\xff"), "CBOR"),
    "a map with a key twice": (body(b"\x87\x03\x01\x61a\xf6\xa2\x61a\x01\x61a\x02\xf6" + b"\x50" + bytes(16)), "CBOR"),
    "no such operation": (frame((99, 1)), "99"),
    "a negative operation": (frame((-1, 1)), "-1"),
    "correlation id 0": (frame((2, 0)), "correlation id"),
    "a correlation id too large": (frame((2, 1 << 32)), "correlation id"),
    "a negative correlation id": (frame((2, -1)), "correlation id"),
    "a missing field": (frame((6, 1)), "DESCRIBE_CHANNEL", "1"),
    "a field too many": (frame((6, 1, "orders", 1)), "DESCRIBE_CHANNEL"),
    "bytes for text": (frame((6, 1, b"orders")), "channel must be a text"),
    "a negative number": (frame(request_items(1, Fetch("orders", 0, 1, -1, 1, 0))), "max_messages must be an unsigned"),
    "a number of 33 bits": (
        frame(request_items(1, Fetch("orders", 0, 1, 1 << 32, 1, 0))),
        "max_messages must be an unsigned 32-bit",
    ),
    "a number of 65 bits": (frame(request_items(1, Fetch("orders", 0, 1 << 64, 1, 1, 0))), "tags"),
    "true for a number": (frame((13, 1, "orders", 0, True, 1, 1, 0)), "start must be"),
    "no such kind of position": (frame(request_items(1, Fetch("orders", 4, 1, 1, 1, 0))), "start_kind"),
    "a short request id": (frame(request_items(1, CreateChannel("x", None, None, None, b"short"))), "16 bytes"),
    "an owner of two": (frame((3, 1, "x", None, None, ["a", "b"], bytes(16))), "owner"),
    "retention of texts": (frame((3, 1, "x", None, {"max_age": "1"}, None, bytes(16))), "retention"),
    "HELLO again": (frame(request_items(1, hello())), "once"),
}


def refused(raw: Raw, data: bytes, fragments: tuple[str, ...]) -> None:
    """The broker answers ``data`` with a protocol error that belongs to no request, and closes."""
    raw.socket.sendall(data)
    error = raw.error(NO_CORRELATION)
    assert error.code is ErrorCode.PROTOCOL_ERROR
    assert raw.is_closed()
    check_text(error, *fragments)


@pytest.mark.parametrize("case", BEFORE_HELLO)
def test_given_no_hello_when_something_else_comes_then_it_is_refused_and_closed(attacked: Broker, case: str) -> None:
    data, *fragments = BEFORE_HELLO[case]
    with Raw(attacked.address, says_hello=False) as raw:
        refused(raw, data, tuple(fragments))


@pytest.mark.parametrize("case", AFTER_HELLO)
def test_given_a_connection_when_a_frame_is_wrong_then_it_is_refused_and_closed(raw: Raw, case: str) -> None:
    data, *fragments = AFTER_HELLO[case]
    refused(raw, data, tuple(fragments))


@pytest.mark.parametrize("window", [(2, 9), (0, 0), (9, 1)])
def test_given_another_version_when_saying_hello_then_both_windows_are_named(attacked: Broker, window: tuple[int, int]) -> None:
    with Raw(attacked.address, says_hello=False) as raw:
        error = raw.refused(hello()._replace(version_min=window[0], version_max=window[1]))
        assert isinstance(error, UnsupportedVersion)
        check_text(error, "1 to 1", f"{window[0]} to {window[1]}")
        assert raw.is_closed()


def test_given_an_unanswered_request_when_its_correlation_id_is_used_again_then_it_is_refused(raw: Raw) -> None:
    poll = frame(request_items(7, Fetch("orders", 2, 0, 1, 1, 30_000)))
    refused(raw, poll + poll, ("correlation id 7", "in use"))


def test_given_an_answered_request_when_its_correlation_id_is_used_again_then_it_is_answered(raw: Raw) -> None:
    for _ in range(2):
        raw.socket.sendall(frame(request_items(7, Empty())))
        assert raw.receive() == [7, 0]


def test_given_random_bytes_when_sent_before_or_after_hello_then_only_that_connection_ends(attacked: Broker) -> None:
    random = Random(7660)
    for turn in range(300):
        with Raw(attacked.address, says_hello=turn % 2 == 1) as raw:
            garbage = random.randbytes(random.choice((1, 3, 4, 40, 5_000)))
            # A length that fits makes the broker look inside.
            raw.socket.sendall(garbage if turn % 4 < 2 else body(garbage))


def test_given_valid_requests_when_single_bits_are_flipped_then_only_that_connection_may_end(attacked: Broker) -> None:
    random = Random(7660)
    valid = frame(request_items(1, Fetch("orders", 1, 0, 10, 1_000, 0)))
    for _ in range(300):
        damaged = bytearray(valid)
        damaged[random.randrange(4, len(valid))] ^= 1 << random.randrange(8)
        with Raw(attacked.address) as raw:
            raw.socket.sendall(damaged)
            assert raw.receive()[0] in (NO_CORRELATION, *range(1, 1 << 16))


@pytest.mark.parametrize("says_hello", [False, True])
def test_given_a_frame_declared_as_4_gb_when_it_comes_then_memory_does_not_grow(broker: Broker, says_hello: bool) -> None:
    with Raw(broker.address, says_hello=says_hello) as raw:
        before = resident_bytes(broker.pid)
        raw.socket.sendall(b"\xff\xff\xff\xff")
        assert raw.error(NO_CORRELATION).code is ErrorCode.PROTOCOL_ERROR
        assert resident_bytes(broker.pid) - before < MEMORY_BYTES


def test_given_many_frames_declared_as_large_as_allowed_when_they_never_come_then_memory_does_not_grow(
    broker: Broker,
) -> None:
    connections = [Raw(broker.address) for _ in range(100)]
    try:
        before = resident_bytes(broker.pid)
        for raw in connections:
            raw.socket.sendall(struct.pack(">I", FRAME_BYTES_MAX) + bytes(100))
        with broker.client() as mq:
            mq.ping()
        assert resident_bytes(broker.pid) - before < MEMORY_BYTES
    finally:
        for raw in connections:
            raw.close()
