"""The aligner against the definition of its packs, for any logs, read in any pieces, sought, restarted, added to and cut short.

``ROCKSMQ_ALIGNER_STEPS=100000 pytest -s tests/clients/msgstream/test_aligner_model.py`` goes that many steps, at random,
and prints what they did; without it some thousands of steps, always the same.
"""

import copy
import json
import os
import sys
from collections import Counter
from typing import ClassVar, NamedTuple

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

from rocksmq.clients.msgstream.aligner import TickAligner
from rocksmq.clients.msgstream.types import TIMESTAMP_MAX, MsgPosition, MsgType, StreamGap, TsMsg
from rocksmq.protocol.errors import BufferFull
from tests.clients.msgstream.aligner_model import Entry, Model, ModelChannel, ModelPack

STEPS = int(os.environ.get("ROCKSMQ_ALIGNER_STEPS", "0"))
STEPS_PER_RUN = 50
RUNS = 120
NAMES = ("a", "b", "c", "d")
BYTES = 10  # an entry
UNBOUNDED = 1 << 40

HUGE = [0, 1 << 63, TIMESTAMP_MAX - 1, TIMESTAMP_MAX]

steps = st.integers(-4, 7)  # from where the stream stands: most are on time, many meet
drafts = st.lists(st.tuples(st.sampled_from(["message", "message", "tick"]), steps, steps), max_size=12)


def entries(base: int, drafts: list[tuple[str, int, int]]) -> list[Entry]:
    """Around ``base``."""
    made: list[Entry] = []
    for kind, *ends in drafts:
        begin_ts, end_ts = (min(max(base + step, 0), TIMESTAMP_MAX) for step in sorted(ends))
        made.append(Entry(True, end_ts, end_ts) if kind == "tick" else Entry(False, begin_ts, end_ts))
    return made


class Data(TsMsg):
    type = MsgType.INSERT


class Tick(TsMsg):
    type = MsgType.TIME_TICK


class Log(NamedTuple):
    entries: list[Entry]
    begin: list[int]  # one number: retention removed what stands before it


class Seen(NamedTuple):
    """Where a stream stood, and what the model knew there."""

    positions: list[MsgPosition]
    model: Model


def encode(place: int) -> str:
    return f"at-{place}"


def decode(text: str) -> int | None:
    return int(text.removeprefix("at-")) if text else None


class AlignerMachine(RuleBasedStateMachine):
    """Logs, a reader of them, the aligner that it feeds, and the model that is told what was read."""

    done: ClassVar[Counter[str]] = Counter()

    @initialize(
        logs=st.lists(drafts, min_size=len(NAMES), max_size=len(NAMES)),
        names=st.permutations(NAMES),
        count=st.integers(1, 3),
        limits=st.sampled_from([(UNBOUNDED, UNBOUNDED)] * 3 + [(1, UNBOUNDED), (4, UNBOUNDED), (9, 50), (UNBOUNDED, 30)]),
        begun=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 9)), min_size=3, max_size=3),
        is_sought=st.booleans(),
    )
    def begin(
        self,
        logs: list[list[tuple[str, int, int]]],
        names: list[str],
        count: int,
        limits: tuple[int, int],
        begun: list[tuple[int, int]],
        is_sought: bool,
    ) -> None:
        self.logs = {name: Log(entries(3, log), [0]) for name, log in zip(names, logs, strict=True)}
        self.limits = limits
        self.aligner = TickAligner(encode, messages_max=limits[0], bytes_max=limits[1])
        self.model = Model()
        self.at: dict[str, int] = {}  # where the reader stands
        self.gaps: list[StreamGap] = []  # to be reported
        self.told: dict[str, set[int]] = {name: set() for name in NAMES}
        self.gone: dict[str, set[int]] = {name: set() for name in NAMES}  # removed before it was read
        self.seen: list[Seen] = []
        self.is_refused = False  # what was fed to a channel that counts did not fit
        for name, (place, timestamp_filter) in zip(names[:count], begun, strict=False):
            self.begin_to_read(
                name, min(place, len(self.logs[name].entries)) if is_sought else None, timestamp_filter * is_sought
            )

    def begin_to_read(self, name: str, place: int | None, timestamp_filter: int) -> None:
        self.aligner.add(name, place, timestamp_filter)
        self.model.add(name, place, timestamp_filter)
        self.at[name] = place or 0
        self.gone[name] |= set(range(place or 0))

    def follow(self) -> None:
        """Tell the model what the aligner did not keep."""
        for name, channel in self.model.channels.items():
            kept = self.aligner._channels[name].next_place  # pyright: ignore[reportPrivateUsage]
            kept_to = channel.begun_at if kept is None else kept
            assert kept_to <= channel.read_to
            if kept_to < channel.read_to:
                self.done["times that something was not kept"] += 1
                channel.forget_from(kept_to)
        self.model.let_in()

    def wanted(self) -> list[str]:
        """The channels to be read on, and the reader put there."""
        try:
            wanted = self.aligner.wanted()
            assert not self.is_refused
        except BufferFull:
            self.is_refused = False
            self.done["times that the buffer was full"] += 1
            held = sum(self.model.held())
            assert held >= self.limits[0] or (held + 1) * BYTES > self.limits[1]
            wanted = self.aligner.wanted()
        self.follow()
        ahead = self.ahead()
        if any(channel.first_tick(self.model.end_ts + 1) is None and not channel.is_left_out for channel in self.channels()):
            held = sum(self.model.held())
            assert not ahead or (held + ahead <= self.limits[0] and (held + ahead) * BYTES <= self.limits[1])
        for name, place in wanted:
            self.at[name] = self.model.channels[name].begun_at if place is None else place
        return [name for name, _ in wanted]

    def channels(self) -> list[ModelChannel]:
        return list(self.model.channels.values())

    def ahead(self) -> int:
        """How much was read behind the next ticks."""
        cuts = [channel.first_tick(self.model.end_ts + 1) for channel in self.channels()]
        return sum(
            place > cut for channel, cut in zip(self.channels(), cuts, strict=True) for place in channel.log if cut is not None
        )

    def feed_what_is_wanted(self, name: str, count: int) -> bool:
        """As `feed`, and see that what has room is taken, or refused and that told."""
        channel = self.model.channels[name]
        held, held_here = sum(self.model.held()), len(channel.undelivered(None))
        number = len(self.model.channels)
        room = min(
            max(self.limits[0] - held, self.limits[0] // number - held_here),
            max(self.limits[1] - BYTES * held, self.limits[1] // number - BYTES * held_here) // BYTES,
        )
        place = self.at[name]
        is_fed = self.feed(name, count)
        begin = max(place, self.logs[name].begin[0])
        kept, fed = channel.read_to - begin, self.at[name] - begin
        if is_fed and channel.first_tick(self.model.end_ts + 1) is None:
            assert kept >= min(fed, max(room, 0 if held_here else 1))
            self.is_refused |= kept < fed and not channel.is_left_out
        return is_fed

    def feed(self, name: str, count: int) -> bool:
        """Feed the next entries of a log; whether there were any."""
        log, place = self.logs[name], self.at[name]
        follows = place == self.model.channels[name].read_to
        if place < log.begin[0]:
            if not follows:
                return False  # it would have been told before what was not kept
            self.remove_unread(name, place)
            place = log.begin[0]
        read = log.entries[place : place + count]
        msgs = [(Tick if is_tick else Data)(at, begin, end, [0]) for at, (is_tick, begin, end) in enumerate(read, place)]
        for msg in msgs:
            msg.late = True
            msg.read_at(name, encode(msg.id))
        places = range(place, place + len(read))
        self.aligner.feed(name, msgs, places, place + len(read), BYTES * len(read))
        if follows:
            self.model.read(name, place, read)
        self.at[name] = place + len(read)
        self.follow()
        return bool(read)

    def remove_unread(self, name: str, place: int) -> None:
        to = self.logs[name].begin[0]
        gap = StreamGap(name, place, to, None)
        self.gaps.append(gap)
        self.aligner.removed(name, gap)
        self.model.removed(name, to)
        self.gone[name] |= set(range(place, to))
        self.told[name] = {at for at in self.told[name] if at < to}
        self.done["gaps"] += 1

    @rule(name=st.sampled_from(NAMES), more=drafts)
    def produce(self, name: str, more: list[tuple[str, int, int]]) -> None:
        self.logs[name].entries.extend(entries(self.model.end_ts, more))

    @rule(more=st.lists(drafts, min_size=len(NAMES), max_size=len(NAMES)), step=steps)
    def produce_everywhere(self, more: list[list[tuple[str, int, int]]], step: int) -> None:
        """And a tick behind it."""
        for log, some in zip(self.logs.values(), more, strict=True):
            log.entries.extend(entries(self.model.end_ts, [*some, ("tick", step, step)]))

    @rule(name=st.sampled_from(NAMES), value=st.sampled_from(HUGE), is_tick=st.booleans(), is_sure=st.integers(0, 9))
    def produce_something_odd(self, name: str, value: int, is_tick: bool, is_sure: int) -> None:
        if is_sure == 9 or not is_tick:  # a huge tick ends a channel
            self.logs[name].entries.append(Entry(is_tick, value, value))

    @rule()
    def go_on(self) -> None:
        """As a stream does that is in time."""
        for _ in range(3):
            for name in self.wanted():
                self.feed_what_is_wanted(name, 20)
            while self.make_pack():
                pass

    @rule(counts=st.lists(st.integers(0, 9), min_size=len(NAMES), max_size=len(NAMES)))
    def read_what_is_wanted(self, counts: list[int]) -> None:
        for name, count in zip(self.wanted(), counts, strict=False):
            self.feed_what_is_wanted(name, count)

    @rule(index=st.integers(0, 3), count=st.integers(1, 9))
    def read_on(self, index: int, count: int) -> None:
        """Wanted or not, and in several pieces."""
        name = list(self.model.channels)[index % len(self.model.channels)]
        self.feed(name, count)

    @rule()
    def make_packs(self) -> None:
        while self.make_pack():
            pass

    @rule()
    def make_one_pack(self) -> None:
        self.make_pack()

    def make_pack(self) -> bool:
        before = self.stand()
        pack, expected = self.aligner.pack(), self.model.pack()
        self.follow()
        if pack is None:
            assert expected is None
            return False
        assert expected is not None
        late = [msg.late for msg in pack.msgs]
        positions = [MsgPosition(name, "" if at is None else encode(at), end) for name, at, end in expected.positions]
        names = [msg.position.channel_name for msg in pack.msgs if msg.position]
        given = [(name, msg.id, msg.late) for name, msg in zip(names, pack.msgs, strict=True)]
        assert ModelPack(pack.begin_ts, pack.end_ts, given, expected.positions) == expected
        assert pack.start_positions == before.positions
        assert pack.end_positions == self.aligner.positions == positions
        assert pack.gaps == self.gaps
        assert pack.end_ts == self.aligner.end_ts == self.model.end_ts > pack.begin_ts == before.model.end_ts
        assert pack.late_count == sum(late)
        for msg, is_late in zip(pack.msgs, late, strict=True):
            assert isinstance(msg, Data)
            assert msg.end_ts <= pack.begin_ts if is_late else pack.begin_ts < msg.end_ts <= pack.end_ts
        for name, place, _ in given:
            assert place not in self.told[name], "a message twice"
            self.told[name].add(place)
        places = {name: place or 0 for name, place, _ in before.model.positions()}
        assert all(places[name] <= (place or 0) for name, place, _ in expected.positions), "a position went back"
        self.gaps = []
        self.is_refused = False
        self.seen += [before, self.stand()]
        self.done.update({"packs": 1, "messages": len(given), "late": sum(late)})
        return True

    def stand(self) -> Seen:
        return Seen(self.aligner.positions, self.model.restarted())

    @precondition(lambda self: self.seen)
    @rule(back=st.integers(0, 9), limits=st.sampled_from([(UNBOUNDED, UNBOUNDED), (UNBOUNDED, UNBOUNDED), (5, UNBOUNDED)]))
    def restart(self, back: int, limits: tuple[int, int]) -> None:
        self.go_back(self.seen[-1 - back % len(self.seen)], limits)

    @rule()
    def restart_here(self) -> None:
        self.go_back(self.stand(), self.limits)

    def go_back(self, seen: Seen, limits: tuple[int, int]) -> None:
        """A fresh aligner at those positions, as text; the model knows what had been delivered there."""
        self.done["restarts"] += 1
        text = json.dumps([position._asdict() for position in seen.positions])
        self.limits = limits
        self.aligner = TickAligner(encode, messages_max=limits[0], bytes_max=limits[1])
        for position in (MsgPosition(**fields) for fields in json.loads(text)):
            self.aligner.add(position.channel_name, decode(position.msg_id), position.timestamp_filter)
        self.model = copy.deepcopy(seen.model)
        assert self.aligner.end_ts == self.model.end_ts
        self.at = {name: channel.read_to for name, channel in self.model.channels.items()}
        self.told |= {name: set(channel.delivered) for name, channel in self.model.channels.items()}
        self.gaps = []
        self.is_refused = False

    @precondition(lambda self: len(self.model.channels) < len(NAMES))
    @rule(place=st.integers(0, 9), step=steps, is_filtered=st.booleans())
    def add(self, place: int, step: int, is_filtered: bool) -> None:
        name = next(name for name in self.logs if name not in self.model.channels)
        timestamp_filter = max(self.model.end_ts + step, 0) if is_filtered and self.model.end_ts < 1 << 63 else 0
        self.told[name], self.gone[name] = set(), set()
        self.seen = [seen for seen in self.seen if name not in seen.model.channels]
        self.begin_to_read(name, min(place, len(self.logs[name].entries)) or None, timestamp_filter)
        self.follow()
        self.is_refused = False
        self.done["channels added"] += 1

    @rule(index=st.integers(0, 3))
    def leave_out(self, index: int) -> None:
        name = list(self.model.channels)[index % len(self.model.channels)]
        self.aligner.leave_out(name)
        self.model.leave_out(name)
        self.is_refused = False
        self.done["channels left out"] += self.model.channels[name].is_left_out

    @rule(name=st.sampled_from(NAMES), count=st.integers(1, 9))
    def remove(self, name: str, count: int) -> None:
        """Retention removes the beginning of a log, read or not."""
        log = self.logs[name]
        log.begin[0] = min(log.begin[0] + count, len(log.entries))

    @invariant()
    def it_says_where_it_stands(self) -> None:
        assert self.aligner.stalled == self.model.stalled()
        assert self.aligner.end_ts == self.model.end_ts
        assert self.aligner.positions == [
            MsgPosition(name, "" if place is None else encode(place), end) for name, place, end in self.model.positions()
        ]

    @invariant()
    def it_is_bounded(self) -> None:
        held = sum(self.model.held())
        assert held <= min(3 * self.limits[0], 3 * self.limits[1] // BYTES) + len(NAMES)
        self.done["steps"] += 1
        ahead, aligner = self.ahead(), self.aligner
        counted = aligner._held, aligner._held_bytes  # pyright: ignore[reportPrivateUsage]
        assert counted == (held, BYTES * held)
        counted_ahead, bytes_ahead = aligner._ahead, aligner._ahead_bytes  # pyright: ignore[reportPrivateUsage]
        assert ahead <= counted_ahead <= 2 * ahead  # each stretch counts one more
        assert bytes_ahead == BYTES * counted_ahead

    def teardown(self) -> None:
        """After a last tick that ends everything, all that ever was to be delivered was, once."""
        if not hasattr(self, "model"):
            return
        for log in self.logs.values():
            log.entries.append(Entry(True, TIMESTAMP_MAX, TIMESTAMP_MAX))
        self.go_back(self.stand(), (UNBOUNDED, UNBOUNDED))
        is_going = True
        while is_going:
            is_going = self.make_pack()
            for name in self.wanted():
                is_going |= self.feed(name, 5)
        for name, channel in self.model.channels.items():
            if channel.position[1] < TIMESTAMP_MAX:
                continue  # it came too late: the others had passed the last of all ticks
            last = channel.first_tick(TIMESTAMP_MAX)
            known = channel.delivered_before_it_was_added() | self.gone[name] | self.told[name]
            messages = [at for at, entry in enumerate(self.logs[name].entries[:last]) if not entry.is_tick]
            assert known.issuperset(messages), "a message not at all"
            self.done["channels read to the end"] += 1
        super().teardown()


def test_given_any_logs_when_read_in_any_pieces_then_packs_are_those_of_the_definition_and_hold_each_message_once() -> None:
    AlignerMachine.done.clear()
    bounds = settings(
        stateful_step_count=STEPS_PER_RUN,
        max_examples=max(STEPS // STEPS_PER_RUN, 1) if STEPS else RUNS,
        derandomize=not STEPS,
        deadline=None,
        database=None,
        print_blob=False,
        report_multiple_bugs=False,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
    )
    done = AlignerMachine.done
    run_state_machine_as_test(AlignerMachine, settings=bounds)
    while done["steps"] < STEPS:
        run_state_machine_as_test(AlignerMachine, settings=bounds)
    sys.stdout.write(", ".join(f"{number:,} {what}" for what, number in sorted(done.items())) + "\n")
    assert done["packs"] > done["steps"] // 20, "most of the time nothing happened"
