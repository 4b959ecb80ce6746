"""TLS without I/O: whole, byte by byte, cut off, and nonsense."""

import ssl
from collections.abc import Iterator

import pytest
import trustme
from hypothesis import given, settings
from hypothesis import strategies as st

from rocksmq.protocol.cbor import Buffer
from rocksmq.protocol.tls import RECORD_BYTES, TlsStream

AUTHORITY = trustme.CA()
SERVER = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
AUTHORITY.issue_cert("127.0.0.1").configure_cert(SERVER)  # pyright: ignore[reportUnknownMemberType]
CLIENT = ssl.create_default_context()
AUTHORITY.configure_trust(CLIENT)  # pyright: ignore[reportUnknownMemberType]


def pair() -> tuple[TlsStream, TlsStream]:
    return TlsStream(SERVER), TlsStream(CLIENT, "127.0.0.1")


def carry(sender: TlsStream, receiver: TlsStream, *buffers: Buffer, at_once: int = 1 << 20) -> int:
    """Everything that ``sender`` has to say; how many bytes that was."""
    data = b"".join(sender.sealed(buffers))
    for begin in range(0, len(data), at_once):
        receiver.received(data[begin : begin + at_once])
        if at_once < len(data):
            receiver.advance()
    return len(data)


def shake_hands(server: TlsStream, client: TlsStream, at_once: int = 1 << 20) -> None:
    while carry(client, server, at_once=at_once) + carry(server, client, at_once=at_once):
        pass


def had(stream: TlsStream, space_bytes: int = 1 << 16) -> Iterator[bytes]:
    """What can be read now; b"" for the end."""
    space = memoryview(bytearray(space_bytes))
    while (count := stream.read_into(space)) is not None:
        yield bytes(space[:count])
        if not count:
            return


@pytest.mark.parametrize("at_once", [1, 7, 1 << 20])
def test_given_two_sides_when_they_shake_hands_then_both_can_speak(at_once: int) -> None:
    server, client = pair()
    assert not server.is_established
    assert list(had(server)) == []
    shake_hands(server, client, at_once)
    assert server.is_established
    assert client.is_established
    carry(client, server, b"one", b"two", at_once=at_once)
    carry(server, client, b"three", at_once=at_once)
    assert b"".join(had(server)) == b"onetwo"
    assert b"".join(had(client)) == b"three"


def test_given_what_is_sent_before_the_handshake_then_it_follows_it() -> None:
    server, client = pair()
    carry(client, server, b"early")
    shake_hands(server, client)
    assert list(had(server)) == [b"early"]


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.integers(0, 3 * RECORD_BYTES), max_size=20),
    st.integers(1, 2 * RECORD_BYTES),
    st.integers(1, 3 * RECORD_BYTES),
)
def test_given_buffers_of_any_sizes_then_their_bytes_come_in_order(sizes: list[int], at_once: int, space_bytes: int) -> None:
    server, client = pair()
    shake_hands(server, client)
    buffers = [bytes([index]) * size for index, size in enumerate(sizes)]
    data, found = b"".join(server.sealed(buffers)), bytearray()
    for begin in range(0, len(data), at_once):
        client.received(data[begin : begin + at_once])
        found += b"".join(had(client, space_bytes))
    assert found == b"".join(buffers)


def test_given_many_small_buffers_when_sealed_then_they_share_records() -> None:
    server, client = pair()
    shake_hands(server, client)
    assert len(b"".join(server.sealed([b"x"] * 10_000))) < 10_200


def test_given_no_more_to_come_when_read_then_it_is_the_end_said_or_not() -> None:
    for says_so in (True, False):
        server, client = pair()
        shake_hands(server, client)
        data = b"".join(client.sealed([b"last"]))
        server.received(data)
        if says_so:
            server.received(b"".join(client.ended()))
        else:
            server.received(b"")
        assert list(had(server)) == [b"last", b""]
        assert list(had(server)) == [b""]


def test_given_an_end_in_the_handshake_then_it_is_an_end() -> None:
    server, client = pair()
    server.received(b"".join(client.sealed([]))[:20])
    server.received(b"")
    with pytest.raises(ssl.SSLError):
        server.advance()


@pytest.mark.parametrize(
    "data", [b"\x00\x00\x00\x10" + bytes(16), b"GET / HTTP/1.1\r\n\r\n", b"\xff" * 100, b"\x16\x03\x01\xff\xff"]
)
def test_given_what_is_no_tls_when_received_then_it_is_an_error_or_too_little(data: bytes) -> None:
    server, _ = pair()
    server.received(data)
    try:
        assert not server.advance()
    except ssl.SSLError:
        with pytest.raises(ssl.SSLError):
            server.sealed([b"an answer"])
    assert sum(map(len, server.taken())) < 100


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_given_any_bytes_when_received_then_nothing_but_an_error_of_tls_is_raised(data: st.DataObject) -> None:
    server, client = pair()
    if data.draw(st.booleans()):
        shake_hands(server, client)
    valid = b"".join(client.sealed([b"x" * 100]))
    cut = data.draw(st.integers(0, len(valid)))
    garbage = data.draw(st.binary(max_size=600))
    server.received(valid[:cut] + garbage)
    try:
        for part in had(server):
            assert part in (b"x" * 100, b"")
    except ssl.SSLError:
        pass


def test_given_a_name_that_is_not_in_the_certificate_when_a_client_shakes_hands_then_it_refuses() -> None:
    server, client = TlsStream(SERVER), TlsStream(CLIENT, "127.0.0.2")
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(server, client)
