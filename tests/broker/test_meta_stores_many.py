"""Operations on one group of many channels, for both stores of positions: embedded and a real etcd."""

from collections.abc import Sequence
from typing import Any

import pytest
import trio

from rocksmq.broker.engine import RocksMQ
from rocksmq.broker.records import GroupState
from rocksmq.protocol.columns import unpack_numbers
from rocksmq.protocol.errors import ChannelNotFound, Conflict, GroupNotFound, InvalidRequest
from rocksmq.protocol.operations import Consume, DescribeGroup, ListGroups

from .many_support import (
    GROUP,
    committing,
    creating,
    describing,
    destroying,
    fetching,
    read,
    seeking,
    sought,
    subscribing,
    unsubscribing,
)
from .place_support import Place
from .support import identity, in_trio

COUNT = 60  # all that one transaction of etcd takes
SEEK = b"k" * 16
PATIENCE_SECONDS = 30


class Stream:
    """A subscription to so many channels of three messages each."""

    names: Sequence[str]
    numbers: list[int]
    generations: list[int]
    ends: list[int]

    async def open(self, mq: RocksMQ, count: int = COUNT) -> None:
        self.names = (await mq.call(creating(count))).names
        self.numbers = list(unpack_numbers((await mq.call(describing(self.names))).numbers))
        self.ends = [(await mq.produce(name, [b"a", b"b", b"c"]))[-1] + 1 for name in self.names]
        await mq.call(subscribing(self.numbers))
        self.generations = [generation for _, generation, _ in sought(await mq.call(seeking(self.numbers, SEEK)))]

    def committing(self, positions: Sequence[int] | None = None, which: slice = slice(None), metadata: bytes = b"m") -> Any:
        numbers = self.numbers[which]
        wanted = (self.ends if positions is None else positions)[which]
        return committing(numbers, self.generations[which], wanted, [metadata] * len(numbers))

    def states(self, mq: RocksMQ) -> list[GroupState]:
        return [mq.core.channels.find(name).groups[GROUP].state for name in self.names]

    def positions(self, mq: RocksMQ) -> list[int]:
        return [state.position for state in self.states(mq)]


@in_trio
async def test_given_a_life_of_a_subscription_when_the_broker_is_started_anew_then_each_step_has_stayed(place: Place) -> None:
    stream = Stream()
    async with place.engine() as mq:
        await stream.open(mq)
        middle = [end - 1 for end in stream.ends]
        await mq.call(stream.committing(middle, metadata=b"\0\xff" * 128))
        before = stream.states(mq)
    assert place.current_ids() == {
        f"{GROUP}/{name}/current_id": str(position) for name, position in zip(stream.names, middle, strict=True)
    }
    async with place.engine() as mq:
        assert stream.states(mq) == before
        repeated = sought(await mq.call(seeking(stream.numbers, SEEK)))
        assert [generation for _, generation, _ in repeated] == stream.generations
        assert {kept for _, _, kept in repeated} == {b"\0\xff" * 128}
        assert stream.positions(mq) == middle
        request = seeking(stream.numbers, b"l" * 16, generations=stream.generations, to=[0] * COUNT)
        stream.generations = [generation for _, generation, _ in sought(await mq.call(request))]
        assert stream.positions(mq) == [end - 3 for end in stream.ends]
        with pytest.raises(Conflict):
            await mq.call(request._replace(request_id=b"n" * 16))
    async with place.engine() as mq:
        assert stream.positions(mq) == [end - 3 for end in stream.ends]
        for _ in range(2):
            await mq.call(unsubscribing(stream.numbers, stream.generations))
        assert (await mq.call(ListGroups(stream.names[0], ""))).names == []
    assert place.current_ids() == {}
    async with place.engine() as mq:
        await mq.call(subscribing(stream.numbers, kind=2))
        assert stream.positions(mq) == stream.ends
        for _ in range(2):
            await mq.call(destroying(stream.names, stream.numbers))
        with pytest.raises(ChannelNotFound):
            await mq.call(subscribing(stream.numbers))


@pytest.mark.parametrize("which", [0, 29, 59])
def test_given_something_wrong_at_one_channel_when_asked_then_it_is_refused_and_nothing_changes(
    place: Place, which: int
) -> None:
    @in_trio
    async def scenario() -> None:
        stream = Stream()
        async with place.engine() as mq:
            await stream.open(mq)
            before = stream.states(mq)
            wrong = [*stream.generations]
            wrong[which] += 1
            strange = [*stream.numbers]
            strange[which] = 12_345
            beyond = [*stream.ends]
            beyond[which] += 1
            good = stream.committing()
            cases: list[tuple[Any, type[Exception], str]] = [
                (committing(stream.numbers, wrong, stream.ends), Conflict, stream.names[which]),
                (committing(strange, stream.generations, stream.ends), ChannelNotFound, "12345"),
                (stream.committing(beyond), InvalidRequest, stream.names[which]),
                (good._replace(group="other"), GroupNotFound, stream.names[0]),
                (seeking(stream.numbers, b"l" * 16, generations=wrong), Conflict, stream.names[which]),
                (seeking(strange, b"l" * 16), ChannelNotFound, "12345"),
                (unsubscribing(stream.numbers, wrong), Conflict, stream.names[which]),
                (subscribing(strange, "other"), ChannelNotFound, "12345"),
            ]
            for request, error, match in cases:
                with pytest.raises(error, match=match):
                    await mq.call(request)
                assert stream.states(mq) == before
            with pytest.raises(GroupNotFound):
                await mq.call(DescribeGroup(stream.names[0], "other"))
        async with place.engine() as mq:
            assert stream.states(mq) == before

    scenario()


@in_trio
async def test_given_many_at_once_when_they_meet_single_operations_then_each_is_whole_and_all_are_done(place: Place) -> None:
    stream = Stream()
    async with place.engine() as mq:
        await stream.open(mq)
        torn: list[list[int]] = []

        async def forward(step: int, which: slice) -> None:
            await mq.call(stream.committing([end - 3 + step for end in stream.ends], which))
            torn.append([position - end + 3 for position, end in zip(stream.positions(mq), stream.ends, strict=True)])

        async def consume(name: str, which: int) -> None:
            await mq.call(Consume(name, "auto", identity(1 << 62, which), 0, 1, 100, 0))

        await mq.call(subscribing(stream.numbers, "auto"))
        with trio.fail_after(PATIENCE_SECONDS):
            async with trio.open_nursery() as nursery:
                for step in (1, 2, 3):
                    nursery.start_soon(forward, step, slice(None))
                    nursery.start_soon(forward, step, slice(0, 40))
                    for index, name in enumerate(stream.names):
                        nursery.start_soon(consume, name, 100 * step + index)
        assert stream.positions(mq) == stream.ends
        assert len(torn) == 6
        for steps in torn:
            assert len(set(steps[:40])) == len(set(steps[40:])) == 1, steps
    async with place.engine() as mq:
        assert stream.positions(mq) == stream.ends
        assert (await mq.call(DescribeGroup(stream.names[0], "auto"))).lag_messages == 0


@in_trio
async def test_given_a_crash_while_commits_are_on_their_way_when_started_again_then_each_is_there_whole_or_not_at_all(
    place: Place,
) -> None:
    stream = Stream()
    acknowledged = 0
    async with place.engine() as mq:
        await stream.open(mq)

        async def forward(step: int) -> None:
            nonlocal acknowledged
            await mq.call(stream.committing([end - 3 + step for end in stream.ends]))
            acknowledged = max(acknowledged, step)

        async with trio.open_nursery() as nursery:
            for step in (1, 2, 3):
                nursery.start_soon(forward, step)
                while not acknowledged:
                    await trio.sleep(0)
            place.crash()
    async with place.engine() as mq:
        (step,) = {position - end + 3 for position, end in zip(stream.positions(mq), stream.ends, strict=True)}
        assert step >= 1, "what was acknowledged has stayed"
        assert {state.metadata for state in stream.states(mq)} == {b"m"}


@in_trio
async def test_given_a_long_poll_over_all_channels_when_one_brings_something_then_it_has_it(place: Place) -> None:
    stream = Stream()
    async with place.engine() as mq:
        await stream.open(mq)
        replies: list[Any] = []

        async def poll() -> None:
            starts = list(zip(stream.numbers, stream.ends, strict=True))
            replies.append(await mq.call(fetching(starts, wait_ms=PATIENCE_SECONDS * 1_000)))

        with trio.fail_after(PATIENCE_SECONDS / 2):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(poll)
                while not len(mq.core.waiters):
                    await trio.sleep(0)
                await mq.produce(stream.names[17], [b"d"])
        assert {index: part.payloads for index, part in read(replies[0]).items()} == {17: [b"d"]}
