"""What streams do on Pulsar and nowhere else: topics, Pulsar's own subscriptions, its outages, the ends of processes."""

import gc
import subprocess
import sys
import textwrap
import threading
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from rocksmq.clients import ChannelNotFound, InvalidRequest, ReadOnly, Timeout
from rocksmq.clients.deadline import Deadline
from rocksmq.clients.msgstream import (
    MsgPack,
    MsgPosition,
    MsgStream,
    PackPartlyProduced,
    PulsarMsgStream,
    PulsarMsgStreamFactory,
    PulsarTtMsgStream,
    RmqMsgStreamFactory,
    msg_stream_factory,
)
from rocksmq.clients.msgstream.producing import RestPack
from rocksmq.clients.pulsar import sending
from rocksmq.clients.pulsar.sending import PulsarPart
from rocksmq.clients.pulsar.transport import PulsarTransport
from tests.clients.msgstream.worlds import (
    PATIENCE,
    STRICT,
    LiteWorld,
    PulsarWorld,
    all_numbers,
    drained,
    numbers,
    plain_reader,
    produce,
    search,
    writer,
)
from tests.clients.support import wait_until
from tests.helpers.pulsar import Pulsar, PulsarLite, require_pulsar


@pytest.fixture
def channels(pulsar: PulsarWorld) -> list[str]:
    """Two."""
    return pulsar.channels(2)


@pytest.fixture
def out(pulsar: PulsarWorld, channels: list[str]) -> Iterator[MsgStream]:
    """Produces to them."""
    with writer(pulsar, channels) as stream:
        yield stream


def subscriptions(world: PulsarWorld, channel: str) -> list[str]:
    """Pulsar's, of a channel."""
    return list(world.server.ask("GET", f"persistent/{STRICT}/{channel}/subscriptions"))


def positions_topic(world: PulsarWorld, name: str) -> str:
    """Of the subscription, as the admin API calls it."""
    return world.positions_template.removeprefix("persistent://").format(channel=f"_positions.{name}")


def stats(world: PulsarWorld, channel: str) -> dict[str, int]:
    """The backlog of each subscription, in messages."""
    found = world.server.ask("GET", f"persistent/{STRICT}/{channel}/stats?getPreciseBacklog=true")["subscriptions"]
    return {name: each["msgBacklog"] for name, each in found.items()}


# -- subscriptions of Pulsar ---------------------------------------------------------


def test_given_a_stream_when_it_reads_closes_and_unsubscribes_then_no_subscription_is_stray(
    pulsar: PulsarWorld, out: MsgStream, channels: list[str]
) -> None:
    produce(out, *(search(number, 1, key=number) for number in range(10)))
    with plain_reader(pulsar, channels) as stream:
        assert all_numbers(stream) == list(range(10))
    assert [subscriptions(pulsar, channel) for channel in channels] == [["reading"], ["reading"]]
    positions = f"persistent/{positions_topic(pulsar, 'reading')}/subscriptions"
    assert pulsar.server.ask("GET", positions) == ["reading"]

    with plain_reader(pulsar, channels) as stream:
        stream.unsubscribe()

    assert [subscriptions(pulsar, channel) for channel in channels] == [[], []]
    wait_until(lambda: pulsar.server.ask("GET", positions) == [])


def test_given_a_backlog_when_read_and_closed_then_the_last_entry_alone_is_left_of_it_and_a_seek_brings_it_back(
    pulsar: PulsarWorld, out: MsgStream, channels: list[str]
) -> None:
    with plain_reader(pulsar, channels[:1]) as stream:
        for number in range(10):
            produce(out, search(number, 1))
        assert stats(pulsar, channels[0]) == {"reading": 10}
        assert all_numbers(stream) == list(range(10))
    wait_until(lambda: stats(pulsar, channels[0]) == {"reading": 1})

    with plain_reader(pulsar, channels[:1]) as stream:
        stream.seek(MsgPosition(channels[0]))
        wait_until(lambda: stats(pulsar, channels[0])["reading"] == 10)
        assert all_numbers(stream) == list(range(10))


def test_given_one_subscription_on_channels_of_two_streams_when_both_read_at_once_then_neither_disturbs_the_other(
    pulsar: PulsarWorld, out: MsgStream, channels: list[str]
) -> None:
    count = 30
    for number in range(2 * count):
        produce(out, search(number, 1, key=number))
    found: dict[str, list[int]] = {}

    def read(channel: str) -> None:
        with plain_reader(pulsar, [channel], buffer_size=1) as stream:
            found[channel] = [number for pack in drained(stream) for number in numbers(pack)]

    threads = [threading.Thread(target=read, args=(channel,)) for channel in channels]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)

    assert [found[channel] for channel in channels] == [list(range(first, 2 * count, 2)) for first in (0, 1)]
    with plain_reader(pulsar, channels) as following:
        assert following.consume(timeout=0.0) is None


def test_given_a_moment_when_subscribed_then_it_begins_with_what_was_published_then(
    pulsar: PulsarWorld, out: MsgStream, channels: list[str]
) -> None:
    produce(out, search(1, 1), search(2, 1, key=1))
    moment = datetime.now(UTC)
    wait_until(lambda: datetime.now(UTC) > moment + timedelta(milliseconds=2))  # Pulsar counts whole milliseconds
    produce(out, search(3, 1))
    for start, expected in ((moment, [3]), (datetime(2020, 1, 1, tzinfo=UTC), [1, 2, 3])):
        with pulsar.factory().new_msg_stream() as stream:
            stream.as_consumer(channels, f"since-{start:%Y}", start)
            stream.start()
            assert all_numbers(stream) == expected
    with pulsar.factory().new_msg_stream() as stream, pytest.raises(InvalidRequest, match="MsgPosition"):
        stream.as_consumer(channels, "reading", 5)


# -- topics ----------------------------------------------------------------------


def test_given_a_topic_with_partitions_when_named_then_it_is_refused(pulsar: PulsarWorld, channels: list[str]) -> None:
    name = f"{channels[0]}-many"
    pulsar.server.ask("PUT", f"persistent/{STRICT}/{name}/partitions", 2)
    with pulsar.factory().new_msg_stream() as stream:
        with pytest.raises(InvalidRequest, match="partitions"):
            stream.as_producer([name])
        with pytest.raises(InvalidRequest, match="partitions"):
            stream.as_consumer([name], "reading")


def test_given_a_namespace_that_makes_no_topic_when_positions_belong_there_then_it_says_which_to_create(
    pulsar: PulsarWorld, channels: list[str]
) -> None:
    template = f"persistent://{STRICT}/{{channel}}"
    refusal = pytest.raises(ChannelNotFound, match=f"{STRICT}/_positions.reading")
    with pulsar.factory(positions_template=template).new_msg_stream() as stream, refusal:
        stream.as_consumer(channels, "reading")


def test_given_a_terminated_topic_when_produced_then_it_is_told_and_nothing_else_stops(
    pulsar: PulsarWorld, out: MsgStream, channels: list[str]
) -> None:
    produce(out, search(1, 1))
    pulsar.server.ask("POST", f"persistent/{STRICT}/{channels[0]}/terminate")
    rest = MsgPack(msgs=[search(2, 1), search(3, 1, key=1)])
    for stored in (channels[1:], []):
        with pytest.raises(PackPartlyProduced) as caught:
            out.produce(rest)
        assert list(caught.value.ids) == stored
        assert isinstance(caught.value.errors[channels[0]], ReadOnly)
        rest = caught.value.rest
    with plain_reader(pulsar, channels) as stream:
        assert all_numbers(stream) == [1, 3]


def test_given_a_position_whose_message_is_gone_when_read_then_the_gap_is_told(
    pulsar: PulsarWorld, out: MsgStream, channels: list[str]
) -> None:
    produce(out, search(1, 1), search(2, 1))
    with plain_reader(pulsar, channels) as stream:
        pack = stream.consume(timeout=PATIENCE)
        assert pack is not None
        assert pack.gaps == []
        gone = [msg.position for msg in pack.msgs]
    pulsar.destroy(channels[:1])
    pulsar.server.ask("PUT", f"persistent/{STRICT}/{channels[0]}")
    with writer(pulsar, channels) as again:
        produce(again, search(3, 1))

    for position in gone:
        assert position is not None
        with plain_reader(pulsar, channels) as stream:
            stream.seek(position)
            pack = stream.consume(timeout=PATIENCE)
            assert numbers(pack) == [3]
            assert pack is not None
            assert [(gap.channel_name, gap.message_count) for gap in pack.gaps] == [(channels[0], None)]


# -- parts of unknown outcome ----------------------------------------------------------


@pytest.fixture
def transport(pulsar: PulsarWorld) -> Iterator[PulsarTransport]:
    """Over topics as the world has them."""
    opened = PulsarTransport(pulsar.server.url, topic_template=f"persistent://{STRICT}/{{channel}}")
    yield opened
    opened.close()


def test_given_a_stored_part_whose_answer_was_an_error_when_sent_again_then_it_is_found_and_stored_once(
    transport: PulsarTransport, channels: list[str]
) -> None:
    transport.open_producers(channels)
    (before,) = transport.parts([b"0"], channels[:1])
    (part,) = transport.parts([b"1", b"2"], channels[:1])
    transport.send([before, part])
    assert isinstance(part, PulsarPart)
    stored, part.ids, part.is_in_doubt = part.ids, None, True
    assert part.outlet is not None
    part.outlet.is_broken, part.outlet.last = True, None

    transport.send([part])

    assert (part.ids, part.error) == (stored, None)


def test_given_a_part_that_was_not_stored_when_sent_again_then_it_is_stored(
    transport: PulsarTransport, channels: list[str]
) -> None:
    transport.open_producers(channels)
    (other,) = transport.parts([b"0"], channels[:1])
    (part,) = transport.parts([b"1", b"2"], channels[:1])
    transport.send([other])
    assert isinstance(part, PulsarPart)
    assert isinstance(other, PulsarPart)
    part.outlet, part.is_in_doubt = other.outlet, True
    assert part.outlet is not None
    part.outlet.is_broken = True

    transport.send([part])

    assert part.error is None
    assert part.ids is not None
    assert other.ids is not None
    assert part.ids[0] > other.ids[-1]


def test_given_a_topic_that_is_long_when_a_part_is_looked_for_then_each_time_goes_on_and_the_reason_stays(
    transport: PulsarTransport, channels: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "_LOOK_PREFETCH", 2)
    transport.open_producers(channels)
    parts = [transport.parts([b"x"], channels[:1])[0] for _ in range(500)]
    transport.send(parts)
    part = parts[-1]
    assert isinstance(part, PulsarPart)
    assert part.outlet is not None
    stored, part.ids, part.is_in_doubt, part.reason = part.ids, None, True, "it is so"
    part.outlet.is_broken, part.outlet.last = True, None
    transport.send(parts[:1])  # its outlet is closed in time
    told = set[str]()

    def is_found() -> bool:
        transport._sending.send([part], Deadline(0.05))  # pyright: ignore[reportPrivateUsage]
        told.add("" if part.error is None else part.error.message)
        return part.error is None

    wait_until(is_found)
    assert part.ids == stored
    assert told == {"", f"Pulsar does not say whether the part for {channels[0]!r} is stored (it is so)"}


def test_given_parts_when_too_large_for_an_entry_then_they_are_refused_before_anything_is_sent(
    pulsar: PulsarWorld, out: MsgStream, channels: list[str]
) -> None:
    large = search(1, 1)
    large.payload = bytes(sending.ENTRY_BYTES_MAX)
    with pytest.raises(InvalidRequest, match=channels[0]):
        produce(out, search(2, 1, key=1), large)
    large.payload = bytes(sending.ENTRY_BYTES_MAX - 200)
    produce(out, large)
    large.payload = b""
    produce(out, *[large] * 60_000)
    with plain_reader(pulsar, channels) as stream:
        assert len(all_numbers(stream)) == 60_001


# -- outages ---------------------------------------------------------------------


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Pulsar]:
    """A Pulsar that may be harmed."""
    require_pulsar()
    with Pulsar(tmp_path / "pulsar") as server:
        server.start()
        yield server


@pytest.mark.slow
def test_given_a_pulsar_that_is_frozen_and_killed_when_it_is_back_then_everything_is_there_once(own: Pulsar) -> None:
    factory = PulsarMsgStreamFactory(own.url, timeout=4.0)
    with factory.new_msg_stream() as out, factory.new_msg_stream() as stream:
        out.as_producer(["a", "b"])
        stream.as_consumer(["a", "b"], "reading")
        stream.start()
        produced: list[int] = []
        found: Counter[int] = Counter()
        for round_number, (harm, heal) in enumerate([(own.freeze, own.thaw), (own.kill, own.start)]):
            first = 10 * round_number
            produce(out, *(search(number, 1, key=number) for number in range(first, first + 4)))
            found.update(number for pack in drained(stream) for number in numbers(pack))
            harm()
            with pytest.raises(PackPartlyProduced) as caught:
                produce(out, *(search(number, 1, key=number) for number in range(first + 4, first + 8)))
            assert all(isinstance(error, Timeout) for error in caught.value.errors.values())
            with pytest.raises(Timeout):
                stream.consume(timeout=0.0)
            heal()
            stored(out, caught.value.rest)
            produced += range(first, first + 8)
            count = len(produced)
            while found.total() < count:
                read(stream, found)
            assert found == Counter(produced)
        assert found == Counter(produced)
        commit(stream)
    with factory.new_msg_stream() as following:
        following.as_consumer(["a", "b"], "reading")
        following.start()
        assert following.consume(timeout=0.5) is None


def stored(out: MsgStream, rest: RestPack | MsgPack) -> None:
    """The rest, as often as it takes."""
    until = Deadline(60.0)
    while True:
        try:
            out.produce(rest)
        except PackPartlyProduced as error:
            if until.is_over:
                raise
            rest = error.rest
        else:
            return


def read(stream: MsgStream, found: Counter[int]) -> None:
    """Add another pack, if one comes."""
    try:
        pack = stream.consume(timeout=0.1)
    except Timeout:
        pack = None
    found.update(numbers(pack) if pack is not None else ())


def commit(stream: MsgStream) -> None:
    """As soon as that can be done."""
    until = Deadline(60.0)
    while True:
        try:
            stream.commit()
        except Timeout:
            if until.is_over:
                raise
        else:
            return


# -- the process -------------------------------------------------------------------


def test_given_a_fork_when_the_child_uses_the_streams_then_they_are_closed_there_and_both_end_well(
    pulsar: PulsarWorld, out: MsgStream, channels: list[str]
) -> None:
    produce(out, search(1, 1))
    program = f"""
        import os, sys
        from rocksmq.clients import ConnectionFailed
        from rocksmq.clients.msgstream import PulsarMsgStreamFactory
        factory = PulsarMsgStreamFactory({pulsar.server.url!r}, topic_template="persistent://{STRICT}/{{channel}}",
            positions_template={pulsar.positions_template!r})
        with factory.new_msg_stream() as stream:
            stream.as_producer({channels!r})
            stream.as_consumer({channels!r}, "forked")
            stream.start()
            child = os.fork()
            if not child:
                try:
                    stream.consume(timeout=0.0)
                except ConnectionFailed:
                    sys.exit(7)
            print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), len(stream.consume(timeout=10.0).msgs))
    """
    command = [sys.executable, "-c", textwrap.dedent(program)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert (ran.stdout, ran.returncode) == ("7 1\n", 0), ran.stderr


@pytest.mark.parametrize("is_closed", [True, False])
def test_given_a_stream_when_the_interpreter_ends_then_it_ends_well_each_time(pulsar: PulsarWorld, is_closed: bool) -> None:
    channels = pulsar.channels(1)
    program = f"""
        import warnings
        warnings.simplefilter("ignore")
        from rocksmq.clients.msgstream import MsgPack, PulsarMsgStreamFactory, SearchMsg
        factory = PulsarMsgStreamFactory({pulsar.server.url!r}, topic_template="persistent://{STRICT}/{{channel}}",
            positions_template={pulsar.positions_template!r})
        stream = factory.new_msg_stream()
        stream.as_producer({channels!r})
        stream.produce(MsgPack(msgs=[SearchMsg(id=1, timestamp=1, payload=b"", hash_keys=[0])]))
        stream.as_consumer({channels!r}, "ending")
        stream.start()
        stream.consume(timeout=0.01)
        stream.consume(timeout=0.01)
        if {is_closed}:
            stream.close()
    """
    command = [sys.executable, "-c", textwrap.dedent(program)]
    for _ in range(5):
        ran = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
        assert (ran.stderr, ran.returncode) == ("", 0)


# -- factories -----------------------------------------------------------------------


@pytest.mark.parametrize(("prefetch", "permits"), [(9, 4), (1, 1), (1_000_000, 1_000)])
def test_given_how_far_to_read_ahead_when_a_stream_waits_then_pulsar_may_send_each_channel_s_share(
    real_pulsar: Pulsar, prefetch: int, permits: int
) -> None:
    world = PulsarWorld(real_pulsar)
    channels = world.channels(2)
    with plain_reader(world, channels, prefetch=prefetch) as stream:
        assert stream.consume(timeout=0.0) is None
        found = real_pulsar.ask("GET", f"persistent/{STRICT}/{channels[0]}/stats")["subscriptions"]
    assert [one["availablePermits"] for told in found.values() for one in told["consumers"]] == [permits]


def test_given_streams_that_were_closed_when_looked_at_then_no_connection_of_theirs_is_left(pulsar_lite: PulsarLite) -> None:
    world = LiteWorld(pulsar_lite)

    def read_and_close() -> None:
        with plain_reader(world, world.channels(1)) as stream:
            assert stream.consume(timeout=0.0) is None

    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(3):
        read_and_close()
    gc.collect()
    wait_until(lambda: len(list(Path("/proc/self/fd").iterdir())) < before + 6)  # as many as one client has


def test_given_no_room_to_read_ahead_when_a_stream_is_made_then_it_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="prefetch 0 is not allowed"):
        PulsarMsgStreamFactory("pulsar://127.0.0.1:1", prefetch=0).new_msg_stream()


def test_given_urls_when_a_factory_is_asked_for_then_the_scheme_decides() -> None:
    for url in ("pulsar://127.0.0.1:6650", "pulsar+ssl://127.0.0.1:6651"):
        factory = msg_stream_factory(url, buffer_size=5)
        assert isinstance(factory, PulsarMsgStreamFactory)
        with factory.new_msg_stream() as plain, factory.new_tt_msg_stream() as tt:
            assert isinstance(plain, PulsarMsgStream)
            assert isinstance(tt, PulsarTtMsgStream)
    assert isinstance(msg_stream_factory("rocksmq://127.0.0.1:7660"), RmqMsgStreamFactory)
    assert isinstance(msg_stream_factory(), RmqMsgStreamFactory)


@pytest.mark.parametrize("template", ["", "orders", "persistent://a/b/{name}", "{", "non-persistent://a/b/{channel}"])
def test_given_a_template_that_makes_no_topic_of_a_channel_when_a_stream_is_made_then_it_is_refused(template: str) -> None:
    with pytest.raises(InvalidRequest, match="template"):
        PulsarMsgStreamFactory("pulsar://127.0.0.1:6650", topic_template=template or "x").new_msg_stream()
