"""Streams over many channels against a dict: any operations, right and wrong, with full disks, crashes and repeats.

What an operation does to all of its groups is worked out on a copy that becomes the model only if every group takes it. So
whatever the broker does to some of them only is found, at the next look at its groups.
"""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
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
from rocksmq.protocol.operations import ChannelsCreated, Empty, SoughtMany

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
    ids: list[int] = field(default_factory=list)
    group: GroupModel | None = None

    def position(self, offset: int) -> int:
        return self.ids[offset] if offset < len(self.ids) else self.end

    @property
    def end(self) -> int:
        return self.ids[-1] + 1 if self.ids else 1


Models = dict[int, ChannelModel]


class Machine(RuleBasedStateMachine):
    """``model`` is what operations see, ``durable`` what a crash leaves; ``visible`` how much of each channel may be read."""

    def __init__(self) -> None:
        super().__init__()
        self.broker = ManyBroker(Limits(channels_max=CHANNELS_MAX, groups_max=GROUPS_MAX))
        self.model: Models = {}
        self.durable: Models = {}
        self.known: list[int] = []  # numbers of channels, of those that are gone too
        self.waiting: list[tuple[Asked, Any, Any]] = []  # with the request, and what it is to be answered
        self.seeks: list[Any] = []

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

    def chosen(self, places: Sequence[int]) -> list[int]:
        """Numbers of channels that are or were there, each once."""
        return list(dict.fromkeys(self.known[place % len(self.known)] for place in places))

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
            self.known.append(number)
            self.model[number] = ChannelModel(name)

    @rule(places=SUBSETS)
    def destroy(self, places: Sequence[int]) -> None:
        if not self.known:
            return
        numbers = self.chosen(places)
        names = [self.model[number].name if number in self.model else "gone" for number in numbers]
        self.ask(destroying(names, numbers), Empty())
        for number in numbers:
            self.model.pop(number, None)

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
        if not self.known:
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
        if not self.known:
            return
        numbers = self.chosen(places)
        groups = self.groups(numbers)
        channels = [self.model.get(number, ChannelModel("gone")) for number in numbers]
        to = [channel.position(max(0, step)) for channel, step in zip(channels, steps, strict=False)]
        metadata = [b"%d" % len(self.seeks)] * len(numbers)
        request = seeking(
            numbers,
            self.broker.unique(),
            generations=self.generations(numbers, wrong) if with_generations else None,
            to=to if with_positions else None,
            metadata=metadata,
        )
        if isinstance(groups, type):
            self.ask(request, groups)
        elif with_generations and wrong is not None and wrong < len(numbers):
            self.ask(request, Conflict)
        else:
            asked = Asked(self.broker, request)
            told: list[tuple[int, int, bytes]] = []
            for number, group, step, kept in zip(numbers, groups, steps, metadata, strict=False):
                channel, former = self.model[number], group.generation
                state = self.broker.core.channels.numbered(number).groups[GROUP].state
                group.generation = state.generation
                assert group.generation > former
                if with_positions:
                    group.offset, group.metadata = min(max(0, step), len(channel.ids)), kept
                    group.position = channel.position(group.offset)
                is_untouched = not with_positions and not group.metadata and group.offset == 0
                position = 0 if is_untouched else group.position
                group.last_seek = (request.request_id, position, group.generation)
                told.append((position, group.generation, group.metadata))
            assert not asked.replies, "nothing of it is durable"
            self.waiting.append((asked, request, told))
            self.seeks.append((request, numbers))

    @rule(place=st.integers(0, 20))
    def repeat_seek(self, place: int) -> None:
        if not self.seeks:
            return
        request, numbers = self.seeks[-1 - place % len(self.seeks)]
        groups = self.groups(numbers)
        if isinstance(groups, type):
            self.ask(request, groups)
            return
        seeks = [group.last_seek for group in groups]
        if all(seek is not None and seek[0] == request.request_id for seek in seeks):
            told = [(*seek[1:], group.metadata) for seek, group in zip(seeks, groups, strict=True) if seek is not None]
            self.ask(request, told)
        elif request.generations is not None:
            self.ask(request, Conflict)

    @rule(places=SUBSETS, steps=STEPS, wrong=WRONG, beyond=WRONG)
    def move(self, places: Sequence[int], steps: Sequence[int], wrong: int | None, beyond: int | None) -> None:
        if not self.known:
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
        if not self.known:
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
        if not self.known:
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
