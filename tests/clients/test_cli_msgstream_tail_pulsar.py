"""`rocksmq msgstream tail` on Pulsar: packs as they come; nothing stays behind."""

import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from rocksmq.clients.msgstream import MsgPack, MsgStream, PulsarMsgStreamFactory, SearchMsg, TimeTickMsg
from rocksmq.clients.msgstream.looking import looking_stream
from tests.clients.cli_support import rocksmq
from tests.helpers.pulsar import Pulsar, PulsarServer

from .support import wait_until
from .test_cli_msgstream_tail import PATIENCE, ended, lines, watching


@pytest.fixture(params=["pulsar_lite", "real_pulsar"])
def server(request: pytest.FixtureRequest) -> PulsarServer:
    """Each kind."""
    found: PulsarServer = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def channels() -> list[str]:
    """Two."""
    return [secrets.token_hex(8) for _ in range(2)]


@pytest.fixture
def out(server: PulsarServer, channels: list[str]) -> Iterator[MsgStream]:
    """Produces to them."""
    with PulsarMsgStreamFactory(server.url).new_msg_stream() as stream:
        stream.as_producer(channels)
        yield stream


def produce(out: MsgStream, number: int) -> None:
    out.broadcast(MsgPack(msgs=[SearchMsg(number, number, b"", [0])]))


def test_given_topics_of_pulsar_when_watched_from_the_earliest_then_all_packs_are_shown_and_nothing_stays(
    server: PulsarServer, out: MsgStream, channels: list[str]
) -> None:
    produce(out, 1)
    out.broadcast(MsgPack(msgs=[TimeTickMsg(5)]))
    with watching(server.url, "msgstream", "tail", *channels, "--tt", "--from", "earliest") as process:
        shown = lines(process, 3)
        produce(out, 6)
        out.broadcast(MsgPack(msgs=[TimeTickMsg(10)]))
        shown += lines(process, 3)
        assert ended(process) == (130, "", "")
    assert shown[0] == "pack 0..5: 2 messages"
    assert sorted(shown[1:3]) == sorted(f"  {channel}  SEARCH  id 1  1" for channel in channels)
    assert shown[3] == "pack 5..10: 2 messages"
    if isinstance(server, Pulsar):
        wait_until(lambda: server.subscriptions(channels[0]) == [])


def test_given_topics_of_pulsar_when_looked_at_from_the_latest_then_what_was_there_is_left_out(
    server: PulsarServer, out: MsgStream, channels: list[str]
) -> None:
    produce(out, 1)
    with looking_stream(server.url, channels, "latest", is_tt=False, timeout=PATIENCE) as stream:
        assert stream.consume(timeout=0.0) is None  # from now on
        found: list[int] = []
        for number in (2, 3):
            produce(out, number)
            while len(found) < len(channels) * (number - 1):
                pack = stream.consume(timeout=PATIENCE)
                assert pack is not None
                found += [msg.id for msg in pack.msgs]
    assert found == [2, 2, 3, 3]


def test_given_a_place_in_pulsar_when_it_is_neither_end_then_it_says_so(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("secret")
    arguments = ("msgstream", "tail", "c", "--from", "7", "--pulsar-token-file", str(token))
    result = rocksmq("pulsar://127.0.0.1:1", *arguments)
    assert (result.exit_code, result.stdout) == (1, "")
    assert "from earliest or latest on" in result.stderr
