"""Channels and groups under retention against lists of all that was ever appended: nothing goes that a rule keeps, and every
reader gets each message once, or is told of it in a gap with the exact count.

Besides the model, which says what each operation answers, books are kept of what clients took: `Books`.
"""

from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,  # pyright: ignore[reportUnknownVariableType]
)

from rocksmq.broker import keys
from rocksmq.broker.ids import COUNTER_BITS
from rocksmq.broker.store import Family
from rocksmq.protocol.columns import unpack_numbers
from rocksmq.protocol.messages import MessageBatch
from rocksmq.protocol.operations import (
    Commit,
    Consume,
    DescribeChannel,
    DescribeGroup,
    Empty,
    Fetch,
    Messages,
    Position,
    ReleaseConsumer,
    Seek,
)

from .many_support import fetching, read, seeking
from .retention_world import (
    FOREVER,
    GROUPS,
    NAMES,
    Books,
    ChannelModel,
    GroupModel,
    Handed,
    RetentionWorld,
)


def combined(lost: list[tuple[int, int]]) -> tuple[int, int]:
    """From which id on, and how many."""
    begins = [begin for begin, count in lost if count]
    return min(begins, default=0), sum(count for _, count in lost)


class Readers(RetentionWorld):
    """The same with clients that consume, commit, seek and fetch."""

    @rule(name=st.sampled_from(NAMES), group=st.sampled_from(GROUPS), claims=st.lists(
          st.tuples(st.integers(0, 2), st.integers(1, 9), st.sampled_from([1, 100, FOREVER, FOREVER]), st.booleans()),
          min_size=1, max_size=4))  # fmt: skip
    def consume_by_several(self, name: str, group: str, claims: list[tuple[int, int, int, bool]]) -> None:
        for client, n, size, is_lost in claims:
            self.consume(name, group, client, n, size, is_lost)

    def consume(self, name: str, group: str, client: int, n: int, size: int, is_lost: bool) -> None:
        """``is_lost``: the reply, so that the client asks again under the same number."""
        model = self.channels[name]
        if (found := model.groups.get(group)) is None:
            return
        consumer, number = found.numbers.setdefault(client, (self.broker.unique(), 0))
        used_ms = self.broker.core.ids.present_id >> COUNTER_BITS
        begin, handed = model.begin, found.handed.get(consumer)
        reply = self.do(Consume(name, group, consumer, number, n, size, 0))
        lost: list[tuple[int, int]] = []  # from id, count
        if handed is not None and handed.number == number and handed.generation == found.generation:
            removed = max(0, min(begin, handed.stop) - handed.first)
            lost += [handed.gap, (handed.begin_id, removed)]
            if removed < handed.stop - handed.first:
                self.same(reply, model, handed.first + removed, handed.stop, lost, found.generation)
                self.take(found, client, reply, handed, is_lost)
                return
        returned, over = None, list[bytes]()
        for giver, given in found.released():
            removed = max(0, min(begin, given.stop) - given.first)
            lost += [given.gap, (given.begin_id, removed)]
            if removed < given.stop - given.first:
                returned = given
                break
            over.append(giver)
        if returned is None:
            lost.append((found.position, max(0, begin - found.offset)))
            first = max(found.offset, begin)
            most = len(model.records)
        else:
            first, most = max(returned.first, begin), returned.stop
        if first == most:
            assert (reply.message_count, reply.gap, reply.generation) == (0, None, found.generation)
            assert reply.next_position == found.position
            return
        count = self.same(reply, model, first, min(most, first + n), lost, found.generation, size)
        for giver in over:
            del found.handed[giver]
        if returned is None:
            found.offset, found.position = first + count, model.records[first + count - 1].id + 1
        else:
            returned.first, returned.begin_id, returned.gap = first + count, model.records[first + count - 1].id + 1, (0, 0)
            if returned.first == returned.stop:
                found.handed = {giver: given for giver, given in found.handed.items() if given is not returned}
        gap = combined(lost)
        made = Handed(number, first, first + count, model.id_at(first), found.generation, used_ms, gap)
        found.handed[consumer] = made
        self.take(found, client, reply, made, is_lost)

    def take(self, group: GroupModel, client: int, reply: Messages, handed: Handed, is_lost: bool) -> None:
        if not is_lost:
            consumer, number = group.numbers[client]
            group.numbers[client] = consumer, number + 1
            group.books.taken += range(handed.stop - reply.message_count, handed.stop)
            group.books.told += (reply.gap or [0, 0, 0])[2] or 0

    def same(
        self,
        reply: Any,
        model: ChannelModel,
        first: int,
        stop: int,
        lost: list[tuple[int, int]],
        generation: int,
        size: int = 0,
    ) -> int:
        """The reply holds these messages, or the first of them if ``size`` is too small; how many it holds."""
        assert isinstance(reply, Messages), reply
        found = [(message.id, message.payload, message.headers) for message in MessageBatch(reply)]
        assert found == [record[:3] for record in model.records[first : first + len(found)]]
        assert 0 < len(found) <= stop - first
        assert len(found) == stop - first or 0 < size < FOREVER
        begin_id, count = combined(lost)
        assert reply.gap == ([begin_id, found[0][0], count] if count else None)
        assert reply.next_position == found[-1][0] + 1
        assert reply.next_offset == first + len(found)
        assert reply.generation == generation
        return len(found)

    @rule(name=st.sampled_from(NAMES), group=st.sampled_from(GROUPS), client=st.integers(0, 2), pick=st.integers(0, 8))
    def release(self, name: str, group: str, client: int, pick: int) -> None:
        """The client ends. What it never heard of it gives back as a whole; of what it took, what it has not handed out."""
        model = self.channels[name]
        if (found := model.groups.get(group)) is None or client not in found.numbers:
            return
        consumer, number = found.numbers.pop(client)
        handed = found.handed.get(consumer)
        if handed is None or handed.generation != found.generation:
            found.handed.pop(consumer, None)
            assert self.do(ReleaseConsumer(name, group, consumer, max(0, number - 1), 0, 0)) == Empty()
            return
        if handed.number == number:  # unheard of
            assert self.do(ReleaseConsumer(name, group, consumer, number, 0, 0)) == Empty()
            handed.is_released = True
            return
        taken = [index for index in range(handed.first, handed.stop) if index in found.books.taken]
        left = taken[min(pick, len(taken)) :]
        begin_id = model.id_at(left[0]) if left else model.records[handed.stop - 1].id + 1
        assert self.do(ReleaseConsumer(name, group, consumer, number - 1, begin_id, len(left))) == Empty()
        if not left:
            del found.handed[consumer]
            return
        found.books.taken = [index for index in found.books.taken if index not in left]
        handed.first, handed.begin_id, handed.gap, handed.is_released = left[0], begin_id, (0, 0), True

    @rule(
        name=st.sampled_from(NAMES),
        group=st.sampled_from(GROUPS),
        pick=st.integers(0, 60),
        beside=st.sampled_from([0, 0, 1, -1]),
    )
    def commit(self, name: str, group: str, pick: int, beside: int) -> None:
        model = self.channels[name]
        if (found := model.groups.get(group)) is None:
            return
        position = max(0, min(model.id_at(pick % (len(model.records) + 1)) + beside, model.next_id))
        begin = model.begin
        assert self.do(Commit(name, group, position, found.generation, b"")) == Empty()
        if position < found.position:
            return
        removed_end = model.records[begin - 1].id + 1 if begin else 0
        if position >= removed_end or found.offset >= begin:  # else it stays, and the gap is told from there
            offset = max(found.offset, model.index(position), begin)
            found.books.skipped += offset - found.offset
            found.position, found.offset = position, offset

    @rule(
        name=st.sampled_from(NAMES),
        group=st.sampled_from(GROUPS),
        pick=st.integers(0, 60),
        beside=st.sampled_from([0, 0, 1, -1]),
        kind=st.sampled_from([Position.ID, Position.EARLIEST, Position.LATEST]),
    )
    def seek(self, name: str, group: str, pick: int, beside: int, kind: Position) -> None:
        model = self.channels[name]
        if (found := model.groups.get(group)) is None:
            return
        to = max(0, model.id_at(pick % (len(model.records) + 1)) + beside)
        wanted = {Position.ID: max(model.index(to), model.begin), Position.EARLIEST: model.begin}.get(kind, len(model.records))
        position = model.id_at(wanted)
        reply = self.do(Seek(name, group, kind, to, self.broker.unique()))
        assert (reply.position, reply.offset) == (position, wanted)
        self.moved(found, reply.position, reply.offset, reply.generation)

    def moved(self, group: GroupModel, position: int, offset: int, generation: int) -> None:
        group.position, group.offset, group.generation = position, offset, generation
        group.handed = {consumer: handed for consumer, handed in group.handed.items() if not handed.is_released}
        group.books = Books(offset)

    @rule(group=st.sampled_from(GROUPS), n=st.integers(1, 20))
    def read_by_fetch_from_where_the_group_stands(self, group: str, n: int) -> None:
        """As a stream or a manual consumer begins: the counts of its gaps come from offsets."""
        models = [model for model in self.channels.values() if group in model.groups]
        if not models:
            return
        missed: list[int] = []
        expected: list[tuple[int, int]] = []
        for model in models:
            found, lost = model.groups[group], list[tuple[int, int]]()
            returned: Handed | None = None
            for _, given in found.released():
                removed = max(0, min(model.begin, given.stop) - given.first)
                lost += [given.gap, (given.begin_id, removed)]
                if removed < given.stop - given.first:
                    returned = given
                    break
            first_id, count = combined(lost)
            missed.append(count + max(0, model.begin - found.offset))
            if count:
                expected.append((first_id, min(found.offset, model.begin) - count))
            elif returned is not None:
                expected.append((returned.begin_id, returned.first))
            else:
                expected.append((found.position if found.offset != model.begin else 0, found.offset))  # 0: the beginning
        begins = [model.begin for model in models]
        reply = self.do(seeking([model.number for model in models], self.broker.unique(), group=group))
        positions, offsets, generations = (list(unpack_numbers(c)) for c in (reply.positions, reply.offsets, reply.generations))
        assert list(zip(positions, offsets, strict=True)) == expected
        for model, position, offset, generation in zip(models, positions, offsets, generations, strict=True):
            self.moved(model.groups[group], position or model.groups[group].position, offset, generation)
        for index, model in enumerate(models):
            if model.begin != begins[index]:
                missed[index] += model.begin - max(offsets[index], begins[index]) if model.begin > offsets[index] else 0
        self.fetch_many(models, positions, offsets, missed, n)

    def fetch_many(
        self, models: list[ChannelModel], positions: list[int], offsets: list[int], missed: list[int], n: int
    ) -> None:
        reply = self.broker.ask(fetching([(m.number, position) for m, position in zip(models, positions, strict=True)], n=n))
        assert [gap[:3] for gap in reply.gaps] == [
            [index, positions[index], model.id_at(model.begin)]
            for index, model in enumerate(models)
            if missed[index] and positions[index]
        ]  # a start of 0 is told none, but the offset tells it

        parts = read(reply._replace(gaps=[]))
        for index, model in enumerate(models):
            first = max(model.index(positions[index]), model.begin)
            if index not in parts:
                assert not missed[index] or not positions[index]
                assert first == len(model.records) or reply.message_count == n
                continue
            part = parts[index]
            expected = model.records[first : first + len(part.messages)]
            assert [(message.id, message.payload) for message in part.messages] == [record[:2] for record in expected]
            assert part.next_offset - len(part.messages) - offsets[index] == missed[index]
            assert part.next_position == (expected[-1].id + 1 if expected else model.id_at(model.begin))

    # -- readers without a group -----------------------------------------------------------

    @rule(
        name=st.sampled_from(NAMES),
        n=st.integers(1, 9),
        pick=st.none() | st.integers(0, 60),
        beside=st.sampled_from([0, 1, -1]),
    )
    def fetch(self, name: str, n: int, pick: int | None, beside: int) -> None:
        """From any id, or where the last such reader went on, who knows how many messages it has passed."""
        model = self.channels[name]
        position, offset = model.tail
        if pick is not None:
            position = max(0, model.id_at(pick % (len(model.records) + 1)) + beside)
            offset = model.index(position)
        reply = self.broker.ask(Fetch(name, Position.ID, position, n, FOREVER, 0))
        assert isinstance(reply, Messages)
        missed = max(0, model.begin - offset)
        if position and missed:
            known = model.begin if position <= model.number else None
            assert reply.gap == [position, model.id_at(model.begin), known]
        else:
            assert reply.gap is None
        first = max(offset, model.begin)
        expected = model.records[first : first + n]
        assert [message.id for message in MessageBatch(reply)] == [record.id for record in expected]
        if expected:
            assert (reply.next_position, reply.next_offset) == (expected[-1].id + 1, first + len(expected))
        elif missed and position:
            assert (reply.next_position, reply.next_offset) == (model.id_at(model.begin), model.begin)
        else:
            assert reply.next_position == position
            assert reply.next_offset in (None, offset)
        if reply.next_offset is not None:
            assert reply.next_offset - len(expected) - offset == missed
            model.tail = reply.next_position, reply.next_offset

    # -- what always holds -----------------------------------------------------------------

    @invariant()
    def channels_are_described_exactly(self) -> None:
        for name, model in self.channels.items():
            found = self.broker.ask(DescribeChannel(name))
            assert found.message_count == len(model.records) - model.begin
            assert found.byte_count == model.size(model.begin)
            assert found.begin_id == model.id_at(model.begin)
            assert found.end_id == model.next_id - 1
            everything = self.broker.ask(Fetch(name, Position.EARLIEST, 0, 10_000, FOREVER, 0))
            read_back = [(message.id, message.payload, message.headers) for message in MessageBatch(everything)]
            assert read_back == [record[:3] for record in model.records[model.begin :]]

    @invariant()
    def groups_are_where_they_should_be(self) -> None:
        for name, model in self.channels.items():
            for group, known in model.groups.items():
                found = self.broker.ask(DescribeGroup(name, group))
                unread = max(0, len(model.records) - max(known.offset, model.begin))
                given_back = sum(max(0, given.stop - max(given.first, model.begin)) for _, given in known.released())
                assert found.lag_messages == unread + given_back
                assert found.position == max(known.position, model.id_at(model.begin) if model.begin > known.offset else 0)

    @invariant()
    def books_agree(self) -> None:
        """Each message that the group has passed was taken once, told as removed, skipped by a commit, or is still owed."""
        for model in self.channels.values():
            for group in model.groups.values():
                owed = 0
                heard = dict(group.numbers.values())
                for consumer, handed in group.handed.items():
                    is_unheard = heard.get(consumer) == handed.number and handed.generation == group.generation
                    if handed.is_released or is_unheard:
                        owed += handed.stop - handed.first + handed.gap[1]
                books = group.books
                assert len(set(books.taken)) == len(books.taken), "once"
                assert group.offset - books.start == len(books.taken) + books.told + books.skipped + owed

    @precondition(lambda self: not any(model.pending is not None for model in self.channels.values()))
    @invariant()
    def the_store_has_no_batch_that_nobody_can_read(self) -> None:
        for model in self.channels.values():
            span = keys.channel_span(model.number)
            stored = [keys.first_id_of(key) for key, _ in self.broker.store.scan(Family.DATA, *span)]
            begin_id = model.id_at(model.begin)
            assert sum(first_id < begin_id for first_id in stored) <= 1, "that which holds the first message"
            if model.begin == len(model.records):
                assert not stored


@pytest.mark.slow
def test_given_channels_and_groups_when_retention_removes_at_any_time_then_nobody_misses_anything_untold() -> None:
    run_state_machine_as_test(
        Readers,
        settings=settings(
            derandomize=True,
            deadline=None,
            database=None,
            max_examples=120,
            stateful_step_count=50,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
            print_blob=False,
        ),
    )
