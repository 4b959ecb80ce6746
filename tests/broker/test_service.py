"""The Message Stream Service: many channels made, described and destroyed at once, all or none."""

from typing import Any

import pytest

from rocksmq.broker import keys
from rocksmq.broker.limits import Limits
from rocksmq.broker.store import Family
from rocksmq.protocol.cbor import decode
from rocksmq.protocol.codec import encode_reply
from rocksmq.protocol.columns import unpack_numbers
from rocksmq.protocol.errors import Conflict, DiskFull, InvalidRequest, LimitExceeded, RocksMQError
from rocksmq.protocol.operations import (
    ChannelsCreated,
    ChannelsDescribed,
    CreateChannel,
    DescribeChannel,
    DestroyChannel,
    DestroyChannels,
    Empty,
    OpenProducer,
    Produce,
)

from .disk_support import fail
from .many_support import OWNER, Asked, ManyBroker, creating, describing, destroying, fetching, subscribing
from .support import batch_of, identity, in_mock_time

ID = bytes(range(16))
NAMES = [f"proxy-000102030405060708090a0b0c0d0e0f-{i}" for i in range(3)]
LIMITS = Limits(request_channels_max=10, channels_max=12)


def listed(broker: ManyBroker) -> set[str]:
    return {channel.name for channel in broker.core.channels}


# -- creation --------------------------------------------------------------------------


def test_given_an_owner_when_channels_are_created_then_all_are_there_with_it_and_a_repeat_finds_them() -> None:
    broker = ManyBroker()
    assert broker.do(creating(3, ID)) == ChannelsCreated(NAMES)
    assert broker.ask(creating(3, ID)) == ChannelsCreated(NAMES), "at once, for it is durable"
    broker.start()
    assert broker.ask(creating(3, ID)) == ChannelsCreated(NAMES)
    assert listed(broker) == set(NAMES)
    described = broker.ask(describing(NAMES))
    assert described.owners == [OWNER] * 3
    assert list(unpack_numbers(described.numbers)) == broker.numbers(NAMES)
    one = broker.ask(DescribeChannel(NAMES[1]))
    assert (one.owner, one.durability, one.message_count, one.retention) == (OWNER, "fsync", 0, {})


def test_given_a_repeat_when_the_first_is_not_durable_yet_then_both_are_answered_with_the_commit_that_holds_it() -> None:
    broker = ManyBroker()
    asked = [Asked(broker, creating(3, ID)) for _ in range(2)]
    assert [one.reply for one in asked] == [None, None]
    repeats: list[Asked] = []

    def on_sync() -> None:
        broker.store.on_sync = lambda: None
        broker.core.submit(Produce(NAMES[0], broker.unique(), 0, *batch_of(b"x")), lambda reply: None)
        repeats.append(Asked(broker, creating(3, ID)))
        repeats.append(Asked(broker, describing(NAMES[1:])))

    broker.store.on_sync = on_sync
    broker.commit()
    assert [one.reply for one in asked] == [ChannelsCreated(NAMES)] * 2
    assert repeats[0].reply == ChannelsCreated(NAMES), "not with a later commit"
    assert isinstance(repeats[1].reply, ChannelsDescribed)


def test_given_a_full_disk_when_channels_are_created_or_destroyed_then_nothing_has_changed_and_a_repeat_does_it() -> None:
    broker = ManyBroker()
    broker.store.on_write = fail(DiskFull("full"))
    asked = [Asked(broker, creating(3, ID)), Asked(broker, creating(3, ID)), Asked(broker, describing(NAMES))]
    broker.commit()
    assert all(isinstance(one.reply, DiskFull) for one in asked)
    assert listed(broker) == set()
    broker.store.on_write = lambda: None
    assert broker.do(creating(3, ID)) == ChannelsCreated(NAMES)
    numbers = broker.numbers(NAMES)
    broker.store.on_write = fail(DiskFull("full"))
    asked = [Asked(broker, destroying(NAMES, numbers)), Asked(broker, destroying(NAMES, numbers))]
    missing = Asked(broker, describing(NAMES))
    assert missing.reply is None, "that they are gone is not sure"
    broker.commit()
    assert all(isinstance(one.reply, DiskFull) for one in (*asked, missing))
    broker.store.on_write = lambda: None
    assert broker.numbers(NAMES) == numbers
    assert [broker.core.channels.numbered(number).name for number in numbers] == NAMES
    assert broker.do(destroying(NAMES, numbers)) == Empty()
    assert listed(broker) == set()
    assert broker.ask(destroying(NAMES, numbers)) == Empty(), "at once, for it is durable"


def test_given_a_repeat_when_one_was_destroyed_since_then_none_is_made_and_the_names_are_the_same() -> None:
    broker = ManyBroker()
    broker.do(creating(3, ID))
    broker.do(destroying(NAMES[:1], broker.numbers(NAMES[:1])))
    assert broker.ask(creating(3, ID)) == ChannelsCreated(NAMES)
    assert listed(broker) == set(NAMES[1:])


@pytest.mark.parametrize("which", range(3))
def test_given_one_of_the_names_made_by_another_request_when_created_then_conflict_and_none_is_made(which: int) -> None:
    broker = ManyBroker()
    broker.do(CreateChannel(NAMES[which], None, None, None, b"x" * 16))
    with pytest.raises(Conflict, match=NAMES[which]):
        raise broker.ask(creating(3, ID))
    assert listed(broker) == {NAMES[which]}
    assert broker.core.committer.open.is_empty


@pytest.mark.parametrize(
    ("request_", "error", "match"),
    [
        (creating(0, ID), InvalidRequest, "one at least"),
        (creating(11, ID), LimitExceeded, "request_channels_max"),
        (creating(10, ID), LimitExceeded, "channels_max"),
        (creating(4_294_967_295, ID), LimitExceeded, "request_channels_max"),
        (creating(2, ID, ["", "a", "d"]), InvalidRequest, "name"),
        (creating(2, ID, ["a/b", "a", "d"]), InvalidRequest, "name"),
        (creating(2, ID, ["x" * 166, "a", "d"]), InvalidRequest, "name"),
        (describing([]), InvalidRequest, "one at least"),
        (describing(["fine", "a/b"]), InvalidRequest, "name"),
        (describing(["a"] * 11), LimitExceeded, "request_channels_max"),
        (destroying([], []), InvalidRequest, "one at least"),
        (destroying(["a", "b"], [1]), InvalidRequest, "numbers"),
        (destroying(["a"], [1, 2]), InvalidRequest, "numbers"),
        (DestroyChannels(["a"], b"1234567"), InvalidRequest, "numbers"),
        (destroying(["a", "b"], [7, 7]), InvalidRequest, "twice"),
        (destroying(["a"] * 11, range(11)), LimitExceeded, "request_channels_max"),
    ],
)
def test_given_a_wrong_request_when_it_comes_then_it_is_refused_and_nothing_changes(
    request_: Any, error: type[RocksMQError], match: str
) -> None:
    broker = ManyBroker(LIMITS)
    names = broker.channels(3)
    before = broker.numbers(names)
    with pytest.raises(error, match=match):
        raise broker.ask(request_)
    assert broker.core.committer.open.is_empty
    assert broker.numbers(names) == before
    assert len(broker.core.channels) == 3


def test_given_a_wrong_name_among_good_ones_when_destroyed_then_all_are_still_there() -> None:
    broker = ManyBroker()
    names = broker.channels(2)
    numbers = broker.numbers(names)
    with pytest.raises(InvalidRequest):
        raise broker.ask(destroying([*names, "a/b"], [*numbers, 7]))
    assert broker.numbers(names) == numbers


def test_given_the_longest_role_when_channels_are_created_then_their_names_are_as_long_as_names_may_be() -> None:
    broker = ManyBroker()
    names = broker.do(creating(10, ID, ["x" * 165, "", ""])).names
    assert {len(name) for name in names} == {200}


# -- destruction -----------------------------------------------------------------------


def test_given_channels_full_of_things_when_destroyed_together_then_nothing_of_them_is_left_in_the_store() -> None:
    broker = ManyBroker()
    (kept,) = broker.channels(1)
    broker.produce(kept, b"stays")
    before = {family: dict(broker.store.scan(family, b"", b"\xff" * 40)) for family in Family}
    names = broker.channels(3)
    for name in names:
        broker.produce(name, b"a", b"b")
        broker.do(OpenProducer(name, "importer", broker.unique()))
    broker.subscribed(names)
    broker.do(destroying(names, broker.numbers(names)))
    after = {family: dict(broker.store.scan(family, b"", b"\xff" * 40)) for family in Family}
    changed = {
        key for key in before[Family.META] | after[Family.META] if before[Family.META].get(key) != after[Family.META].get(key)
    }
    assert changed <= {b"!commit", b"!ids", b"!forgotten"}
    assert after[Family.DATA] == before[Family.DATA]


def test_given_some_that_are_gone_or_made_anew_when_destroyed_then_the_others_are_and_the_new_stays() -> None:
    broker = ManyBroker()
    names = broker.channels(3)
    numbers = broker.numbers(names)
    broker.do(DestroyChannel(names[0], numbers[0]))
    broker.do(DestroyChannel(names[1], numbers[1]))
    broker.do(CreateChannel(names[1], None, None, None, broker.unique()))
    assert broker.do(destroying(names, numbers)) == Empty()
    assert listed(broker) == {names[1]}
    assert broker.do(destroying(names, numbers)) == Empty()
    assert listed(broker) == {names[1]}


def test_given_a_destruction_that_is_not_durable_yet_when_it_is_repeated_then_the_repeat_waits_for_it() -> None:
    broker = ManyBroker()
    names = broker.channels(2)
    request = destroying(names, broker.numbers(names))
    asked = [Asked(broker, request), Asked(broker, request)]
    assert [one.reply for one in asked] == [None, None]
    broker.commit()
    assert [one.reply for one in asked] == [Empty(), Empty()]


def test_given_channels_written_to_and_destroyed_in_one_commit_when_it_is_written_then_nothing_of_them_is_there() -> None:
    broker = ManyBroker()
    names = broker.channels(3)
    before = {key for family in Family for key, _ in broker.store.scan(family, b"", b"\xff" * 40)}
    for name in names:
        broker.core.submit(OpenProducer(name, "importer", broker.unique()), lambda reply: None)
        broker.core.submit(Produce(name, broker.unique(), 0, *batch_of(b"x")), lambda reply: None)
    broker.do(destroying(names[:2], broker.numbers(names[:2])))
    numbers = [keys.u64(broker.core.channels.find(names[2]).number)]
    after = {key for family in Family for key, _ in broker.store.scan(family, b"", b"\xff" * 40)}
    assert len(before - after) == 4, "settings and extent of two"
    assert all(any(number in key for number in numbers) for key in after - before)


def test_given_channels_when_they_are_destroyed_then_each_is_told_of_once_that_is_durable() -> None:
    broker = ManyBroker()
    told: list[int] = []
    broker.core.on_destroyed = told.append
    names = broker.channels(3)
    numbers = broker.numbers(names)
    broker.store.on_write = fail(DiskFull("full"))
    broker.do(destroying(names, numbers))
    assert told == []
    broker.store.on_write = lambda: None
    broker.ask(destroying(names, numbers))
    assert told == []
    broker.commit()
    assert told == numbers


def test_given_producers_with_names_on_many_channels_when_those_are_destroyed_then_they_make_room_and_the_others_stay() -> None:
    broker = ManyBroker(Limits(producer_names_max=4))
    names = broker.channels(4)
    producers = {name: identity(1 << 62, 7_000 + i) for i, name in enumerate(names)}
    for name in names:
        assert not isinstance(broker.do(OpenProducer(name, "importer", producers[name])), RocksMQError)
    with pytest.raises(LimitExceeded, match="producer_names_max"):
        raise broker.ask(OpenProducer(names[3], "second", broker.unique()))
    broker.do(destroying(names[:3], broker.numbers(names[:3])))
    for other in ("second", "third", "fourth"):
        assert not isinstance(broker.do(OpenProducer(names[3], other, broker.unique())), RocksMQError)
    with pytest.raises(InvalidRequest, match="another name"):
        raise broker.do(OpenProducer(names[3], "second", producers[names[3]]))


# -- descriptions ----------------------------------------------------------------------


def test_given_names_in_any_order_when_described_then_the_columns_are_in_that_order_and_strangers_are_0() -> None:
    broker = ManyBroker()
    broker.do(CreateChannel("plain", None, None, None, broker.unique()))
    a, b = broker.channels(2)
    described = broker.ask(describing([b, "stranger", a, "plain", b]))
    plain = broker.core.channels.find("plain").number
    number = dict(zip((a, b), broker.numbers([a, b]), strict=True))
    assert list(unpack_numbers(described.numbers)) == [number[b], 0, number[a], plain, number[b]]
    assert described.owners == [OWNER, None, OWNER, None, OWNER]


def test_given_a_thousand_channels_when_described_then_the_reply_is_read_by_a_client() -> None:
    broker = ManyBroker()
    names = broker.channels(1_000)
    frame = b"".join(encode_reply(7, broker.ask(describing(names))))
    items = decode(memoryview(frame)[4:])
    assert len(items[2]) == 8_000
    assert items[3] == [OWNER] * 1_000


@pytest.mark.parametrize("text", ["x" * 4_096, "\N{SNOWMAN}" * 1_365])
def test_given_owners_too_long_for_a_frame_when_described_then_refused_and_fewer_fit(text: str) -> None:
    limits = Limits(frame_bytes_max=4 << 20)
    broker = ManyBroker(limits)
    names = list(broker.do(creating(1_000, ID, ["proxy", text, text])).names)
    with pytest.raises(LimitExceeded, match="frame_bytes_max"):
        raise broker.ask(describing(names))
    most = max(count for count in range(400, 600) if not isinstance(broker.ask(describing(names[:count])), LimitExceeded))
    size = sum(map(len, encode_reply(7, broker.ask(describing(names[:most])))))
    assert limits.frame_bytes_max * 0.99 < size <= limits.frame_bytes_max


@in_mock_time
async def test_given_those_who_wait_on_channels_when_they_are_destroyed_together_then_each_is_told_once() -> None:
    broker = ManyBroker()
    names = broker.channels(3)
    numbers = broker.numbers(names)
    broker.do(subscribing(numbers))
    waiting = [Asked(broker, fetching([(number, 0) for number in numbers], wait_ms=1_000)) for _ in range(3)]
    broker.do(destroying(names, numbers))
    assert all("proxy-" in one.reply.message for one in waiting)
    assert len(broker.core.waiters) == 0
