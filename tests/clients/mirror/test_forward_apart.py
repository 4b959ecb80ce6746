"""What one topic, or the lack of any, does to the rest of a mirror, and what is told of it."""

import secrets
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from rocksmq.clients import Client
from rocksmq.clients.mirror import forward, silence, workers
from rocksmq.clients.mirror.groups import Groups
from rocksmq.clients.mirror.lane import Lane, Opened
from rocksmq.clients.mirror.report import State
from rocksmq.clients.testing import Broker
from rocksmq.protocol.errors import Timeout
from tests.clients.support import PATIENCE, wait_until
from tests.helpers.pulsar import Pulsar, PulsarLite

from .forward_support import ids, running

TEMPLATE = "persistent://public/default/{channel}"


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    with Broker(tmp_path / "data") as started:
        yield started


@pytest.fixture
def mq(broker: Broker) -> Iterator[Client]:
    with broker.client() as client:
        yield client


@pytest.fixture
def channel() -> str:
    return f"c{secrets.token_hex(6)}"


def test_given_openings_that_hang_when_the_broker_is_restarted_then_a_good_channel_goes_on_meanwhile(
    broker: Broker, mq: Client, pulsar_lite: PulsarLite, channel: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened, gate, tries = Lane.open_topic, threading.Event(), list[str]()

    def open_topic(lane: Lane, client: object, groups: Groups, opening: int) -> Opened:
        if lane.channel.endswith("good"):
            return opened(lane, client, groups, opening)
        tries.append(lane.channel)
        gate.wait(PATIENCE if tries.count(lane.channel) > 1 else workers.HANG_SECONDS + 0.1)
        raise Timeout("hangs")

    monkeypatch.setattr(Lane, "open_topic", open_topic)
    monkeypatch.setattr(workers, "OPENERS", 2)
    monkeypatch.setattr(workers, "HUNG_OPENERS", 2)
    hanging = [f"{channel}.bad{number}" for number in range(6)]
    for name in (*hanging, f"{channel}.good"):
        mq.create_channel(name)
    try:
        with running(broker.url, pulsar_lite.url, f"{channel}.*") as mirror:
            mirror.wait(lambda running: running.channel(f"{channel}.good").state is State.RUNNING)
            wait_until(lambda: len(tries) >= len(hanging) + 2)  # all threads that they may have hang
            broker.kill()
            broker.start()
            with broker.client() as there:
                there.produce(f"{channel}.good", [b"x"])
                there.create_channel(f"{channel}.new.good")
                there.produce(f"{channel}.new.good", [b"x"])
            mirror.wait_for(f"{channel}.good", 1)
            mirror.wait_for(f"{channel}.new.good", 1)
            assert not gate.is_set()
            gate.set()
    finally:
        gate.set()


def test_given_a_broker_that_is_away_from_the_start_when_it_comes_then_the_mirror_has_told_so_and_goes_on(
    broker: Broker, pulsar_lite: PulsarLite, channel: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forward, "LOOK_SECONDS", 0.5)
    broker.kill()
    with running(broker.url, pulsar_lite.url, channel, timeout=0.3) as mirror:
        mirror.wait(lambda running: running.mirror.report().state is State.WAITING)
        report = mirror.mirror.report()
        assert "no broker answers" in report.last_error
        assert report.last_error_at > 0
        broker.start()
        mirror.wait(lambda running: running.mirror.report().last_error == f"no channel matches '{channel}' yet")
        assert mirror.mirror.report().state is State.WAITING
        with broker.client() as there:
            there.create_channel(channel)
            there.produce(channel, [b"x"])
        mirror.wait_for(channel, 1)
        assert mirror.mirror.report().state is State.RUNNING


def test_given_a_message_that_the_topics_own_policy_refuses_when_mirrored_then_it_is_named_and_others_go_on(
    broker: Broker, mq: Client, real_pulsar: Pulsar, channel: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(silence, "SILENT_SECONDS", 1.0)
    real_pulsar.create_topic(channel)
    real_pulsar.ask("POST", f"persistent/public/default/{channel}/maxMessageSize", 50_000)
    policy = f"persistent/public/default/{channel}/maxMessageSize?applied=true"
    wait_until(lambda: real_pulsar.ask("GET", policy) == 50_000)
    mq.create_channel(channel)
    mq.create_channel(f"{channel}-other")
    wanted = [mq.produce(channel, [payload])[0] for payload in (b"a", b"b" * 60_000, b"c")]
    with running(broker.url, real_pulsar.url, f"{channel}*", too_large="skip") as mirror:
        mirror.wait(lambda running: running.channel(channel).state is State.STOPPED)
        told = mirror.channel(channel)
        assert f"message {wanted[1]} of 60" in told.last_error
        assert "maxMessageSize" in told.last_error
        assert told.skipped == 0
        tries = told.errors
        mirror.wait(lambda running: running.channel(channel).errors > tries or running.channel(channel).state is State.RUNNING)
        assert mirror.channel(channel).state is State.STOPPED, "until something is acknowledged"
        others = mq.produce(f"{channel}-other", [b"x"] * 100)
        mirror.wait_for(f"{channel}-other", 100)
        real_pulsar.ask("DELETE", f"persistent/public/default/{channel}/maxMessageSize")
        mirror.wait_for(channel, 3)
    assert ids(real_pulsar.url, TEMPLATE.format(channel=channel)) == wanted
    assert ids(real_pulsar.url, TEMPLATE.format(channel=f"{channel}-other")) == list(others)
