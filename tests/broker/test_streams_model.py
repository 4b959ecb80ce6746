"""Streams over many channels against a dict: any operations, right and wrong, with full disks, crashes and repeats.

What an operation does to all of its groups is worked out on a copy that becomes the model only if every group takes it. So
whatever the broker does to some of them only is found, at the next look at its groups.
"""

from bisect import bisect_left
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,  # pyright: ignore[reportUnknownVariableType]
)

from rocksmq.broker.limits import Limits
from rocksmq.protocol.errors import (
    ChannelNotFound,
    Conflict,
    DiskFull,
    GroupNotFound,
    InvalidRequest,
    LimitExceeded,
    RocksMQError,
)
from rocksmq.protocol.operations import ChannelsCreated, Empty, SeekMany, SoughtMany

from .disk_support import fail
from .many_support import (
    GROUP,
    Asked,
    ManyBroker,
    committing,
    creating,
    destroying,
    fetching,
    read,
    seeking,
    sought,
    subscribing,
    unsubscribing,
)
from .simulated_broker import Killed

GROUPS_MAX = 1
CHANNELS_MAX = 6
SUBSETS = st.lists(st.integers(0, CHANNELS_MAX - 1), min_size=1, max_size=4, unique=True)
STEPS = st.lists(st.integers(-1, 4), min_size=4, max_size=4)
WRONG = st.sampled_from([None, None, None, 0, 1, 2, 3])  # where a generation is none that the group is in


@dataclass
class GroupModel:
    """A group: its position, and how many messages lie before it."""

    position: int
    offset: int
    generation: int
    metadata: bytes = b""
    last_seek: tuple[bytes, int, int] | None = None  # request, position as told, generation


@dataclass
class ChannelModel:
    name: str
    ids: list[int] = field(default_factory=list[int])
    group: GroupModel | None = None

    def position(self, offset: int) -> int:
        return self.ids[offset] if offset < len(self.ids) else self.end

    @property
    def end(self) -> int:
        return self.ids[-1] + 1 if self.ids else 1


class Sent(NamedTuple):
    """A seek that may be repeated."""

    numbers: list[int]
    request_id: bytes
    generations: list[int] | None
    to: list[int] | None
    metadata: bytes

    @property
    def request(self) -> SeekMany:
        metadata = [self.metadata] * len(self.numbers)
        return seeking(self.numbers, self.request_id, generations=self.generations, to=self.to, metadata=metadata)


Models = dict[int, ChannelModel]


class Machine(RuleBasedStateMachine):
    """``model`` is what operations see, ``durable`` what a crash leaves; ``visible`` how much of each channel may be read."""

    def __init__(self) -> None:
        super().__init__()
        self.broker = ManyBroker(Limits(channels_max=CHANNELS_MAX, groups_max=GROUPS_MAX))
        self.model: Models = {}
        self.durable: Models = {}
        self.gone: list[int] = []  # numbers of channels
        self.waiting: list[tuple[Asked, Any, Any]] = []  # with the request, and what it is to be answered
        self.seeks: list[Sent] = []

    # -- operations ------------------------------------------------------------------------

    def ask(self, request: Any, expected: Any) -> None:
        """``expected``: an error's class, at once; or the reply, at the commit or at once."""
        asked = Asked(self.broker, request)
        if isinstance(expected, type) and asked.replies:
            assert type(asked.reply) is expected, (request, asked.reply)
        elif asked.replies:
            self.check(asked.reply, expected)
        else:
            self.waiting.append((asked, request, expected))

    def check(self, reply: Any, expected: Any) -> None:
        if isinstance(expected, list):
            assert isinstance(reply, SoughtMany), reply
            assert sought(reply) == expected
        elif isinstance(expected, type):
            assert type(reply) is expected, reply
        else:
            assert reply == expected

    @initialize()
    def begin(self) -> None:
        """Four channels with messages and groups."""
        self.create(3)
        self.create(1)
        for place in range(4):
            self.produce(place, 3)
        self.subscribe(range(4), is_latest=False)
        self.commit()

    def chosen(self, places: Sequence[int]) -> list[int]:
        """Numbers of channels, each once; the last place is that of one that is gone, if one is."""
        here = sorted(self.model)
        gone = [number for number in self.gone if number not in self.model]  # a full disk may have brought it back
        if gone and CHANNELS_MAX - 1 in places:
            return [here[place % len(here)] for place in places[:1]] + gone[-1:]
        return list(dict.fromkeys(here[place % len(here)] for place in places))

    def generations(self, numbers: Sequence[int], wrong: int | None) -> list[int]:
        groups = [self.model[number].group if number in self.model else None for number in numbers]
        return [7 if group is None else group.generation - (place == wrong) for place, group in enumerate(groups)]

    def groups(self, numbers: Sequence[int]) -> list[GroupModel] | type[RocksMQError]:
        if any(number not in self.model for number in numbers):
            return ChannelNotFound
        groups = [self.model[number].group for number in numbers]
        return GroupNotFound if None in groups else [group for group in groups if group is not None]

    @rule(count=st.integers(1, 3))
    def create(self, count: int) -> None:
        request = creating(count, self.broker.unique())
        if len(self.model) + count > CHANNELS_MAX:
            self.ask(request, LimitExceeded)
            return
        names = [f"proxy-{request.request_id.hex()}-{i}" for i in range(count)]
        self.ask(request, ChannelsCreated(names))
        self.ask(request, ChannelsCreated(names))
        for name in names:
            number = self.broker.core.channels.find(name).number
            self.model[number] = ChannelModel(name)

    @rule(places=SUBSETS.map(lambda places: places[:1]))
    def destroy(self, places: Sequence[int]) -> None:
        if not self.model:
            return
        numbers = self.chosen(places)
        names = [self.model[number].name if number in self.model else "gone" for number in numbers]
        self.ask(destroying(names, numbers), Empty())
        for number in numbers:
            if self.model.pop(number, None) is not None:
                self.gone.append(number)

    @rule(place=st.integers(0, 9), count=st.integers(1, 4))
    def produce(self, place: int, count: int) -> None:
        """Durable at once, so that positions may pass it."""
        self.commit()
        if self.model:
            number = sorted(self.model)[place % len(self.model)]
            channel = self.model[number]
            end = self.broker.produce(channel.name, *(b"%d" % (len(channel.ids) + i) for i in range(count)))
            channel.ids += range(end - count, end)
            self.durable = deepcopy(self.model)

    @rule(places=SUBSETS, is_latest=st.booleans())
    def subscribe(self, places: Sequence[int], is_latest: bool) -> None:
        if not self.model:
            return
        numbers = self.chosen(places)
        request = subscribing(numbers, kind=2 if is_latest else 1)
        if any(number not in self.model for number in numbers):
            self.ask(request, ChannelNotFound)
            return
        self.ask(request, Empty())
        for number in numbers:
            channel = self.model[number]
            if channel.group is None:
                generation = self.broker.core.channels.numbered(number).groups[GROUP].state.generation
                offset = len(channel.ids) if is_latest else 0
                channel.group = GroupModel(channel.position(offset), offset, generation)

    @rule(places=SUBSETS, steps=STEPS, wrong=WRONG, with_positions=st.booleans(), with_generations=st.booleans())
    def seek(
        self, places: Sequence[int], steps: Sequence[int], wrong: int | None, with_positions: bool, with_generations: bool
    ) -> None:
        if not self.model:
            return
        numbers = self.chosen(places)
        channels = [self.model.get(number, ChannelModel("gone")) for number in numbers]
        to = [channel.position(max(0, step)) for channel, step in zip(channels, steps, strict=False)]
        sent = Sent(
            numbers,
            self.broker.unique(),
            self.generations(numbers, wrong) if with_generations else None,
            to if with_positions else None,
            b"%d" % len(self.seeks),
        )
        self.send_seek(sent)
        self.seeks.append(sent)

    @rule(place=st.integers(0, 9))
    def repeat_seek(self, place: int) -> None:
        if self.seeks:
            self.send_seek(self.seeks[-1 - place % len(self.seeks)])

    def send_seek(self, sent: Sent) -> None:
        groups = self.groups(sent.numbers)
        if isinstance(groups, type):
            self.ask(sent.request, groups)
            return
        seeks = [group.last_seek for group in groups]
        if all(seek is not None and seek[0] == sent.request_id for seek in seeks):
            told = [(*seek[1:], group.metadata) for seek, group in zip(seeks, groups, strict=True) if seek is not None]
            self.ask(sent.request, told)
        elif sent.generations is not None and sent.generations != [group.generation for group in groups]:
            self.ask(sent.request, Conflict)
        else:
            asked = Asked(self.broker, sent.request)
            told = [self.seek_one(sent, place, group) for place, group in enumerate(groups)]
            assert not asked.replies, "nothing of it is durable"
            self.waiting.append((asked, sent.request, told))

    def seek_one(self, sent: Sent, place: int, group: GroupModel) -> tuple[int, int, bytes]:
        """What is told of it."""
        channel, former = self.model[sent.numbers[place]], group.generation
        group.generation = self.broker.core.channels.numbered(sent.numbers[place]).groups[GROUP].state.generation
        assert group.generation > former
        if sent.to is not None:
            group.offset, group.metadata = bisect_left(channel.ids, sent.to[place]), sent.metadata
            group.position = channel.position(group.offset)
        is_untouched = sent.to is None and not group.metadata and group.offset == 0
        group.last_seek = (sent.request_id, 0 if is_untouched else group.position, group.generation)
        return (*group.last_seek[1:], group.metadata)

    @rule(places=SUBSETS, steps=STEPS, wrong=WRONG, beyond=WRONG)
    def move(self, places: Sequence[int], steps: Sequence[int], wrong: int | None, beyond: int | None) -> None:
        if not self.model:
            return
        numbers = self.chosen(places)
        groups = self.groups(numbers)
        channels = [self.model.get(number, ChannelModel("gone")) for number in numbers]
        offsets = [
            min(len(channel.ids), max(0, (channel.group.offset if channel.group else 0) + step))
            for channel, step in zip(channels, steps, strict=False)
        ]
        positions = [
            channel.end + 1 if place == beyond else channel.position(offset)
            for place, (channel, offset) in enumerate(zip(channels, offsets, strict=True))
        ]
        metadata = [b"m%d" % step for step in steps[: len(numbers)]]
        request = committing(numbers, self.generations(numbers, wrong), positions, metadata)
        is_wrong = wrong is not None and wrong < len(numbers)
        is_beyond = beyond is not None and beyond < len(numbers)
        if isinstance(groups, type):
            self.ask(request, groups)
        elif is_wrong or is_beyond:
            first_is_wrong = is_wrong and not (is_beyond and (beyond or 0) < (wrong or 0))
            self.ask(request, Conflict if first_is_wrong else InvalidRequest)
        else:
            self.ask(request, Empty())
            for group, position, offset, kept in zip(groups, positions, offsets, metadata, strict=True):
                if position >= group.position:
                    group.position, group.offset, group.metadata = position, offset, kept

    @rule(places=SUBSETS, wrong=WRONG)
    def unsubscribe(self, places: Sequence[int], wrong: int | None) -> None:
        if not self.model:
            return
        numbers = self.chosen(places)
        request = unsubscribing(numbers, self.generations(numbers, wrong))
        here = [number for number in numbers if number in self.model and self.model[number].group is not None]
        if wrong is not None and wrong < len(numbers) and numbers[wrong] in here:
            self.ask(request, Conflict)
            return
        self.ask(request, Empty())
        for number in here:
            self.model[number].group = None

    @rule(places=SUBSETS, steps=STEPS, n=st.integers(1, 20))
    def fetch(self, places: Sequence[int], steps: Sequence[int], n: int) -> None:
        if not self.model:
            return
        numbers = self.chosen(places)
        channels = [self.model.get(number) for number in numbers]
        starts = [
            0 if channel is None else channel.position(max(0, step)) for channel, step in zip(channels, steps, strict=False)
        ]
        request = fetching(zip(numbers, starts, strict=True), n)
        if None in channels:
            self.ask(request, ChannelNotFound)
            return
        found = read(self.broker.ask(request))
        count = total = 0
        for place, (channel, start) in enumerate(zip(channels, starts, strict=True)):
            assert channel is not None
            wanted = [message_id for message_id in channel.ids if message_id >= start]
            part = found.get(place)
            had = [message.id for message in part.messages] if part is not None else []
            assert had == wanted[: len(had)]
            assert part is None or part.next_position == had[-1] + 1
            count, total = count + len(had), total + len(wanted)
            if sum(len(c.ids) for c in channels if c is not None) <= n:
                assert had == wanted
        assert count == min(n, total)

    # -- commits -----------------------------------------------------------------------------

    @rule()
    def commit(self) -> None:
        self.broker.commit()
        self.durable = deepcopy(self.model)
        self.answered(None)

    @rule()
    def full_disk(self) -> None:
        self.broker.store.on_write = fail(DiskFull("full"))
        self.broker.commit()
        self.broker.store.on_write = lambda: None
        self.model = deepcopy(self.durable)
        self.answered(DiskFull)

    @rule(is_written=st.booleans(), is_in_a_commit=st.booleans())
    def crash(self, is_written: bool, is_in_a_commit: bool) -> None:
        if is_in_a_commit and not self.broker.core.committer.open.is_empty:
            event = "on_sync" if is_written else "on_write"
            setattr(self.broker.store, event, _killed)
            try:
                self.broker.commit()
            except Killed:
                self.durable = deepcopy(self.model) if is_written else self.durable
            else:
                self.durable = deepcopy(self.model)  # there was nothing to sync
            setattr(self.broker.store, event, lambda: None)
        self.waiting.clear()
        self.broker.start()
        self.model = deepcopy(self.durable)

    def answered(self, error: type[RocksMQError] | None) -> None:
        for asked, request, expected in self.waiting:
            assert asked.replies, request
            self.check(asked.reply, expected if error is None else error)
        self.waiting.clear()

    # -- what is there ---------------------------------------------------------------------------

    @invariant()
    def all_is_as_in_the_model(self) -> None:
        channels = {channel.number: channel for channel in self.broker.core.channels}
        assert channels.keys() == self.model.keys()
        for number, model in self.model.items():
            groups = channels[number].groups
            assert channels[number].name == model.name
            assert set(groups) == ({GROUP} if model.group is not None else set())
            if model.group is not None:
                state = groups[GROUP].state
                assert (state.position, state.offset) == (model.group.position, model.group.offset)
                assert (state.generation, state.metadata) == (model.group.generation, model.group.metadata)


def _killed() -> None:
    raise Killed


def test_given_any_operations_on_many_channels_when_disks_are_full_and_brokers_killed_then_all_or_none_is_done() -> None:
    run_state_machine_as_test(
        Machine,
        settings=settings(
            derandomize=True,
            deadline=None,
            database=None,
            max_examples=100,
            stateful_step_count=50,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
            print_blob=False,
        ),
    )
