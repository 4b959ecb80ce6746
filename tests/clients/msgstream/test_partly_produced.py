"""A pack of which some parts fail, by a relay before a real broker: what is told, and that the rest doubles nothing."""

from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from rocksmq.clients import Client, ConnectionFailed, DiskFull, InvalidRequest, OutOfSequence, Timeout
from rocksmq.clients.address import Address
from rocksmq.clients.credentials import Credentials
from rocksmq.clients.deadline import Deadline
from rocksmq.clients.delivery import Delivery
from rocksmq.clients.link import Link
from rocksmq.clients.msgstream import MsgPack, MsgStream, PackPartlyProduced, RmqMsgStreamFactory
from rocksmq.protocol.errors import RocksMQError
from rocksmq.protocol.operations import Produce
from tests.clients.msgstream.worlds import RmqWorld, search
from tests.clients.support import PATIENCE, wait_until
from tests.helpers.fake_server import FakeServer, Peer

NUMBERS = range(9)
PACK = MsgPack(msgs=[search(number, 1, key=number) for number in NUMBERS])
Fault = Callable[[Peer, int], None]


class Relay:
    """Hands requests on to a broker. For the channels in ``faults`` a produce goes wrong, there or on its way back."""

    def __init__(self, url: str) -> None:
        self.before: dict[str, Fault] = {}  # the broker never sees it
        self.behind: dict[str, Fault] = {}  # the broker's answer is lost
        self._link = Link(Address.parse(url), Credentials(), "relay")

    def __call__(self, peer: Peer) -> None:
        peer.greet(self._link.connected(Deadline(PATIENCE)).server.limits)
        while True:
            correlation, request = peer.receive()
            channel = request.channel if isinstance(request, Produce) else ""
            if (fault := self.before.get(channel)) is not None:
                fault(peer, correlation)
                continue
            try:
                reply: Any = self._link.call_once(request, Deadline(PATIENCE))
            except RocksMQError as error:
                peer.refuse(correlation, error)
                continue
            if (fault := self.behind.get(channel)) is not None:
                fault(peer, correlation)
            else:
                peer.reply(correlation, reply)

    def close(self) -> None:
        """End the connection to the broker."""
        self._link.close()


def cut(peer: Peer, correlation: int) -> None:
    peer.cut()
    raise EOFError


def silent(peer: Peer, correlation: int) -> None:
    """No answer ever comes."""


def full(peer: Peer, correlation: int) -> None:
    peer.refuse(correlation, DiskFull("the disk is full"))


def interrupted(*arguments: Any) -> bool:
    raise KeyboardInterrupt


@pytest.fixture
def relay(rmq: RmqWorld) -> Iterator[Relay]:
    """In front of the broker."""
    opened = Relay(rmq.broker.url)
    yield opened
    opened.close()


@pytest.fixture
def channels(rmq: RmqWorld) -> list[str]:
    """Three."""
    return rmq.channels(3)


@pytest.fixture
def out(relay: Relay, channels: list[str]) -> Iterator[MsgStream]:
    """Produces to them through the relay, with little patience."""
    with FakeServer(relay) as server, RmqMsgStreamFactory(server.url, timeout=0.4).new_msg_stream() as stream:
        stream.as_producer(channels)
        yield stream


def stored(mq: Client, channels: list[str]) -> Counter[int]:
    """How often each message is stored."""
    found: Counter[int] = Counter()
    for channel in channels:
        found.update(int(payload[-1:]) for payload in mq.fetch(channel, "earliest").payloads)
    return found


def partly(out: MsgStream, pack: MsgPack) -> PackPartlyProduced:
    """What producing it raises."""
    with pytest.raises(PackPartlyProduced) as caught:
        out.produce(pack)
    return caught.value


FAULTS = [("before", cut), ("before", silent), ("before", full), ("behind", cut), ("behind", silent)]


@pytest.mark.parametrize(("place", "fault"), FAULTS)
def test_given_parts_that_fail_when_the_rest_is_produced_then_every_message_is_stored_once(
    rmq: RmqWorld, relay: Relay, out: MsgStream, channels: list[str], fault: Fault, place: str
) -> None:
    faults: dict[str, Fault] = getattr(relay, place)
    faults |= dict.fromkeys(channels[1:], fault)

    error = partly(out, PACK)
    again = partly(out, error.rest)
    faults.clear()
    ids = out.produce(again.rest)

    assert set(channels[1:]) <= set(error.errors)
    assert set(error.ids) | set(error.errors) == set(channels)
    assert set(ids) == set(again.errors) <= set(error.errors)
    assert stored(rmq.client, channels) == Counter(NUMBERS)


def test_given_a_part_whose_id_is_forgotten_when_it_is_certainly_not_stored_then_it_goes_under_another_unseen(
    rmq: RmqWorld, relay: Relay, out: MsgStream, channels: list[str]
) -> None:
    def once(peer: Peer, correlation: int) -> None:
        relay.before.clear()
        peer.refuse(correlation, OutOfSequence("the id is unknown", present_id=1))

    relay.before |= {channels[0]: once}

    out.produce(PACK)

    assert stored(rmq.client, channels) == Counter(NUMBERS)


def test_given_parts_of_unknown_outcome_when_told_then_the_errors_say_so(
    relay: Relay, out: MsgStream, channels: list[str]
) -> None:
    relay.behind |= {channels[0]: cut}

    error = partly(out, PACK)

    assert isinstance(error.errors[channels[0]], (ConnectionFailed, Timeout))
    assert {msg.id for msg in error.rest.msgs} == {n for n in NUMBERS if channels[n % len(channels)] in error.errors}
    assert "produce(error.rest)" in str(error)


def test_given_a_rest_that_is_stored_when_produced_again_then_it_is_answered_the_same(
    rmq: RmqWorld, relay: Relay, out: MsgStream, channels: list[str]
) -> None:
    relay.behind |= {channels[0]: silent}
    rest = partly(out, PACK).rest
    relay.behind.clear()

    first = out.produce(rest)

    assert out.produce(rest) == first
    assert stored(rmq.client, channels) == Counter(NUMBERS)


def test_given_a_rest_in_the_hands_of_many_threads_when_produced_then_it_is_stored_once(
    rmq: RmqWorld, relay: Relay, out: MsgStream, channels: list[str]
) -> None:
    for _ in range(5):
        relay.behind |= dict.fromkeys(channels, silent)
        rest = partly(out, PACK).rest
        relay.behind.clear()
        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(out.produce, [rest] * 4))
        assert found[1:] == found[:-1]
    assert stored(rmq.client, channels) == Counter(dict.fromkeys(NUMBERS, 5))


def test_given_an_interrupted_resend_when_the_id_is_forgotten_then_it_is_not_sent_under_another(
    rmq: RmqWorld, relay: Relay, out: MsgStream, channels: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broker has it, the interrupt kept the answer from being read: under a new id it would be stored twice."""
    relay.before |= {channels[0]: full}
    rest = partly(out, MsgPack(msgs=[search(0, 1, key=0)])).rest
    relay.before.clear()
    with monkeypatch.context() as patch:
        patch.setattr(Delivery, "settle", interrupted)
        with pytest.raises(KeyboardInterrupt):
            out.produce(rest)
    wait_until(lambda: stored(rmq.client, channels) == Counter([0]))
    relay.before |= {channels[0]: lambda peer, correlation: peer.refuse(correlation, OutOfSequence("?", present_id=1))}

    error = partly(out, rest)

    assert isinstance(error.errors[channels[0]], OutOfSequence)
    assert stored(rmq.client, channels) == Counter([0])


@pytest.mark.parametrize("place", ["before", "behind"])
def test_given_a_broadcast_that_fails_in_parts_when_the_rest_is_broadcast_then_each_channel_has_it_once(
    rmq: RmqWorld, relay: Relay, out: MsgStream, channels: list[str], place: str
) -> None:
    faults: dict[str, Fault] = getattr(relay, place)
    faults |= {channels[0]: silent}
    with pytest.raises(PackPartlyProduced) as caught:
        out.broadcast(PACK)
    faults.clear()

    assert list(out.broadcast(caught.value.rest)) == list(caught.value.errors)

    assert stored(rmq.client, channels) == Counter(dict.fromkeys(NUMBERS, 3))


def test_given_a_part_that_is_too_large_when_produced_then_nothing_is_sent(
    rmq: RmqWorld, out: MsgStream, channels: list[str]
) -> None:
    large = search(1, 1, key=1)
    large.payload = bytes(2 << 20)

    with pytest.raises(InvalidRequest, match=channels[1]):
        out.produce(MsgPack(msgs=[search(0, 1, key=0), large]))
    with pytest.raises(InvalidRequest, match="10001 messages"):
        out.produce(MsgPack(msgs=[search(0, 1, key=0)] * 10_001))

    assert stored(rmq.client, channels) == Counter()
