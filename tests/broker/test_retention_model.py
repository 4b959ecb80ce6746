"""Channels and groups under retention against lists of all that was ever appended: nothing goes that a rule keeps, and every
reader gets each message once, or is told of it in a gap with the exact count.

A look of the trimmer is driven by hand, with commits, full disks and crashes between any two of its turns. Besides the model,
which says what each operation answers, books are kept of what clients took: `Books`.
"""

from bisect import bisect_left
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace, coroutine
from typing import Any, NamedTuple

import pytest
import trio
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,  # pyright: ignore[reportUnknownVariableType]
)

from rocksmq.broker import keys, trimmer
from rocksmq.broker.clock import ClockGuard
from rocksmq.broker.ids import COUNTER_BITS
from rocksmq.broker.limits import Limits
from rocksmq.broker.retention import KEEP_ALL, REPEAT_MS, RetentionSection, Rules
from rocksmq.broker.store import Family
from rocksmq.protocol.columns import unpack_numbers
from rocksmq.protocol.errors import DiskFull
from rocksmq.protocol.messages import MessageBatch, OutgoingMessage, pack_messages
from rocksmq.protocol.operations import (
    Commit,
    Consume,
    CreateChannel,
    CreateGroup,
    DescribeChannel,
    DescribeGroup,
    DestroyGroup,
    Empty,
    Fetch,
    Messages,
    Position,
    Produce,
    ReleaseConsumer,
    Seek,
    SetChannel,
)

from .disk_support import fail
from .many_support import ManyBroker, fetching, read, seeking
from .support import identity

NAMES = ["orders", "events"]
GROUPS = ["billing", "audit"]
FOREVER = 1 << 30


class Record(NamedTuple):
    """A message as it was produced."""

    id: int
    payload: bytes
    headers: dict[str, bytes]
    size: int


@dataclass
class Handed:
    """What a consumer id was handed last, as indexes: from ``first`` to ``stop``; with which gap, from an id on."""

    number: int
    first: int
    stop: int
    begin_id: int
    generation: int
    used_ms: int
    gap: tuple[int, int] = (0, 0)  # from id, count
    is_released: bool = False


@dataclass
class Books:
    """Of one generation of a group: what its clients took, were told of, and skipped themselves, from ``start`` on."""

    start: int
    taken: list[int] = field(default_factory=list[int])
    told: int = 0
    skipped: int = 0


@dataclass
class GroupModel:
    position: int
    offset: int
    generation: int
    books: Books
    handed: dict[bytes, Handed] = field(default_factory=dict[bytes, Handed])
    numbers: dict[int, tuple[bytes, int]] = field(default_factory=dict[int, tuple[bytes, int]])  # of clients: id, next number

    def released(self) -> list[tuple[bytes, Handed]]:
        found = [(consumer, handed) for consumer, handed in self.handed.items() if handed.is_released]
        return sorted(found, key=lambda each: each[1].begin_id)


@dataclass
class ChannelModel:
    """``begin``: the index from which on messages may be read; ``pending``: of a trim that is not committed."""

    number: int
    records: list[Record] = field(default_factory=list[Record])
    begin: int = 0
    pending: int | None = None
    rules: Rules = KEEP_ALL
    groups: dict[str, GroupModel] = field(default_factory=dict[str, GroupModel])
    tail: tuple[int, int] = (0, 0)  # where a reader without a group goes on: position, offset

    @property
    def next_id(self) -> int:
        return self.records[-1].id + 1 if self.records else 1

    def id_at(self, index: int) -> int:
        return self.records[index].id if index < len(self.records) else self.next_id

    def index(self, position: int) -> int:
        """How many messages were ever appended before ``position``."""
        return bisect_left(self.records, position, key=lambda record: record.id)

    def size(self, first: int) -> int:
        return sum(record.size for record in self.records[first:])

    def behind(self, begin: int, size: int) -> int:
        """The first index with so many bytes between ``begin`` and it."""
        while size > 0 and begin < len(self.records):
            size -= self.records[begin].size
            begin += 1
        return begin


@coroutine
def pause() -> Generator[None, None, None]:
    yield


class Machine(RuleBasedStateMachine):
    """Each operation is committed before the next, but for trims, which may wait for whatever commit comes."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = pytest.MonkeyPatch()
        stand_in = SimpleNamespace(lowlevel=SimpleNamespace(checkpoint=pause), Event=trio.Event, current_time=lambda: 0.0)
        self.patch.setattr(trimmer, "trio", stand_in)
        self.patch.setattr(trimmer, "clock_ms", lambda: self.broker.now_ms)
        self.patch.setattr(trimmer, "FEW_BATCHES", 2)
        self.patch.setattr(trimmer, "FEW_BYTES", 5_000)
        self.channels: dict[str, ChannelModel] = {}
        self.total = 0
        self.is_doubtful = False
        self.waited_ms = 0

    def teardown(self) -> None:
        self.patch.undo()

    @initialize(cache=st.sampled_from([0, 2_000, 1 << 20]))
    def begin(self, cache: int) -> None:
        self.broker = ManyBroker(Limits(tail_cache_bytes=cache))
        self.started()
        for name in NAMES:
            assert not isinstance(self.broker.do(CreateChannel(name, None, None, None, self.broker.unique())), Exception)
            self.channels[name] = ChannelModel(self.broker.core.channels.find(name).number)
        for name in NAMES:
            self.create_group(name, GROUPS[0], Position.EARLIEST)
            self.produce(name, [(3, False)] * 4)

    def started(self) -> None:
        core = self.broker.core
        step_ms = 2 * 3_600_000 if self.is_doubtful else 0
        guard = ClockGuard(None, wall_ms=lambda: self.broker.now_ms, boot_ms=lambda: self.broker.now_ms, boot_id=lambda: "")
        guard.note = guard.note._replace(offset_ms=step_ms)
        core.retention.clock = guard
        core.retention.section = RetentionSection(total_bytes_max=self.total)

    def do(self, request: Any) -> Any:
        """Its reply, once committed, with whatever trim waits."""
        reply = self.broker.do(request)
        self.committed()
        return reply

    def committed(self) -> None:
        for model in self.channels.values():
            model.begin, model.pending = model.begin if model.pending is None else model.pending, None

    # -- messages ------------------------------------------------------------------------

    @rule(name=st.sampled_from(NAMES), sizes=st.lists(st.tuples(st.integers(0, 60), st.booleans()), min_size=1, max_size=7))
    def produce(self, name: str, sizes: list[tuple[int, bool]]) -> None:
        model = self.channels[name]
        sent = [
            OutgoingMessage(b"%d." % (len(model.records) + index) * 9 if size > 9 else bytes(size), {"k": bytes(size)} if h else {})
            for index, (size, h) in enumerate(sizes)
        ]
        first_id = int(self.do(Produce(name, self.broker.unique(), 0, *pack_messages(sent))).first_id)
        columns = pack_messages(sent)
        sizes_of = [memoryview(bytes(column or b"")).cast("I") for column in (columns.lengths, columns.header_lengths)]
        for index, message in enumerate(sent):
            size = sum(lengths[index] for lengths in sizes_of if lengths)
            model.records.append(Record(first_id + index, bytes(message.payload), dict(message.headers or {}), size))

    @rule(milliseconds=st.sampled_from([1, 1, 5, 100, 2_000, 301_000]))
    def wait(self, milliseconds: int) -> None:
        if self.waited_ms + milliseconds < 3_000_000:  # consumer ids are forgotten after an hour
            self.broker.now_ms += milliseconds
            self.waited_ms += milliseconds

    # -- rules ---------------------------------------------------------------------------

    @rule(name=st.sampled_from(NAMES), age=st.none() | st.integers(1, 3_000), size=st.none() | st.integers(1, 500),
          count=st.none() | st.integers(1, 15), consumed=st.booleans())  # fmt: skip
    def set_rules(self, name: str, age: int | None, size: int | None, count: int | None, consumed: bool) -> None:
        wanted = Rules(age or 0, size or 0, count or 0, consumed)
        assert self.do(SetChannel(name, wanted.as_map())) == Empty()
        self.channels[name].rules = wanted
        assert self.broker.ask(DescribeChannel(name)).retention == wanted.as_map()

    @rule(kind=st.sampled_from(["total", "clock", "full", "stopped", "killed", "leave"]), total=st.sampled_from([0, 0, 1, 100, 600]),
          name=st.sampled_from(NAMES), group=st.sampled_from(GROUPS))  # fmt: skip
    def disturb(self, kind: str, total: int, name: str, group: str) -> None:
        """What is rare."""
        if kind == "total":
            self.total = total
            self.broker.core.retention.section = RetentionSection(total_bytes_max=total)
        elif kind == "clock":
            self.is_doubtful = not self.is_doubtful
            self.started()
        elif kind == "full":
            self.refuse_the_next_commit(name)
        elif kind == "leave":
            self.destroy_group(name, group)
        else:
            self.start_again(is_killed=kind == "killed")

    # -- looks ---------------------------------------------------------------------------

    def cut_of(self, model: ChannelModel, begin: int) -> int:
        """The index up to which the channel's rules let its messages go."""
        rules, records = model.rules, model.records
        wanted = begin
        if rules.max_age_ms and not self.is_doubtful:
            wanted = max(wanted, model.index(self.broker.now_ms - rules.max_age_ms << COUNTER_BITS))
        if rules.max_messages:
            wanted = max(wanted, len(records) - rules.max_messages)
        if rules.max_bytes:
            wanted = max(wanted, model.behind(begin, model.size(begin) - rules.max_bytes))
        if rules.consumed_by_all and model.groups:
            wanted = max(wanted, model.index(min(self.kept_from(group) for group in model.groups.values())))
        return wanted

    def kept_from(self, group: GroupModel) -> int:
        kept = [group.position]
        for handed in group.handed.values():
            is_fresh = handed.generation == group.generation and handed.used_ms > self.broker.now_ms - REPEAT_MS
            if handed.is_released or is_fresh:
                kept.append(handed.begin_id)
        return min(kept)

    def cuts(self) -> dict[str, int]:
        """Where each channel begins after a look."""
        begins = {
            name: self.cut_of(model, model.begin if model.pending is None else model.pending)
            for name, model in self.channels.items()
        }
        left = {name for name in begins if self.channels[name].size(begins[name])}
        excess = sum(self.channels[name].size(begin) for name, begin in begins.items()) - self.total
        while self.total and excess > 0 and left:
            name = min(left, key=lambda name: self.channels[name].id_at(begins[name]))
            model, before = self.channels[name], begins[name]
            begins[name] = model.behind(before, excess)
            removed = model.size(before) - model.size(begins[name])
            excess -= removed
            if not removed or not model.size(begins[name]):
                left.discard(name)
        return begins

    @rule(turns=st.lists(st.booleans(), min_size=1, max_size=6), is_committed=st.booleans())
    def look(self, turns: Sequence[bool], is_committed: bool) -> None:
        """``turns``: whether what waits is committed at each of them, in turn."""
        expected, index = self.cuts(), 0
        look = self.broker.core.retention._look()  # pyright: ignore[reportPrivateUsage]  # as `run` does each second
        try:
            while True:
                look.send(None)
                if turns[index % len(turns)]:
                    self.broker.commit()
                index += 1
        except StopIteration:
            pass
        for name, begin in expected.items():
            model, channel = self.channels[name], self.broker.core.channels.find(name)
            assert channel.value.begin_offset == begin, (name, model.rules, self.total)
            model.begin = channel.visible.begin_offset
            model.pending = None if model.begin == begin else begin
            assert model.begin in (begin, *range(begin)), "it is on its way there"
        if is_committed:
            self.broker.commit()
            self.committed()

    def refuse_the_next_commit(self, name: str) -> None:
        """The disk is full: what waits is undone, and nothing is lost."""
        self.broker.store.on_write = fail(DiskFull("the disk is full"))
        reply = self.broker.do(Produce(name, self.broker.unique(), 0, *pack_messages([b"x"])))
        self.broker.store.on_write = lambda: None
        assert isinstance(reply, DiskFull)
        for model in self.channels.values():
            model.pending = None

    def start_again(self, *, is_killed: bool) -> None:
        if not is_killed:
            self.broker.commit()
            self.committed()
        self.broker.start()
        self.started()
        for model in self.channels.values():
            model.pending = None

    # -- groups --------------------------------------------------------------------------

    @rule(name=st.sampled_from(NAMES), group=st.sampled_from(GROUPS), kind=st.sampled_from([Position.EARLIEST, Position.LATEST]))
    def create_group(self, name: str, group: str, kind: Position) -> None:
        model = self.channels[name]
        if group in model.groups:
            return
        begin = model.begin if kind is Position.EARLIEST else len(model.records)
        self.do(CreateGroup(name, group, kind, 0, self.broker.unique()))
        found = self.broker.ask(DescribeGroup(name, group))
        model.groups[group] = GroupModel(model.id_at(begin), begin, found.generation, Books(begin))

    def destroy_group(self, name: str, group: str) -> None:
        if self.channels[name].groups.pop(group, None) is not None:
            created = self.broker.ask(DescribeGroup(name, group)).creation_id
            assert self.do(DestroyGroup(name, group, created)) == Empty()

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
        self, reply: Any, model: ChannelModel, first: int, stop: int, lost: list[tuple[int, int]], generation: int, size: int = 0
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

    @rule(name=st.sampled_from(NAMES), group=st.sampled_from(GROUPS), pick=st.integers(0, 60), beside=st.sampled_from([0, 0, 1, -1]))
    def commit(self, name: str, group: str, pick: int, beside: int) -> None:
        model = self.channels[name]
        if (found := model.groups.get(group)) is None:
            return
        position = max(0, min(model.id_at(pick % (len(model.records) + 1)) + beside, model.next_id))
        begin = model.begin
        assert self.do(Commit(name, group, position, found.generation, b"")) == Empty()
        if position < found.position:
            return
        if position >= model.id_at(begin) or found.offset >= begin:  # else it stays, and the gap is told from there
            offset = max(found.offset, model.index(position), begin)
            found.books.skipped += offset - found.offset
            found.position, found.offset = position, offset

    @rule(name=st.sampled_from(NAMES), group=st.sampled_from(GROUPS), pick=st.integers(0, 60), beside=st.sampled_from([0, 0, 1, -1]),
          kind=st.sampled_from([Position.ID, Position.EARLIEST, Position.LATEST]))  # fmt: skip
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
            [index, positions[index], model.id_at(model.begin)] for index, model in enumerate(models) if missed[index] and positions[index]
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

    @rule(name=st.sampled_from(NAMES), n=st.integers(1, 9), pick=st.none() | st.integers(0, 60), beside=st.sampled_from([0, 1, -1]))
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


def combined(lost: list[tuple[int, int]]) -> tuple[int, int]:
    """From which id on, and how many."""
    begins = [begin for begin, count in lost if count]
    return min(begins, default=0), sum(count for _, count in lost)


@pytest.mark.slow
def test_given_channels_and_groups_when_retention_removes_at_any_time_then_nobody_misses_anything_untold() -> None:
    run_state_machine_as_test(
        Machine,
        settings=settings(
            derandomize=True,
            deadline=None,
            database=None,
            max_examples=int(__import__("os").environ.get("RTM", "120")),
            stateful_step_count=50,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
            print_blob=False,
        ),
    )
