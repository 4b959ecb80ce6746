"""What the model test of retention drives: a broker, lists of all that was ever appended to its channels, looks and crashes.

A look of the trimmer is driven by hand, with commits, full disks and crashes between any two of its turns.
"""

from bisect import bisect_left
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace, coroutine
from typing import Any, NamedTuple

import pytest
import trio
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    rule,  # pyright: ignore[reportUnknownVariableType]
)

from rocksmq.broker import trimmer
from rocksmq.broker.clock import ClockGuard
from rocksmq.broker.ids import COUNTER_BITS
from rocksmq.broker.limits import Limits
from rocksmq.broker.retention import KEEP_ALL, REPEAT_MS, RetentionSection, Rules
from rocksmq.protocol.administration import SetChannel
from rocksmq.protocol.errors import DiskFull
from rocksmq.protocol.messages import OutgoingMessage, pack_messages
from rocksmq.protocol.operations import (
    CreateChannel,
    CreateGroup,
    DescribeChannel,
    DescribeGroup,
    DestroyGroup,
    Empty,
    Position,
    Produce,
)

from .disk_support import fail
from .many_support import ManyBroker

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


class RetentionWorld(RuleBasedStateMachine):
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
            OutgoingMessage(
                b"%d." % (len(model.records) + index) * 9 if size > 9 else bytes(size), {"k": bytes(size)} if h else {}
            )
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

    @rule(
        kind=st.sampled_from(["total", "clock", "full", "stopped", "killed", "leave"]),
        total=st.sampled_from([0, 0, 1, 100, 600]),
        name=st.sampled_from(NAMES),
        group=st.sampled_from(GROUPS),
    )
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
            is_late = not self.is_doubtful and handed.used_ms <= self.broker.now_ms - REPEAT_MS
            is_fresh = handed.generation == group.generation and not is_late
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

    @rule(
        name=st.sampled_from(NAMES), group=st.sampled_from(GROUPS), kind=st.sampled_from([Position.EARLIEST, Position.LATEST])
    )
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
