"""Connections that end oddly, are many, or bring too much: only they notice it."""

import resource
import secrets
import socket
from collections.abc import Iterator

import pytest

from rocksmq.clients import Client, LimitExceeded
from rocksmq.clients.testing import Broker
from rocksmq.protocol.codec import NO_CORRELATION
from rocksmq.protocol.errors import ErrorCode
from rocksmq.protocol.identity import Identity
from rocksmq.protocol.messages import pack_messages
from rocksmq.protocol.operations import (
    Consume,
    CreateChannel,
    CreateGroup,
    DescribeChannel,
    DescribeGroup,
    Empty,
    Fetch,
    Position,
    Produce,
)
from tests.helpers.ledger import wait_until
from tests.helpers.raw import Raw, frame, hello, request_items, response
from tests.helpers.raw_bystander import Bystander, check_text, resident_bytes

IDLE_CONNECTIONS = 1_000
IN_FLIGHT_MAX = 256
HANDSHAKES_MAX = 256
PER_ADDRESS = 64
MIB = 1 << 20


def channel_of(raw: Raw) -> str:
    """A new channel with a group ``readers``."""
    name = f"c-{secrets.token_hex(8)}"
    raw.call(CreateChannel(name, None, None, None, secrets.token_bytes(16)))
    raw.call(CreateGroup(name, "readers", Position.EARLIEST, 0, secrets.token_bytes(16)))
    return name


def produce(raw: Raw, channel: str, *payloads: bytes) -> int:
    """The first id."""
    first_id: int = raw.call(Produce(channel, Identity.new(raw.server.present_id).id, 0, *pack_messages(payloads))).first_id
    return first_id


def poll(raw: Raw, channel: str) -> Consume:
    """A consume that waits."""
    return Consume(channel, "readers", Identity.new(raw.server.present_id).id, 0, 1, MIB, 30_000)


def let_it_turn(broker: Broker, raw: Raw) -> None:
    """Several turns of the broker's loop."""
    for _ in range(20):
        raw.call(Empty())
    with Raw(broker.address) as other:
        other.call(Empty())


def test_given_a_consumer_that_half_closed_when_a_message_comes_then_it_goes_to_the_next_one(
    attacked: Broker, raw: Raw
) -> None:
    # Given: a long poll, whose client then closes its side.
    channel = channel_of(raw)
    with Raw(attacked.address) as leaving:
        leaving.send(poll(leaving, channel))
        leaving.socket.shutdown(socket.SHUT_WR)
        assert leaving.is_closed()
        # When
        first_id = produce(raw, channel, b"one")
    # Then
    assert raw.call(DescribeGroup(channel, "readers")).position <= first_id
    assert raw.call(poll(raw, channel)).payloads == b"one"


def test_given_a_consumer_whose_connection_was_reset_when_a_message_comes_then_it_goes_to_the_next_one(
    attacked: Broker, raw: Raw
) -> None:
    channel = channel_of(raw)
    leaving = Raw(attacked.address)
    leaving.send(poll(leaving, channel))
    let_it_turn(attacked, raw)
    leaving.reset()
    # The broker has seen the end once a new connection, accepted later, is served.
    with Raw(attacked.address) as later:
        first_id = produce(later, channel, b"one")
    assert raw.call(DescribeGroup(channel, "readers")).position <= first_id
    assert raw.call(poll(raw, channel)).payloads == b"one"


@pytest.mark.parametrize("part", [1, 4, 5, -1])
def test_given_a_frame_when_the_connection_is_reset_inside_of_it_then_nothing_of_it_is_stored(
    attacked: Broker, raw: Raw, part: int
) -> None:
    channel = channel_of(raw)
    request = Produce(channel, Identity.new(raw.server.present_id).id, 0, *pack_messages([b"x" * 10_000]))
    for ends in (Raw.reset, Raw.close):
        leaving = Raw(attacked.address)
        leaving.socket.sendall(frame(request_items(2, request))[:part])
        ends(leaving)
    assert raw.call(DescribeChannel(channel)).message_count == 0


def test_given_a_produce_when_its_connection_is_closed_at_once_then_it_is_stored_whole_or_not_at_all(
    attacked: Broker, raw: Raw
) -> None:
    channel = channel_of(raw)
    for turn in range(50):
        leaving = Raw(attacked.address)
        leaving.send(Produce(channel, Identity.new(leaving.server.present_id).id, 0, *pack_messages([b"x"] * 7)))
        (Raw.reset if turn % 2 else Raw.close)(leaving)
    produce(raw, channel, b"last")
    assert (raw.call(DescribeChannel(channel)).message_count - 1) % 7 == 0


def test_given_a_client_when_it_connects_again_with_the_same_id_then_the_older_connection_ends(attacked: Broker) -> None:
    client_id = secrets.token_bytes(16)
    with Raw(attacked.address, client_id=client_id) as older, Raw(attacked.address, client_id=client_id) as newer:
        assert older.is_closed()
        newer.call(Empty())
        with Raw(attacked.address, client_id=client_id) as newest:
            assert newer.is_closed()
            newest.call(Empty())


def test_given_256_requests_in_flight_when_one_more_comes_then_it_waits_for_one_of_them(attacked: Broker, raw: Raw) -> None:
    channel = channel_of(raw)
    with Raw(attacked.address) as crowded:
        polls = [Fetch(channel, Position.LATEST, 0, 1, MIB, 30_000)] * IN_FLIGHT_MAX
        crowded.socket.sendall(b"".join(frame(request_items(n + 2, p)) for n, p in enumerate((*polls, Empty()))))
        # Whatever the broker would have answered at once is sent by now: it has read and answered later frames of others.
        let_it_turn(attacked, raw)
        produce(raw, channel, b"one")
        answered = [crowded.receive()[0] for _ in range(IN_FLIGHT_MAX + 1)]
    assert answered[0] != IN_FLIGHT_MAX + 2, "the ping was answered before any poll"
    assert sorted(answered) == list(range(2, IN_FLIGHT_MAX + 3))


@pytest.fixture
def many_files() -> Iterator[None]:
    """Enough file descriptors for all the connections, here and in a broker started now."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 4 * IDLE_CONNECTIONS
    if hard not in (resource.RLIM_INFINITY,) and hard < wanted:
        pytest.skip(f"needs {wanted} open files: ulimit -Hn says {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("many_files")
def test_given_1000_idle_connections_when_others_work_then_they_work(broker: Broker) -> None:
    with Bystander(broker) as bystander:
        before = resident_bytes(broker.pid)
        idle: list[Raw] = []
        try:
            idle += (Raw(broker.address) for _ in range(IDLE_CONNECTIONS))
            print(f"{(resident_bytes(broker.pid) - before) / IDLE_CONNECTIONS:.0f} bytes a connection, with the bystander's")  # noqa: T201
            bystander.check()
            for connection in idle:
                connection.call(Empty())
        finally:
            for connection in idle:
                connection.close()
        bystander.check()


def test_given_256_silent_connections_when_a_client_comes_then_it_is_told_which_limit_is_reached(broker: Broker) -> None:
    with Bystander(broker) as bystander:
        silent = [
            Raw(broker.address, says_hello=False, source=f"127.0.0.{2 + n // PER_ADDRESS}") for n in range(HANDSHAKES_MAX)
        ]
        try:
            with Raw(broker.address, says_hello=False) as refused:
                error = refused.error(NO_CORRELATION)
                assert error.code is ErrorCode.LIMIT_EXCEEDED
                check_text(error, "256", "handshakes_max")
                assert refused.is_closed()
            with pytest.raises(LimitExceeded, match="handshakes_max"):
                Client(broker.url, timeout=1)
        finally:
            for connection in silent:
                connection.close()
        wait_until(lambda: can_connect(broker), "the broker takes connections again")
        bystander.check()


def test_given_64_silent_connections_of_one_address_when_others_come_then_only_those_of_another_get_in(broker: Broker) -> None:
    silent = [Raw(broker.address, says_hello=False, source="127.0.0.2") for _ in range(PER_ADDRESS)]
    try:
        with Raw(broker.address, says_hello=False, source="127.0.0.2") as refused:
            error = refused.error(NO_CORRELATION)
            assert error.code is ErrorCode.LIMIT_EXCEEDED
            check_text(error, "64", "handshakes_per_address_max")
        with Raw(broker.address, source="127.0.0.3") as other:
            other.call(Empty())
        silent.pop().close()
        wait_until(lambda: can_connect(broker, "127.0.0.2"), "there is room for another of the address")
    finally:
        for connection in silent:
            connection.close()


def can_connect(broker: Broker, source: str | None = None) -> bool:
    try:
        with Raw(broker.address, source=source):
            return True
    except (OSError, EOFError, LimitExceeded):
        return False


def test_given_a_broker_of_three_connections_when_a_fourth_comes_then_it_is_told(broker: Broker) -> None:
    broker.kill()
    broker.environment["ROCKSMQ_LIMITS_CONNECTIONS_MAX"] = "3"
    broker.start()
    with Raw(broker.address), Raw(broker.address), Raw(broker.address) as third:
        with Raw(broker.address, says_hello=False) as fourth:
            error = fourth.error(NO_CORRELATION)
            assert error.code is ErrorCode.LIMIT_EXCEEDED
            check_text(error, "3", "connections_max", "close")
            assert fourth.is_closed()
        with pytest.raises(LimitExceeded, match="connections_max"):
            Client(broker.url, timeout=1)
        third.call(Empty())
    wait_until(lambda: can_connect(broker), "the broker takes connections again")


def test_given_a_client_that_never_reads_when_it_sends_requests_then_the_broker_s_memory_stays_bounded(
    broker: Broker,
) -> None:
    with Bystander(broker) as bystander, Raw(broker.address) as raw:
        channel = channel_of(raw)
        for _ in range(16):
            produce(raw, channel, secrets.token_bytes(MIB))
        with Raw(broker.address, receive_buffer_bytes=4_096) as deaf:
            before = resident_bytes(broker.pid)
            deaf.socket.settimeout(2)
            fetch = Fetch(channel, Position.EARLIEST, 0, 1_000, 7 * MIB, 0)
            data = b"".join(frame(request_items(n + 2, fetch)) for n in range(5_000))
            with pytest.raises(TimeoutError):
                deaf.socket.sendall(data * 100)
            bystander.check()
            assert resident_bytes(broker.pid) - before < 64 * MIB


def test_given_a_client_that_never_reads_when_it_pings_without_end_then_the_broker_s_memory_stays_bounded(
    broker: Broker,
) -> None:
    with Bystander(broker) as bystander, Raw(broker.address, receive_buffer_bytes=4_096) as deaf:
        before = resident_bytes(broker.pid)
        deaf.socket.settimeout(2)
        data = frame(request_items(2, Empty())) * 10_000
        try:
            for _ in range(80):
                deaf.socket.sendall(data)
        except (TimeoutError, ConnectionError):
            pass
        bystander.check()
        grown = resident_bytes(broker.pid) - before
        assert grown < 48 * MIB, f"{grown >> 20} MiB for a client that reads nothing"


def test_given_100_large_consumes_at_once_when_they_are_answered_then_memory_stays_bounded(broker: Broker) -> None:
    # Given: more data than the tail cache holds, and a group for each of many consumes of all that a reply may hold.
    with Raw(broker.address) as raw:
        channel = channel_of(raw)
        for _ in range(48):
            produce(raw, channel, secrets.token_bytes(MIB))
        groups = [f"g-{number}" for number in range(100)]
        for group in groups:
            raw.call(CreateGroup(channel, group, Position.EARLIEST, 0, secrets.token_bytes(16)))
        before = resident_bytes(broker.pid)
        consumer = Identity.new(raw.server.present_id).id
        consumes = [Consume(channel, group, consumer, 0, 1_000, 7 * MIB, 0) for group in groups]
        # When
        raw.socket.sendall(b"".join(frame(request_items(1_000 + n, consume)) for n, consume in enumerate(consumes)))
        peak = before
        for _ in groups:
            peak = max(peak, resident_bytes(broker.pid))
            assert response(Consume, raw.receive()).message_count > 0
        # Then
        assert peak - before < 256 * MIB, f"{(peak - before) >> 20} MiB more for {len(groups)} consumes of one connection"


def test_given_requests_right_behind_hello_when_sent_at_once_then_all_are_answered(attacked: Broker, raw: Raw) -> None:
    channel = channel_of(raw)
    with Raw(attacked.address, says_hello=False) as hasty:
        large = Produce(channel, Identity.new(raw.server.present_id).id, 0, *pack_messages([secrets.token_bytes(100_000)]))
        requests = (hello(), large, DescribeChannel(channel))
        hasty.socket.sendall(b"".join(frame(request_items(n + 1, request)) for n, request in enumerate(requests)))
        answered = {items[0]: items[1] for items in (hasty.receive() for _ in requests)}
    assert answered == {1: 0, 2: 0, 3: 0}
    assert raw.call(DescribeChannel(channel)).byte_count == 100_000
