"""What retention removed before the mirror had carried it over is missing in Pulsar, counted, and logged."""

import logging
import secrets

import pytest

from rocksmq.clients import Client
from rocksmq.clients.mirror.lane import Lane
from rocksmq.clients.mirror.reading import Wanted
from rocksmq.clients.testing import Broker
from tests.clients.support import keep_last
from tests.helpers.pulsar import PulsarLite

from .forward_support import content, running

TEMPLATE = "persistent://public/default/{channel}"


@pytest.fixture
def channel(client: Client) -> str:
    """With the messages 0 to 9."""
    name = f"c{secrets.token_hex(6)}"
    client.create_channel(name)
    client.produce(name, [b"%d" % number for number in range(10)])
    return name


def test_given_messages_that_went_while_the_mirror_was_away_when_it_is_back_then_their_exact_number_is_told(
    broker: Broker, client: Client, pulsar_lite: PulsarLite, channel: str, caplog: pytest.LogCaptureFixture
) -> None:
    with running(broker.url, pulsar_lite.url, channel) as mirror:
        mirror.wait_for(channel, 10)
    client.produce(channel, [b"%d" % number for number in range(10, 30)])
    keep_last(client, channel, 4)
    with caplog.at_level(logging.WARNING), running(broker.url, pulsar_lite.url, channel) as mirror:
        mirror.wait_for(channel, 4)
        assert mirror.channel(channel).gaps == 16
    sent = [found.data() for found in content(pulsar_lite.url, TEMPLATE.format(channel=channel))]
    assert sent == [b"%d" % number for number in (*range(10), *range(26, 30))]
    assert f"channel {channel}: retention removed 16 messages before they were mirrored" in caplog.text


def test_given_a_channel_that_was_never_mirrored_when_messages_of_it_went_before_then_there_is_no_gap(
    broker: Broker, client: Client, pulsar_lite: PulsarLite, channel: str
) -> None:
    keep_last(client, channel, 4)
    with running(broker.url, pulsar_lite.url, channel) as mirror:
        mirror.wait_for(channel, 4)
        assert mirror.channel(channel).gaps == 0


def test_given_a_gap_of_which_nobody_knows_how_large_it_is_when_mirrored_then_it_is_counted_all_the_same(
    broker: Broker, client: Client, pulsar_lite: PulsarLite, channel: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def somewhere(lane: Lane) -> Wanted[tuple[Lane, int]]:
        return Wanted((lane, lane.opening), lane.number, lane.course.fetch_from)

    with running(broker.url, pulsar_lite.url, channel) as mirror:
        mirror.wait_for(channel, 10)
    client.produce(channel, [b"%d" % number for number in range(10, 30)])
    keep_last(client, channel, 4)
    monkeypatch.setattr(Lane, "wanted", somewhere)
    with running(broker.url, pulsar_lite.url, channel) as mirror:
        mirror.wait_for(channel, 4)
        assert mirror.channel(channel).gaps == 1
