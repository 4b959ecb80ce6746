"""A topic that takes nothing any more stops its channel, visibly, and no other; and that one goes on once the topic is well."""

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from rocksmq.clients import Client
from rocksmq.clients.mirror.report import ChannelReport, State
from rocksmq.clients.pulsar.client import connect, pulsar
from rocksmq.clients.testing import Broker
from tests.crash.mirror_sides import MIRROR, MirrorSide
from tests.helpers.pulsar import Pulsar, require_pulsar

GOOD, BAD = "orders.good", "orders.bad"
PATIENCE_SECONDS = 60.0
ROLE, SUPERUSER = "mirror", "tests"
SECRET = b"the secret of the tests' tokens."


def until(what: str, is_so: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not is_so():
        assert time.monotonic() < deadline, f"{what}: not after {PATIENCE_SECONDS:g} s"
        time.sleep(0.05)


class Scene:
    """A mirror of two channels to a namespace where topics are not made by their use."""

    def __init__(self, directory: Path, mq: Client, broker_url: str, server: Pulsar, namespace: str, *options: str) -> None:
        self.mq = mq
        self._server = server
        self._place = f"persistent/{namespace}"
        self._template = f"persistent://{namespace}/{{channel}}"
        arguments = ["--from", broker_url, "--to", server.url, "--channels", "orders.*", "--name", MIRROR]
        self.mirror = MirrorSide(directory, [*arguments, "--topic-template", self._template, *options])
        server.ask("PUT", f"namespaces/{namespace}")
        server.ask("POST", f"namespaces/{namespace}/autoTopicCreation", {"allowAutoTopicCreation": False})
        for channel in (GOOD, BAD):
            mq.create_channel(channel)
            self.make_topic(channel)

    def make_topic(self, channel: str) -> None:
        self.ask("PUT", channel)

    def ask(self, method: str, channel: str, path: str = "", body: Any = None) -> Any:
        """The admin API about a channel's topic."""
        return self._server.ask(method, f"{self._place}/{channel}{path}", body)

    def produce(self, channel: str, text: str) -> list[bytes]:
        """Ten messages."""
        payloads = [f"{text} {number}".encode() for number in range(10)]
        self.mq.produce(channel, payloads)
        return payloads

    def report(self, channel: str) -> ChannelReport | None:
        return self.mirror.told().get(channel)

    def lag(self, channel: str) -> int:
        return self.mq.describe_consumer_group(channel, f"mirror.{MIRROR}").lag_messages

    def await_mirrored(self, channel: str) -> None:
        """All of it, and it runs."""

        def is_so() -> bool:
            self.mirror.check()
            found = self.report(channel)
            return found is not None and found.state is State.RUNNING and self.lag(channel) == 0

        until(f"{channel} is mirrored", is_so)

    def await_stopped(self, channel: str, *states: State) -> ChannelReport:
        """It is not mirrored, and that is said."""

        def is_so() -> bool:
            self.mirror.check()
            found = self.report(channel)
            return found is not None and found.state in (states or (State.STOPPED,)) and found.last_error != ""

        until(f"{channel} is stopped", is_so)
        found = self.report(channel)
        assert found is not None
        return found

    def payloads(self, channel: str, token: str | None = None) -> list[bytes]:
        """What is in its topic."""
        client = connect(self._server.url, token=token)
        try:
            reader = client.create_reader(self._template.format(channel=channel), pulsar.MessageId.earliest)
            found: list[bytes] = []
            while reader.has_message_available():
                found.append(reader.read_next(10_000).data())
            return found
        finally:
            client.close()

    def check_good_goes_on(self, before: list[bytes], token: str | None = None) -> list[bytes]:
        """All of the good channel, while the other one is stopped; what was there ``before`` is, once."""
        sent = before + self.produce(GOOD, "meanwhile")
        self.await_mirrored(GOOD)
        assert self.payloads(GOOD, token) == sent
        return sent


@contextmanager
def scene_of(directory: Path, broker: Broker, server: Pulsar, namespace: str, *options: str) -> Generator[Scene]:
    with broker.client() as mq:
        scene = Scene(directory, mq, broker.url, server, namespace, *options)
        scene.mirror.start()
        try:
            yield scene
        finally:
            scene.mirror.close()


@pytest.mark.slow
def test_given_a_topic_deleted_while_it_is_mirrored_when_it_is_made_again_then_its_channel_goes_on_and_no_other_stopped(
    tmp_path: Path, broker: Broker, real_pulsar: Pulsar
) -> None:
    with scene_of(tmp_path, broker, real_pulsar, "public/deleted") as scene:
        good = scene.produce(GOOD, "before")
        scene.produce(BAD, "before")
        for channel in (GOOD, BAD):
            scene.await_mirrored(channel)
        scene.ask("DELETE", BAD, "?force=true")
        lost = scene.produce(BAD, "without a topic")
        # Pulsar's client connects again for a minute; only an opening tells that there is no topic.
        stopped = scene.await_stopped(BAD, State.STOPPED, State.WAITING)
        assert BAD in stopped.last_error
        good = scene.check_good_goes_on(good)
        assert scene.lag(BAD) == len(lost)
        scene.make_topic(BAD)
        scene.await_mirrored(BAD)
        assert scene.payloads(BAD) == lost
        assert scene.payloads(GOOD) == good


@pytest.mark.slow
def test_given_a_terminated_topic_when_it_is_mirrored_then_its_channel_says_so_and_no_other_stopped(
    tmp_path: Path, broker: Broker, real_pulsar: Pulsar
) -> None:
    with scene_of(tmp_path, broker, real_pulsar, "public/terminated") as scene:
        good, bad = scene.produce(GOOD, "before"), scene.produce(BAD, "before")
        for channel in (GOOD, BAD):
            scene.await_mirrored(channel)
        scene.ask("POST", BAD, "/terminate")
        held = scene.produce(BAD, "beyond the end")
        stopped = scene.await_stopped(BAD)
        assert "erminated" in stopped.last_error
        scene.check_good_goes_on(good)
        assert scene.lag(BAD) == len(held)
        assert scene.payloads(BAD) == bad


def token_of(role: str) -> str:
    """A JSON web token, signed with SECRET."""

    def part(content: bytes) -> bytes:
        return base64.urlsafe_b64encode(content).rstrip(b"=")

    told = part(json.dumps({"alg": "HS256"}).encode()) + b"." + part(json.dumps({"sub": role}).encode())
    return (told + b"." + part(hmac.digest(SECRET, told, hashlib.sha256))).decode()


class GuardedPulsar(Pulsar):
    """One that asks everybody for a token."""

    def __init__(self, directory: Path) -> None:
        token = token_of(SUPERUSER)
        providers = "org.apache.pulsar.broker.authentication.AuthenticationProviderToken"
        plugin = "org.apache.pulsar.client.impl.auth.AuthenticationToken"
        settings = {
            "authenticationEnabled": "true",
            "authorizationEnabled": "true",
            "authenticationProviders": providers,
            "tokenSecretKey": f"data:;base64,{base64.b64encode(SECRET).decode()}",
            "superUserRoles": SUPERUSER,
            "brokerClientAuthenticationPlugin": plugin,
            "brokerClientAuthenticationParameters": f"token:{token}",
        }
        super().__init__(directory, settings=[f"{name}={value}" for name, value in settings.items()])
        self.headers["Authorization"] = f"Bearer {token}"


@pytest.mark.slow
def test_given_a_topic_that_is_not_for_the_mirror_when_it_is_allowed_then_its_channel_goes_on_and_no_other_stopped(
    tmp_path: Path, broker: Broker
) -> None:
    require_pulsar()
    token_file = tmp_path / "token"
    token_file.write_text(token_of(ROLE))
    options = ("--pulsar-token-file", str(token_file))
    with GuardedPulsar(tmp_path / "pulsar") as server:
        server.start()
        with scene_of(tmp_path, broker, server, "public/guarded", *options) as scene:
            scene.ask("POST", GOOD, f"/permissions/{ROLE}", ["produce", "consume"])
            good, bad = scene.produce(GOOD, "before"), scene.produce(BAD, "before")
            scene.await_mirrored(GOOD)
            scene.await_stopped(BAD)
            scene.check_good_goes_on(good, token_of(SUPERUSER))
            assert scene.lag(BAD) == len(bad)
            scene.ask("POST", BAD, f"/permissions/{ROLE}", ["produce", "consume"])
            scene.await_mirrored(BAD)
            assert scene.payloads(BAD, token_of(SUPERUSER)) == bad
