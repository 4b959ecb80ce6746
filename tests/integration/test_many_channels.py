"""A thousand channels over TCP: each operation on many of them is one frame each way, and outlives a kill."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import trio

from rocksmq.broker.check import Total, check
from rocksmq.broker.limits import Limits
from rocksmq.clients.testing import Broker
from rocksmq.protocol.batch import RecordBatch
from rocksmq.protocol.codec import decode_reply
from rocksmq.protocol.columns import pack_numbers, unpack_numbers
from rocksmq.protocol.errors import ChannelNotFound, Conflict
from rocksmq.protocol.identity import Identity
from rocksmq.protocol.messages import pack_messages
from rocksmq.protocol.operations import OPS, DescribeChannels, DestroyChannel, Empty, FetchMany, Produce
from tests.broker.many_support import (
    committing,
    creating,
    destroying,
    fetching,
    read,
    seeking,
    sought,
    subscribing,
    unsubscribing,
)
from tests.helpers.raw import Raw
from tests.helpers.raw_trio import RawTrio, run, served

COUNT = 1_000
FETCH_MANY = 23


def produce(raw: Raw, channel: str, *payloads: bytes) -> int:
    """The id behind the last."""
    batch: RecordBatch = pack_messages(payloads)
    first_id = raw.call(Produce(channel, Identity.new(raw.server.present_id).id, 0, *batch)).first_id
    return int(first_id) + len(payloads)


def numbers_of(raw: Raw, names: Sequence[str]) -> list[int]:
    return list(unpack_numbers(raw.call(DescribeChannels(list(names))).numbers))


def check_is_healthy(directory: Path, channels: int) -> None:
    *_, total = check(directory)
    assert isinstance(total, Total)
    assert (total.channels, total.problems) == (channels, 0)


def test_given_a_thousand_channels_when_used_together_and_the_broker_is_killed_then_everything_acknowledged_is_there(
    tmp_path: Path,
) -> None:
    with Broker(tmp_path / "data") as broker:
        with Raw(broker.address) as raw:
            assert raw.server.limits["request_channels_max"] == COUNT
            names = raw.call(creating(COUNT)).names
            numbers = numbers_of(raw, names)
            raw.call(subscribing(numbers))
            seek = seeking(numbers, b"k" * 16)
            generations = [generation for _, generation, _ in sought(raw.call(seek))]
            ends = {index: produce(raw, names[index], b"%d" % index, b"second") for index in range(0, COUNT, 50)}
            found = read(raw.call(fetching([(number, 0) for number in numbers])))
            assert {index: part.payloads for index, part in found.items()} == {
                index: [b"%d" % index, b"second"] for index in ends
            }
            assert {index: part.next_position for index, part in found.items()} == ends
            positions = [ends.get(index, 1) for index in range(COUNT)]
            raw.call(committing(numbers, generations, positions, [b"%d" % index for index in range(COUNT)]))
        broker.kill()
        check_is_healthy(tmp_path / "data", channels=COUNT)
        broker.start()
        with Raw(broker.address) as raw:
            assert raw.call(creating(COUNT)).names == names
            assert numbers_of(raw, names) == numbers
            repeated = sought(raw.call(seek))
            assert [generation for _, generation, _ in repeated] == generations
            assert [kept for _, _, kept in repeated] == [b"%d" % index for index in range(COUNT)]
            new = sought(raw.call(seeking(numbers, b"l" * 16, generations=generations)))
            assert [position for position, _, _ in new] == positions
            with pytest.raises(Conflict):
                raw.call(committing(numbers, generations, positions))
            raw.call(unsubscribing(numbers, [generation for _, generation, _ in new]))
            raw.call(destroying(names, numbers))
            assert numbers_of(raw, names) == [0] * COUNT
        broker.terminate()
        check_is_healthy(tmp_path / "data", channels=0)


def test_given_a_long_poll_of_a_thousand_channels_when_its_client_is_gone_or_one_is_destroyed_then_the_others_go_on(
    tmp_path: Path,
) -> None:
    with Broker(tmp_path / "data") as broker, Raw(broker.address) as raw, Raw(broker.address) as other:
        names = raw.call(creating(COUNT)).names
        starts = FetchMany(pack_numbers(v for number in numbers_of(raw, names) for v in (number, 0)), 10, 1 << 20, 30_000)
        for _ in range(20):
            with Raw(broker.address) as leaving:
                leaving.send(starts)
                leaving.call(Empty())
                leaving.reset()
        waiting = raw.send(starts)
        raw.call(Empty())
        produce(other, names[700], b"x")
        items = raw.receive()
        assert items[0] == waiting
        assert {index: part.payloads for index, part in read(decode_reply(OPS[FETCH_MANY], items)).items()} == {700: [b"x"]}
        numbers = numbers_of(other, names)
        end = read(other.call(starts))[700].next_position
        waiting = raw.send(fetching(((number, end) for number in numbers), wait_ms=30_000))
        raw.call(Empty())
        other.call(DestroyChannel(names[5], numbers[5]))
        items = raw.receive()
        assert items[0] == waiting
        with pytest.raises(ChannelNotFound, match=names[5]):
            decode_reply(OPS[FETCH_MANY], items)


def test_given_a_client_with_long_polls_of_a_thousand_channels_when_it_goes_then_nothing_waits_for_it(tmp_path: Path) -> None:
    async def test() -> None:
        async with served(tmp_path, Limits()) as (engine, _, port):
            names = (await engine.call(creating(COUNT))).names
            numbers = list(unpack_numbers((await engine.call(DescribeChannels(names))).numbers))
            async with RawTrio.connected(port) as leaving:
                for _ in range(5):
                    await leaving.send(fetching(((number, 0) for number in numbers), wait_ms=30_000))
                await leaving.call(Empty())
                assert len(engine.core.waiters) == 5
            while len(engine.core.waiters):
                await trio.sleep(0.01)
            assert not [number for number in numbers if list(engine.core.waiters.of(number))]

    run(test)
