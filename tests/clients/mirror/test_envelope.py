import pytest
from hypothesis import given
from hypothesis import strategies as st

from rocksmq.clients.mirror.envelope import frame_size, headers_of, message_size, origin_of, outgoing, payload_size, plain_size
from rocksmq.protocol.batch import encode_headers

ORIGIN = origin_of("eu", 7, 3)
NAMES = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20)
OURS = ["rocksmq.id", "rocksmq.header64.x", "pulsar.key", "pulsar.event-time"]
HEADERS = st.dictionaries(NAMES | st.sampled_from(OURS), st.binary(max_size=20), max_size=5)


def test_given_text_headers_when_sent_then_they_are_properties_of_the_same_name() -> None:
    found = outgoing(5, ORIGIN, encode_headers({"kind": "grün".encode(), "raw": b"\xff", "rocksmq.x": b"y"}))
    assert found.properties == {
        "kind": "grün",
        "rocksmq.header64.raw": "/w==",
        "rocksmq.header64.rocksmq.x": "eQ==",
        "rocksmq.id": "5",
        "rocksmq.mirror": "eu#7@3",
    }
    assert found.key is None


@pytest.mark.parametrize(("value", "key"), [(b"k1", "k1"), (b"\xff", None), (b"", None)])
def test_given_a_key_header_when_sent_then_its_text_is_the_key(value: bytes, key: str | None) -> None:
    assert outgoing(5, ORIGIN, encode_headers({"user": value}), "user").key == key


def test_given_headers_that_nobody_can_read_when_sent_then_they_go_as_they_are() -> None:
    found = outgoing(5, ORIGIN, b"\x01\x02")
    assert found.properties == {"rocksmq.headers64": "AQI=", "rocksmq.id": "5", "rocksmq.mirror": "eu#7@3"}


@given(headers=HEADERS)
def test_given_any_headers_when_there_and_back_then_they_are_the_same_beside_our_marks(headers: dict[str, bytes]) -> None:
    found = headers_of(outgoing(5, ORIGIN, encode_headers(headers)).properties, 9, "k")
    marks = {"rocksmq.id": b"5", "rocksmq.mirror": b"eu#7@3", "pulsar.event-time": b"9", "pulsar.key": b"k"}
    assert found == marks | headers


def test_given_time_and_key_of_pulsar_when_it_comes_back_then_they_are_headers() -> None:
    assert headers_of({"a": "b"}, 1_700_000_000_000, "k") == {
        "a": b"b",
        "pulsar.event-time": b"1700000000000",
        "pulsar.key": b"k",
    }
    assert headers_of({"rocksmq.header64.a": "no base64!"}, 0, "") == {"rocksmq.header64.a": b"no base64!"}


@given(message_id=st.integers(1, (1 << 63) - 1), payload_bytes=st.integers(0, 1 << 24))
def test_given_one_without_headers_when_measured_then_as_its_envelope(message_id: int, payload_bytes: int) -> None:
    envelope = outgoing(message_id, ORIGIN, b"")
    assert plain_size(message_id, ORIGIN) == envelope.size
    size = frame_size(message_id) + envelope.size + payload_size(payload_bytes) + 1
    assert message_size(message_id, ORIGIN, payload_bytes, b"", None) == size
