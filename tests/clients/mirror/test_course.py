"""What is sent beside what, and how much; the order of it all is held by test_course_model."""

import itertools

import pytest

from rocksmq.clients.mirror.course import CHUNK_BYTES, PARTIAL_MAX, REFUSALS, Chunk, Counts, Course, Phase, Room, Rules
from rocksmq.protocol.batch import encode_headers
from rocksmq.protocol.errors import InternalError, MessageTooLarge

MIB = 1 << 20


class Driven:
    """A course that flows, unless ``is_flowing`` is False; its first message has id 1. ``proven``: bytes that went at once."""

    def __init__(
        self,
        room: Room | None = None,
        *,
        too_large: str = "stop",
        is_flowing: bool = True,
        proven: int = 0,
        message_bytes_max: int = 5 * MIB,
    ) -> None:
        self.room = room or Room(64 * MIB)
        self.counts = Counts()
        rules = Rules("eu#7", message_bytes_max, "skip" if too_large == "skip" else "stop")
        self.course = Course(rules, self.room, self.counts)
        self.course.opened(1)
        self.next_id = 1
        if is_flowing:
            self.give(b"first")
            self.answer(self.sent()[0])
        if proven:
            self.give(bytes(proven))
            self.answer(self.sent()[0])

    def give(self, *payloads: bytes, headers: list[bytes] | None = None) -> None:
        ids = range(self.next_id, self.next_id + len(payloads))
        assert self.course.fetched(self.next_id, ids, payloads, headers, ids[-1] + 1)
        self.next_id = ids[-1] + 1

    def sent(self) -> list[Chunk]:
        found: list[Chunk] = []
        while (chunk := self.course.next_chunk()) is not None:
            found.append(chunk)
        return found

    def answer(self, chunk: Chunk, *, is_fresh: bool = True) -> None:
        self.course.acknowledged(chunk.number, is_fresh)


def test_given_an_opening_when_sending_then_one_until_a_fresh_acknowledgement_and_then_more_and_more_at_once() -> None:
    driven = Driven(is_flowing=False)
    driven.give(*[b"x"] * 9_000)
    counts: list[int] = []
    while len(sent := driven.sent()) == 1:
        counts.append(len(sent[0].ids))
        assert sent[0].is_alone
        driven.answer(sent[0])
    assert counts[0] == 1
    assert all(2 * before < after <= 8 * before for before, after in itertools.pairwise(counts))
    assert counts[-1] > 500
    assert [message_id for chunk in sent for message_id in chunk.ids] == list(range(sum(counts) + 1, sent[-1].ids[-1] + 1))
    assert all(chunk.size <= CHUNK_BYTES for chunk in sent)


def test_given_a_duplicate_when_looked_then_it_goes_on_behind_what_the_topic_holds() -> None:
    driven = Driven(is_flowing=False)
    driven.give(*[b"x"] * 10)
    driven.answer(driven.sent()[0], is_fresh=False)
    assert driven.course.phase is Phase.LOOKING
    assert driven.sent() == []
    driven.course.looked(6)
    assert [list(chunk.ids) for chunk in driven.sent()] == [[6]]
    assert driven.course.done_to == 6


def test_given_a_duplicate_in_an_empty_topic_when_looked_then_the_next_goes_singly() -> None:
    driven = Driven(is_flowing=False)
    driven.give(*[b"x"] * 10)
    driven.answer(driven.sent()[0], is_fresh=False)
    driven.course.looked(0)
    assert [list(chunk.ids) for chunk in driven.sent()] == [[2]]


@pytest.mark.parametrize(("size", "count", "counts"), [(40_000, 7, [3, 3, 1]), (CHUNK_BYTES, 3, [1, 1, 1])])
def test_given_messages_when_sent_then_chunks_are_bounded_by_bytes(size: int, count: int, counts: list[int]) -> None:
    driven = Driven(proven=CHUNK_BYTES)
    driven.give(*[bytes(size)] * count)
    assert [len(chunk.ids) for chunk in driven.sent()] == counts


def test_given_a_lower_limit_of_pulsars_when_chunks_grow_then_none_is_larger() -> None:
    driven = Driven(message_bytes_max=64 << 10)
    sizes: list[int] = []
    for _ in range(20):
        driven.give(*[b"x"] * 1_000)
        for chunk in driven.sent():
            sizes.append(chunk.size)
            driven.answer(chunk)
    assert 32 << 10 < max(sizes) <= 64 << 10


def test_given_little_when_several_are_on_the_way_then_it_waits_and_goes_with_what_comes() -> None:
    driven = Driven(proven=CHUNK_BYTES)
    first = driven.next_id
    on_the_way: list[Chunk] = []
    for _ in range(PARTIAL_MAX):
        driven.give(b"a")
        on_the_way += driven.sent()
    assert [list(chunk.ids) for chunk in on_the_way] == [[first + number] for number in range(PARTIAL_MAX)]
    for _ in range(2):
        driven.give(b"b")
        assert driven.sent() == []
    driven.answer(on_the_way[0])
    assert [list(chunk.ids) for chunk in driven.sent()] == [[driven.next_id - 2, driven.next_id - 1]]


def test_given_messages_of_one_size_when_one_was_taken_then_they_go_beside_each_other() -> None:
    driven = Driven(proven=2 * MIB)
    driven.give(*[bytes(2 * MIB)] * 3)
    assert [chunk.is_alone for chunk in driven.sent()] == [False] * 3


def test_given_chunks_that_are_refused_when_opened_again_then_smaller_ones_are_tried_until_that_is_forgotten() -> None:
    driven = Driven()
    refused_from = 20_000
    largest: list[int] = []
    for _ in range(REFUSALS * 4):
        driven.course.opened(driven.next_id)
        driven.give(*[b"x"] * 3_000)
        largest.append(0)
        while (sent := driven.sent()) and all(chunk.size < refused_from for chunk in sent):
            for chunk in sent:
                largest[-1] = max(largest[-1], chunk.size)
                driven.answer(chunk)
        if not sent:
            break
        assert [chunk.is_alone for chunk in sent] == [True], "nothing else was harmed"
    else:
        raise AssertionError("never")
    assert largest[-1] > refused_from // 5
    driven.course.forget_refusals()
    driven.course.opened(driven.next_id)
    driven.give(*[b"x"] * 3_000)
    while (sent := driven.sent()) and sent[0].size < refused_from:
        driven.answer(sent[0])
    assert sent


def test_given_messages_with_headers_when_sent_then_they_go_together_with_their_envelopes() -> None:
    driven = Driven()
    driven.give(b"a", b"b", b"c", headers=[encode_headers({"k": b"v"}), b"", encode_headers({"k": b"w"})])
    (chunk,) = driven.sent()
    assert [one and one.properties["k"] for one in chunk.envelopes] == ["v", None, "w"]


def test_given_a_size_that_was_never_taken_when_sent_then_it_goes_alone_and_the_next_of_that_size_does_not() -> None:
    driven = Driven(proven=CHUNK_BYTES)
    driven.give(b"x", bytes(2 * CHUNK_BYTES), b"y", bytes(2 * CHUNK_BYTES), b"z")
    (before,) = driven.sent()
    assert list(before.ids) == [3]
    driven.answer(before)
    (large,) = driven.sent()
    assert (list(large.ids), large.is_alone) == ([4], True)
    driven.answer(large)
    assert [(list(chunk.ids), chunk.is_alone) for chunk in driven.sent()] == [([5], False), ([6], False), ([7], False)]


def test_given_one_that_pulsar_refuses_when_it_went_alone_then_it_is_decided_and_nothing_else_is_harmed() -> None:
    driven = Driven(too_large="skip")
    driven.give(bytes(2 * MIB), b"y")
    (large,) = driven.sent()
    assert driven.course.refused(large.number, "MessageTooBig")
    assert driven.counts.skipped == 1
    assert driven.course.done_to == 3
    assert [list(chunk.ids) for chunk in driven.sent()] == [[3]]


def test_given_one_that_is_refused_beside_others_then_that_is_a_failure() -> None:
    driven = Driven(too_large="skip", proven=CHUNK_BYTES)
    driven.give(*[bytes(CHUNK_BYTES)] * 2)
    first, _ = driven.sent()
    assert not driven.course.refused(first.number, "MessageTooBig")


def test_given_one_beyond_the_limit_when_it_must_stop_then_all_before_it_is_done_first() -> None:
    driven = Driven()
    driven.give(b"x", bytes(6 * MIB))
    (before,) = driven.sent()
    driven.answer(before)
    with pytest.raises(MessageTooLarge, match="message 3 of 6292"):
        driven.sent()
    assert driven.course.done_to == 3


def test_given_channels_that_are_stuck_when_they_take_what_they_may_then_there_is_room_for_another() -> None:
    room = Room(8 * MIB)
    stuck = [Driven(room) for _ in range(5)]
    for driven in stuck:
        while driven.course.wants(MIB):
            driven.give(*[bytes(1_000)] * 100)
            driven.sent()
    assert room.used <= room.bytes_max
    other = Driven(room)
    assert other.course.wants(MIB)
    for driven in stuck:
        driven.course.drop()
    other.course.drop()
    assert room.used == 0


def test_given_channels_stuck_with_large_messages_when_they_have_taken_all_then_only_one_that_moves_has_the_reserve() -> None:
    room = Room(8 * MIB)
    moving = Driven(room)
    stuck = [Driven(room, is_flowing=False) for _ in range(30)]
    for driven in stuck:
        if driven.course.wants(MIB):
            driven.give(bytes(MIB))
    assert room.bytes_max <= room.used < room.bytes_max + 2 * MIB
    assert moving.course.wants(MIB)
    moving.give(b"x")
    assert len(moving.sent()) == 1
    assert not Driven(room, is_flowing=False).course.wants(MIB)


def test_given_what_was_asked_for_before_reading_went_on_elsewhere_when_it_comes_then_it_is_not_taken() -> None:
    driven = Driven()
    assert not driven.course.fetched(1, [1], [b"x"], None, 2)
    assert not Driven(is_flowing=False).course.fetched(9, [9], [b"x"], None, 10)


def test_given_an_acknowledgement_out_of_order_when_it_comes_then_nothing_is_known() -> None:
    driven = Driven(proven=CHUNK_BYTES)
    driven.give(*[bytes(CHUNK_BYTES)] * 2)
    _, second = driven.sent()
    with pytest.raises(InternalError, match="out of order"):
        driven.answer(second)
