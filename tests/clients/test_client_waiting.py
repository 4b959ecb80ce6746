"""The client with threads: calls that wait and what wakes them, one client shared by many, an end from outside."""

import functools
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import pytest

from rocksmq.clients import ChannelNotFound, Client, ConnectionFailed, GroupNotFound, MessageBatch
from rocksmq.clients.connection import Call, Connection
from rocksmq.clients.deadline import Deadline
from rocksmq.clients.testing import Broker
from rocksmq.protocol.operations import Consume, Fetch

Result = TypeVar("Result")
PATIENCE = 20.0  # until a test gives up; nothing waits for it to be right


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """A broker that this module shares."""
    with Broker(tmp_path_factory.mktemp("waiting") / "data") as process:
        yield process


@pytest.fixture
def client(broker: Broker) -> Iterator[Client]:
    """A client, with the empty channel `orders` and its group `billing`."""
    with broker.client() as mq:
        mq.destroy_channel("orders", missing_ok=True)
        mq.create_channel("orders")
        mq.create_consumer_group("orders", "billing")
        yield mq


class Polls:
    """Runs calls in threads, and knows when the broker has taken their long polls."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, pool: ThreadPoolExecutor) -> None:
        self._pool = pool
        self._sent = 0
        self._changed = threading.Condition()
        begin = Connection.begin

        def noted(connection: Connection, request: Any, deadline: Deadline) -> Call:
            call = begin(connection, request, deadline)
            if isinstance(request, (Consume, Fetch)):
                with self._changed:
                    self._sent += 1
                    self._changed.notify_all()
            return call

        monkeypatch.setattr(Connection, "begin", noted)

    def start(self, call: Callable[[], Result]) -> "Future[Result]":
        """Begin ``call`` in a thread."""
        return self._pool.submit(call)

    def parked(self, client: Client, count: int) -> None:
        """Wait until the broker has taken so many polls of ``client``: it takes the frames of a connection in order."""
        with self._changed:
            assert self._changed.wait_for(lambda: self._sent >= count, PATIENCE)
        client.ping()


@pytest.fixture
def polls(monkeypatch: pytest.MonkeyPatch) -> Iterator[Polls]:
    """Calls in threads, all ended before the test is."""
    with ThreadPoolExecutor(16) as pool:
        yield Polls(monkeypatch, pool)


def error_of(future: "Future[Any]") -> BaseException | None:
    """What the call raised."""
    return future.exception(PATIENCE)


# -- waking ----------------------------------------------------------------------------


def test_given_readers_that_wait_when_another_thread_produces_then_they_wake(client: Client, polls: Polls) -> None:
    consuming = polls.start(lambda: client.consume("orders", "billing", timeout=60))
    fetching = polls.start(lambda: client.fetch("orders", "latest", timeout=None))
    polls.parked(client, 2)
    ids = client.produce("orders", [b"a"])
    for future in (consuming, fetching):
        batch = future.result(PATIENCE)
        assert (batch.payloads, list(batch.ids)) == ([b"a"], list(ids))


def test_given_a_reader_that_waits_when_another_client_produces_then_it_wakes(
    client: Client, polls: Polls, broker: Broker
) -> None:
    consuming = polls.start(lambda: client.consume("orders", "billing", timeout=60))
    polls.parked(client, 1)
    with broker.client() as other:
        other.produce("orders", [b"a"])
    assert consuming.result(PATIENCE).payloads == [b"a"]


def test_given_a_reader_that_waits_when_nothing_comes_then_it_is_empty_after_its_time(client: Client) -> None:
    reads: list[Callable[[], MessageBatch]] = [
        lambda: client.consume("orders", "billing", timeout=0.2),
        lambda: client.fetch("orders", "latest", timeout=0.2),
    ]
    for read in reads:
        begin = time.monotonic()
        assert len(read()) == 0
        assert 0.19 <= time.monotonic() - begin < PATIENCE


def test_given_several_consumers_that_wait_when_one_message_comes_then_exactly_one_gets_it(
    client: Client, polls: Polls
) -> None:
    consuming = [polls.start(lambda: client.consume("orders", "billing", 1, timeout=60)) for _ in range(8)]
    polls.parked(client, 8)
    for number in range(8):
        client.produce("orders", [b"%d" % number])
    assert sorted(future.result(PATIENCE).payloads for future in consuming) == [[b"%d" % number] for number in range(8)]
    assert client.describe_consumer_group("orders", "billing").lag_messages == 0


def test_given_consumers_that_wait_when_the_channel_is_destroyed_then_they_are_told(client: Client, polls: Polls) -> None:
    consuming = polls.start(lambda: client.consume("orders", "billing", timeout=60))
    fetching = polls.start(lambda: client.fetch("orders", "latest", timeout=60))
    polls.parked(client, 2)
    client.destroy_channel("orders")
    assert isinstance(error_of(consuming), ChannelNotFound)
    assert isinstance(error_of(fetching), ChannelNotFound)


def test_given_consumers_that_wait_when_their_group_is_destroyed_then_only_they_are_told(client: Client, polls: Polls) -> None:
    client.create_consumer_group("orders", "other")
    consuming = polls.start(lambda: client.consume("orders", "billing", timeout=60))
    other = polls.start(lambda: client.consume("orders", "other", timeout=60))
    polls.parked(client, 2)
    client.destroy_consumer_group("orders", "billing")
    assert isinstance(error_of(consuming), GroupNotFound)
    client.produce("orders", [b"a"])
    assert other.result(PATIENCE).payloads == [b"a"]


def test_given_a_consumer_that_waits_when_its_group_is_sought_back_then_it_reads_from_there(
    client: Client, polls: Polls
) -> None:
    client.produce("orders", [b"a", b"b"])
    client.consume("orders", "billing")
    consuming = polls.start(lambda: client.consume("orders", "billing", timeout=60))
    polls.parked(client, 2)
    client.seek("orders", "billing", "earliest")
    assert consuming.result(PATIENCE).payloads == [b"a", b"b"]


# -- one client, many threads ------------------------------------------------------------


def test_given_eight_threads_when_they_share_a_client_then_every_answer_is_their_own(client: Client, polls: Polls) -> None:
    client.create_channel("fast", durability="os")
    client.create_consumer_group("fast", "billing")

    def work(which: int) -> list[bytes]:
        got: list[bytes] = []
        for number in range(100):
            payload = b"%d/%d" % (which, number)
            ids = client.produce("fast", [payload, payload + b"+"])
            assert client.fetch("fast", ids[0], 2).payloads == [payload, payload + b"+"]
            got += client.consume("fast", "billing", 2).payloads
        return got

    working = [polls.start(functools.partial(work, which)) for which in range(8)]
    found = [payload for future in working for payload in future.result(60)]
    rest: MessageBatch = client.consume("fast", "billing", 10_000)
    expected = Counter(b"%d/%d%s" % (which, number, end) for which in range(8) for number in range(100) for end in (b"", b"+"))
    assert Counter([*found, *rest.payloads]) == expected
    everything = client.fetch("fast", "earliest", 10_000).payloads
    for which in range(8):
        mine = [payload for payload in everything if payload.startswith(b"%d/" % which)]
        assert mine == [b"%d/%d%s" % (which, number, end) for number in range(100) for end in (b"", b"+")]
    client.destroy_channel("fast")


def test_given_threads_that_wait_when_another_calls_then_it_is_answered_meanwhile(client: Client, polls: Polls) -> None:
    consuming = [polls.start(lambda: client.consume("orders", "billing", 1, timeout=60)) for _ in range(4)]
    polls.parked(client, 4)
    for _ in range(50):
        assert client.ping() < PATIENCE
        assert client.list_consumer_groups("orders") == ["billing"]
    assert not any(future.done() for future in consuming)
    client.produce("orders", [b"a"] * 4)
    assert [future.result(PATIENCE).payloads for future in consuming] == [[b"a"]] * 4


# -- an end from outside -----------------------------------------------------------------


def test_given_calls_that_wait_when_the_client_is_closed_then_they_raise_promptly(client: Client, polls: Polls) -> None:
    waiting = [polls.start(lambda: client.consume("orders", "billing", timeout=None)) for _ in range(3)]
    waiting.append(polls.start(lambda: client.fetch("orders", "latest", timeout=None)))
    polls.parked(client, 4)
    begin = time.monotonic()
    client.close()
    for future in waiting:
        assert isinstance(error_of(future), ConnectionFailed)
    assert time.monotonic() - begin < 5
    for _ in range(2):
        with pytest.raises(ConnectionFailed, match="closed"):
            client.ping()
        client.close()


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Broker]:
    """A broker for this test alone, with the channel `orders` and its group `billing`."""
    with Broker(tmp_path / "data") as process:
        with process.client() as mq:
            mq.create_channel("orders")
            mq.create_consumer_group("orders", "billing")
        yield process


@pytest.mark.parametrize("clean", [True, False], ids=["stopped", "killed"])
def test_given_a_client_when_the_broker_was_away_then_every_call_works_again(own: Broker, clean: bool) -> None:
    with own.client() as mq:
        mq.produce("orders", [b"a"])
        assert mq.consume("orders", "billing").payloads == [b"a"]
        for number in range(2):
            if clean:
                assert own.terminate() == 0
            else:
                own.kill()
            own.start()
            mq.produce("orders", [b"%d" % number])
            assert mq.consume("orders", "billing").payloads == [b"%d" % number]
            assert mq.list_channels() == ["orders"]


def test_given_a_broker_that_is_away_when_an_admin_call_is_made_then_it_waits_for_it(own: Broker, polls: Polls) -> None:
    with own.client(timeout=PATIENCE) as mq:
        own.kill()
        creating = polls.start(lambda: mq.create_channel("new"))
        own.start()
        assert creating.result(PATIENCE) is True


def test_given_a_broker_that_is_away_for_too_long_when_called_then_it_is_an_error_at_the_deadline(own: Broker) -> None:
    with own.client(timeout=0.5) as mq:
        own.kill()
        calls: list[Callable[[], object]] = [
            mq.list_channels,
            mq.ping,
            lambda: mq.produce("orders", [b"a"]),
            lambda: mq.consume("orders", "billing"),
        ]
        for call in calls:
            begin = time.monotonic()
            with pytest.raises(ConnectionFailed):
                call()
            assert time.monotonic() - begin < 5


def test_given_a_fetch_of_what_comes_from_now_on_when_the_broker_restarts_then_nothing_is_left_out(
    own: Broker, polls: Polls
) -> None:
    with own.client(timeout=PATIENCE) as mq:
        mq.produce("orders", [b"before"])
        fetching = polls.start(lambda: mq.fetch("orders", "latest", timeout=60))
        polls.parked(mq, 1)
        own.kill()
        with Broker(own.directory) as elsewhere, elsewhere.client() as other:
            other.produce("orders", [b"meanwhile"])
        own.start()
        assert fetching.result(PATIENCE).payloads == [b"meanwhile"]
