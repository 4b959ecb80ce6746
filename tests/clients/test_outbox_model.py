"""Two outboxes, one of a producer with a name, against the broker's own tables over links that lose what they like.

The machine decides what is delivered, committed, lost, refused and forgotten, and when. Whatever it does, each batch
is in the log at most once and in order, and what callers are told is true (contract §1, §4).
"""

import copy
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from types import SimpleNamespace
from typing import Any, cast

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    rule,
    run_state_machine_as_test,  # pyright: ignore[reportUnknownVariableType]
)

from rocksmq.broker.channels import Channels
from rocksmq.broker.commit import Commit
from rocksmq.broker.ids import IDAllocator
from rocksmq.broker.limits import Limits
from rocksmq.broker.log import Log
from rocksmq.broker.names import ProducerNames
from rocksmq.broker.producers import WINDOW, Producers
from rocksmq.clients.outbox import Outbox, Parcel
from rocksmq.protocol.errors import (
    OUTCOME_UNKNOWN,
    Conflict,
    ConnectionFailed,
    DiskFull,
    InternalError,
    MessageTooLarge,
    OutOfSequence,
    Overloaded,
    PermissionDenied,
    RocksMQError,
    ShuttingDown,
    Unauthenticated,
)
from rocksmq.protocol.identity import Identity
from rocksmq.protocol.messages import pack_messages
from rocksmq.protocol.operations import CreateChannel, OpenProducer, Produce, Produced
from tests.broker.support import FSYNC, NOON_MS, identity

CHANNEL, NAME = "orders", "loader"
DAY_MS = 24 * 3_600_000
LOST = ConnectionFailed("the connection was lost")
STORED_THEN_FAILED = "after storing"  # where an InternalError strikes
BEFORE_LOOK_UP = (ShuttingDown, PermissionDenied, InternalError)
BEHIND_LOOK_UP = (Overloaded, DiskFull, MessageTooLarge)
Fault = type[RocksMQError] | str | None
Done = Callable[[Any], None]


class Tables:
    """What the broker remembers of producers; copied for a power cut that takes the latest part of it."""

    def __init__(self, ids: IDAllocator, limits: Limits) -> None:
        nothing = SimpleNamespace(cache=SimpleNamespace(append=lambda *_: None))  # pyright: ignore[reportUnknownLambdaType]
        self.producers = Producers(0)
        self.names = ProducerNames(ids, limits)
        self.channels = Channels(cast(Log, nothing), ids, self.producers, self.names, limits, FSYNC)
        self.log: list[int] = []


class Broker:
    """The pure state, with one open commit, and a list for the log. ``faults`` strike the next requests, one each."""

    def __init__(self) -> None:
        self.now_ms = NOON_MS
        self.ids = IDAllocator(clock=lambda: self.now_ms)
        self._limits = Limits()
        self._tables = Tables(self.ids, self._limits)
        self.faults: deque[Fault] = deque()
        self._open = Commit()
        self._waiting: list[tuple[Done, Produced]] = []
        self._committed_count = 0
        self._request_count = 0
        self.create()
        self.sync()

    @property
    def log(self) -> list[int]:
        return self._tables.log

    def submit(self, request: Produce, done: Done) -> None:
        fault = self.faults.popleft() if self.faults else None

        def admit(size: int) -> None:
            if isinstance(fault, type) and issubclass(fault, BEHIND_LOOK_UP):
                raise fault("as injected")
            self.log.append(int(bytes(request.payloads)))

        try:
            if isinstance(fault, type) and issubclass(fault, BEFORE_LOOK_UP):
                raise fault("as injected")
            channel, first_id = self._tables.channels.produce(self._open, request, admit)
        except RocksMQError as error:
            done(error)
            return
        if fault == STORED_THEN_FAILED:
            done(InternalError("as injected, after storing"))
        elif self._tables.producers.came_with(self._open, channel.number, request.producer, request.number):
            self._waiting.append((done, Produced(first_id)))
        else:
            done(Produced(first_id))

    def open_name(self, producer: bytes) -> int | None:
        channel = self._tables.channels.find(CHANNEL)
        last = self._tables.names.open(self._open, channel.number, OpenProducer(CHANNEL, NAME, producer))
        self.commit()
        assert not isinstance(last, bytes), "the sequences are numbers"
        return last

    def commit(self) -> None:
        self._open.seal(1)
        self._open = Commit()
        self._committed_count = len(self.log)
        waiting, self._waiting = self._waiting, []
        for done, reply in waiting:
            done(reply)

    def roll_back(self) -> None:
        """The disk is full: nothing of the open commit is stored."""
        waiting = self._waiting
        self.crash()
        for done, _ in waiting:
            done(DiskFull("as injected, at the commit"))

    def crash(self) -> None:
        """What is not committed is gone, and nobody is answered."""
        self._open.roll_back()
        del self.log[self._committed_count :]
        self._open, self._waiting = Commit(), []

    def sync(self) -> None:
        self.commit()
        self._synced = self._copied(self._tables)

    def cut_power(self) -> None:
        """What is not synced is gone."""
        self._open, self._waiting = Commit(), []
        self._tables = self._copied(self._synced)
        self._committed_count = len(self.log)

    def _copied(self, tables: Tables) -> Tables:
        shared = (self.ids, self._limits)
        return copy.deepcopy(tables, {id(thing): thing for thing in shared})

    def forget(self, days: int) -> None:
        """Nothing happens for so long."""
        self.commit()
        self.now_ms += days * DAY_MS + 1
        self._tables.producers.forget(self._open, self.ids.present_id)
        self._tables.names.forget(self._open)
        self.sync()

    def create(self) -> None:
        self._request_count += 1
        request_id = identity(self.ids.present_id, self._request_count)
        self._tables.channels.create(self._open, CreateChannel(CHANNEL, None, None, None, request_id))

    def recreate(self) -> None:
        """The channel is destroyed, and another of its name made."""
        self.commit()
        number = self._tables.channels.find(CHANNEL).number
        self._tables.channels.destroy(self._open, [(CHANNEL, number)])
        self.commit()
        self.log.clear()
        self.create()
        self.sync()


class Link:
    """One connection: requests on their way, and replies, each with the place of its request."""

    def __init__(self) -> None:
        self.requests: deque[tuple[int, Parcel, Produce]] = deque()
        self.replies: list[tuple[int, Parcel, Any]] = []

    def deliver(self, broker: Broker, count: int) -> None:
        for _ in range(min(count, len(self.requests))):
            place, parcel, request = self.requests.popleft()
            broker.submit(request, partial(self._replied, place, parcel))

    def _replied(self, place: int, parcel: Parcel, reply: Any) -> None:
        self.replies.append((place, parcel, reply))


class Side:
    """A producer: its outbox, its connection, and what its caller was told. Parcels go by the numbers that they hold."""

    def __init__(self, broker: Broker, first: int, *, has_name: bool) -> None:
        self.first = first
        self.has_name = has_name
        self.count = 0
        self.stored: set[int] = set()
        self.refused: set[int] = set()  # told as certainly not stored
        self.unanswered: set[int] = set()  # an answer to a transmission is missing, or says nothing
        self.may_be_unknown = False  # the broker may have lost what it knew of the producer, or met a bug
        self.is_connected = False
        self.must_open = has_name
        self._broker = broker
        self._present_id = broker.ids.present_id
        self._link = self._old = Link()
        self._sent_count = 0
        self._on_their_way: dict[Parcel, Produce] = {}
        self.outbox = Outbox(lambda: Identity.new(self._present_id), has_name=has_name)

    def add(self, count: int) -> None:
        for _ in range(count):
            value = self.first + self.count
            self.count += 1
            self.outbox.add(Parcel(pack_messages([b"%d" % value]), [value, value] if self.has_name else None))

    def connect(self) -> None:
        """A new connection: what the old one had not delivered is dropped."""
        if not self.is_connected:
            self._old = self._link = Link()
            self._present_id = max(self._present_id, self._broker.ids.present_id)
            self.is_connected = True

    def open_name(self, *, is_told: bool) -> None:
        """Open the name if it is time to; without the answer the connection is lost."""
        if not (self.must_open or self.outbox.must_reopen) or self._on_their_way:
            return
        opened = Identity.new(self._present_id)
        last = self._broker.open_name(opened.id)
        if not is_told:
            self.lose()
            return
        self.must_open = False
        self.stored |= {value_of(parcel) for parcel in self.outbox.reopened(opened, last)}
        self.unanswered.clear()

    def send(self, limit: int, *, is_last_unsent: bool = False) -> int:
        """Send up to ``limit`` parcels, the last of them in vain if so wished; how many were sent."""
        for sent in range(limit):
            if not self.is_connected or self.must_open or (parcel := self.outbox.to_send()) is None:
                return sent
            if is_last_unsent and sent == limit - 1:
                self.outbox.unsent(parcel)
                self.lose()
                return sent
            request = Produce(CHANNEL, self.outbox.identity.id, parcel.number, *parcel.batch, cast(Any, parcel.sequences))
            self._check_numbers(parcel, request)
            self._on_their_way[parcel] = request
            self._link.requests.append((self._sent_count, parcel, request))
            self._sent_count += 1
        return limit

    def _check_numbers(self, parcel: Parcel, request: Produce) -> None:
        """As SPEC §7.3 asks of clients."""
        numbers = [sent.number for sent in self._on_their_way.values()]
        assert request.number not in numbers, "a number belongs to one batch"
        assert request.number - min(numbers, default=request.number) < WINDOW

    def deliver(self, count: int) -> None:
        """Also what the connection that was lost still holds, until there is a new one."""
        self._old.deliver(self._broker, count)

    def receive(self, count: int, *, in_order: bool) -> int:
        """Take up to ``count`` replies, as they came or in the order of their requests; how many were there."""
        taken = self._link.replies[:count] if self.is_connected else []
        del self._link.replies[: len(taken)]
        for _, parcel, reply in sorted(taken, key=lambda taken: taken[0]) if in_order else taken:
            request = self._on_their_way.pop(parcel)
            if isinstance(reply, RocksMQError):
                self._failed(parcel, request, reply)
            else:
                self.outbox.stored(parcel)
                self.stored.add(value_of(parcel))
            self._hear()
        return len(taken)

    def lose(self) -> None:
        """The connection is lost."""
        self.is_connected = False
        on_their_way, self._on_their_way = self._on_their_way, {}
        for parcel, request in on_their_way.items():
            self._failed(parcel, request, LOST)
        self._hear()

    def give_up_all(self) -> None:
        self.lose()
        self.outbox.give_up_all(Unauthenticated("the token expired"))
        self._hear()

    def _failed(self, parcel: Parcel, request: Produce, error: RocksMQError) -> None:
        value = value_of(parcel)
        self._present_id = max(self._present_id, error.present_id or 0)
        if isinstance(error, (ConnectionFailed, InternalError)):
            self.unanswered.add(value)
            self.may_be_unknown |= isinstance(error, InternalError)
        elif isinstance(error, OutOfSequence):
            if error.expected_number is not None and request.number >= error.expected_number:
                self.unanswered.discard(value)
        elif not isinstance(error, (ShuttingDown, PermissionDenied)):
            self.unanswered.discard(value)
        self.must_open |= self.has_name and isinstance(error, Conflict)  # the caller opens it anew
        self.outbox.failed(parcel, error)

    def _hear(self) -> None:
        """What the caller is told must be true."""
        failures, self.outbox.failures = self.outbox.failures, []
        for parcel, error in failures:
            value = value_of(parcel)
            if isinstance(error, OUTCOME_UNKNOWN):
                assert value in self.unanswered, f"{value} was certainly not stored, and told as unknown: {error!r}"
                if isinstance(error, OutOfSequence):
                    assert self.may_be_unknown
            else:
                self.refused.add(value)
                if self.has_name:
                    self.refused |= {known for known in map(value_of, self.outbox) if known > value} - self.stored

    @property
    def is_waiting(self) -> bool:
        """Whether the answer to anything is missing."""
        return bool(self._on_their_way or self.unanswered & {value_of(parcel) for parcel in self.outbox})

    @property
    def values(self) -> Iterable[int]:
        return range(self.first, self.first + self.count)


def value_of(parcel: Parcel) -> int:
    """The number that it holds."""
    return int(bytes(parcel.batch.payloads))


A_FEW = st.integers(1, 5)
MANY = st.integers(1, 20)
SIDES = st.integers(0, 1)
FAULTS = st.sampled_from([None, STORED_THEN_FAILED, *BEFORE_LOOK_UP, *BEHIND_LOOK_UP])


class OutboxMachine(RuleBasedStateMachine):
    """Rules are what may happen; `teardown` lets all faults stop and expects everything settled."""

    def __init__(self) -> None:
        super().__init__()
        self.broker = Broker()
        self.sides = [Side(self.broker, 0, has_name=False), Side(self.broker, 1_000_000, has_name=True)]
        self.gone: set[int] = set()  # what a power cut or a destroyed channel took

    @rule(side=SIDES, count=MANY)
    def add(self, side: int, count: int) -> None:
        self.sides[side].add(count)

    @rule(side=SIDES, limit=MANY, is_told=st.booleans())
    def send(self, side: int, limit: int, is_told: bool) -> None:
        self.sides[side].connect()
        self.sides[side].open_name(is_told=is_told)
        self.sides[side].send(limit)

    @rule(side=SIDES, limit=A_FEW)
    def send_in_vain(self, side: int, limit: int) -> None:
        self.sides[side].send(limit, is_last_unsent=True)

    @rule(side=SIDES, count=MANY)
    def deliver(self, side: int, count: int) -> None:
        self.sides[side].deliver(count)

    @rule(side=SIDES, count=MANY, in_order=st.booleans())
    def receive(self, side: int, count: int, in_order: bool) -> None:
        self.sides[side].receive(count, in_order=in_order)

    @rule(side=SIDES, count=MANY)
    def go_round(self, side: int, count: int) -> None:
        """Sent, delivered and committed, but not yet received."""
        self.send(side, count, True)
        self.deliver(side, count)
        self.broker.commit()

    @rule(side=SIDES, count=A_FEW, faults=st.lists(FAULTS, min_size=1, max_size=3), received=A_FEW)
    def stumble(self, side: int, count: int, faults: list[Fault], received: int) -> None:
        """Something is refused, and then the connection is lost with some of the answers."""
        self.add(side, 2)
        self.broker.faults = deque(faults)
        self.go_round(side, count)
        self.receive(side, received, in_order=True)
        self.lose(side)

    @rule()
    def commit(self) -> None:
        self.broker.commit()

    @rule(faults=st.lists(FAULTS, min_size=1, max_size=6))
    def break_requests(self, faults: list[Fault]) -> None:
        self.broker.faults.extend(faults)

    @rule(side=SIDES)
    def lose(self, side: int) -> None:
        self.sides[side].lose()

    @rule()
    def fill_the_disk(self) -> None:
        self.broker.roll_back()

    @rule()
    def crash(self) -> None:
        self.broker.crash()
        self.lose_all()

    @rule()
    def sync(self) -> None:
        self.broker.sync()

    @rule()
    def cut_power(self) -> None:
        before = set(self.broker.log)
        self.broker.cut_power()
        self.forgotten(before - set(self.broker.log))
        self.lose_all()

    @rule(days=st.sampled_from([1, 1, 31]))
    def forget(self, days: int) -> None:
        # A name is known for 30 days without use: a batch whose answer stays away for longer may be stored twice.
        self.broker.forget(1 if self.sides[1].is_waiting else days)
        self.forgotten(set())

    @rule()
    def recreate(self) -> None:
        before = set(self.broker.log)
        self.broker.recreate()
        self.forgotten(before)

    @rule(side=SIDES)
    def give_up_all(self, side: int) -> None:
        self.sides[side].give_up_all()

    def lose_all(self) -> None:
        """Nothing that was sent arrives any more."""
        for side in self.sides:
            side.lose()
            side.connect()

    def forgotten(self, gone: set[int]) -> None:
        self.gone |= gone
        for side in self.sides:
            side.may_be_unknown = True

    @invariant()
    def each_is_stored_once_and_in_order(self) -> None:
        for side in self.sides:
            stored = [value for value in self.broker.log if value in side.values]
            assert stored == sorted(set(stored))

    @invariant()
    def what_callers_were_told_is_true(self) -> None:
        log = set(self.broker.log)
        for side in self.sides:
            assert side.stored <= log | self.gone
            assert not side.refused & log

    def teardown(self) -> None:
        """Without faults everything is settled, soon."""
        self.broker.faults.clear()
        rounds = 10 + sum(len(side.outbox) for side in self.sides) // WINDOW
        while any(len(side.outbox) for side in self.sides):
            assert (rounds := rounds - 1) >= 0, "it goes round in circles"
            for side in self.sides:
                self.go_round(0 if side is self.sides[0] else 1, 1_000)
                side.receive(1_000, in_order=True)
        self.each_is_stored_once_and_in_order()
        self.what_callers_were_told_is_true()
        super().teardown()


def test_given_two_outboxes_when_anything_fails_then_each_batch_is_stored_once_in_order_and_what_is_told_is_true() -> None:
    run_state_machine_as_test(
        OutboxMachine,
        settings=settings(
            max_examples=250,
            stateful_step_count=40,
            derandomize=True,
            deadline=None,
            database=None,
            print_blob=False,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
        ),
    )
