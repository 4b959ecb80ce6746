"""The mirror to Pulsar, against a real broker and a Pulsar of each kind."""

import logging
import re
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from rocksmq.clients import Client, Conflict, OutgoingMessage
from rocksmq.clients.mirror import silence
from rocksmq.clients.mirror.notes import decode
from rocksmq.clients.mirror.report import State
from rocksmq.clients.pulsar.client import connect
from rocksmq.clients.testing import Broker
from rocksmq.protocol.messages import Outgoing
from tests.clients.support import wait_until
from tests.helpers.pulsar import Pulsar, PulsarLite, PulsarServer

from .forward_support import content, ids, running

TEMPLATE = "persistent://public/default/{channel}"


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    with Broker(tmp_path_factory.mktemp("rocksmq") / "data") as started:
        yield started


@pytest.fixture
def mq(broker: Broker) -> Iterator[Client]:
    with broker.client() as client:
        yield client


@pytest.fixture(params=["pulsar_lite", "real_pulsar"])
def server(request: pytest.FixtureRequest) -> PulsarServer:
    found: PulsarServer = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def channel(mq: Client) -> str:
    name = f"c{secrets.token_hex(6)}"
    mq.create_channel(name)
    return name


def topic_of(channel: str) -> str:
    return TEMPLATE.format(channel=channel)


def test_given_messages_when_mirrored_then_all_of_each_is_carried_over(
    broker: Broker, mq: Client, server: PulsarServer, channel: str
) -> None:
    sent: list[Outgoing] = [OutgoingMessage(b"\x00\xff", {"kind": b"a", "raw": b"\xfe", "user": b"u1"}), b"", b"plain"]
    wanted = mq.produce(channel, sent)
    with running(broker.url, server.url, channel, key_header="user") as mirror:
        mirror.wait_for(channel, 3)
        first, empty, plain = content(server.url, topic_of(channel))
        assert mirror.channel(channel).state is State.RUNNING
        assert mirror.channel(channel).bytes == len(b"\x00\xffplain")
    origin = first.properties()["rocksmq.mirror"]
    created_ms = int(mq.describe_channel(channel).created_at.timestamp() * 1_000)
    assert re.fullmatch(f"pulsar#[1-9][0-9]*@{created_ms}", origin)
    assert first.data() == b"\x00\xff"
    assert first.properties() == {
        "kind": "a",
        "user": "u1",
        "rocksmq.header64.raw": "/g==",
        "rocksmq.id": str(wanted[0]),
        "rocksmq.mirror": origin,
    }
    assert first.partition_key() == "u1"
    assert [message.event_timestamp() for message in (first, empty, plain)] == [one >> 18 for one in wanted]
    assert [message.data() for message in (empty, plain)] == [b"", b"plain"]
    assert first.producer_name() == f"rocksmq.mirror.pulsar.{channel}"


def test_given_a_mirror_that_ended_when_another_life_begins_then_it_goes_on_behind_and_the_group_shows_both(
    broker: Broker, mq: Client, server: PulsarServer, channel: str
) -> None:
    wanted = list(mq.produce(channel, [b"%d" % index for index in range(5_000)]))
    with running(broker.url, server.url, channel) as mirror:
        mirror.wait_for(channel, 5_000)
    wanted += mq.produce(channel, [b"%d" % index for index in range(5_000)])
    with running(broker.url, server.url, channel) as mirror:
        mirror.wait_for(channel, 5_000)
    assert ids(server.url, topic_of(channel)) == wanted
    group = mq.describe_consumer_group(channel, "mirror.pulsar")
    note = decode(group.metadata)
    assert group.lag_messages == 0
    assert note is not None
    assert (note.state, note.messages, note.topic) == (State.ENDED, 10_000, topic_of(channel))


def test_given_a_group_that_is_behind_or_ahead_when_mirrored_then_the_topics_last_message_decides(
    broker: Broker, mq: Client, server: PulsarServer, channel: str
) -> None:
    wanted = list(mq.produce(channel, [b"x"] * 1_000))
    with running(broker.url, server.url, channel) as mirror:
        mirror.wait_for(channel, 1_000)
    mq.seek(channel, "mirror.pulsar", "earliest")
    wanted += mq.produce(channel, [b"x"] * 1_000)
    with running(broker.url, server.url, channel) as mirror:
        mirror.wait_for(channel, 1_000)
    wanted += mq.produce(channel, [b"x"] * 1_000)
    mq.seek(channel, "mirror.pulsar", "latest")
    with running(broker.url, server.url, channel) as mirror:
        mirror.wait_for(channel, 1_000)
    assert ids(server.url, topic_of(channel)) == wanted


def test_given_channels_that_come_and_go_when_they_match_then_they_are_mirrored_and_ended(
    broker: Broker, mq: Client, server: PulsarServer, channel: str
) -> None:
    wanted = list(mq.produce(channel, [b"old"] * 10))
    with running(broker.url, server.url, f"{channel}*") as mirror:
        mirror.wait_for(channel, 10)
        mq.create_channel(f"{channel}-new")
        mq.produce(f"{channel}-new", [b"x"])
        mirror.wait_for(f"{channel}-new", 1)
        mq.destroy_channel(f"{channel}-new")
        mirror.wait(lambda running: running.channel(f"{channel}-new").state is State.ENDED)
        mq.destroy_channel(channel)
        mq.create_channel(channel)
        wanted += mq.produce(channel, [b"new"] * 10)
        mirror.wait(lambda running: running.channel(channel).messages == 10 and running.channel(channel).lag == 0)
        mirror.wait(lambda _: len(ids(server.url, topic_of(channel))) >= 20)
    assert ids(server.url, topic_of(channel)) == wanted


def test_given_foreign_messages_when_mirrored_then_that_channel_stops_and_others_go_on(
    broker: Broker, mq: Client, server: PulsarServer, channel: str
) -> None:
    client = connect(server.url)
    client.create_producer(topic_of(channel)).send(b"foreign")
    client.close()
    mq.create_channel(f"{channel}-other")
    for name in (channel, f"{channel}-other"):
        mq.produce(name, [b"x"])
    with running(broker.url, server.url, f"{channel}*") as mirror:
        mirror.wait_for(f"{channel}-other", 1)
        mirror.wait(lambda running: running.channel(channel).state is State.STOPPED)
        assert "foreign messages" in mirror.channel(channel).last_error
    assert [message.data() for message in content(server.url, topic_of(channel))] == [b"foreign"]


@pytest.mark.parametrize("too_large", ["skip", "stop"])
def test_given_a_message_that_is_too_large_when_mirrored_then_it_is_decided_as_told(
    broker: Broker, mq: Client, server: PulsarServer, channel: str, too_large: str
) -> None:
    payloads = [b"a", b"b", bytes(600_000), b"c", bytes(300_000), b"d"]
    wanted = mq.produce(channel, payloads)
    with running(broker.url, server.url, channel, too_large=too_large, message_bytes_max=400_000) as mirror:
        if too_large == "skip":
            mirror.wait_for(channel, 5)
            assert mirror.channel(channel).skipped == 1
        else:
            mirror.wait(lambda running: running.channel(channel).state is State.STOPPED)
            assert str(wanted[2]) in mirror.channel(channel).last_error
            assert "600" in mirror.channel(channel).last_error
    found = ids(server.url, topic_of(channel))
    assert found == [wanted[index] for index in ((0, 1, 3, 4, 5) if too_large == "skip" else (0, 1))]


def test_given_pulsars_own_limit_is_lower_than_told_when_a_message_exceeds_it_then_only_that_one_is_skipped(
    real_pulsar: Pulsar, tmp_path_factory: pytest.TempPathFactory
) -> None:
    directory, name = tmp_path_factory.mktemp("large") / "data", f"c{secrets.token_hex(6)}"
    limits = {"ROCKSMQ_LIMITS_PAYLOAD_BYTES_MAX": str(8 << 20), "ROCKSMQ_LIMITS_FRAME_BYTES_MAX": str(16 << 20)}
    with Broker(directory, environment=limits) as large, large.client() as there:
        there.create_channel(name)
        wanted = [there.produce(name, [payload])[0] for payload in (b"a", bytes(5_300_000), b"b", bytes(5_000_000), b"c")]
        with running(large.url, real_pulsar.url, name, too_large="skip", message_bytes_max=8 << 20) as mirror:
            mirror.wait_for(name, 4)
            assert mirror.channel(name).skipped == 1
    assert ids(real_pulsar.url, topic_of(name)) == [wanted[0], *wanted[2:]]


def test_given_two_mirrors_of_one_name_when_the_second_starts_then_the_first_ends_and_nothing_is_there_twice(
    broker: Broker, mq: Client, server: PulsarServer, channel: str
) -> None:
    wanted = list(mq.produce(channel, [b"x"] * 100))
    with running(broker.url, server.url, channel) as first:
        first.wait_for(channel, 100)
        with running(broker.url, server.url, channel) as second:
            first.join()
            assert isinstance(first.error, Conflict)
            wanted += mq.produce(channel, [b"x"] * 100)
            second.wait_for(channel, 100)
            assert second.error is None
    assert ids(server.url, topic_of(channel)) == wanted


def test_given_no_deduplication_when_mirrored_then_it_is_told_once_and_goes_on(
    broker: Broker, mq: Client, pulsar_lite: PulsarLite, channel: str, caplog: pytest.LogCaptureFixture
) -> None:
    mq.produce(channel, [b"x"] * 100)
    with caplog.at_level(logging.WARNING, "rocksmq.mirror"), running(broker.url, pulsar_lite.url, channel) as mirror:
        mirror.wait_for(channel, 100)
        assert mirror.channel(channel).deduplication is False
    assert len([record for record in caplog.records if "deduplication is off" in record.message]) == 1


def test_given_no_deduplication_when_it_is_required_then_the_channel_stops_with_no_more_than_one_message_sent(
    broker: Broker, mq: Client, pulsar_lite: PulsarLite, channel: str
) -> None:
    mq.produce(channel, [b"x"] * 100)
    with running(broker.url, pulsar_lite.url, channel, requires_deduplication=True) as mirror:
        mirror.wait(lambda running: running.channel(channel).state is State.STOPPED and running.channel(channel).errors > 1)
        assert "deduplication is off" in mirror.channel(channel).last_error
    assert len(ids(pulsar_lite.url, topic_of(channel))) == 1


def test_given_deduplication_when_the_first_message_is_sent_then_it_is_known_to_be_on(
    broker: Broker, mq: Client, real_pulsar: Pulsar, channel: str
) -> None:
    wanted = mq.produce(channel, [b"x"] * 100)
    with running(broker.url, real_pulsar.url, channel, requires_deduplication=True) as mirror:
        mirror.wait_for(channel, 100)
        assert mirror.channel(channel).deduplication is True
    assert ids(real_pulsar.url, topic_of(channel)) == list(wanted)


def test_given_a_partitioned_topic_when_mirrored_then_the_channel_stops_and_says_so(
    broker: Broker, mq: Client, real_pulsar: Pulsar, channel: str
) -> None:
    real_pulsar.ask("PUT", f"persistent/public/default/{channel}/partitions", 2)
    with running(broker.url, real_pulsar.url, channel) as mirror:
        mirror.wait(lambda running: running.channel(channel).state is State.STOPPED)
        assert "2 partitions" in mirror.channel(channel).last_error


def test_given_a_topic_that_is_terminated_when_mirrored_then_that_channel_stops_and_others_go_on(
    broker: Broker, mq: Client, real_pulsar: Pulsar, channel: str
) -> None:
    mq.create_channel(f"{channel}-other")
    with running(broker.url, real_pulsar.url, f"{channel}*") as mirror:
        mq.produce(channel, [b"x"])
        mirror.wait_for(channel, 1)
        real_pulsar.terminate_topic(channel)
        mq.produce(channel, [b"y"])
        mq.produce(f"{channel}-other", [b"z"])
        mirror.wait(lambda running: running.channel(channel).state is State.STOPPED)
        mirror.wait_for(f"{channel}-other", 1)
        assert "TopicTerminated" in mirror.channel(channel).last_error


def test_given_a_broker_that_dies_when_it_is_back_then_the_mirror_goes_on(
    server: PulsarServer, tmp_path_factory: pytest.TempPathFactory
) -> None:
    name = f"c{secrets.token_hex(6)}"
    with Broker(tmp_path_factory.mktemp("dying") / "data") as mortal:
        with mortal.client() as there:
            there.create_channel(name)
            wanted = list(there.produce(name, [b"x"] * 100))
        with running(mortal.url, server.url, name) as mirror:
            mirror.wait_for(name, 100)
            mortal.kill()
            mirror.wait(lambda running: running.channel(name).state is State.WAITING)
            mortal.start()
            with mortal.client() as there:
                wanted += there.produce(name, [b"x"] * 100)
            mirror.wait_for(name, 200)
            assert mirror.channel(name).state is State.RUNNING
    assert ids(server.url, topic_of(name)) == wanted


def test_given_another_brokers_mirror_of_the_same_name_when_its_messages_are_there_then_that_channel_stops(
    tmp_path: Path, broker: Broker, mq: Client, real_pulsar: Pulsar, channel: str
) -> None:
    with Broker(tmp_path / "other") as other, other.client() as other_mq:
        other_mq.create_channel(channel)
        other_mq.produce(channel, [b"older"] * 10)
        wanted = list(mq.produce(channel, [b"x"] * 10))
        with running(broker.url, real_pulsar.url, channel) as mirror:
            mirror.wait_for(channel, 10)
        with running(other.url, real_pulsar.url, channel) as mirror:
            mirror.wait(lambda running: running.channel(channel).state is State.STOPPED)
            assert "another broker" in mirror.channel(channel).last_error
        assert other_mq.describe_consumer_group(channel, "mirror.pulsar").lag_messages == 10
    assert ids(real_pulsar.url, topic_of(channel)) == wanted


def test_given_a_skipped_message_at_the_end_when_mirrored_again_then_it_is_no_lag_and_counted_once(
    broker: Broker, mq: Client, real_pulsar: Pulsar, channel: str
) -> None:
    mq.produce(channel, [b"x", b"y" * 300_000])
    for _ in range(2):
        with running(broker.url, real_pulsar.url, channel, too_large="skip", message_bytes_max=256 << 10) as mirror:
            mirror.wait(lambda running: running.channel(channel).lag == 0)
    group = mq.describe_consumer_group(channel, "mirror.pulsar")
    note = decode(group.metadata)
    assert group.lag_messages == 0
    assert note is not None
    assert (note.messages, note.skipped) == (1, 1)


def test_given_a_topic_whose_own_policy_refuses_large_batches_when_mirrored_then_smaller_ones_are_found_and_nothing_is_lost(
    broker: Broker, mq: Client, real_pulsar: Pulsar, channel: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(silence, "SILENT_SECONDS", 1.0)  # they are never answered
    real_pulsar.create_topic(channel)
    real_pulsar.ask("POST", f"persistent/public/default/{channel}/maxMessageSize", 50_000)
    policy = f"persistent/public/default/{channel}/maxMessageSize?applied=true"
    wait_until(lambda: real_pulsar.ask("GET", policy) == 50_000)
    wanted = list(mq.produce(channel, [b"x" * 1_000] * 500))
    with running(broker.url, real_pulsar.url, channel) as mirror:
        mirror.wait_for(channel, 500)
        assert mirror.channel(channel).errors > 0
    assert ids(real_pulsar.url, topic_of(channel)) == wanted


@pytest.mark.parametrize("large", [False, True])
def test_given_messages_missing_in_the_topic_when_another_life_begins_then_it_stops_unless_they_may_have_been_skipped(
    broker: Broker, mq: Client, server: PulsarServer, channel: str, large: bool
) -> None:
    mq.produce(channel, [b"x"] * 10)
    with running(broker.url, server.url, channel) as mirror:
        mirror.wait_for(channel, 10)
    origin = content(server.url, topic_of(channel))[-1].properties()["rocksmq.mirror"]
    lost = mq.produce(channel, [b"y" * (200 if large else 2)] * 3)
    later = mq.produce(channel, [b"zzz"] * 2)
    client = connect(server.url)
    producer = client.create_producer(topic_of(channel), producer_name=f"rocksmq.mirror.pulsar.{channel}")
    for one in later:
        producer.send(b"zzz", properties={"rocksmq.id": str(one), "rocksmq.mirror": origin}, sequence_id=one)
    client.close()
    last = mq.produce(channel, [b"last"])[0]
    with running(broker.url, server.url, channel, too_large="skip") as mirror:
        if large:
            mirror.wait_for(channel, 1)
            assert mirror.channel(channel).skipped == 3
        else:
            mirror.wait(lambda running: running.channel(channel).state is State.STOPPED)
            assert f"refused 3 messages, {lost[0]} to {lost[-1]}," in mirror.channel(channel).last_error
    if not large:
        mq.seek(channel, "mirror.pulsar", last)
    with running(broker.url, server.url, channel) as mirror:
        mirror.wait(lambda running: running.channel(channel).lag == 0 and running.channel(channel).state is State.RUNNING)
    assert ids(server.url, topic_of(channel))[10:] == [*later, last]
