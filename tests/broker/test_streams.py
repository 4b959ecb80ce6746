"""One group on many channels: subscribed, sought, committed and unsubscribed, all or none."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import trio

from rocksmq.broker.limits import Limits
from rocksmq.protocol.columns import pack_numbers
from rocksmq.protocol.errors import (
    ChannelNotFound,
    Conflict,
    DiskFull,
    GroupNotFound,
    InvalidRequest,
    LimitExceeded,
    RocksMQError,
)
from rocksmq.protocol.operations import (
    Consume,
    CreateChannel,
    Created,
    CreateGroup,
    DescribeGroup,
    DestroyGroup,
    Empty,
    GroupDescribed,
    ListGroups,
    ReleaseConsumer,
    Seek,
)

from .disk_support import fail
from .many_support import (
    GROUP,
    Asked,
    ManyBroker,
    committing,
    destroying,
    seeking,
    sought,
    subscribing,
    unsubscribing,
)
from .simulated_broker import Killed
from .support import identity, in_mock_time

STRANGER = 12_345  # a number that no channel has
ME = identity(1 << 62, 4_000_000)


class World:
    """Three channels with three messages each, and a stream's groups on them."""

    def __init__(self, limits: Limits | None = None) -> None:
        self.broker = ManyBroker(limits or Limits(request_channels_max=5))
        self.names = self.broker.channels(3)
        self.numbers = self.broker.numbers(self.names)
        self.ends = [self.broker.produce(name, b"a", b"b", b"c") for name in self.names]
        self.generations = self.broker.subscribed(self.names)

    def committing(self, **changed: Any) -> Any:
        fields: dict[str, Any] = {"numbers": self.numbers, "generations": self.generations, "positions": self.ends, **changed}
        return committing(**fields)

    def seeking(self, **changed: Any) -> Any:
        fields: dict[str, Any] = {"generations": self.generations, "to": self.ends}
        fields |= {"numbers": self.numbers, "request_id": b"k" * 16} | changed
        return seeking(**fields)

    def with_one(self, column: Sequence[int], which: int, value: int) -> list[int]:
        return [value if index == which else kept for index, kept in enumerate(column)]


# -- all or none: every check, with what is wrong at each place ------------------------------


def _columns(world: World) -> list[tuple[Any, type[RocksMQError], str]]:
    """What is wrong whichever channel it is about."""
    good, sought, gone = world.committing(), world.seeking(), unsubscribing(world.numbers, world.generations)
    subscribed = subscribing(world.numbers)
    short = pack_numbers(world.generations[:2])
    cases: list[tuple[Any, type[RocksMQError], str]] = []
    for request in (good, sought, gone, subscribed):
        cases += [
            (request._replace(numbers=b""), InvalidRequest, "one at least|numbers"),
            (request._replace(numbers=request.numbers[:-1]), InvalidRequest, "numbers"),
            (request._replace(numbers=pack_numbers([*world.numbers[:2], world.numbers[0]])), InvalidRequest, "twice"),
            (request._replace(numbers=pack_numbers(range(6))), LimitExceeded, "request_channels_max"),
        ]
    for request in (good, sought, gone):
        cases += [
            (request._replace(generations=short), InvalidRequest, "generations"),
            (request._replace(generations=short + b"\0"), InvalidRequest, "generations"),
        ]
    for request in (good, sought):
        cases += [
            (request._replace(positions=short), InvalidRequest, "positions"),
            (request._replace(metadata_lengths=b"\0" * 8), InvalidRequest, "metadata_lengths"),
            (request._replace(metadata_lengths=b"\0" * 11), InvalidRequest, "metadata_lengths"),
            (request._replace(metadata=b"x"), InvalidRequest, "metadata"),
            (request._replace(metadata_lengths=b"\1" + b"\0" * 11), InvalidRequest, "metadata"),
            (
                request._replace(metadata_lengths=b"\0" * 8 + b"\1\1\0\0", metadata=b"x" * 257),
                InvalidRequest,
                "exceed the limit of 256",
            ),
        ]
    cases += [
        (sought._replace(positions=None), InvalidRequest, "all or none"),
        (sought._replace(metadata=None), InvalidRequest, "all or none"),
        (sought._replace(metadata_lengths=None), InvalidRequest, "all or none"),
        (sought._replace(positions=None, metadata=None), InvalidRequest, "all or none"),
        (subscribed._replace(group="a/b"), InvalidRequest, "group name"),
        (gone._replace(group="a/b"), InvalidRequest, "group name"),
        (good._replace(group="a/b"), InvalidRequest, "group name"),
        (sought._replace(group="a/b"), InvalidRequest, "group name"),
        (good._replace(group="other"), GroupNotFound, "other"),
        (sought._replace(group="other"), GroupNotFound, "other"),
    ]
    return cases


def _at(world: World, which: int) -> list[tuple[Any, type[RocksMQError], str]]:
    """What is wrong at one of the channels."""
    strange = world.with_one(world.numbers, which, STRANGER)
    raised = world.with_one(world.generations, which, world.generations[which] + 1)
    beyond = world.with_one(world.ends, which, world.ends[which] + 1)
    return [
        (world.committing(numbers=strange), ChannelNotFound, str(STRANGER)),
        (world.seeking(numbers=strange), ChannelNotFound, str(STRANGER)),
        (subscribing(strange, "second"), ChannelNotFound, str(STRANGER)),
        (world.committing(generations=raised), Conflict, world.names[which]),
        (world.seeking(generations=raised), Conflict, world.names[which]),
        (unsubscribing(world.numbers, raised), Conflict, world.names[which]),
        (world.committing(positions=beyond), InvalidRequest, f"{world.names[which]}.*beyond"),
    ]


def test_given_a_wrong_request_when_it_comes_then_it_is_refused_and_nothing_changes() -> None:
    world = World()
    before = world.broker.states()
    cases = [*_columns(world), *(case for which in range(3) for case in _at(world, which))]
    for request, error, match in cases:
        with pytest.raises(error, match=match):
            raise world.broker.ask(request)
        assert world.broker.core.committer.open.is_empty, request
        assert world.broker.states() == before
    assert len(cases) > 50
    assert world.broker.do(world.committing()) == Empty(), "and the right one is done"
    assert world.broker.positions(world.names) == world.ends


@pytest.mark.parametrize("which", range(3))
def test_given_one_group_missing_when_sought_or_committed_then_its_channel_is_named_and_nothing_moves(which: int) -> None:
    world = World()
    group = world.broker.groups(world.names)[which]
    world.broker.do(DestroyGroup(world.names[which], GROUP, group.state.creation_id))
    before = world.broker.states()
    for request in (world.committing(), world.seeking()):
        with pytest.raises(GroupNotFound, match=f"{world.names[which]}.*{GROUP}"):
            raise world.broker.ask(request)
        assert world.broker.states() == before


@pytest.mark.parametrize("which", range(3))
def test_given_no_room_for_a_group_on_one_channel_when_subscribed_then_none_is_made(which: int) -> None:
    broker = ManyBroker(Limits(groups_max=1))
    names = broker.channels(3)
    broker.do(CreateGroup(names[which], "other", 1, 0, broker.unique()))
    before = broker.states()
    with pytest.raises(LimitExceeded, match=f"{names[which]}.*groups_max"):
        raise broker.ask(subscribing(broker.numbers(names)))
    assert broker.states() == before
    assert broker.core.committer.open.is_empty


# -- subscriptions -----------------------------------------------------------------------


def test_given_a_group_on_some_of_the_channels_when_subscribed_then_the_others_get_it_and_those_stay() -> None:
    world = World()
    world.broker.do(CreateGroup(world.names[1], "second", 0, world.ends[1] - 1, world.broker.unique()))
    before = world.broker.states()[world.names[1], "second"]
    assert world.broker.do(subscribing(world.numbers, "second", kind=2)) == Empty()
    states = world.broker.states()
    assert states[world.names[1], "second"] == before
    assert [states[name, "second"].position for name in world.names] == [world.ends[0], world.ends[1] - 1, world.ends[2]]
    assert world.broker.ask(subscribing(world.numbers, "second", kind=2)) == Empty(), "at once, for all is durable"
    world.broker.start()
    assert world.broker.states() == states


@pytest.mark.parametrize(("kind", "start", "offset"), [(0, 0, 0), (1, 0, 0), (2, 0, 3), (3, 0, 0)])
def test_given_a_start_when_subscribed_then_each_group_begins_there(kind: int, start: int, offset: int) -> None:
    world = World()
    world.broker.do(subscribing(world.numbers, "second", kind=kind, start=start))
    begins = [end - 3 + offset for end in world.ends]
    assert [world.broker.states()[name, "second"].position for name in world.names] == begins


def test_given_a_subscription_that_is_not_durable_when_it_is_repeated_then_it_waits_for_that_commit_and_no_later_one() -> None:
    broker = ManyBroker()
    names = broker.channels(3)
    request = subscribing(broker.numbers(names))
    first, second = Asked(broker, request), Asked(broker, request)
    later: list[Asked] = []

    def on_sync() -> None:
        broker.store.on_sync = lambda: None
        later.append(Asked(broker, request))
        assert later[0].reply is None
        assert broker.core.committer.open.is_empty

    broker.store.on_sync = on_sync
    assert (first.reply, second.reply) == (None, None)
    broker.commit()
    assert [one.reply for one in (first, second, *later)] == [Empty()] * 3


@pytest.mark.parametrize("mode", ["os", "interval:900", "fsync"])
@in_mock_time
async def test_given_a_channel_of_any_mode_when_its_new_group_is_not_synced_then_nobody_is_told_of_it(mode: str) -> None:
    broker = ManyBroker()
    broker.do(CreateChannel("c", mode, None, None, broker.unique()))
    request = subscribing(broker.numbers(["c"]))
    asked = [Asked(broker, request)]

    def on_sync() -> None:
        broker.store.on_sync = lambda: None
        repeats = request, CreateGroup("c", GROUP, 1, 0, request.request_id), DescribeGroup("c", GROUP)
        asked.extend(Asked(broker, repeat) for repeat in repeats)
        assert [one.reply for one in asked] == [None] * 4

    broker.store.on_sync = on_sync
    broker.commit()
    assert [type(one.reply) for one in asked] == [Empty, Empty, Created, GroupDescribed]


# -- seeks ---------------------------------------------------------------------------------


def test_given_positions_when_sought_then_each_leads_to_a_message_or_the_end_and_the_metadata_is_kept() -> None:
    world = World()
    ends = world.ends
    reply = world.broker.do(world.seeking(to=[0, ends[1] - 2, ends[2] + 1_000], metadata=[b"x", b"", b"z" * 256]))
    found = sought(reply)
    assert [position for position, _, _ in found] == [ends[0] - 3, ends[1] - 2, ends[2]]
    assert [kept for _, _, kept in found] == [b"x", b"", b"z" * 256]
    assert len({generation for _, generation, _ in found} | set(world.generations)) == 6, "new ones"
    states = [group.state for group in world.broker.groups(world.names)]
    assert [(state.position, state.generation, state.metadata) for state in states] == found
    assert [state.offset for state in states] == [0, 1, 3]
    lags = [world.broker.ask(DescribeGroup(name, GROUP)).lag_messages for name in world.names]
    assert lags == [3, 2, 0]


def test_given_no_positions_when_sought_then_the_groups_stay_with_their_metadata_and_only_the_generation_rises() -> None:
    world = World()
    world.broker.do(world.committing(positions=[end - 1 for end in world.ends], metadata=[b"1", b"2", b"3"]))
    reply = world.broker.do(seeking(world.numbers, b"k" * 16))
    found = sought(reply)
    assert [(position, kept) for position, _, kept in found] == [
        (end - 1, kept) for end, kept in zip(world.ends, (b"1", b"2", b"3"), strict=True)
    ]
    assert all(new > old for (_, new, _), old in zip(found, world.generations, strict=True))
    with pytest.raises(Conflict):
        raise world.broker.ask(world.committing())
    world.broker.do(world.committing(generations=[generation for _, generation, _ in found]))
    assert world.broker.positions(world.names) == world.ends


def test_given_groups_at_the_beginning_that_nobody_committed_to_when_sought_without_positions_then_0_is_told() -> None:
    world = World()
    empty = world.broker.channels(1)
    world.broker.do(CreateGroup(world.names[2], "second", 2, 0, b"x" * 16))
    for name in (*world.names[:2], *empty):
        world.broker.do(CreateGroup(name, "second", 1, 0, b"x" * 16))
    names = [*world.names, *empty]
    request = seeking(world.broker.numbers(names), b"k" * 16)._replace(group="second")
    first = world.broker.do(request)
    assert [position for position, _, _ in sought(first)] == [0, 0, world.ends[2], 0]
    assert world.broker.states()[world.names[0], "second"].position == world.ends[0] - 3, "where it stands is where it stood"
    assert world.broker.ask(request) == first


def test_given_a_seek_when_it_is_repeated_then_it_answers_the_same_and_moves_nothing() -> None:
    world = World()
    request = world.seeking(to=[end - 2 for end in world.ends])
    first = world.broker.do(request)
    assert world.broker.ask(request) == first, "at once, for it is durable"
    generations = [generation for _, generation, _ in sought(first)]
    world.broker.do(world.committing(generations=generations, metadata=[b"new"] * 3))
    world.broker.start()
    repeated = world.broker.ask(request)
    assert repeated.positions == first.positions
    assert repeated.generations == first.generations
    assert [kept for _, _, kept in sought(repeated)] == [b"new"] * 3, "the present one"
    assert world.broker.positions(world.names) == world.ends


def test_given_a_seek_when_one_of_its_groups_was_sought_since_then_its_repeat_is_a_new_seek_and_conflicts() -> None:
    world = World()
    request = world.seeking(to=[end - 2 for end in world.ends])
    world.broker.do(request)
    world.broker.do(Seek(world.names[1], GROUP, 1, 0, b"other seek here!"))
    before = world.broker.states()
    with pytest.raises(Conflict):
        raise world.broker.ask(request)
    assert world.broker.states() == before


def test_given_a_seek_that_is_not_durable_when_it_is_repeated_then_it_waits_for_that_commit_and_no_later_one() -> None:
    world = World()
    request = world.seeking()
    first, second = Asked(world.broker, request), Asked(world.broker, request)
    later: list[Asked] = []

    def on_sync() -> None:
        world.broker.store.on_sync = lambda: None
        commit = world.committing(generations=[group.state.generation for group in world.broker.groups(world.names)])
        later.append(Asked(world.broker, commit))  # changes the groups in the next commit
        later.append(Asked(world.broker, request))

    world.broker.store.on_sync = on_sync
    assert (first.reply, second.reply) == (None, None)
    world.broker.commit()
    assert first.reply == second.reply == later[1].reply
    assert later[0].reply is None


def test_given_messages_given_back_when_sought_then_they_are_served_from_there_or_dropped() -> None:
    world = World()
    name = world.names[0]
    for position in (None, world.ends[0]):
        consumer = world.broker.unique()
        claimed = world.broker.do(Consume(name, GROUP, consumer, 0, 3, 1 << 20, 0))
        assert claimed.message_count == 3
        world.broker.do(ReleaseConsumer(name, GROUP, consumer, 0, world.ends[0] - 2, 0))
        to = None if position is None else [position] * 3
        found = sought(world.broker.do(seeking(world.numbers, world.broker.unique(), to=to)))
        assert found[0][0] == (world.ends[0] - 2 if position is None else position), "what was given back is not lost"
        assert not any(entry.is_released for entry in world.broker.groups(world.names)[0].state.consumers.values())
        world.broker.do(seeking(world.numbers, world.broker.unique(), to=[0, 0, 0]))


# -- commits -------------------------------------------------------------------------------


def test_given_positions_forward_equal_and_back_when_committed_then_each_channel_does_as_commit_does() -> None:
    world = World()
    middle = [end - 2 for end in world.ends]
    world.broker.do(world.committing(positions=middle, metadata=[b"1", b"2", b"3"]))
    request = world.committing(positions=[middle[0] - 1, middle[1], world.ends[2]], metadata=[b"4", b"5", b"6"])
    assert world.broker.do(request) == Empty()
    states = [group.state for group in world.broker.groups(world.names)]
    assert [state.position for state in states] == [middle[0], middle[1], world.ends[2]]
    assert [state.metadata for state in states] == [b"1", b"5", b"6"]
    assert [state.offset for state in states] == [1, 1, 3]
    assert world.broker.ask(world.committing(positions=[0, 0, 0])) == Empty(), "at once, for there is nothing to do"


def test_given_a_commit_when_the_process_is_killed_before_or_after_the_write_then_none_or_all_is_there() -> None:
    world = World()
    before = world.broker.states()
    world.broker.store.on_write = fail_with(Killed)
    asked = Asked(world.broker, world.committing())
    with pytest.raises(Killed):
        world.broker.commit()
    assert asked.reply is None
    world.broker.store.on_write = lambda: None
    world.broker.start()
    assert world.broker.states() == before
    world.broker.store.on_sync = fail_with(Killed)
    asked = Asked(world.broker, world.committing())
    with pytest.raises(Killed):
        world.broker.commit()
    assert asked.reply is None
    world.broker.store.on_sync = lambda: None
    world.broker.start()
    assert world.broker.positions(world.names) == world.ends


def fail_with(error: type[BaseException]) -> Callable[[], None]:
    def failing() -> None:
        raise error

    return failing


@in_mock_time
async def test_given_channels_of_several_modes_when_committed_then_the_strictest_decides_when_it_is_answered() -> None:
    broker = ManyBroker()
    modes = {"fsync": "fsync", "soon": "interval:50", "late": "interval:900", "os": "os"}
    for name, mode in modes.items():
        broker.do(CreateChannel(name, mode, None, None, broker.unique()))
    numbers = dict(zip(modes, broker.numbers(list(modes)), strict=True))

    def commit(*names: str) -> tuple[bool, float | None]:
        """Whether it was answered before the sync, and within which time a sync is due."""
        broker.do(subscribing([numbers[name] for name in names]))
        generations = [group.state.generation for group in broker.groups(names)]
        ends = [broker.produce(name, b"x") for name in names]
        broker.commit()
        answered: list[bool] = []
        broker.core.committer._sync_due = None  # pyright: ignore[reportPrivateUsage]
        asked = Asked(broker, committing([numbers[name] for name in names], generations, ends))
        due = broker.core.committer._sync_due  # pyright: ignore[reportPrivateUsage]
        broker.store.on_sync = lambda: answered.append(asked.reply is not None)
        broker.commit()
        broker.store.on_sync = lambda: None
        assert asked.reply == Empty()
        return answered != [False], due

    assert commit("os") == (True, None)
    assert commit("os", "fsync") == (False, None)
    assert commit("late", "fsync", "soon") == (False, None)
    was_early, due = commit("os", "late", "soon")
    assert was_early
    assert due is not None
    assert due == pytest.approx(trio.current_time() + 0.05)


# -- the end of a subscription ---------------------------------------------------------------


def test_given_a_subscription_when_it_is_ended_then_its_groups_are_gone_and_a_repeat_is_a_success() -> None:
    world = World()
    world.broker.do(subscribing(world.numbers, "other"))
    request = unsubscribing(world.numbers, world.generations)
    first, second = Asked(world.broker, request), Asked(world.broker, request)
    assert (first.reply, second.reply) == (None, None)
    world.broker.commit()
    assert (first.reply, second.reply) == (Empty(), Empty())
    assert world.broker.ask(request) == Empty(), "at once, for it is durable"
    world.broker.start()
    assert set(world.broker.states()) == {(name, "other") for name in world.names}
    assert world.broker.ask(request) == Empty()


def test_given_channels_that_are_gone_when_a_subscription_is_ended_then_the_groups_on_the_others_are_gone() -> None:
    world = World()
    world.broker.do(destroying(world.names[:1], world.numbers[:1]))
    assert world.broker.do(unsubscribing(world.numbers, world.generations)) == Empty()
    assert world.broker.states() == {}
    assert world.broker.ask(ListGroups(world.names[1], "")).names == []


@in_mock_time
async def test_given_a_consumer_that_waits_when_its_group_is_unsubscribed_or_sought_then_it_is_told_or_served() -> None:
    world = World()
    world.broker.do(world.committing())
    polls = [Asked(world.broker, Consume(name, GROUP, ME, 0, 9, 1 << 20, 30_000)) for name in world.names[:2]]
    generations = [
        generation for _, generation, _ in sought(world.broker.do(world.seeking(to=[0, world.ends[1], world.ends[2]])))
    ]
    world.broker.commit()
    assert polls[0].reply.message_count == 3
    assert polls[1].reply is None
    world.broker.do(unsubscribing(world.numbers, generations))
    assert isinstance(polls[1].reply, GroupNotFound)
    assert len(world.broker.core.waiters) == 0


# -- a full disk -----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["subscribe", "seek", "commit", "unsubscribe"])
def test_given_a_full_disk_when_many_groups_are_changed_then_all_are_as_before_and_the_repeat_does_it(kind: str) -> None:
    world = World()
    request = {
        "subscribe": subscribing(world.numbers, "second"),
        "seek": world.seeking(),
        "commit": world.committing(),
        "unsubscribe": unsubscribing(world.numbers, world.generations),
    }[kind]
    before = world.broker.states()
    world.broker.store.on_write = fail(DiskFull("full"))
    asked = [Asked(world.broker, request), Asked(world.broker, request)]
    assert world.broker.states() != before
    world.broker.commit()
    assert all(isinstance(one.reply, DiskFull) for one in asked)
    assert world.broker.states() == before
    assert [group.visible for group in world.broker.groups(world.names)] == [before[name, GROUP] for name in world.names]
    world.broker.store.on_write = lambda: None
    assert not isinstance(world.broker.do(request), RocksMQError)
    after = world.broker.states()
    assert after != before
    world.broker.start()
    assert world.broker.states() == after
