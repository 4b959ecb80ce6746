"""A broker as a dict: what every operation must answer, and the rules that drive a real one against it.

`System` is what is tested: the engine in process or a client over TCP (model_systems.py). `BrokerMachine`
calls the same operation on it and on the dict, and compares; hypothesis chooses which and shrinks.
"""

from bisect import bisect_left
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import ClassVar, NamedTuple, Protocol

from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, precondition, rule

from rocksmq.protocol.errors import ChannelNotFound, Conflict, GroupNotFound, InvalidRequest
from rocksmq.protocol.messages import MessageBatch, OutgoingMessage, Start

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
COUNTER_BITS = 18
MAX_BYTES = 1 << 22


class ChannelView(NamedTuple):
    """What describing a channel must say."""

    begin_id: int | None
    end_id: int | None
    message_count: int
    byte_count: int
    groups: list[str]


class GroupView(NamedTuple):
    """What describing a group must say."""

    position: int
    lag_messages: int
    generation: int
    metadata: bytes


class Sought(NamedTuple):
    """What a seek must answer."""

    position: int
    outcome: str
    generation: int


class System(Protocol):
    """A broker under test. Each raises what contract §1 says."""

    def create_channel(self, channel: str) -> bool: ...
    def destroy_channel(self, channel: str) -> None: ...
    def list_channels(self, prefix: str) -> list[str]: ...
    def describe_channel(self, channel: str) -> ChannelView: ...
    def create_group(self, channel: str, group: str, start: Start) -> bool: ...
    def destroy_group(self, channel: str, group: str) -> None: ...
    def describe_group(self, channel: str, group: str) -> GroupView: ...
    def produce(self, channel: str, messages: list[OutgoingMessage]) -> range: ...
    def consume(self, channel: str, group: str, max_messages: int, max_bytes: int) -> MessageBatch: ...
    def fetch(self, channel: str, start: Start, max_messages: int, max_bytes: int) -> MessageBatch: ...
    def commit(self, channel: str, group: str, position: int, generation: int | None, metadata: bytes) -> None: ...
    def seek(self, channel: str, group: str, to: Start) -> Sought: ...

    def restart(self) -> None:
        """Stop it cleanly and start it again on the same data."""

    def crash(self) -> None:
        """End it as kill -9 does and start it again on the same data."""

    def close(self) -> None:
        """End it for good."""


class Record(NamedTuple):
    """A message as it was produced, with its id."""

    id: int
    payload: bytes
    headers: dict[str, bytes]


@dataclass
class GroupModel:
    """A consumer group: the next id to read, and its generation as the broker last told it."""

    position: int
    generation: int
    metadata: bytes = b""


@dataclass
class ChannelModel:
    """A channel: its messages in order."""

    records: list[Record] = field(default_factory=list[Record])
    byte_count: int = 0
    groups: dict[str, GroupModel] = field(default_factory=dict[str, GroupModel])

    @property
    def end(self) -> int:
        """The position behind the last message."""
        return self.records[-1].id + 1 if self.records else 1

    def index(self, position: int) -> int:
        """How many messages lie before ``position``."""
        return bisect_left(self.records, position, key=lambda record: record.id)

    def target(self, start: Start) -> tuple[int, str]:
        """Where a seek to ``start`` leads, and its outcome."""
        if not self.records or start == "latest":
            return self.end, "latest"
        if start == "earliest":
            return self.records[0].id, "earliest"
        if isinstance(start, datetime):
            behind = [record.id for record in self.records if timestamp_of(record.id) >= start]
            return (behind[0], "next") if behind else (self.end, "latest")
        assert isinstance(start, int)
        if start < self.records[0].id:
            return self.records[0].id, "earliest"
        if start >= self.end:
            return self.end, "latest"
        found = self.records[self.index(start)].id
        return found, "exact" if found == start else "next"

    def read(self, position: int, max_messages: int) -> list[Record]:
        """The next messages."""
        begin = self.index(position)
        return self.records[begin : begin + max_messages]


def timestamp_of(message_id: int) -> datetime:
    """When a message was taken."""
    return EPOCH + timedelta(milliseconds=message_id >> COUNTER_BITS)


CHANNELS = st.sampled_from(["orders", "orders", "orders", "orders2", "order", "a.b-c_d"])
GROUPS = st.sampled_from(["billing", "billing", "bill", "audit"])
PAYLOADS = st.one_of(st.binary(max_size=12), st.sampled_from([0, 1_023, 1_024, 4_096, 70_000]).map(bytes))
HEADERS: st.SearchStrategy[dict[str, bytes]] = st.one_of(
    st.builds(dict[str, bytes]), st.dictionaries(st.text(max_size=4), st.binary(max_size=6), max_size=2)
)
MESSAGES = st.lists(st.builds(OutgoingMessage, PAYLOADS, HEADERS), min_size=1, max_size=6)
KINDS = st.sampled_from(["earliest", "latest", "id", "time"])
PICKS = st.integers(0, 99)  # which of the messages
COUNTS = st.integers(1, 9)
SIZES = st.sampled_from([1, 10, 2_000, MAX_BYTES, MAX_BYTES])


class BrokerMachine(RuleBasedStateMachine):
    """The rules. A subclass says what is tested, in ``make``; it must answer as the dict does."""

    ids: ClassVar[Bundle[int]] = Bundle("ids")

    def __init__(self) -> None:
        super().__init__()
        self.system = self.make()
        self.channels: dict[str, ChannelModel] = {}
        self.last_id = 0
        self.last_generation = 0

    def make(self) -> System:
        """A new broker without data."""
        raise NotImplementedError

    def teardown(self) -> None:
        self.system.close()

    @initialize()
    def begin_with_a_channel(self) -> None:
        self.create_channel("orders")
        self.create_group("orders", "billing", "earliest", 0)

    # -- channels and groups -------------------------------------------------------

    @rule(channel=CHANNELS)
    def create_channel(self, channel: str) -> None:
        assert self.system.create_channel(channel) is (channel not in self.channels)
        self.channels.setdefault(channel, ChannelModel())

    @rule(channel=CHANNELS)
    def destroy_channel(self, channel: str) -> None:
        with self._expected(channel):
            self.system.destroy_channel(channel)
        self.channels.pop(channel, None)

    @rule(channel=CHANNELS)
    def recreate_channel(self, channel: str) -> None:
        groups = list(self.channels[channel].groups) if channel in self.channels else []
        self.destroy_channel(channel)
        self.create_channel(channel)
        for group in groups:
            self.create_group(channel, group, "earliest", 0)

    @rule(channel=CHANNELS, group=GROUPS, start=KINDS, pick=PICKS)
    def create_group(self, channel: str, group: str, start: str, pick: int) -> None:
        at = self._start(channel, start, pick)
        with self._expected(channel):
            created = self.system.create_group(channel, group, at)
            groups = self.channels[channel].groups
            assert created is (group not in groups)
            if created:
                found = self.system.describe_group(channel, group)
                self._rises(found.generation)
                groups[group] = GroupModel(self.channels[channel].target(at)[0], found.generation)

    @rule(channel=CHANNELS, group=GROUPS)
    def destroy_group(self, channel: str, group: str) -> None:
        with self._expected(channel, group):
            self.system.destroy_group(channel, group)
            del self.channels[channel].groups[group]

    @rule(prefix=st.sampled_from(["", "o", "order", "orders", "a.", "x"]))
    def list_channels(self, prefix: str) -> None:
        assert self.system.list_channels(prefix) == sorted(name for name in self.channels if name.startswith(prefix))

    # -- messages ------------------------------------------------------------------

    @rule(target=ids, channel=CHANNELS, messages=MESSAGES)
    def produce(self, channel: str, messages: list[OutgoingMessage]) -> int:
        with self._expected(channel):
            ids = self.system.produce(channel, messages)
            assert ids[0] > self.last_id
            assert len(ids) == len(messages)
            self.last_id = ids[-1]
            model = self.channels[channel]
            for message_id, message in zip(ids, messages, strict=True):
                model.records.append(Record(message_id, bytes(message.payload), dict(message.headers or {})))
        return self.last_id

    @rule(channel=CHANNELS, group=GROUPS, max_messages=COUNTS, max_bytes=SIZES)
    def consume(self, channel: str, group: str, max_messages: int, max_bytes: int) -> None:
        with self._expected(channel, group):
            batch = self.system.consume(channel, group, max_messages, max_bytes)
            model = self.channels[channel].groups[group]
            self._compare(batch, self.channels[channel].read(model.position, max_messages), max_bytes)
            assert batch.generation == model.generation
            if batch:
                model.position = batch.ids[-1] + 1
            assert batch.next_position == model.position

    @rule(channel=CHANNELS, kind=KINDS, pick=PICKS,
          max_messages=COUNTS, max_bytes=SIZES)  # fmt: skip
    def fetch(self, channel: str, kind: str, pick: int, max_messages: int, max_bytes: int) -> None:
        start = self._start(channel, kind, pick)
        with self._expected(channel):
            batch = self.system.fetch(channel, start, max_messages, max_bytes)
            model = self.channels[channel]
            position = start if isinstance(start, int) else model.target(start)[0]
            self._compare(batch, model.read(position, max_messages), max_bytes)
            assert batch.generation == 0
            assert batch.next_position == (batch.ids[-1] + 1 if batch else position)

    @rule(channel=CHANNELS, group=GROUPS, kind=KINDS, pick=PICKS)
    def seek(self, channel: str, group: str, kind: str, pick: int) -> None:
        to = self._start(channel, kind, pick)
        with self._expected(channel, group):
            sought = self.system.seek(channel, group, to)
            assert (sought.position, sought.outcome) == self.channels[channel].target(to)
            self._rises(sought.generation)
            model = self.channels[channel].groups[group]
            model.position, model.generation = sought.position, sought.generation

    @rule(to=ids, group=GROUPS)
    def seek_to_any_id_ever_given_out(self, to: int, group: str) -> None:
        for channel in list(self.channels):
            if to and group in self.channels[channel].groups:
                sought = self.system.seek(channel, group, to)
                assert (sought.position, sought.outcome) == self.channels[channel].target(to)
                self._rises(sought.generation)
                model = self.channels[channel].groups[group]
                model.position, model.generation = sought.position, sought.generation

    @rule(channel=CHANNELS, group=GROUPS, pick=PICKS, generation=st.sampled_from(["none", "present", "old"]),
          metadata=st.sampled_from([b"", b"m", bytes(256)]))  # fmt: skip
    def commit(self, channel: str, group: str, pick: int, generation: str, metadata: bytes) -> None:
        found = self._group(channel, group)
        position = self._commit_position(channel, pick)
        present = found.generation if found is not None else 1
        sent = {"none": None, "present": present, "old": present - 1}[generation]
        with self._expected(channel, group, conflict=generation == "old", beyond=self._is_beyond(channel, group, position)):
            self.system.commit(channel, group, position, sent, metadata)
            model = self.channels[channel].groups[group]
            if position >= model.position:
                model.position, model.metadata = position, metadata

    # -- restarts --------------------------------------------------------------------

    @precondition(lambda self: self.last_id)
    @rule()
    def restart(self) -> None:
        self.system.restart()
        self._same_everywhere()

    @precondition(lambda self: self.last_id)
    @rule()
    def crash(self) -> None:
        self.system.crash()
        self._same_everywhere()

    # -- what always holds -------------------------------------------------------------

    @rule(channel=CHANNELS)
    def describe(self, channel: str) -> None:
        with self._expected(channel):
            self._same(channel, self.system.describe_channel(channel))

    @invariant()
    def groups_are_where_they_should_be(self) -> None:
        for channel, model in self.channels.items():
            for group, expected in model.groups.items():
                lag = len(model.records) - model.index(expected.position)
                view = GroupView(expected.position, lag, expected.generation, expected.metadata)
                assert self.system.describe_group(channel, group) == view

    def _same_everywhere(self) -> None:
        assert self.system.list_channels("") == sorted(self.channels)
        for channel, model in self.channels.items():
            self._same(channel, self.system.describe_channel(channel))
            batch = self.system.fetch(channel, "earliest", 10_000, MAX_BYTES)
            self._compare(batch, model.records, MAX_BYTES)

    def _same(self, channel: str, view: ChannelView) -> None:
        model = self.channels[channel]
        begin_id, end_id = (model.records[0].id, model.records[-1].id) if model.records else (None, None)
        assert view[:3] == (begin_id, end_id, len(model.records))
        assert view.groups == sorted(model.groups)
        payload_bytes = sum(len(record.payload) for record in model.records)
        if any(record.headers for record in model.records):
            assert view.byte_count > payload_bytes
        else:
            assert view.byte_count == payload_bytes

    @staticmethod
    def _compare(batch: MessageBatch, expected: list[Record], max_bytes: int) -> None:
        """``batch`` begins as ``expected`` does; shorter only for its bytes, and never empty when there was something."""
        found = [Record(*message) for message in batch]
        assert found == expected[: len(found)]
        assert bool(found) == bool(expected)
        assert len(found) <= 1 or sum(len(record.payload) for record in found) <= max_bytes
        if sum(len(record.payload) + 100 for record in expected) < max_bytes:
            assert len(found) == len(expected)

    # -- choosing ------------------------------------------------------------------------

    def _group(self, channel: str, group: str) -> GroupModel | None:
        model = self.channels.get(channel)
        return None if model is None else model.groups.get(group)

    def _start(self, channel: str, kind: str, pick: int) -> Start:
        """A position of that kind around the messages that there are."""
        if kind in ("earliest", "latest"):
            return kind
        model = self.channels.get(channel)
        records = model.records if model is not None and model.records else [Record(self.last_id + 1, b"", {})]
        near = records[pick % len(records)].id
        if kind == "id":
            return max(0, near + (0, 1, -1, 1 << 30, -(1 << 30))[pick % 5])
        return timestamp_of(near) + timedelta(microseconds=(0, 1, -1, 60_000_000, -60_000_000)[pick % 5])

    def _commit_position(self, channel: str, pick: int) -> int:
        model = self.channels.get(channel)
        if model is None or not model.records:
            return pick % 4
        near = model.records[pick % len(model.records)].id
        return (near, near + 1, model.end, model.end + 1, near - 1)[pick % 5]

    def _is_beyond(self, channel: str, group: str, position: int) -> bool:
        model, found = self.channels.get(channel), self._group(channel, group)
        return model is not None and found is not None and position > max(model.end, found.position)

    def _rises(self, generation: int) -> None:
        assert generation > self.last_generation
        self.last_generation = generation

    def _expected(self, channel: str, group: str | None = None, *, conflict: bool = False, beyond: bool = False) -> "Expected":
        if channel not in self.channels:
            return Expected(ChannelNotFound)
        if group is not None and group not in self.channels[channel].groups:
            return Expected(GroupNotFound)
        if conflict:
            return Expected(Conflict)
        return Expected(InvalidRequest if beyond else None)


class Expected:
    """The error that the body must raise, or none."""

    def __init__(self, error: type[Exception] | None) -> None:
        self.error = error

    def __enter__(self) -> None:
        return

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> bool:
        if self.error is None:
            return False
        if kind is None:
            raise AssertionError(f"{self.error.__name__} was not raised")
        return kind is self.error
