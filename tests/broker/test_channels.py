"""The state of channels: creating and destroying, pages of names, appending, and taking it all back."""

from pathlib import Path

import pytest

from rocksmq.broker import keys
from rocksmq.broker.limits import Limits
from rocksmq.broker.records import EMPTY_EXTENT, ChannelSettings, Extent
from rocksmq.broker.store import Family
from rocksmq.protocol.errors import (
    ChannelNotFound,
    InvalidRequest,
    LimitExceeded,
    OutOfSequence,
)
from rocksmq.protocol.operations import CreateChannel, ListChannels, OpenProducer, Produce

from .support import World, batch_of, identity

FIRST, SECOND = identity(1, 1), identity(1, 2)


def create(world: World, name: str, request_id: bytes = FIRST, durability: str | None = None) -> bool:
    return world.channels.create(world.open, CreateChannel(name, durability, None, None, request_id))


def names(world: World, prefix: str = "", after: str = "") -> tuple[list[str], bool]:
    page = world.channels.page(ListChannels(prefix, after))
    return page.names, page.more


def meta(world: World) -> list[bytes]:
    return [key for key, _ in world.store.scan(Family.META, b"", b"\xff") if key != keys.COMMIT_NUMBER]


# -- creating and destroying ---------------------------------------------------------


def test_given_a_new_name_when_created_then_it_is_there_at_once_and_stored_with_the_commit(world: World) -> None:
    request = CreateChannel("orders", "interval:5", None, ["role", "address", "text"], FIRST)
    assert world.channels.create(world.open, request)
    channel = world.channels.find("orders")
    assert meta(world) == []
    world.commit()
    stored = world.store.get(Family.META, keys.settings_key(channel.number))
    assert stored is not None
    assert ChannelSettings.decode(stored)[:2] == ("orders", FIRST)
    described = world.channels.describe(world.channels.find("orders"))
    assert (described.number, described.owner, described.durability) == (
        channel.number,
        ["role", "address", "text"],
        "interval:5",
    )
    assert (described.begin_id, described.end_id, described.message_count, described.byte_count) == (1, 0, 0, 0)


def test_given_a_channel_when_created_again_then_only_the_request_that_made_it_is_told_so(world: World) -> None:
    assert create(world, "orders")
    assert create(world, "orders", FIRST)
    assert not create(world, "orders", SECOND, "os")
    world.commit()
    assert create(world, "orders", FIRST)
    assert not create(world, "orders", SECOND)
    assert world.channels.describe(world.channels.find("orders")).durability == "fsync"


@pytest.mark.parametrize("name", ["", ".x", "-x", "a/b", "a b", "ä", "x" * 201, "a\n", "!commit"])
def test_given_a_bad_name_when_created_or_found_then_it_is_refused_and_nothing_changed(world: World, name: str) -> None:
    with pytest.raises(InvalidRequest, match="channel name"):
        create(world, name)
    with pytest.raises(InvalidRequest, match="channel name"):
        world.channels.find(name)
    assert world.open.is_empty
    assert len(world.channels) == 0


def test_given_a_bad_durability_when_created_then_it_is_refused_and_nothing_changed(world: World) -> None:
    with pytest.raises(InvalidRequest, match="durability"):
        create(world, "orders", durability="never")
    assert world.open.is_empty
    with pytest.raises(ChannelNotFound, match="'orders'"):
        world.channels.find("orders")


def test_given_as_many_channels_as_are_allowed_when_one_more_is_created_then_the_limit_is_named(tmp_path: Path) -> None:
    world = World(tmp_path / "few", Limits(channels_max=2))
    assert create(world, "a")
    assert create(world, "b")
    with pytest.raises(LimitExceeded, match="channels_max"):
        create(world, "c", SECOND)
    assert create(world, "b", FIRST)
    world.close()


def test_given_a_channel_with_everything_when_destroyed_then_nothing_of_it_is_left_in_the_store(world: World) -> None:
    world.produce([b"a", b"b"], "other")
    before = meta(world)
    number = world.channel().number
    world.produce([b"a", b"b"])
    world.group()
    world.consume(world.unique(), 0)
    world.names.open(world.open, number, OpenProducer("orders", "importer", SECOND))
    world.commit()
    assert keys.name_key(number, "importer") in meta(world)
    (channel,) = world.channels.destroy(world.open, [("orders", number)])
    world.groups.destroy_all(world.open, channel.groups.values())
    world.commit()
    assert meta(world) == before
    assert list(world.store.scan(Family.DATA, *keys.channel_span(number))) == []
    other = world.channels.find("other").number
    assert len(list(world.store.scan(Family.DATA, *keys.channel_span(other)))) == 1
    with pytest.raises(ChannelNotFound):
        world.channels.find("orders")


def test_given_a_destroyed_channel_when_destroyed_again_then_its_successor_is_left_alone(world: World) -> None:
    old = world.channel().number
    assert world.channels.destroy(world.open, [("orders", old)])
    world.commit()
    assert not world.channels.destroy(world.open, [("orders", old)])
    new = world.channel().number
    assert new > old
    assert not world.channels.destroy(world.open, [("orders", old)])
    assert world.channels.find("orders").number == new


def test_given_a_channel_recreated_in_the_same_commit_when_written_then_it_is_empty_and_whole(world: World) -> None:
    old = world.channel()
    world.group()
    world.produce([b"old"])
    world.consume(world.unique(), 0)
    world.append(Produce("orders", SECOND, 0, *batch_of(b"unwritten")))
    world.names.open(world.open, old.number, OpenProducer("orders", "unwritten", SECOND))
    world.channels.destroy(world.open, [("orders", old.number)])
    world.groups.destroy_all(world.open, old.groups.values())
    assert create(world, "orders", SECOND)
    world.produce([b"new"])
    channel = world.channels.find("orders")
    assert channel.groups == {}
    assert [bytes(s.columns.payloads) for s in world.log.read(channel.number, 0, channel.visible, 10, 100).slices] == [b"new"]
    assert {key[1:9] for key in meta(world)} == {keys.u64(channel.number)}
    assert list(world.store.scan(Family.DATA, *keys.channel_span(old.number))) == []


def test_given_creating_and_destroying_when_rolled_back_then_all_is_as_before(world: World) -> None:
    channel = world.channel()
    world.produce([b"a"])
    extent = channel.value
    create(world, "new", SECOND)
    world.append(Produce("orders", FIRST, 0, *batch_of(b"b")))
    world.channels.destroy(world.open, [("orders", channel.number)])
    world.roll_back()
    assert names(world) == (["orders"], False)
    assert world.channels.find("orders") is channel
    assert channel.value == channel.visible == extent
    first_id = world.append(Produce("orders", FIRST, 0, *batch_of(b"b")))
    assert first_id > extent.end_id
    world.commit()
    reading = world.log.read(channel.number, 0, channel.visible, 10, 100)
    assert b"".join(bytes(piece.columns.payloads) for piece in reading.slices) == b"ab"


# -- names ---------------------------------------------------------------------------


def test_given_channels_when_created_or_destroyed_then_they_are_listed_as_far_as_it_is_durable(world: World) -> None:
    old = world.channel("old")
    create(world, "new")
    assert names(world) == (["old"], False)
    world.roll_back()
    assert names(world) == (["old"], False)
    create(world, "new")
    world.commit()
    assert names(world) == (["new", "old"], False)
    world.channels.destroy(world.open, [("old", old.number)])
    world.commit()
    assert names(world) == (["new"], False)


def test_given_names_when_listed_by_prefix_then_each_that_starts_so_comes_once_in_order(world: World) -> None:
    everything = ["a", "a-b", "a.b", "aa", "ab", "ab0", "b", "B", "0"]
    for name in everything:
        create(world, name)
    world.commit()
    assert names(world) == (sorted(everything), False)
    for prefix in ("a", "ab", "ab0", "b", "c", "A", "0"):
        assert names(world, prefix) == (sorted(name for name in everything if name.startswith(prefix)), False), prefix
    assert names(world, "a", "a.b") == (["aa", "ab", "ab0"], False)
    assert names(world, "a", "zzz") == ([], False)
    assert names(world, "b", "a") == (["b"], False)


@pytest.mark.parametrize("page", [1, 2, 3, 7])
@pytest.mark.parametrize("prefix", ["", "ab", "abc", "b", "x"])
def test_given_many_names_when_listed_page_by_page_then_none_is_left_out_or_doubled(
    tmp_path: Path, page: int, prefix: str
) -> None:
    world = World(tmp_path / "paged", Limits(page_names_max=page))
    everything = ["a", "ab", "abc", "abd", "abz", "ac", "b", "ba"]
    for name in everything:
        create(world, name)
    world.commit()
    found, after, more = list[str](), "", True
    while more:
        part, more = names(world, prefix, after)
        assert len(part) <= page
        assert part or not more
        found += part
        after = found[-1] if found else ""
    assert found == sorted(name for name in everything if name.startswith(prefix))
    world.close()


# -- appending -----------------------------------------------------------------------


def produce(world: World, number: int, *payloads: bytes, producer: bytes = FIRST) -> int:
    return world.append(Produce("orders", producer, number, *batch_of(*payloads)))


def test_given_batches_when_produced_then_ids_rise_without_overlap_and_readers_see_them_after_the_commit(world: World) -> None:
    channel = world.channel()
    first = produce(world, 0, b"a", b"bb")
    second = produce(world, 1, b"ccc")
    assert second >= first + 2
    assert channel.visible == EMPTY_EXTENT
    world.commit()
    assert channel.visible == channel.value == Extent(first, second, 0, 3, 0, 6, 0)
    described = world.channels.describe(world.channels.find("orders"))
    assert (described.begin_id, described.end_id, described.message_count, described.byte_count) == (first, second, 3, 6)


def test_given_a_batch_when_repeated_before_and_after_its_commit_then_it_is_stored_once(world: World) -> None:
    channel = world.channel()
    first = produce(world, 0, b"a")
    assert produce(world, 0, b"a") == first
    world.commit()
    assert produce(world, 0, b"a") == first
    assert world.open.is_empty
    assert channel.value.end_offset == 1


def test_given_a_number_out_of_turn_when_produced_then_nothing_is_stored(world: World) -> None:
    channel = world.channel()
    with pytest.raises(OutOfSequence):
        produce(world, 1, b"a")
    produce(world, 0, b"a")
    world.commit()
    before = channel.value
    with pytest.raises(OutOfSequence) as refused:
        produce(world, 2, b"a")
    assert refused.value.expected_number == 1
    assert channel.value == before
    assert world.open.is_empty


def test_given_a_batch_refused_for_its_size_or_for_room_when_its_producer_has_a_name_then_nothing_is_changed(
    world: World,
) -> None:
    number = world.channel().number
    world.names.open(world.open, number, OpenProducer("orders", "importer", FIRST))
    world.commit()

    def refuse(size: int) -> None:
        raise LimitExceeded("no room")

    request = Produce("orders", FIRST, 0, *batch_of(b"a"), sequences=[1, 1])
    with pytest.raises(LimitExceeded, match="no room"):
        world.channels.produce(world.open, request, refuse)
    with pytest.raises(InvalidRequest, match="at least one"):
        world.channels.produce(world.open, request._replace(message_count=0), refuse)
    assert world.open.is_empty
    assert world.append(request)
    stored_before = request._replace(number=1)
    assert world.channels.produce(world.open, stored_before, refuse)[1] is None, "it needs no room"


def test_given_no_such_channel_when_produced_then_it_is_not_found(world: World) -> None:
    with pytest.raises(ChannelNotFound):
        produce(world, 0, b"a")
