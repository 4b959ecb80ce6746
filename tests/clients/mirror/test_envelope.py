import pytest
from hypothesis import given
from hypothesis import strategies as st

from rocksmq.clients.mirror import envelope
from rocksmq.clients.mirror.envelope import headers_of, origin_of, outgoing, plain_size
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


def test_given_the_size_of_one_without_headers_when_compared_then_it_is_not_below() -> None:
    assert plain_size(ORIGIN) >= outgoing((1 << 63) - 1, ORIGIN, b"").size
    assert envelope.PROPERTY_BYTES > 0
