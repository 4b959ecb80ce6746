"""The sender against a model of Pulsar: whatever is killed, late, fenced or fails, the topic has each message once, in order;
and where a topic's policy changes under way, so that Pulsar has refused some and taken later ones, nothing more is sent.

What is driven is the mirror's own `Lane` and `Course`; Pulsar, the broker and the loop around them are imitated.
"""

from collections import deque
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from rocksmq.clients.mirror import lane as lane_module
from rocksmq.clients.mirror.course import Phase, Room
from rocksmq.clients.mirror.groups import ChannelGone, Taken, TakenOver
from rocksmq.clients.mirror.lane import Answer, Lane
from rocksmq.clients.mirror.options import MirrorOptions
from rocksmq.clients.mirror.report import State
from rocksmq.clients.mirror.resume import Last
from rocksmq.clients.mirror.whole import Compared
from rocksmq.clients.pulsar.places import Place
from rocksmq.protocol.errors import RocksMQError, Timeout

from .pulsar_model import Broker, Done, Producer, Topic, described

CHANNEL = "orders"
SMALL = st.integers(min_value=0, max_value=4)
PAYLOADS = [b"", b"", bytes(130), b"", bytes(270)]  # in turns
LIMIT = st.integers(min_value=400, max_value=2_400)  # bytes, and no message has more
GIVEN_UP_MAX = 20  # the same
STEPS_MAX = 2_000  # until all is mirrored once nothing disturbs any more


class Mirror:
    """One process of the mirror, its loop imitated."""

    def __init__(self, world: "World") -> None:
        self.world = world
        self.answers: deque[Answer] = deque()
        self.is_over = False
        self.asked: tuple[Lane, int, int] | None = None
        self.room = Room(1 << 20)
        self.start_lane()

    def start_lane(self) -> None:
        options = MirrorOptions(source="rocksmq://here", target="pulsar://there", channels=(CHANNEL,))
        self.lane = Lane(options, CHANNEL, self.world.broker.number, self.room, self.answers.append)

    def step(self) -> None:
        if self.is_over:
            return
        if self.lane.number != self.world.broker.number:
            self.lane.close_topic()
            self.start_lane()
        self.settle()
        lane = self.lane
        try:
            if lane.course.phase is Phase.OPENING:
                lane.opened(lane.open_topic(self.world, self, lane.opening), 0.0)  # type: ignore[arg-type]
            elif lane.course.phase is Phase.LOOKING:
                lane.looked(*lane.look(self.world, self))  # type: ignore[arg-type]
            while lane.topic is not None and (chunk := lane.course.next_chunk()) is not None:
                lane.topic.send(chunk)
        except TakenOver:
            self.end()
        except RocksMQError as error:
            lane.failed(error, 0.0)
            lane.close_topic()

    def give_up(self) -> None:
        """What is on the way has not been answered for long."""
        if self.lane.course.is_on_the_way:
            self.lane.failed(Timeout("silent"), 0.0)
            self.lane.close_topic()

    def settle(self) -> None:
        while self.answers:
            lane, opening, number, failed, place = self.answers.popleft()
            if lane is not self.lane or lane.opening != opening or lane.course.phase is Phase.OPENING:
                continue
            if failed is not None:
                lane.failed(RocksMQError(failed), 0.0)
                lane.close_topic()
                continue
            lane.acknowledged(number, place, 0.0)
            if lane.must_check:
                lane.again()

    def read(self, count: int) -> None:
        """What was asked for the last time comes; then it asks again."""
        lane, course = self.lane, self.lane.course
        asked_lane, opening, place = self.asked or (None, 0, 0)
        if asked_lane is lane and opening == lane.opening:
            ids = self.world.broker.read(place, count)
            payloads = [payload_of(message_id) for message_id in ids]
            if lane.number == self.world.broker.number:
                course.fetched(place, ids, payloads, None, ids[-1] + 1 if ids else place)
        self.asked = (lane, lane.opening, course.fetch_from) if course.wants(100_000) else None

    def commit(self) -> None:
        progress = None if self.is_over else self.lane.progress()
        if progress is not None and progress.number == self.world.broker.number:
            if self.world.broker.commit(progress):
                self.lane.committed(progress, self.lane.done)
            else:
                self.end()

    def end(self) -> None:
        self.is_over = True
        self.lane.close_topic()

    # -- as `Groups` -------------------------------------------------------------

    def take_over(self, number: int) -> Taken:
        broker = self.world.broker
        if number != broker.number:
            raise ChannelGone("gone")
        broker.generation += 1
        return Taken(broker.position, 0, broker.generation, broker.metadata)

    def messages_from(self, number: int, position: int) -> list[tuple[int, int, bytes]]:
        return [(one, len(payload_of(one)), b"") for one in self.world.broker.ids if one >= position]

    def check(self, channel: str, generation: int) -> Any:
        if generation != self.world.broker.generation:
            raise TakenOver("another has it")
        return described(self.world.broker)

    def describe(self, channel: str, number: int) -> Any:
        if number != self.world.broker.number:
            raise ChannelGone("gone")
        broker = self.world.broker
        begin = broker.ids[0] if broker.ids else broker.end + 1
        return type("Described", (), {"created_ms": 0, "begin_id": begin, "end_id": broker.end})()


def payload_of(message_id: int) -> bytes:
    return PAYLOADS[message_id % len(PAYLOADS)]


class World(RuleBasedStateMachine):
    """Everything; `interfere` is what happens in the midst of an opening."""

    deduplicates = True
    is_limited = False  # by a policy of the topic's own, which one message never exceeds
    changes_limit = False

    def __init__(self) -> None:
        super().__init__()
        self.broker = Broker()
        self.topic = Topic(self.deduplicates)
        self.plan: list[tuple[str, int]] = []  # what happens in the midst of openings
        self.produced: list[int] = []
        self.expected: list[int] = []  # of channels that are gone
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(lane_module, "Topic", self.open)
        self.patch.setattr(lane_module, "last_of", self.last)
        self.patch.setattr(lane_module, "compared_behind", self.compared_behind)
        self.patch.setattr(lane_module, "check_unpartitioned", self.interfere)
        self.mirror = Mirror(self)
        self.former: Mirror | None = None

    @initialize(count=SMALL, size_max=LIMIT)
    def begin(self, count: int, size_max: int) -> None:
        self.broker.produce(count, 3)
        if self.is_limited:
            self.topic.size_max = size_max

    # -- what the lane asks for --------------------------------------------------

    def interfere(self, *given: Any) -> None:
        if not self.plan:
            return
        what, count = self.plan.pop()
        if what == "store":
            self.topic.store(count)
        elif what == "crash":
            self.topic.crash(count)
        elif what == "other" and self.former is not None:
            for _ in range(count):
                self.former.step()

    def open(self, client: Any, name: str, producer: str, origin: str, done: Done) -> Producer:
        self.interfere()
        return Producer(self.topic, origin, done)

    def last(self, client: Any, name: str, *, is_bare: bool) -> Last | None:
        self.interfere()
        found = self.topic.last()
        self.interfere()
        return found

    def compared_behind(self, client: Any, name: str, place: Place, position: int, sent: Any) -> Compared | None:
        return self.topic.compared_behind(place, position, sent)

    # -- what happens --------------------------------------------------------------

    @rule(count=SMALL, hole=SMALL)
    def produce(self, count: int, hole: int) -> None:
        self.broker.produce(count, hole)

    @rule(count=st.integers(min_value=1, max_value=6))
    def read(self, count: int) -> None:
        self.mirror.read(count)

    @rule()
    def step(self) -> None:
        self.mirror.step()

    @rule()
    def commit(self) -> None:
        self.mirror.commit()

    @rule(count=SMALL)
    def deliver(self, count: int) -> None:
        for _ in range(count):
            if self.topic.producer is not None:
                self.topic.producer.deliver()

    @rule(count=SMALL)
    def store(self, count: int) -> None:
        self.topic.store(count)

    @rule(count=SMALL)
    def acknowledge(self, count: int) -> None:
        for _ in range(count):
            if self.topic.producer is not None:
                self.topic.producer.acknowledge()

    @rule(turns=st.integers(min_value=1, max_value=12), size=st.integers(min_value=1, max_value=6), until=st.integers(0, 4))
    def flow(self, turns: int, size: int, until: int) -> None:
        """All goes well for a while, up to: the library, the broker, the disk, the acknowledgement, the commit."""
        for _ in range(turns):
            self.go_on(size, until)

    @rule(count=st.integers(min_value=4, max_value=12), until=st.integers(0, 4), size=st.integers(min_value=2, max_value=6))
    def flow_for_long(self, count: int, until: int, size: int) -> None:
        """Until it flows, with more to come."""
        for _ in range(6):
            self.broker.produce(2, 0)
            self.go_on(size)
        self.broker.produce(count, 1)
        for _ in range(3):
            self.go_on(size, until)

    @rule(plan=st.lists(st.tuples(st.sampled_from(["store", "crash", "other", ""]), SMALL), max_size=6))
    def disturb_openings(self, plan: list[tuple[str, int]]) -> None:
        self.plan = plan

    @rule()
    def kill_mirror(self) -> None:
        if self.mirror.lane.topic is not None:
            self.mirror.lane.topic.close()
        self.mirror = Mirror(self)

    @rule(until=st.integers(0, 3), size=st.integers(1, 6), other=st.integers(1, 6), dies=st.booleans())
    def leave_with_something_on_the_way(self, until: int, size: int, other: int, dies: bool) -> None:
        """What comes next cuts other batches."""
        for _ in range(4):
            self.broker.produce(4, 0)
            self.go_on(size)
        self.broker.produce(9, 0)
        self.mirror.read(9)
        self.mirror.read(9)
        for _ in range(2):
            self.go_on(size, until)
        if dies:
            self.kill_mirror()
        elif self.topic.producer is not None:
            self.topic.producer.fail("UnknownError")
        self.mirror.step()
        self.mirror.read(9)
        self.mirror.read(9)
        self.go_on(other)

    @rule()
    def second_mirror(self) -> None:
        """Another of the same name; the former does not know."""
        self.former, self.mirror = self.mirror, Mirror(self)

    @rule(count=SMALL)
    def former_steps(self, count: int) -> None:
        for _ in range(count):
            if self.former is not None:
                self.former.read(3)
                self.former.step()

    @rule(stored=SMALL)
    def crash_pulsar(self, stored: int) -> None:
        self.topic.crash(stored)

    @rule()
    def fail(self) -> None:
        if self.topic.producer is not None:
            self.topic.producer.fail("UnknownError")

    @rule()
    def give_up(self) -> None:
        self.mirror.give_up()

    @precondition(lambda self: self.changes_limit)
    @rule(size_max=LIMIT)
    def limit(self, size_max: int) -> None:
        self.topic.size_max = size_max

    @precondition(lambda self: self.changes_limit)
    @rule(count=st.integers(min_value=20, max_value=80), which=st.integers(0, 9), dies=st.booleans(), commits=st.booleans())
    def lower_the_limit_while_much_is_on_the_way(self, count: int, which: int, dies: bool, commits: bool) -> None:
        """So that some of it is refused, and the rest stored."""
        self.topic.size_max = 2_400
        for _ in range(6):
            self.broker.produce(40, 0)
            self.settle(40)
        self.broker.produce(count, 1)
        for _ in range(3):
            self.mirror.read(count)
        self.mirror.step()
        sizes = [batch.chunk.size for batch in self.topic.producer.batches] if self.topic.producer is not None else []
        self.topic.size_max = max(400, sizes[which % len(sizes)] if sizes else 0)
        self.deliver(9)
        self.topic.store(9)
        if commits:
            self.mirror.commit()
        if dies:
            self.kill_mirror()

    @precondition(lambda self: not self.changes_limit)
    @rule()
    def trim(self) -> None:
        """All that is stored has been read by everybody: the topic is empty, deduplication knows what was in it.

        Not where something may be missing in it that nobody has noticed: then nobody can any more.
        """
        self.topic.trim()

    @precondition(lambda self: len(self.expected) < 40)
    @rule()
    def recreate(self) -> None:
        self.topic.store(99)
        self.expected += self.broker.ids
        self.broker.recreate()

    # -- the end -------------------------------------------------------------------

    def go_on(self, count: int, until: int = 4) -> None:
        mirror = self.mirror
        mirror.read(count)
        mirror.step()
        if (producer := self.topic.producer) is not None:
            for _ in range(count if until > 0 else 0):
                producer.deliver()
        self.topic.store(count if until > 1 else 0)
        if producer is not None:
            for _ in range(count if until > 2 else 0):
                producer.acknowledge()
        if until > 3:
            mirror.commit()

    def teardown(self) -> None:
        try:
            self.finish()
        finally:
            self.patch.undo()

    def finish(self) -> None:
        self.plan = []
        self.former = None
        if self.mirror.is_over:  # by the former, which came in between
            self.mirror = Mirror(self)
        self.topic.store(99)
        gave_up = self.settle(5)
        assert gave_up < GIVEN_UP_MAX, "what is refused is remembered"
        self.check()

    def settle(self, size: int) -> int:
        """Go on until all is mirrored; how often something was given up since it was not answered."""
        done_to = gave_up = 0
        for step in range(STEPS_MAX):
            self.go_on(size)
            if self.mirror.is_over:
                self.mirror = Mirror(self)
            course = self.mirror.lane.course
            if step % 10 == 0:
                if course.done_to == done_to:
                    if self.mirror.lane.state is State.STOPPED:
                        break
                    gave_up += course.is_on_the_way
                    self.mirror.give_up()
                done_to = course.done_to
            if not course.is_on_the_way and course.phase is not Phase.LOOKING and course.done_to > self.broker.end:
                break
        return gave_up

    def check(self) -> None:
        if self.mirror.lane.state is State.STOPPED:
            self.check_stopped()
            return
        kept = [message_id for message_id, _ in self.topic.log]
        found = [message_id for message_id, _ in self.topic.trimmed] + kept
        if self.deduplicates:
            assert kept == sorted(set(kept)), "each once, in order"
        if not self.deduplicates or self.topic.trimmed:
            found = list(dict.fromkeys(found))  # the first of each
        here = set(self.broker.ids)
        assert found == sorted(set(found)), "each once, in order"
        assert [one for one in found if one in here] == self.broker.ids, "all that there is"
        assert set(found) <= here | set(self.expected)

    def check_stopped(self) -> None:
        """Since something is missing in the topic, and what follows is there."""
        assert self.changes_limit, "sizes were proven"
        here = set(self.broker.ids)
        found = [message_id for message_id, _ in self.topic.trimmed + self.topic.log if message_id in here]
        assert len(found) == len(set(found)), "each once"
        assert found == sorted(found), "in order"
        assert found != self.broker.ids[: len(found)], "there was no need to stop"


class WorldWithout(World):
    """Without deduplication."""

    deduplicates = False


class WorldLimited(World):
    """The topic takes chunks of a few messages."""

    is_limited = True


class WorldOfPolicies(World):
    """And how many changes under way."""

    is_limited = changes_limit = True


@pytest.mark.parametrize("world", [World, WorldWithout, WorldLimited, WorldOfPolicies])
def test_given_any_course_of_events_when_nothing_disturbs_any_more_then_each_message_is_there_once_and_in_order(
    world: type[World],
) -> None:
    # With deduplication off, "once" is the first of each.
    run_state_machine_as_test(world, settings=settings(max_examples=200, stateful_step_count=20, deadline=None))
