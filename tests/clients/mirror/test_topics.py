"""What a chunk is in Pulsar: one entry, as large as the mirror takes it to be."""

import queue
import secrets

import pytest

from rocksmq.clients.mirror.course import HEAD_BYTES, Chunk, Counts, Course, Room, Rules
from rocksmq.clients.mirror.envelope import message_size
from rocksmq.clients.mirror.topics import Topic
from rocksmq.clients.pulsar.client import connect
from rocksmq.clients.pulsar.places import Place
from rocksmq.protocol.batch import encode_headers
from tests.helpers.pulsar import Pulsar

ORIGIN = "pulsar#7@1700000000000"
FIRST_ID = 1_700_000_000_000 << 18
HEAD_DIFFERS_BYTES = 3  # at the most, from chunk to chunk: by the varints of two sizes
HEADERS = [
    {},
    {"kind": b"order", "user": b"7"},
    {f"h{number:02}": b"" for number in range(64)},
    {"raw": b"\xff" * 100, "user": "ü".encode() * 80, "rocksmq.id": b"5"},
    {"n" * 200: b"v" * 20_000},
]
CHUNKS = [
    [(b"x", 0)],
    [(b"x", 0)] * 1_200,
    [(b"y" * 127, 1), (b"y" * 128, 0)],
    [(b"", 2)] * 50,
    [(b"z" * 16_384, 3), (b"z" * 16_383, 3), (b"a", 4)],
    [(b"l" * 3_000_000, 1)],
]


def chunk_of(messages: list[tuple[bytes, int]], first_id: int) -> Chunk:
    """Of messages, by payload and number of the headers, all at once."""
    course = Course(Rules(ORIGIN, 5 << 20, "stop", "user"), Room(1 << 30), Counts())
    course.opened(1)
    course.fetched(1, [first_id], [bytes(4_000_000)], None, first_id + 1)
    proof = course.next_chunk()
    assert proof is not None
    course.acknowledged(proof.number, True)
    ids = range(first_id + 1, first_id + 1 + len(messages))
    payloads, headers = [payload for payload, _ in messages], [encode_headers(HEADERS[number]) for _, number in messages]
    course.fetched(first_id + 1, ids, payloads, headers if any(headers) else None, ids[-1] + 1)
    chunk = course.next_chunk()
    assert chunk is not None
    assert chunk.ids == ids
    if len(ids) == 1:
        assert chunk.size == message_size(ids[0], ORIGIN, len(payloads[0]), headers[0], "user")
    return chunk


def test_given_chunks_when_sent_then_each_is_one_entry_and_their_sizes_are_what_they_differ_by(real_pulsar: Pulsar) -> None:
    channel = f"c{secrets.token_hex(6)}"
    told = queue.SimpleQueue[tuple[int, str | None, Place | None]]()
    client = connect(real_pulsar.url)
    topic = Topic(
        client,
        f"persistent://public/default/{channel}",
        "sizes",
        ORIGIN,
        lambda number, failed, place: told.put((number, failed, place)),
    )
    heads: list[int] = []
    before, last = 0, None
    for number, messages in enumerate(CHUNKS):
        chunk = chunk_of(messages, FIRST_ID + number * 10_000)
        topic.send(chunk)
        _, failed, place = told.get()
        assert failed is None
        assert place is not None
        assert place.offset == len(chunk.ids) - 1
        assert last is None or place.entry == last.entry + 1
        size = real_pulsar.ask("GET", f"persistent/public/default/{channel}/internalStats")["currentLedgerSize"]
        heads.append(size - before - chunk.size)
        before, last = size, place
    topic.close()
    client.close()
    assert max(heads) - min(heads) <= HEAD_DIFFERS_BYTES, heads
    assert max(heads) <= HEAD_BYTES


@pytest.mark.parametrize("size", [1, 100_000])
@pytest.mark.parametrize("headers", range(len(HEADERS)))
def test_given_a_chunk_when_another_of_its_size_is_measured_then_it_is_no_larger(size: int, headers: int) -> None:
    assert chunk_of([(b"x" * size, headers)], FIRST_ID).size == chunk_of([(b"y" * size, headers)], FIRST_ID + 10_000).size
