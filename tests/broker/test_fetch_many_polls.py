"""Long polls on many channels: one waiter on all of them, served once, told of what ends, and nothing of it left behind."""

import pytest
import trio
import trio.testing

from rocksmq.broker import waiters
from rocksmq.broker.channels import Channel
from rocksmq.broker.commit import Commit
from rocksmq.broker.limits import Limits
from rocksmq.broker.waiters import PLACES_EACH
from rocksmq.protocol.errors import ChannelNotFound, DiskFull, LimitExceeded, ShuttingDown
from rocksmq.protocol.operations import (
    Consume,
    CreateChannel,
    CreateGroup,
    DestroyChannel,
    Empty,
    Fetch,
    Position,
    Produce,
)

from .disk_support import fail
from .many_support import Asked, ManyBroker, committing, destroying, fetching, read, seeking, sought, unsubscribing
from .support import batch_of, in_mock_time


def counted_attempts(asked: Asked) -> list[bool]:
    """What becomes of each attempt from now on."""
    assert asked.waiter is not None
    attempt = asked.waiter.attempt
    attempts: list[bool] = []

    def counted(commit: Commit, sealing: bool) -> bool:
        attempts.append(attempt(commit, sealing))
        return attempts[-1]

    asked.waiter.attempt = counted
    return attempts


@in_mock_time
async def test_given_a_poll_beside_a_stream_when_that_seeks_commits_and_goes_then_the_poll_is_not_looked_at() -> None:
    broker = ManyBroker()
    names = broker.channels(5)
    numbers = broker.numbers(names)
    broker.subscribed(names)
    attempts = counted_attempts(Asked(broker, fetching([(number, 0) for number in numbers], wait_ms=30_000)))
    generations = [generation for _, generation, _ in sought(broker.do(seeking(numbers, broker.unique())))]
    assert broker.do(committing(numbers, generations, [1] * 5)) == Empty()
    assert broker.do(unsubscribing(numbers, generations)) == Empty()
    assert attempts == []


@in_mock_time
async def test_given_a_poll_of_a_thousand_channels_when_messages_come_then_it_is_one_waiter_and_served_once_with_all() -> None:
    broker = ManyBroker()
    names = broker.channels(1_000)
    numbers = broker.numbers(names)
    asked = Asked(broker, fetching([(number, 0) for number in numbers], wait_ms=30_000))
    other = Asked(broker, fetching([(number, 0) for number in numbers[:2]], wait_ms=30_000))
    assert len(broker.core.waiters) == 2
    assert len(list(broker.core.waiters)) == 2
    for name in names[500:600]:
        broker.core.submit(Produce(name, broker.unique(), 0, *batch_of(b"x")), lambda reply: None)
    assert not asked.replies, "nothing is durable yet"
    broker.commit()
    assert sorted(read(asked.reply)) == list(range(500, 600))
    assert not other.replies
    assert list(broker.core.waiters) == [other.waiter]
    assert all(list(broker.core.waiters.of(number)) == [] for number in numbers[2:])
    broker.produce(names[500], b"y")
    broker.produce(names[1], b"z")
    assert {index: part.payloads for index, part in read(other.reply).items()} == {1: [b"z"]}
    assert len(broker.core.waiters) == 0


@in_mock_time
async def test_given_a_poll_when_what_comes_lies_before_its_start_then_it_waits_on() -> None:
    broker = ManyBroker()
    names = broker.channels(2)
    a, b = broker.numbers(names)
    far = broker.produce(names[0], b"x") + 5
    asked = Asked(broker, fetching([(a, far), (b, 0)], wait_ms=30_000))
    attempts = counted_attempts(asked)
    broker.produce(names[0], b"y")
    assert not asked.replies
    assert attempts == [], "it is not even looked at"
    broker.produce(names[1], b"z")
    assert read(asked.reply)[1].payloads == [b"z"]


@in_mock_time
async def test_given_a_poll_of_many_channels_when_one_of_them_brings_something_then_no_other_is_looked_at() -> None:
    broker = ManyBroker()
    names = broker.channels(50)
    numbers = broker.numbers(names)
    asked = Asked(broker, fetching([(number, 0) for number in numbers], wait_ms=30_000))
    looked_at: list[int] = []
    get_numbered = broker.core.channels.get_numbered

    def noted(number: int) -> Channel | None:
        looked_at.append(number)
        return get_numbered(number)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(broker.core.channels, "get_numbered", noted)
        for name in (names[30], names[7]):
            broker.core.submit(Produce(name, broker.unique(), 0, *batch_of(b"x")), lambda reply: None)
        broker.commit()
    assert looked_at == [numbers[7], numbers[30]]
    assert list(read(asked.reply)) == [7, 30]


@in_mock_time
async def test_given_more_polls_than_one_turn_attempts_when_they_are_woken_then_each_is_served_in_a_later_turn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(waiters, "TURN_SECONDS", -1)  # one a turn
    broker = ManyBroker()
    names = broker.channels(3)
    a, b, c = broker.numbers(names)
    polls = [Asked(broker, fetching([(a, 0), (b, 0), (c, 0)], wait_ms=30_000)) for _ in range(5)]
    broker.produce(names[0], b"first")
    assert [poll.reply is None for poll in polls] == [False, True, True, True, True]
    broker.produce(names[1], b"second")  # while others are due still
    assert [poll.reply is None for poll in polls] == [False, False, True, True, True]
    cancelled = polls.pop(3)
    assert cancelled.waiter is not None
    assert broker.core.waiters.cancel(cancelled.waiter)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(broker.core.waiters.run)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    found = [{index: part.payloads for index, part in read(poll.reply).items()} for poll in polls]
    assert found == [{0: [b"first"]}, *[{0: [b"first"], 1: [b"second"]}] * 3]
    assert cancelled.reply is None
    assert len(broker.core.waiters) == 0


@in_mock_time
async def test_given_polls_when_commits_are_undone_then_only_whoever_waits_on_what_was_never_made_is_told() -> None:
    broker = ManyBroker()
    names = broker.channels(2)
    asked = Asked(broker, fetching([(number, 0) for number in broker.numbers(names)], wait_ms=30_000))
    attempts = counted_attempts(asked)
    broker.store.on_write = fail(DiskFull("full"))
    broker.core.submit(CreateChannel("unmade", None, None, None, broker.unique()), lambda reply: None)
    other = Asked(broker, fetching([(number, 0) for number in broker.numbers([names[0], "unmade"])], wait_ms=30_000))
    assert isinstance(broker.do(Produce(names[0], broker.unique(), 0, *batch_of(b"x"))), DiskFull)
    assert isinstance(other.reply, ChannelNotFound)
    assert asked.reply is None
    assert attempts == []


@in_mock_time
async def test_given_polls_on_as_many_channels_as_may_wait_when_more_come_then_they_are_refused_until_some_are_gone() -> None:
    broker = ManyBroker(Limits(waiting_channels_max=10 + 3 * PLACES_EACH))
    names = broker.channels(4)
    starts = [(number, 0) for number in broker.numbers(names)]
    first, _ = [Asked(broker, fetching(starts, wait_ms=30_000)) for _ in range(2)]
    refused = Asked(broker, fetching(starts, wait_ms=30_000))
    assert isinstance(refused.reply, LimitExceeded)
    assert "waiting_channels_max" in refused.reply.message
    assert Asked(broker, fetching(starts, wait_ms=0)).reply.message_count == 0, "it does not wait"
    assert Asked(broker, fetching(starts[:2], wait_ms=30_000)).reply is None, "there is room for two"
    broker.do(CreateGroup(names[0], "group", Position.EARLIEST, 0, broker.unique()))
    for lone in (
        Fetch(names[0], Position.LATEST, 0, 1, 1, 30_000),
        Consume(names[0], "group", broker.unique(), 0, 1, 1, 30_000),
    ):
        assert isinstance(Asked(broker, lone).reply, LimitExceeded), "nor has one on one channel a place"
    assert first.waiter is not None
    assert broker.core.waiters.cancel(first.waiter)
    assert Asked(broker, fetching(starts, wait_ms=30_000)).reply is None
    broker.produce(names[0], b"x")
    assert broker.core.waiters.place_count == 0


@in_mock_time
async def test_given_polls_when_their_time_is_over_or_they_are_cancelled_then_nothing_of_them_is_left() -> None:
    broker = ManyBroker(Limits(poll_ms_max=10_000))
    numbers = broker.numbers(broker.channels(3))
    starts = [(number, 0) for number in numbers]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(broker.core.waiters.run)
        begin = trio.current_time()
        asked = [Asked(broker, fetching(starts, wait_ms=ms)) for ms in (0, 1_000, 30_000, 5_000)]
        assert asked[0].reply.message_count == 0
        assert asked[3].waiter is not None
        assert broker.core.waiters.cancel(asked[3].waiter)
        await trio.sleep(1.5)
        assert asked[1].reply.message_count == 0
        assert len(broker.core.waiters) == 1
        await trio.sleep(9)
        assert asked[2].reply.message_count == 0
        assert trio.current_time() == pytest.approx(begin + 10.5)
        nursery.cancel_scope.cancel()
    assert asked[3].reply is None
    assert len(broker.core.waiters) == 0
    assert all(list(broker.core.waiters.of(number)) == [] for number in numbers)


@pytest.mark.parametrize("which", range(3))
@pytest.mark.parametrize("is_single", [True, False])
def test_given_a_poll_when_one_of_its_channels_is_destroyed_then_it_is_told_which_once_that_is_durable(
    which: int, is_single: bool
) -> None:
    @in_mock_time
    async def scenario() -> None:
        broker = ManyBroker()
        names = broker.channels(3)
        numbers = broker.numbers(names)
        asked = [Asked(broker, fetching([(number, 0) for number in numbers], wait_ms=30_000)) for _ in range(2)]
        others = Asked(broker, fetching([(numbers[which - 1], 0)], wait_ms=30_000))
        request = DestroyChannel(names[which], numbers[which]) if is_single else destroying([names[which]], [numbers[which]])
        broker.core.submit(request, lambda reply: None)
        assert [one.reply for one in asked] == [None, None], "it may still come back"
        broker.commit()
        assert all(isinstance(one.reply, ChannelNotFound) and names[which] in one.reply.message for one in asked)
        broker.produce(names[which - 1], b"x")
        assert read(others.reply)[0].payloads == [b"x"]
        assert len(broker.core.waiters) == 0

    scenario()


@in_mock_time
async def test_given_a_poll_when_a_commit_is_undone_then_it_waits_on_and_reads_nothing_of_it() -> None:
    broker = ManyBroker()
    names = broker.channels(2)
    asked = Asked(broker, fetching([(number, 0) for number in broker.numbers(names)], wait_ms=30_000))
    broker.store.on_write = fail(DiskFull("full"))
    assert isinstance(broker.do(Produce(names[0], broker.unique(), 0, *batch_of(b"x"))), DiskFull)
    assert not asked.replies
    broker.store.on_write = lambda: None
    broker.produce(names[1], b"x")
    assert {index: part.payloads for index, part in read(asked.reply).items()} == {1: [b"x"]}


@in_mock_time
async def test_given_one_whose_output_is_full_when_messages_come_then_it_is_served_once_there_is_room() -> None:
    broker = ManyBroker()
    names = broker.channels(3)
    is_full = True
    asked = Asked(broker, fetching([(number, 0) for number in broker.numbers(names)], wait_ms=30_000))
    assert asked.waiter is not None
    asked.waiter.must_wait = lambda: is_full
    broker.produce(names[2], b"x")
    other = Asked(broker, fetching([(broker.numbers(names)[0], 0)], wait_ms=30_000))
    attempts = counted_attempts(other)
    broker.core.attempt_held()
    broker.do(CreateChannel("unrelated", None, None, None, broker.unique()))
    broker.produce("unrelated", b"x")
    assert not asked.replies
    assert attempts == [], "whoever waits beside one that is slow is not bothered"
    is_full = False
    broker.core.attempt_held()
    assert read(asked.reply)[2].payloads == [b"x"]


@in_mock_time
async def test_given_polls_when_the_broker_stops_or_its_store_fails_then_each_is_answered_once() -> None:
    for end in ("close", "fail"):
        broker = ManyBroker()
        numbers = broker.numbers(broker.channels(3))
        asked = [Asked(broker, fetching([(number, 0) for number in numbers], wait_ms=30_000)) for _ in range(2)]
        if end == "close":
            broker.core.close()
            assert all(one.reply.message_count == 0 for one in asked)
        else:
            broker.core.fail(ShuttingDown("over"))
            assert all(isinstance(one.reply, ShuttingDown) for one in asked)
        assert len(broker.core.waiters) == 0


@in_mock_time
async def test_given_a_lax_channel_among_others_when_it_is_written_then_a_poll_has_it_before_the_sync() -> None:
    broker = ManyBroker()
    broker.do(CreateChannel("os", "os", None, None, broker.unique()))
    names = [*broker.channels(1), "os"]
    asked = Asked(broker, fetching([(number, 0) for number in broker.numbers(names)], wait_ms=30_000))
    for name in names:
        broker.core.submit(Produce(name, broker.unique(), 0, *batch_of(b"x")), lambda reply: None)
    broker.commit()
    assert sorted(read(asked.reply)) == [0, 1]
