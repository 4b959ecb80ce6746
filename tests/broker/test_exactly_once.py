"""Contract §4, model-checked: clients that follow it to the letter, over links and a broker that fail in every way.

Hypothesis chooses what the clients do, which frames arrive when, which replies are lost, and when the broker is
killed or its disk is full. `Truth` holds what was promised to whom; afterwards the log must show every acknowledged
message once and in order, and every reader together the whole log, less what a loss was admitted for.
"""

from collections import defaultdict
from enum import Enum, auto
from functools import partial

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    rule,
    run_state_machine_as_test,  # pyright: ignore[reportUnknownVariableType]
)

from rocksmq.broker.commit import Commit
from rocksmq.broker.groups import Claim, Group, Groups
from rocksmq.broker.limits import Limits
from rocksmq.broker.producers import Producers
from rocksmq.broker.records import Extent
from rocksmq.protocol.errors import DiskFull, RocksMQError
from rocksmq.protocol.messages import Message, MessageBatch
from rocksmq.protocol.operations import (
    Consume,
    CreateChannel,
    CreateGroup,
    DescribeGroup,
    DestroyGroup,
    Fetch,
    Position,
    ReleaseConsumer,
    Seek,
    Sought,
)

from .reference_client import CHANNEL, EVERYTHING, GROUP, Client, Link, NamedProducer, Reader
from .simulated_broker import Killed, Simulation
from .support import identity, in_mock_time

CLIENTS = 3
WINDOW = 4  # batches under way
READERS = 2  # a client
NAME = b"importer"
MINUTE_MS = 60_000
NAMES_KEPT_MS = 29 * 24 * 60 * MINUTE_MS  # the clock never jumps so far that names are forgotten
ROUNDS_MAX = 60  # of undisturbed turns, in which everything must come to rest
LIMITS = Limits(consumers_max=3, consume_messages_max=6)
which = st.integers(0, 11)
some = st.sampled_from([0] * 6 + list(range(1 << CLIENTS)))  # a set of clients, often nobody


BOUNDED = settings(
    derandomize=True,
    deadline=None,
    database=None,
    max_examples=600,
    stateful_step_count=60,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
    print_blob=False,
)


class Outcome(Enum):
    """How a commit ends."""

    STORED = auto()
    DISK_FULL = auto()
    KILLED_BEFORE = auto()  # nothing of it is stored
    KILLED_AFTER = auto()  # it is stored, and nobody hears of it


ACTIONS = [
    *["produce", "produce_named", "consume", "consume"] * 3,
    *["give_producing_up", "open_named", "stop_consuming", "close_reader", "close_reader"],
]
MISHAPS = [
    *["lose_a_connection", "end_long_polls", "advance_the_clock", "seek"] * 2,
    *["kill_a_client", "repeat_the_last_seek", "recreate_the_group"],
]
OUTCOMES = [Outcome.STORED] * 4 + list(Outcome)[1:]


class GroupTruth:
    """Who was handed what in the group's present generation, as far as it was accepted; ``generation`` 0: no group."""

    def __init__(self, generation: int, start: int) -> None:
        self.generation = generation
        self.start = start
        self.claims: dict[tuple[bytes, int], list[int]] = {}  # by consumer id and number

    def copy(self) -> "GroupTruth":
        copied = GroupTruth(self.generation, self.start)
        copied.claims = dict(self.claims)
        return copied

    @property
    def claimed(self) -> set[int]:
        return {message_id for ids in self.claims.values() for message_id in ids}


class Truth:
    """What the callers were told, and what the broker handed out. The witness of every client."""

    def __init__(self) -> None:
        self.log: list[Message] = []  # as a reader from the beginning sees it
        self.acknowledged: dict[bytes, int | None] = {}  # payload -> id, if it was told
        self.seen: defaultdict[int, set[int]] = defaultdict(set)  # ids that reached callers, by generation
        self.excused: set[bytes] = set()  # consumer ids that may have lost what they claimed
        self.group = GroupTruth(0, 0)
        self.saved = self.group  # as it was written
        self._made = 0

    @property
    def unclaimed(self) -> set[int]:
        """What the group has still to hand out, as far as it is durable."""
        return {message.id for message in self.log if message.id >= self.saved.start} - self.saved.claimed

    def save(self) -> None:
        self.saved = self.group.copy()

    def restore(self) -> None:
        self.group = self.saved.copy()

    # -- as the witness ----------------------------------------------------------------

    def unique(self, present_id: int) -> bytes:
        self._made += 1
        return identity(present_id, self._made)

    def stored(self, payloads: list[bytes], first_id: int | None) -> None:
        for index, payload in enumerate(payloads):
            assert payload.startswith(NAME) or payload not in self.acknowledged
            if first_id is not None or payload not in self.acknowledged:
                self.acknowledged[payload] = None if first_id is None else first_id + index

    def is_unknown(self, payloads: list[bytes]) -> None:
        assert all(payload.startswith(NAME) or payload not in self.acknowledged for payload in payloads)

    def returned(self, consumer: bytes, generation: int, messages: list[Message]) -> None:
        ids = {message.id for message in messages}
        assert self.seen[generation].isdisjoint(ids), "a message was returned twice"
        self.seen[generation] |= ids
        payloads = {message.id: message.payload for message in self.log}
        assert all(payloads[message.id] == message.payload for message in messages)

    def may_be_lost(self, consumer: bytes) -> None:
        self.excused.add(consumer)


class WatchedGroups(Groups):
    """Tells the truth what was claimed, given back and sought."""

    truth: Truth

    def create(self, commit: Commit, groups: dict[str, Group], number: int, extent: Extent, request: CreateGroup) -> bool:
        is_new = request.group not in groups
        created = super().create(commit, groups, number, extent, request)
        if is_new:
            state = groups[request.group].state
            self.truth.group = GroupTruth(state.generation, state.position)
        return created

    def destroy(self, commit: Commit, groups: dict[str, Group], name: str, creation_id: int) -> Group | None:
        self.truth.group = GroupTruth(0, 0)
        return super().destroy(commit, groups, name, creation_id)

    def consume(self, commit: Commit, group: Group, extent: Extent, request: Consume) -> Claim | None:
        claim = super().consume(commit, group, extent, request)
        if claim is not None:
            assert claim.generation == self.truth.group.generation
            ids = [first + i for first, count in _runs(claim) for i in range(count)]
            claims, key = self.truth.group.claims, (request.consumer, request.number)
            assert key in claims or self.truth.group.claimed.isdisjoint(ids), "a message was handed to two"
            assert claims.setdefault(key, ids) == ids, "a repeat is the same"
        return claim

    def release(self, commit: Commit, group: Group, extent: Extent, request: ReleaseConsumer) -> None:
        is_claim_known = group.repeats(request) and not group.state.consumers[request.consumer].is_released
        super().release(commit, group, extent, request)
        if is_claim_known:
            claims, key = self.truth.group.claims, (request.consumer, request.number)
            claims[key] = [message_id for message_id in claims[key] if message_id < request.position]

    def seek(self, commit: Commit, group: Group, extent: Extent, request: Seek) -> Sought:
        before = group.state
        sought = super().seek(commit, group, extent, request)
        if group.state is not before:
            unread = {
                message.id for message in self.truth.log if message.id >= self.truth.group.start
            } - self.truth.group.claimed
            assert request.to_kind != Position.CURRENT or min(unread, default=sought.position) >= sought.position
            self.truth.group = GroupTruth(sought.generation, sought.position)
        return sought


def _runs(claim: Claim) -> list[tuple[int, int]]:
    return [(piece.first_id, piece.stop - piece.start) for piece in claim.reading.slices]


class ExactlyOnce(RuleBasedStateMachine):
    """Clients, their links, and a broker."""

    def __init__(self) -> None:
        super().__init__()
        self.truth = WatchedGroups.truth = Truth()
        self.broker = Simulation(LIMITS)
        self.broker.store.on_write, self.broker.store.on_sync = self._on_write, self._on_sync
        self.outcome = Outcome.STORED
        self.during_sync: list[Link] = []
        self.made = 0
        self.sent = 0
        self.begin_ms = self.broker.now_ms
        self.last_seek: Seek | None = None
        self.clients = [self._new_client() for _ in range(CLIENTS)]
        self.left_behind: dict[int, list[Link]] = defaultdict(list)  # links that clients gave up, by their index
        self.broker.ask(CreateChannel(CHANNEL, None, None, None, self.truth.unique(1)))
        self.recreate_the_group(4)
        self._commit()

    # -- what clients do -----------------------------------------------------------------

    @rule(actions=st.lists(st.tuples(st.sampled_from(ACTIONS), which, st.integers(1, 6), st.integers(0, 4)), max_size=6))
    def act(self, actions: list[tuple[str, int, int, int]]) -> None:
        """Callers want something."""
        for action, pick, count, kept in actions:
            getattr(self, action)(self.clients[pick % CLIENTS], pick // CLIENTS, count, kept)

    def produce(self, client: Client, pick: int, count: int, kept: int) -> None:
        if len(client.producer.window) < WINDOW:
            client.producer.send([b"%d:%d" % (client.index, self.sent + i) for i in range(count)])
            self.sent += count

    def give_producing_up(self, client: Client, pick: int, count: int, kept: int) -> None:
        client.producer.give_up()

    def produce_named(self, client: Client, pick: int, count: int, kept: int) -> None:
        named = client.named
        if named is not None and named.is_ready and len(named.window) < WINDOW and not named.is_fenced:
            first = named.next_sequence
            if kept == 4 and first > 1:  # a caller that is not sure, and sends its last message again
                first, count = first - 1, 1
            named.next_sequence = first + count
            named.send([b"%s:%d" % (NAME, first + i) for i in range(count)], first)

    def open_named(self, client: Client, pick: int, count: int, kept: int) -> None:
        if client.named is None or client.named.is_fenced:
            client.named = NamedProducer(client, NAME.decode())

    def consume(self, client: Client, pick: int, count: int, kept: int) -> None:
        reader = self._reader(client, pick)
        if reader.is_free and reader.buffer:
            reader.hand_out(count)
        elif reader.is_free:
            reader.consume(count, kept, 30_000 if pick % 2 else 0)

    def stop_consuming(self, client: Client, pick: int, count: int, kept: int) -> None:
        reader = self._reader(client, pick)
        if reader.consuming is not None:
            reader.time_out()

    def close_reader(self, client: Client, pick: int, count: int, kept: int) -> None:
        reader = self._reader(client, pick)
        if reader.releasing is None:
            reader.close()

    # -- what befalls them -----------------------------------------------------------------

    @rule(late=some, deaf=some, during=some, frames=st.integers(1, 6), outcome=st.sampled_from(OUTCOMES))
    def turn(self, late: int, deaf: int, during: int, frames: int, outcome: Outcome) -> None:
        """Frames arrive, they are committed or not, and clients hear of it."""
        for client in self._members(~late):
            for _ in range(frames):
                self.broker.take(self._oldest_link(client))
        self.during_sync = [self._oldest_link(client) for client in self._members(during)]
        self.outcome = outcome
        hearing = self._members(~deaf)
        try:
            self._commit()
        except Killed:
            for client in hearing:
                client.receive()
            self._restart()
        else:
            for client in hearing:
                client.receive()
        self.outcome, self.during_sync = Outcome.STORED, []

    @rule(mishap=st.sampled_from(MISHAPS), pick=which)
    def befall(self, mishap: str, pick: int) -> None:
        """Something that clients do not expect."""
        getattr(self, mishap)(pick)

    def lose_a_connection(self, pick: int) -> None:
        client = self.clients[pick % CLIENTS]
        self.left_behind[client.index].append(client.link)
        if pick // CLIENTS % 2:
            self.broker.end(client.index)
        client.reconnect()

    def end_long_polls(self, pick: int) -> None:
        self.broker.expire()

    def advance_the_clock(self, pick: int) -> None:
        milliseconds = (1, 30, 61, 25 * 60)[pick % 4] * MINUTE_MS
        if self.broker.now_ms + milliseconds - self.begin_ms < NAMES_KEPT_MS:
            self.broker.now_ms += milliseconds

    def kill_a_client(self, pick: int) -> None:
        client = self.clients[pick % CLIENTS]
        client.die()
        self.broker.take(client.link)
        self.broker.end(client.index)
        self.clients[pick % CLIENTS] = self._new_client()

    def seek(self, pick: int) -> None:
        kind = (Position.CURRENT, Position.EARLIEST, Position.CURRENT, Position.ID, Position.CURRENT, Position.LATEST)[pick % 6]
        to = self.truth.log[pick % len(self.truth.log)].id if self.truth.log else 0
        self.last_seek = Seek(CHANNEL, GROUP, kind, to, self.truth.unique(1))
        self.broker.ask(self.last_seek)

    def repeat_the_last_seek(self, pick: int) -> None:
        group, request = self._group(), self.last_seek
        last = group.state.last_seek if group is not None else None
        if group is not None and request is not None and last is not None and last.request_id == request.request_id:
            generation = group.state.generation
            self.broker.ask(request)
            assert group.state.generation == generation

    def recreate_the_group(self, pick: int) -> None:
        if (group := self._group()) is not None:
            self.broker.ask(DestroyGroup(CHANNEL, GROUP, group.state.creation_id))
        if group is None or pick % 3:
            kind = Position.LATEST if pick % 2 else Position.EARLIEST
            self.broker.ask(CreateGroup(CHANNEL, GROUP, kind, 0, self.truth.unique(1)))

    # -- what holds ------------------------------------------------------------------------

    @invariant()
    def lag_is_what_was_not_claimed(self) -> None:
        described = self.broker.ask(DescribeGroup(CHANNEL, GROUP))
        if self.truth.saved.generation and described is not None and not isinstance(described, RocksMQError):
            assert described.generation == self.truth.saved.generation
            assert described.lag_messages == len(self.truth.unclaimed)

    def teardown(self) -> None:
        """Everything comes to rest, everybody closes, and what is left is read."""
        self.outcome, self.during_sync = Outcome.STORED, []
        self._rest()
        for client in self.clients:
            for reader in client.readers:
                if not reader.is_closed:
                    reader.close()
        self._rest()
        last = Reader(self.clients[0])
        self.clients[0].readers = [last]
        count = -1
        while count != len(self.truth.seen[self.truth.group.generation]):
            count = len(self.truth.seen[self.truth.group.generation])
            last.consume(100, 0, 0)
            self._rest()
        self._check_log()
        self._check_readers()

    def _check_log(self) -> None:
        by_payload = {message.payload: message.id for message in self.truth.log}
        assert len(by_payload) == len(self.truth.log), "a message is stored twice"
        for payload, message_id in self.truth.acknowledged.items():
            assert payload in by_payload, "an acknowledged message is missing"
            assert message_id is None or by_payload[payload] == message_id
        orders: defaultdict[bytes, list[int]] = defaultdict(list)
        for payload in by_payload:
            producer, number = payload.split(b":")
            orders[producer].append(int(number))
        for producer, numbers in orders.items():
            assert numbers == sorted(numbers), f"messages of {producer!r} are not in order"
        assert orders[NAME] == list(range(1, len(orders[NAME]) + 1)), "a sequence is missing"

    def _check_readers(self) -> None:
        group = self.truth.saved
        if not group.generation:
            return
        assert self.truth.unclaimed == set()
        everything = {message.id for message in self.truth.log if message.id >= group.start}
        lost = {
            message_id for (consumer, _), ids in group.claims.items() if consumer in self.truth.excused for message_id in ids
        }
        missing = everything - self.truth.seen[group.generation]
        assert missing <= lost, "a message was skipped"

    # -- driving ----------------------------------------------------------------------------

    def _new_client(self) -> Client:
        self.made += 1
        return Client(self.made, self.truth)

    @staticmethod
    def _reader(client: Client, pick: int) -> Reader:
        client.readers = [reader for reader in client.readers if not reader.is_closed]
        while len(client.readers) < READERS:
            client.readers.append(Reader(client))
        return client.readers[pick % READERS]

    def _members(self, chosen: int) -> list[Client]:
        return [client for index, client in enumerate(self.clients) if chosen >> index & 1]

    def _oldest_link(self, client: Client) -> Link:
        """The client's present link, or before it one that it gave up while its frames were on their way."""
        for link in self.left_behind[client.index]:
            if link.requests:
                return link
        return client.link

    def _group(self) -> Group | None:
        return self.broker.core.channels.find(CHANNEL).groups.get(GROUP)

    def _commit(self) -> None:
        self.broker.commit()
        self._read_on()

    def _read_on(self) -> None:
        while True:
            position = self.truth.log[-1].id + 1 if self.truth.log else 0
            found = MessageBatch(self.broker.ask(Fetch(CHANNEL, Position.ID, position, 100, EVERYTHING, 0)))
            if not found:
                return
            self.truth.log += found

    def _restart(self) -> None:
        self.outcome, self.during_sync = Outcome.STORED, []
        self.truth.restore()
        self.broker.start()
        before, self.truth.log = self.truth.log, []
        self._read_on()
        assert self.truth.log[: len(before)] == before, "what was visible is still there"
        self.left_behind.clear()
        for client in self.clients:
            client.reconnect()

    def _on_write(self) -> None:
        if self.outcome is Outcome.KILLED_BEFORE:
            raise Killed
        if self.outcome is Outcome.DISK_FULL:
            self.truth.restore()
            raise DiskFull("the disk is full")
        self.truth.save()

    def _on_sync(self) -> None:
        for link in self.during_sync:
            self.broker.take(link)
        if self.outcome is Outcome.KILLED_AFTER:
            raise Killed

    def _rest(self) -> None:
        """Let everything arrive until nobody waits for anything."""
        for _ in range(ROUNDS_MAX):
            for client in self.clients:
                while (link := self._oldest_link(client)).requests:
                    self.broker.take(link)
            self.broker.expire()
            self._commit()
            for client in self.clients:
                client.receive()
            if self._is_at_rest:
                return
        raise AssertionError("somebody waits for ever")

    @property
    def _is_at_rest(self) -> bool:
        return not any(
            client.link.requests
            or client.link.replies
            or any(producer is not None and producer.window for producer in (client.producer, client.named))
            or any(reader.consuming or reader.releasing for reader in client.readers)
            for client in self.clients
        )


@pytest.mark.slow
def test_given_clients_that_follow_the_contract_when_anything_fails_then_every_message_is_stored_and_read_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("rocksmq.broker.core.Groups", WatchedGroups)
    monkeypatch.setattr("rocksmq.broker.core.Producers", partial(Producers, producers_max=3))

    @in_mock_time
    async def check() -> None:
        run_state_machine_as_test(ExactlyOnce, settings=BOUNDED)

    check()
