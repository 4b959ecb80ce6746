"""Topics into channels, from pulsar-lite and from a real Pulsar: once, in order, whatever ends or fails on the way."""

import signal
import threading
import time
from contextlib import ExitStack

import pytest

from rocksmq.clients import Client
from rocksmq.clients.mirror.report import State
from rocksmq.clients.testing import Broker
from rocksmq.protocol.errors import Conflict
from tests.clients.cli_support import started
from tests.clients.support import wait_until
from tests.helpers.etcd import free_port
from tests.helpers.pulsar import Pulsar, PulsarLite, PulsarServer

from .back_support import (
    PATIENCE,
    content,
    earliest,
    new_name,
    numbered,
    options,
    payloads,
    running,
    topic_of,
    wait_for,
)


@pytest.fixture(params=["pulsar-lite", "pulsar"])
def server(request: pytest.FixtureRequest) -> PulsarServer:
    """Each kind."""
    found: PulsarServer = request.getfixturevalue({"pulsar-lite": "pulsar_lite", "pulsar": "real_pulsar"}[request.param])
    return found


def test_given_batches_and_single_messages_when_mirrored_back_then_all_is_there_once_and_in_order(
    server: PulsarServer, broker: Broker, client: Client
) -> None:
    channel = new_name()
    with topic_of(server.url, channel) as topic:
        topic.send(numbered(300))
        topic.send(numbered(5, 300), batched=False)
        with running(options(server.url, broker.url, channel)) as mirror:
            wait_for(client, channel, 305)
            topic.send(numbered(95, 305))
            wait_for(client, channel, 400)
            wait_until(lambda: mirror.report(channel).lag == 0)
            report = mirror.report(channel)
        assert (report.state, report.messages) == (State.RUNNING, 400)
        assert report.bytes == sum(map(len, numbered(400)))
        assert mirror.report(channel).state == State.ENDED
    assert payloads(client, channel) == numbered(400)
    assert client.list_consumer_groups(channel) == []


def test_given_properties_key_and_event_time_when_mirrored_back_then_they_are_headers(
    server: PulsarServer, broker: Broker, client: Client
) -> None:
    channel = new_name()
    with topic_of(server.url, channel) as topic:
        topic.send([b"plain"])
        topic.send(
            [b"rich"],
            properties={"trace": "grün", "rocksmq.header64.raw": "//79", "rocksmq.id": "7"},
            partition_key="customer",
            event_timestamp=1_700_000_000_000,
        )
        with running(options(server.url, broker.url, channel)):
            wait_for(client, channel, 2)
    plain, rich = content(client, channel)
    assert plain.headers == {}
    assert rich.headers == {
        "trace": "grün".encode(),
        "raw": b"\xff\xfe\xfd",
        "rocksmq.id": b"7",
        "pulsar.key": b"customer",
        "pulsar.event-time": b"1700000000000",
    }


@pytest.mark.parametrize("stored", [1, 7, 50, 100])
def test_given_a_part_of_a_batch_that_is_stored_when_mirrored_on_then_it_begins_within_the_batch(
    server: PulsarServer, broker: Broker, client: Client, stored: int
) -> None:
    channel = new_name()
    with topic_of(server.url, channel) as topic:
        topic.send(numbered(100))
        topic.send(numbered(20, 100))
        with topic_of(server.url, channel) as other:
            reader = other.client.create_reader(topic.name, earliest())
            places = [reader.read_next(10_000).message_id() for _ in range(100)]
        client.create_channel(channel)
        with client.producer(channel, name="mirror.pulsar") as producer:
            for number in range(stored):
                place = places[number]
                sequence = _sequence(place.ledger_id(), place.entry_id(), place.batch_index())
                producer.send(numbered(1, number)[0], sequence=sequence)
        with running(options(server.url, broker.url, channel)):
            wait_for(client, channel, 120)
    assert payloads(client, channel) == numbered(120)


def test_given_a_mirror_that_is_killed_again_and_again_when_mirrored_on_then_nothing_is_lost_or_doubled(
    server: PulsarServer, broker: Broker, client: Client
) -> None:
    channel, count = new_name(), 40_000
    kills = 6 if isinstance(server, Pulsar) else 2  # pulsar-lite takes some seconds each until it forgets a dead consumer
    with topic_of(server.url, channel) as topic:
        for begin in range(0, count, 1_000):
            topic.send(numbered(990, begin))
            topic.send(numbered(10, begin + 990), batched=False)
    command = ("--timeout", "3", "mirror", "--from", server.url, "--channels", channel)
    for kill in range(1, kills + 1):
        with started(broker.url, *command) as process:
            wait_for(client, channel, count * kill // kills - count // 10)
            process.send_signal(signal.SIGKILL)
            process.wait()
        if kill == kills // 2:
            broker.kill()
            broker.start()
    with running(options(server.url, broker.url, channel, timeout=3.0)) as mirror:
        wait_until(lambda: mirror.report(channel).lag == 0, PATIENCE)
    assert payloads(client, channel) == numbered(count)


def test_given_a_broker_that_goes_away_when_it_is_back_then_the_mirror_goes_on(
    server: PulsarServer, broker: Broker, client: Client
) -> None:
    channel = new_name()
    with topic_of(server.url, channel) as topic, running(options(server.url, broker.url, channel, timeout=2.0)) as mirror:
        topic.send(numbered(100))
        wait_for(client, channel, 100)
        broker.kill()
        topic.send(numbered(100, 100))
        assert "100 messages are not durable yet" in mirror.wait_for(channel, State.WAITING).last_error
        broker.start()
        wait_for(client, channel, 200)
        mirror.wait_for(channel, State.RUNNING)
    assert payloads(client, channel) == numbered(200)


def test_given_no_broker_when_started_then_it_waits_for_one(server: PulsarServer, broker: Broker, client: Client) -> None:
    channel = new_name()
    broker.kill()
    with (
        topic_of(server.url, channel) as topic,
        running(options(server.url, broker.url, channel, timeout=0.5)) as mirror,
    ):
        topic.send(numbered(3))
        mirror.wait_for(channel, State.WAITING)
        broker.start()
        wait_for(client, channel, 3)


def test_given_a_message_that_the_broker_does_not_take_when_stopped_by_it_then_the_others_go_on_and_skipping_helps(
    server: PulsarServer, broker: Broker, client: Client
) -> None:
    poisoned, fine = new_name(), new_name()
    with ExitStack() as stack:
        topics = [stack.enter_context(topic_of(server.url, channel)) for channel in (poisoned, fine)]
        topics[0].send([b"before", b"x" * ((1 << 20) + 1), b"after"])
        with running(options(server.url, broker.url, poisoned, fine)) as mirror:
            report = mirror.wait_for(poisoned, State.STOPPED)
            assert "payload_bytes_max" in report.last_error
            assert "too_large skip" in report.last_error
            topics[1].send(numbered(10))
            wait_for(client, fine, 10)
        assert payloads(client, poisoned) == [b"before"]
        with running(options(server.url, broker.url, poisoned, too_large="skip")) as mirror:
            wait_for(client, poisoned, 2)
            assert mirror.report(poisoned).skipped == 1
    assert payloads(client, poisoned) == [b"before", b"after"]


def test_given_a_topic_that_ends_before_what_is_stored_when_mirrored_then_it_is_stopped(
    server: PulsarServer, broker: Broker, client: Client
) -> None:
    channel = new_name()
    client.create_channel(channel)
    with client.producer(channel, name="mirror.pulsar") as producer:
        producer.send(b"of another Pulsar", sequence=_sequence(1 << 40, 7, -1))
    with topic_of(server.url, channel) as topic:
        topic.send(numbered(3))
        with running(options(server.url, broker.url, channel)) as mirror:
            assert "another topic of this name" in mirror.wait_for(channel, State.STOPPED).last_error
    assert payloads(client, channel) == [b"of another Pulsar"]


def test_given_a_broker_away_from_the_start_when_it_comes_then_the_whole_waits_until_then_and_says_why(
    pulsar_lite: PulsarLite, broker: Broker
) -> None:
    broker.kill()
    with running(options(pulsar_lite.url, broker.url, new_name(), new_name(), timeout=0.5)) as found:
        mirror = found.mirror
        wait_until(lambda: mirror.report().state is State.WAITING, PATIENCE)
        report = mirror.report()
        assert "no broker answers" in report.last_error
        assert report.last_error_at == pytest.approx(time.time(), abs=PATIENCE)
        broker.start()
        wait_until(lambda: mirror.report().state is State.RUNNING, PATIENCE)
    assert mirror.report().state is State.ENDED


def test_given_pulsar_away_from_the_start_when_reported_then_the_whole_waits_and_says_why(broker: Broker) -> None:
    with running(options(f"pulsar://127.0.0.1:{free_port()}", broker.url, new_name(), new_name(), timeout=1.0)) as found:
        wait_until(lambda: found.mirror.report().state is State.WAITING, PATIENCE)
        assert "Pulsar: " in found.mirror.report().last_error


# -- what only a real one has ----------------------------------------------------------


def test_given_what_was_mirrored_when_looked_at_in_pulsar_then_all_of_it_but_the_last_entry_is_acknowledged(
    real_pulsar: Pulsar, broker: Broker, client: Client
) -> None:
    channel = new_name()
    with topic_of(real_pulsar.url, channel) as topic:
        topic.send(numbered(100))
        with running(options(real_pulsar.url, broker.url, channel)):
            wait_for(client, channel, 100)
            topic.send(numbered(10, 100))
            wait_for(client, channel, 110)
            wait_until(lambda: real_pulsar.backlog(channel, "mirror.pulsar") == 1, PATIENCE)
        topic.send(numbered(10, 110))
        assert real_pulsar.subscriptions(channel) == ["mirror.pulsar"]
        assert real_pulsar.backlog(channel, "mirror.pulsar") == 2  # it counts batches


def test_given_a_second_mirror_of_the_name_when_it_starts_then_the_first_ends_and_nothing_is_doubled(
    real_pulsar: Pulsar, broker: Broker, client: Client
) -> None:
    channel = new_name()
    with topic_of(real_pulsar.url, channel) as topic, running(options(real_pulsar.url, broker.url, channel)) as first:
        topic.send(numbered(10))
        wait_for(client, channel, 10)
        with running(options(real_pulsar.url, broker.url, channel)) as second:
            second.wait_for(channel, State.RUNNING)
            topic.send(numbered(10, 10))
            first.thread.join(PATIENCE)
            wait_for(client, channel, 20)
        assert isinstance(first.failure, Conflict)
        assert "another mirror" in first.failure.message
        assert second.failure is None
    assert payloads(client, channel) == numbered(20)


def test_given_a_name_that_the_broker_has_forgotten_when_mirrored_then_it_goes_on_where_the_subscription_is(
    real_pulsar: Pulsar, broker: Broker, client: Client
) -> None:
    channel = new_name()
    with topic_of(real_pulsar.url, channel) as topic:
        topic.send(numbered(98))
        topic.send(numbered(2, 98))
        with running(options(real_pulsar.url, broker.url, channel)):
            wait_for(client, channel, 100)
            wait_until(lambda: real_pulsar.backlog(channel, "mirror.pulsar") == 1, PATIENCE)
        client.destroy_channel(channel)
        topic.send(numbered(10, 100))
        with running(options(real_pulsar.url, broker.url, channel)):
            wait_for(client, channel, 12)
            topic.send(numbered(10, 110))
            wait_for(client, channel, 22)
    assert payloads(client, channel) == numbered(22, 98)


def test_given_what_pulsar_removed_while_no_mirror_ran_when_mirrored_on_then_it_is_a_gap_and_a_ledger_that_ended_is_none(
    real_pulsar: Pulsar, broker: Broker, client: Client
) -> None:
    channel = new_name()
    path = f"persistent/public/default/{channel}"
    made = options(real_pulsar.url, broker.url, channel)
    with topic_of(real_pulsar.url, channel) as topic:
        topic.send(numbered(10), batched=False)
        with running(made):
            wait_for(client, channel, 10)
        real_pulsar.ask("PUT", f"{path}/unload")
        topic.send(numbered(10, 10), batched=False)
        with running(made) as mirror:
            wait_for(client, channel, 20)
            assert mirror.report(channel).gaps == 0
        topic.send(numbered(100, 20), batched=False)
        real_pulsar.ask("PUT", f"{path}/unload")
        topic.send(numbered(1, 120), batched=False)
        real_pulsar.ask("DELETE", f"{path}/truncate")
        with running(made) as mirror:
            wait_for(client, channel, 21)
            report = mirror.report(channel)
    assert (report.gaps, report.state) == (1, State.RUNNING)
    assert "Pulsar has removed messages behind" in report.last_error
    assert payloads(client, channel) == numbered(20) + numbered(1, 120)


def test_given_a_first_message_in_chunks_when_mirrored_then_it_is_not_passed_over(
    real_pulsar: Pulsar, broker: Broker, client: Client
) -> None:
    channel = new_name()
    with topic_of(real_pulsar.url, channel) as topic:
        producer = topic.client.create_producer(topic.name, chunking_enabled=True, batching_enabled=False)
        for payload in (b"x" * (6 << 20), b"small", b"x" * (6 << 20), b"last"):
            producer.send(payload)
        with running(options(real_pulsar.url, broker.url, channel)) as mirror:
            assert "payload_bytes_max" in mirror.wait_for(channel, State.STOPPED).last_error
        with running(options(real_pulsar.url, broker.url, channel, too_large="skip")) as mirror:
            wait_for(client, channel, 2)
            assert mirror.report(channel).skipped == 2
    assert payloads(client, channel) == [b"small", b"last"]


def test_given_a_topic_with_partitions_when_mirrored_then_it_is_stopped_and_the_reason_told(
    real_pulsar: Pulsar, broker: Broker
) -> None:
    channel = new_name()
    real_pulsar.ask("PUT", f"persistent/public/default/{channel}/partitions", 2)
    with running(options(real_pulsar.url, broker.url, channel)) as mirror:
        assert "has partitions" in mirror.wait_for(channel, State.STOPPED).last_error


def test_given_a_topic_that_is_deleted_while_mirrored_when_others_have_messages_then_they_go_on(
    real_pulsar: Pulsar, broker: Broker, client: Client
) -> None:
    gone, fine = new_name(), new_name()
    with topic_of(real_pulsar.url, gone) as first, topic_of(real_pulsar.url, fine) as second:
        first.send(numbered(10))
        second.send(numbered(10))
        with running(options(real_pulsar.url, broker.url, gone, fine)) as mirror:
            wait_for(client, gone, 10)
            real_pulsar.delete_topic(gone)
            second.send(numbered(10, 10))
            wait_for(client, fine, 20)
            assert mirror.report(fine).state == State.RUNNING


def test_given_an_end_is_wanted_before_there_is_a_message_when_waited_then_it_ends(
    server: PulsarServer, broker: Broker
) -> None:
    channel = new_name()
    with running(options(server.url, broker.url, channel)) as mirror:
        assert threading.active_count() > 1
    assert mirror.failure is None


def _sequence(ledger: int, entry: int, index: int) -> bytes:
    return ledger.to_bytes(8, "big") + entry.to_bytes(8, "big") + (index + 1).to_bytes(4, "big")
