"""What is sent beside what, and how much; the order of it all is held by test_course_model."""

import pytest

from rocksmq.clients.mirror.course import CHUNK_BYTES, CHUNK_MESSAGES, PROVEN_BYTES, Chunk, Counts, Course, Phase, Room, Rules
from rocksmq.protocol.batch import encode_headers
from rocksmq.protocol.errors import InternalError, MessageTooLarge

MIB = 1 << 20


class Driven:
    """A course that flows, unless ``is_flowing`` is False; its first message has id 1."""

    def __init__(self, room: Room | None = None, *, too_large: str = "stop", is_flowing: bool = True) -> None:
        self.room = room or Room(64 * MIB)
        self.counts = Counts()
        rules = Rules("eu#7", 5 * MIB, "skip" if too_large == "skip" else "stop")
        self.course = Course(rules, self.room, self.counts)
        self.course.opened(1)
        self.next_id = 1
        if is_flowing:
            self.give(b"first")
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


def test_given_an_opening_when_sending_then_one_at_a_time_until_a_fresh_acknowledgement() -> None:
    driven = Driven(is_flowing=False)
    driven.give(*[b"x"] * 10)
    (first,) = driven.sent()
    assert list(first.ids) == [1]
    driven.answer(first)
    (rest,) = driven.sent()
    assert list(rest.ids) == list(range(2, 11))


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


def test_given_small_messages_when_sent_then_chunks_are_bounded_by_count_and_larger_ones_by_bytes() -> None:
    driven = Driven()
    driven.give(*[b"x"] * (CHUNK_MESSAGES + 1))
    assert [len(chunk.ids) for chunk in driven.sent()] == [CHUNK_MESSAGES, 1]
    driven.give(*[bytes(30_000)] * 5)
    assert [len(chunk.ids) for chunk in driven.sent()] == [2, 2, 1]
    driven.give(*[bytes(CHUNK_BYTES)] * 2)
    assert [len(chunk.ids) for chunk in driven.sent()] == [1, 1]


def test_given_messages_with_headers_when_sent_then_they_go_together_with_their_envelopes() -> None:
    driven = Driven()
    driven.give(b"a", b"b", b"c", headers=[encode_headers({"k": b"v"}), b"", encode_headers({"k": b"w"})])
    (chunk,) = driven.sent()
    assert [one and one.properties["k"] for one in chunk.envelopes] == ["v", None, "w"]


def test_given_a_size_that_was_never_taken_when_sent_then_it_goes_alone_and_the_next_of_that_size_does_not() -> None:
    driven = Driven()
    driven.give(b"x", bytes(PROVEN_BYTES + 1), b"y", bytes(PROVEN_BYTES + 1), b"z")
    (before,) = driven.sent()
    assert list(before.ids) == [2]
    driven.answer(before)
    (large,) = driven.sent()
    assert (list(large.ids), large.is_alone) == ([3], True)
    driven.answer(large)
    assert [list(chunk.ids) for chunk in driven.sent()] == [[4], [5], [6]]


def test_given_one_that_pulsar_refuses_when_it_went_alone_then_it_is_decided_and_nothing_else_is_harmed() -> None:
    driven = Driven(too_large="skip")
    driven.give(bytes(2 * MIB), b"y")
    (large,) = driven.sent()
    assert driven.course.refused(large.number, "MessageTooBig")
    assert driven.counts.skipped == 1
    assert driven.course.done_to == 3
    assert [list(chunk.ids) for chunk in driven.sent()] == [[3]]


def test_given_one_that_is_refused_beside_others_then_that_is_a_failure() -> None:
    driven = Driven(too_large="skip")
    driven.give(*[bytes(CHUNK_BYTES)] * 2)
    first, _ = driven.sent()
    assert not driven.course.refused(first.number, "MessageTooBig")


def test_given_one_beyond_the_limit_when_it_must_stop_then_all_before_it_is_done_first() -> None:
    driven = Driven()
    driven.give(b"x", bytes(6 * MIB))
    (before,) = driven.sent()
    driven.answer(before)
    with pytest.raises(MessageTooLarge, match="message 3 of 6291"):
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


def test_given_what_was_asked_for_before_reading_went_on_elsewhere_when_it_comes_then_it_is_not_taken() -> None:
    driven = Driven()
    assert not driven.course.fetched(1, [1], [b"x"], None, 2)
    assert not Driven(is_flowing=False).course.fetched(9, [9], [b"x"], None, 10)


def test_given_an_acknowledgement_out_of_order_when_it_comes_then_nothing_is_known() -> None:
    driven = Driven()
    driven.give(*[b"x"] * (CHUNK_MESSAGES + 1))
    _, second = driven.sent()
    with pytest.raises(InternalError, match="out of order"):
        driven.answer(second)
