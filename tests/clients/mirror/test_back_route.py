"""The way back against a Pulsar that does what a real one seldom does: repeats, tears batches, gets stuck, is another one."""

import threading
import time
from collections.abc import Callable
from itertools import dropwhile
from typing import Any

import pytest

from rocksmq.clients import Client
from rocksmq.clients.mirror import back_channel
from rocksmq.clients.mirror.back_channel import BackChannel
from rocksmq.clients.mirror.back_places import Place, Unstored
from rocksmq.clients.mirror.back_route import CHUNKED_ENTRIES, START, Route
from rocksmq.clients.mirror.options import MirrorOptions
from rocksmq.clients.mirror.report import ChannelReport, State
from rocksmq.clients.pulsar.client import pulsar
from rocksmq.protocol.errors import ConnectionFailed, InvalidRequest, RocksMQError
from tests.clients.support import wait_until

from .back_support import options, payloads

NEVER = threading.Event()


class FakeMessage:
    """At a place, in a batch of that size."""

    def __init__(self, place: tuple[int, int, int], size: int) -> None:
        self.place = Place(*place)
        batched = bytes([0x20, place[2], 0x30, size]) if size else b""
        self._serialized = bytes([0x08, place[0], 0x10, place[1]]) + batched

    def message_id(self) -> Any:
        return self

    def ledger_id(self) -> int:
        return self.place.ledger

    def entry_id(self) -> int:
        return self.place.entry

    def batch_index(self) -> int:
        return self.place.batch_index

    def serialize(self) -> bytes:
        return self._serialized

    def data(self) -> bytes:
        return str(self.place).encode()

    def properties(self) -> dict[str, str]:
        return {}

    def event_timestamp(self) -> int:
        return 0

    def partition_key(self) -> str:
        return ""


class FakePulsar:
    """Client and consumer in one. ``messages`` are delivered in turn, ``end`` is what it tells of its last."""

    def __init__(self, *messages: tuple[tuple[int, int, int], int]) -> None:
        self.messages = [FakeMessage(place, size) for place, size in messages]
        self.readers: list[Place] = []  # where they were opened
        self.end = self.messages[-1] if self.messages else FakeMessage((1, 0, -1), 0)
        self.acknowledged: list[tuple[int, int]] = []
        self.opened = 0  # as consumer
        self.subscribed_from = 0
        self.is_there = True

    def get_topic_partitions(self, topic: str) -> list[str]:
        return [topic]

    def subscribe(self, *_: Any, **__: Any) -> "FakePulsar":
        self.opened += 1
        return self

    def create_reader(self, _: str, begin: Any, **__: Any) -> "FakeReader":
        start = Place(begin.ledger_id(), begin.entry_id(), begin.batch_index())
        self.readers.append(start)
        return FakeReader(self, start)

    def get_last_message_id(self) -> FakeMessage:
        return self.end

    def receive(self, _: int) -> FakeMessage:
        if not self.messages:
            raise pulsar.Timeout
        return self.messages[self.subscribed_from]

    def is_connected(self) -> bool:
        return self.is_there

    def acknowledge_cumulative(self, found: Any) -> None:
        self.acknowledged.append((found.ledger_id(), found.entry_id()))

    def close(self) -> None:
        """Nothing to do."""


class FakeReader:
    """Of what is there when it is made, from the first message that is not before ``start``."""

    def __init__(self, server: FakePulsar, start: Place) -> None:
        self._messages = iter(list(dropwhile(lambda message: message.place < start, server.messages)))

    def read_next(self, _: int) -> FakeMessage:
        message = next(self._messages, None)
        if message is None:
            time.sleep(0.001)
            raise pulsar.Timeout
        return message

    def is_connected(self) -> bool:
        return True

    def close(self) -> None:
        """Nothing to do."""


@pytest.fixture
def made(client: Client) -> MirrorOptions:
    """Of a way back into a channel that is there."""
    client.create_channel("orders")
    return options("pulsar://there", "rocksmq://here", "orders")


def opened(client: Client, made: MirrorOptions, server: FakePulsar) -> Route:
    route = Route(made, "orders", client, server, Unstored(), 1 << 20)
    route.open(NEVER, lambda: None)
    return route


def carry(route: Route) -> None:
    """All that comes."""
    while (received := route.next()) is not None:
        route.send(received, received.message.data(), {})


def test_given_a_lost_connection_when_a_first_message_is_waited_for_then_that_ends(client: Client, made: MirrorOptions) -> None:
    server = FakePulsar()
    server.is_there = False
    with pytest.raises(ConnectionFailed, match=r"connection of .*orders was lost"), opened(client, made, server):
        pytest.fail("it cannot be opened")


def test_given_messages_that_come_again_when_read_then_each_is_taken_once(client: Client, made: MirrorOptions) -> None:
    places = [((1, 0, 0), 2), ((1, 0, 1), 2), ((1, 0, 1), 2), ((1, 1, -1), 0), ((1, 0, 0), 2), ((1, 1, -1), 0), ((2, 0, -1), 0)]
    server = FakePulsar(*places)
    with opened(client, made, server) as route:
        carry(route)
    assert payloads(client, "orders") == [b"1:0:0", b"1:0:1", b"1:1", b"2:0"]
    assert server.acknowledged[-1] == (1, 1), "the last one stays"


@pytest.mark.parametrize("torn", [((1, 0, 2), 3), ((1, 1, 0), 3), ((2, 0, -1), 0)])
def test_given_a_batch_with_a_hole_when_read_then_it_is_refused_and_nothing_behind_it_is_sent(
    client: Client, made: MirrorOptions, torn: tuple[tuple[int, int, int], int]
) -> None:
    server = FakePulsar(((1, 0, 0), 3), torn)
    with opened(client, made, server) as route, pytest.raises(ConnectionFailed, match="though the batch of 1:0:0 goes on"):
        carry(route)
    assert payloads(client, "orders") == [b"1:0:0"]
    assert server.acknowledged == []


def test_given_a_hole_where_a_batch_was_left_when_read_on_then_it_is_refused(client: Client, made: MirrorOptions) -> None:
    with opened(client, made, FakePulsar(((1, 0, 0), 3))) as route:
        carry(route)
    server = FakePulsar(((1, 0, 0), 3), ((1, 0, 2), 3))
    with opened(client, made, server) as route, pytest.raises(ConnectionFailed, match="though the batch of 1:0:0 goes on"):
        carry(route)


def test_given_another_topic_of_the_name_when_read_on_then_it_is_refused(
    client: Client, made: MirrorOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(client, made, FakePulsar(((7, 3, -1), 0))) as route:
        carry(route)
    server = FakePulsar(((2, 0, -1), 0))
    with pytest.raises(InvalidRequest, match="ends at 2:0, but its channel has it up to 7:3"):
        opened(client, made, server)
    server.end = FakeMessage((7, 3, -1), 0)
    beginning = FakeReader(server, START)

    def create_reader(*_: Any, **__: Any) -> FakeReader:
        return beginning

    monkeypatch.setattr(server, "create_reader", create_reader)
    with opened(client, made, server) as route, pytest.raises(InvalidRequest, match="goes on at 2:0"):
        carry(route)
    assert payloads(client, "orders") == [b"7:3"]


def test_given_an_acknowledgement_that_was_lost_when_opened_then_it_is_made_up_for(client: Client, made: MirrorOptions) -> None:
    with opened(client, made, FakePulsar(((1, 4, 0), 2), ((1, 4, 1), 2))) as route:
        carry(route)
    server = FakePulsar(((1, 4, 0), 2), ((1, 4, 1), 2), ((1, 5, -1), 0))
    with opened(client, made, server) as route:
        assert server.acknowledged == [(1, 3)]
        carry(route)
    assert server.acknowledged == [(1, 3), (1, 4)]


# -- what was removed ------------------------------------------------------------------


def test_given_messages_that_pulsar_removed_when_read_on_then_that_is_told_and_counted_once(
    client: Client, made: MirrorOptions, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(back_channel, "END_SECONDS", 0.05)
    monkeypatch.setattr(back_channel, "RETRY_SECONDS", 0.001)
    with opened(client, made, FakePulsar(((1, 9, -1), 0))) as route:
        carry(route)
    server = FakePulsar(((3, 0, -1), 0), ((3, 1, -1), 0))
    server.end = FakeMessage((3, 2, -1), 0)  # so it is opened again
    report = caught_up(client, made, server)
    assert (report.gaps, report.messages, server.opened) == (1, 2, 2)
    assert "Pulsar has removed messages behind 1:9, before they were mirrored; it goes on at 3:0" in caplog.text
    assert payloads(client, "orders") == [b"1:9", b"3:0", b"3:1"]


def test_given_a_gap_before_a_message_that_cannot_be_stored_when_that_is_tried_again_then_it_is_one_gap(
    client: Client, made: MirrorOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(back_channel, "RETRY_SECONDS", 0.001)
    with opened(client, made, FakePulsar(((1, 9, -1), 0))) as route:
        carry(route)
    server = FakePulsar(((3, 0, -1), 0))

    def too_large(_: FakeMessage) -> bytes:
        return bytes((1 << 20) + 1)

    monkeypatch.setattr(FakeMessage, "data", too_large)
    channel, end = running_channel(client, made, server)
    try:
        wait_until(lambda: channel.report().errors >= 3)
    finally:
        end()
    assert channel.report().gaps == 1


def test_given_what_pulsar_removes_while_it_is_read_when_it_goes_on_then_that_is_told(
    client: Client, made: MirrorOptions
) -> None:
    server = FakePulsar(((1, 0, -1), 0), ((2, 0, -1), 0))
    with opened(client, made, server) as route:
        assert (first := route.next()) is not None
        server.messages = server.messages[1:]
        assert (second := route.next()) is not None
    assert (first.lost_behind, second.place, second.lost_behind) == (None, Place(2, 0, -1), Place(1, 0, -1))


@pytest.mark.parametrize("is_new", [False, True])
@pytest.mark.parametrize("later", [((1, 1, -1), 0), ((1, 4, -1), 0), ((2, 0, 0), 2), ((2, 3, -1), 0)])
def test_given_a_last_message_that_is_there_when_another_ledger_or_a_mark_of_pulsar_follows_then_nothing_is_lost(
    client: Client, made: MirrorOptions, later: tuple[tuple[int, int, int], int], is_new: bool
) -> None:
    server = FakePulsar(((1, 0, -1), 0), later)
    if is_new:
        with opened(client, made, FakePulsar(((1, 0, -1), 0))) as route:
            carry(route)
    with opened(client, made, server) as route:
        received = [route.next() for _ in range(1 if is_new else 2)]
    assert received[-1] is not None
    assert (received[-1].place, received[-1].lost_behind) == (later[0], None)


def test_given_a_reader_that_leaves_out_what_is_there_when_noticed_then_it_is_read_all_the_same(
    client: Client, made: MirrorOptions
) -> None:
    server = FakePulsar(((1, 0, -1), 0), ((1, 7, -1), 0))
    with opened(client, made, server) as route:
        assert route.next() is not None
        server.messages.insert(1, FakeMessage((1, 1, -1), 0))
        carry(route)
    assert payloads(client, "orders") == [b"1:1", b"1:7"]


def test_given_what_is_stored_when_opened_then_reading_begins_before_it_for_messages_in_chunks(
    client: Client, made: MirrorOptions
) -> None:
    with opened(client, made, first := FakePulsar(((1, 100, -1), 0))) as route:
        carry(route)
    assert first.readers[-1] == (-1, -1, -1), "the topic's beginning"
    with opened(client, made, second := FakePulsar(*(((1, entry, -1), 0) for entry in range(90, 103)))) as route:
        carry(route)
    assert second.readers == [(1, 100 - CHUNKED_ENTRIES, -1)]
    assert payloads(client, "orders") == [b"1:100", b"1:101", b"1:102"]


def test_given_a_subscription_that_begins_late_when_nothing_is_stored_then_that_is_told(
    client: Client, made: MirrorOptions
) -> None:
    server = FakePulsar(*(((1, entry, -1), 0) for entry in range(5)))
    server.subscribed_from = 3
    channel, end = running_channel(client, made, server)
    try:
        wait_until(lambda: channel.report().messages == 2)
    finally:
        end()
    assert "begins at 1:3, where its subscription mirror.pulsar is; the topic has more before" in channel.report().last_error
    assert payloads(client, "orders") == [b"1:3", b"1:4"]


# -- what does not go on ---------------------------------------------------------------


def running_channel(client: Client, made: MirrorOptions, server: FakePulsar) -> tuple[BackChannel, Callable[[], None]]:
    """A channel that is carried by a thread, and what ends it."""
    is_stopped = threading.Event()

    def fail(error: RocksMQError) -> None:
        raise AssertionError(error)

    channel = BackChannel(made, "orders", 1 << 20, is_stopped, fail)
    thread = threading.Thread(target=channel.run, args=(client, server))
    thread.start()

    def end() -> None:
        is_stopped.set()
        thread.join()

    return channel, end


def caught_up(client: Client, made: MirrorOptions, server: FakePulsar) -> ChannelReport:
    """What a channel that was carried until nothing was left says at its end."""
    channel, end = running_channel(client, made, server)
    try:
        wait_until(lambda: channel.report().lag == 0)
    finally:
        end()
    return channel.report()


def test_given_a_reader_that_is_stuck_when_nothing_comes_then_it_is_opened_anew_and_an_end_that_never_comes_is_let_be(
    client: Client, made: MirrorOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(back_channel, "END_SECONDS", 0.05)
    monkeypatch.setattr(back_channel, "RETRY_SECONDS", 0.001)
    server = FakePulsar(((1, 0, -1), 0))
    server.end = FakeMessage((1, 7, -1), 0)
    report = caught_up(client, made, server)
    assert (report.errors, report.messages, server.opened) == (1, 1, 2)
    assert "nothing comes of" in report.last_error
    assert "ends at 1:7" in report.last_error


def test_given_a_bug_when_it_strikes_then_the_channel_is_stopped_and_says_so(
    client: Client, made: MirrorOptions, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    server = FakePulsar(((1, 0, -1), 0))

    def bug(_: str) -> list[str]:
        raise ZeroDivisionError

    monkeypatch.setattr(server, "get_topic_partitions", bug)
    channel, end = running_channel(client, made, server)
    try:
        wait_until(lambda: channel.report().state == State.STOPPED)
    finally:
        end()
    assert "a bug: ZeroDivisionError()" in channel.report().last_error
    assert "the mirror of orders failed" in caplog.text
