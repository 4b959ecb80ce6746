"""The client's channels and groups over a real broker: what each call returns, repeats, errors, names."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import pytest

from rocksmq.clients import (
    ChannelInfo,
    ChannelNotFound,
    Client,
    Conflict,
    ErrorCode,
    GroupInfo,
    GroupNotFound,
    InvalidRequest,
    OwnerDescription,
    RocksMQError,
    SeekOutcome,
    SeekResult,
    ServerInfo,
)
from rocksmq.clients.testing import Broker

BAD_NAMES = ["", ".", "-a", "_a", "a/b", "a b", "a\n", "ä", "x" * 201, "a*", "..", "/etc"]
GOOD_NAMES = ["a", "0", "A.b_c-d", "x" * 200, "a..b"]
Call = Callable[[Client], object]


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """A broker that this module shares."""
    with Broker(tmp_path_factory.mktemp("admin") / "data") as process:
        yield process


@pytest.fixture(scope="module")
def client(broker: Broker) -> Iterator[Client]:
    """A client of a broker that this module shares."""
    with broker.client() as mq:
        yield mq


@pytest.fixture
def mq(client: Client) -> Client:
    """The client, without any channels."""
    for name in client.list_channels():
        client.destroy_channel(name)
    return client


# -- channels --------------------------------------------------------------------------


def test_given_no_channel_when_created_twice_then_true_and_then_false_and_its_data_stay(mq: Client) -> None:
    assert mq.create_channel("orders") is True
    mq.produce("orders", [b"a"])
    assert mq.create_channel("orders", durability="os") is False
    info = mq.describe_channel("orders")
    assert (info.message_count, info.durability) == (1, "fsync")


@pytest.mark.parametrize("name", GOOD_NAMES)
def test_given_an_allowed_name_when_used_then_channel_and_group_work(mq: Client, name: str) -> None:
    assert mq.create_channel(name)
    assert mq.create_consumer_group(name, name)
    assert mq.list_channels() == [name]
    assert mq.list_consumer_groups(name) == [name]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_given_a_bad_name_when_used_anywhere_then_it_is_refused_before_anything_is_touched(mq: Client, name: str) -> None:
    mq.create_channel("orders")
    calls: list[Call] = [
        lambda mq: mq.create_channel(name),
        lambda mq: mq.destroy_channel(name),
        lambda mq: mq.destroy_channel(name, missing_ok=True),
        lambda mq: mq.describe_channel(name),
        lambda mq: mq.create_consumer_group(name, "billing"),
        lambda mq: mq.create_consumer_group("orders", name),
        lambda mq: mq.destroy_consumer_group("orders", name, missing_ok=True),
        lambda mq: mq.list_consumer_groups(name),
        lambda mq: mq.describe_consumer_group("orders", name),
        lambda mq: mq.produce(name, [b"a"]),
        lambda mq: mq.produce(name, []),
        lambda mq: mq.consume("orders", name),
        lambda mq: mq.consume(name, "billing"),
        lambda mq: mq.fetch(name, "earliest"),
        lambda mq: mq.commit("orders", name, 1),
        lambda mq: mq.seek("orders", name, "latest"),
    ]
    for call in calls:
        with pytest.raises(InvalidRequest, match="name"):
            call(mq)
    assert mq.list_channels() == ["orders"]
    assert mq.list_consumer_groups("orders") == []


def test_given_an_unknown_channel_when_used_anywhere_then_it_is_named_in_the_error(mq: Client) -> None:
    calls: list[Call] = [
        lambda mq: mq.destroy_channel("orders"),
        lambda mq: mq.describe_channel("orders"),
        lambda mq: mq.create_consumer_group("orders", "billing"),
        lambda mq: mq.destroy_consumer_group("orders", "billing"),
        lambda mq: mq.destroy_consumer_group("orders", "billing", missing_ok=True),
        lambda mq: mq.list_consumer_groups("orders"),
        lambda mq: mq.describe_consumer_group("orders", "billing"),
        lambda mq: mq.produce("orders", [b"a"]),
        lambda mq: mq.consume("orders", "billing"),
        lambda mq: mq.fetch("orders", "earliest"),
        lambda mq: mq.commit("orders", "billing", 1),
        lambda mq: mq.seek("orders", "billing", "latest"),
    ]
    for call in calls:
        with pytest.raises(ChannelNotFound, match="'orders'") as raised:
            call(mq)
        assert raised.value.code is ErrorCode.CHANNEL_NOT_FOUND
        assert raised.value.retryable is False
        assert isinstance(raised.value, RocksMQError)
    assert mq.list_channels() == []


def test_given_an_unknown_group_when_used_anywhere_then_it_is_named_in_the_error(mq: Client) -> None:
    mq.create_channel("orders")
    calls: list[Call] = [
        lambda mq: mq.destroy_consumer_group("orders", "billing"),
        lambda mq: mq.describe_consumer_group("orders", "billing"),
        lambda mq: mq.consume("orders", "billing"),
        lambda mq: mq.commit("orders", "billing", 1),
        lambda mq: mq.seek("orders", "billing", "latest"),
    ]
    for call in calls:
        with pytest.raises(GroupNotFound, match="'billing'") as raised:
            call(mq)
        assert raised.value.code is ErrorCode.GROUP_NOT_FOUND


def test_given_a_channel_when_described_then_everything_is_told_and_ids_are_none_while_it_is_empty(mq: Client) -> None:
    before = datetime.now(UTC) - timedelta(milliseconds=1)
    owner = OwnerDescription("shop", "10.0.0.1", "what people buy")
    mq.create_channel("orders", durability="interval:7", owner=owner)
    mq.create_consumer_group("orders", "b")
    mq.create_consumer_group("orders", "a")
    info = mq.describe_channel("orders")
    assert isinstance(info, ChannelInfo)
    assert before <= info.created_at <= datetime.now(UTC)
    assert info == ChannelInfo(
        "orders", owner, info.created_at, None, None, 0, 0, "interval:7", {}, ["a", "b"], True, None, False
    )
    ids = mq.produce("orders", [b"12", b"345"])
    info = mq.describe_channel("orders")
    assert (info.begin_id, info.end_id, info.message_count, info.byte_count) == (ids[0], ids[-1], 2, 5)


def test_given_a_channel_without_an_owner_when_described_then_it_has_none_and_the_brokers_durability(mq: Client) -> None:
    mq.create_channel("orders")
    info = mq.describe_channel("orders")
    assert (info.owner, info.durability) == (None, mq.server.durability)


@pytest.mark.parametrize("durability", ["", "sync", "interval:0", "interval:x", "interval:99999999", "x" * 5000])
def test_given_a_bad_durability_when_created_then_it_is_refused(mq: Client, durability: str) -> None:
    with pytest.raises(InvalidRequest, match="durability"):
        mq.create_channel("orders", durability=durability)
    assert mq.list_channels() == []


def test_given_values_that_the_wire_cannot_carry_when_sent_then_they_are_refused_and_the_connection_goes_on(mq: Client) -> None:
    mq.create_channel("orders")
    mq.create_consumer_group("orders", "billing")
    long = "x" * 5000
    calls: list[Call] = [
        lambda mq: mq.create_channel("new", owner=OwnerDescription("role", "address", long)),
        lambda mq: mq.create_channel("new", owner=OwnerDescription(long)),
        lambda mq: mq.create_channel("new", owner=OwnerDescription("\ud800")),
        lambda mq: mq.list_channels(long),
        lambda mq: mq.commit("orders", "billing", 1, generation=-1),
        lambda mq: mq.commit("orders", "billing", 1, generation=1 << 64),
    ]
    for call in calls:
        with pytest.raises(InvalidRequest):
            call(mq)
    assert mq.list_channels() == ["orders"]


def test_given_a_channel_destroyed_and_recreated_then_it_is_empty_without_groups_and_all_works(mq: Client) -> None:
    last = 0
    for _ in range(3):
        assert mq.create_channel("orders")
        assert mq.list_consumer_groups("orders") == []
        assert mq.describe_channel("orders").message_count == 0
        mq.create_consumer_group("orders", "billing")
        for _ in range(2):
            ids = mq.produce("orders", [b"a", b"b"])
            assert ids[0] > last
            last = ids[-1]
            assert mq.consume("orders", "billing").payloads == [b"a", b"b"]
        mq.destroy_channel("orders")
    with pytest.raises(ChannelNotFound):
        mq.destroy_channel("orders")
    mq.destroy_channel("orders", missing_ok=True)


def test_given_two_clients_when_one_recreates_what_the_other_uses_then_the_other_goes_on_unseen(
    mq: Client, broker: Broker
) -> None:
    with broker.client() as other:
        mq.create_channel("orders")
        mq.create_consumer_group("orders", "billing")
        for _ in range(3):
            mq.produce("orders", [b"a"])
            assert mq.consume("orders", "billing", 1).payloads == [b"a"]
            other.destroy_channel("orders")
            other.create_channel("orders")
            other.create_consumer_group("orders", "billing")


def test_given_many_channels_when_listed_then_all_come_sorted_and_by_prefix(mq: Client) -> None:
    names = [f"c{number}" for number in range(30)] + ["d", "c", "C"]
    for name in names:
        mq.create_channel(name, durability="os")
    assert mq.list_channels() == sorted(names)
    assert mq.list_channels("c1") == sorted(name for name in names if name.startswith("c1"))
    assert mq.list_channels("c") == sorted(name for name in names if name.startswith("c"))
    assert mq.list_channels("nothing") == []


# -- groups ----------------------------------------------------------------------------


def test_given_a_group_when_created_twice_then_true_and_then_false_and_its_position_stays(mq: Client) -> None:
    mq.create_channel("orders")
    mq.produce("orders", [b"a", b"b"])
    assert mq.create_consumer_group("orders", "billing") is True
    mq.consume("orders", "billing", 1)
    assert mq.create_consumer_group("orders", "billing", start="latest") is False
    assert mq.consume("orders", "billing").payloads == [b"b"]


def test_given_messages_when_a_group_is_created_at_a_start_then_it_begins_there(mq: Client) -> None:
    mq.create_channel("orders")
    ids = mq.produce("orders", [b"a", b"b"])
    moment = mq.fetch("orders", ids[0])[0].timestamp
    starts: dict[str, int | str | datetime] = {
        "earliest": "earliest",
        "latest": "latest",
        "id": ids[1],
        "time": moment,
        "late": moment + timedelta(days=1),
    }
    for name, start in starts.items():
        assert mq.create_consumer_group("orders", name, start=start)
    lags = {name: mq.describe_consumer_group("orders", name).lag_messages for name in starts}
    assert lags == {"earliest": 2, "latest": 0, "id": 1, "time": 2, "late": 0}


@pytest.mark.parametrize("start", ["newest", "", -1, 1 << 64, 1.5, True, None, b"latest", datetime(2026, 1, 1)])
def test_given_what_is_no_position_when_used_as_one_then_it_is_refused(mq: Client, start: object) -> None:
    mq.create_channel("orders")
    mq.create_consumer_group("orders", "billing")
    for call in (
        lambda: mq.create_consumer_group("orders", "new", start=start),  # type: ignore[arg-type]  # pyright: ignore
        lambda: mq.seek("orders", "billing", start),  # type: ignore[arg-type]  # pyright: ignore
        lambda: mq.fetch("orders", start),  # type: ignore[arg-type]  # pyright: ignore
    ):
        with pytest.raises(InvalidRequest, match=r"position|time zone"):
            call()
    assert mq.list_consumer_groups("orders") == ["billing"]


def test_given_a_group_when_described_then_position_lag_and_age_are_told(mq: Client) -> None:
    mq.create_channel("orders")
    mq.create_consumer_group("orders", "billing")
    ids = mq.produce("orders", [b"a", b"b", b"c"])
    info = mq.describe_consumer_group("orders", "billing")
    assert isinstance(info, GroupInfo)
    assert (info.channel, info.name, info.lag_messages, info.metadata) == ("orders", "billing", 3, b"")
    assert info.position <= ids[0]
    assert 0 <= info.lag_seconds < 60
    assert info.generation > 0
    mq.consume("orders", "billing", 3)
    after = mq.describe_consumer_group("orders", "billing")
    assert (after.position, after.lag_messages, after.lag_seconds) == (ids[-1] + 1, 0, 0.0)
    assert after.generation == info.generation


def test_given_a_group_destroyed_and_recreated_then_it_begins_anew_in_a_later_generation(mq: Client) -> None:
    mq.create_channel("orders")
    mq.produce("orders", [b"a"])
    generation = 0
    for _ in range(3):
        mq.create_consumer_group("orders", "billing")
        assert mq.consume("orders", "billing").payloads == [b"a"]
        found = mq.describe_consumer_group("orders", "billing").generation
        assert found > generation
        generation = found
        mq.destroy_consumer_group("orders", "billing")
    with pytest.raises(GroupNotFound):
        mq.destroy_consumer_group("orders", "billing")
    mq.destroy_consumer_group("orders", "billing", missing_ok=True)


# -- seek and commit -------------------------------------------------------------------


def test_given_messages_when_sought_then_result_and_next_consume_agree(mq: Client) -> None:
    mq.create_channel("orders")
    mq.create_consumer_group("orders", "billing")
    empty = mq.seek("orders", "billing", 5)
    assert (empty.position, empty.outcome) == (1, SeekOutcome.LATEST)
    ids = [*mq.produce("orders", [b"a", b"b"]), *mq.produce("orders", [b"c"])]
    moment = mq.fetch("orders", ids[0])[0].timestamp
    cases = [
        (ids[1], ids[1], SeekOutcome.EXACT, b"b"),
        (0, ids[0], SeekOutcome.EARLIEST, b"a"),
        ("earliest", ids[0], SeekOutcome.EARLIEST, b"a"),
        (moment, ids[0], SeekOutcome.NEXT, b"a"),
        (moment - timedelta(days=400), ids[0], SeekOutcome.NEXT, b"a"),
        ("latest", ids[2] + 1, SeekOutcome.LATEST, None),
        (ids[2] + 1, ids[2] + 1, SeekOutcome.LATEST, None),
        (moment + timedelta(days=400), ids[2] + 1, SeekOutcome.LATEST, None),
    ]
    generation = empty.generation
    for to, position, outcome, payload in cases:
        result = mq.seek("orders", "billing", to)
        assert isinstance(result, SeekResult)
        assert (result.position, result.outcome) == (position, outcome)
        assert result.generation > generation
        generation = result.generation
        assert mq.consume("orders", "billing", 1).payloads == ([payload] if payload else [])
    assert str(SeekOutcome.EXACT) == "exact"


def test_given_a_commit_when_made_then_position_and_metadata_are_kept_and_only_forward(mq: Client) -> None:
    mq.create_channel("orders")
    mq.create_consumer_group("orders", "billing")
    ids = mq.produce("orders", [b"a", b"b", b"c"])
    mq.commit("orders", "billing", ids[1], metadata=b"m" * 256)
    info = mq.describe_consumer_group("orders", "billing")
    assert (info.position, info.lag_messages, info.metadata) == (ids[1], 2, b"m" * 256)
    mq.commit("orders", "billing", ids[0], metadata=b"behind")
    same = mq.describe_consumer_group("orders", "billing")
    assert (same.position, same.lag_messages, same.metadata) == (ids[1], 2, b"m" * 256)
    mq.commit("orders", "billing", ids[2] + 1, generation=info.generation)
    assert mq.consume("orders", "billing").payloads == []


def test_given_a_commit_that_is_wrong_when_made_then_it_is_refused_and_nothing_moves(mq: Client) -> None:
    mq.create_channel("orders")
    mq.create_consumer_group("orders", "billing")
    ids = mq.produce("orders", [b"a"])
    generation = mq.describe_consumer_group("orders", "billing").generation
    with pytest.raises(InvalidRequest, match="end"):
        mq.commit("orders", "billing", ids[-1] + 2)
    with pytest.raises(InvalidRequest, match="256"):
        mq.commit("orders", "billing", ids[0], metadata=bytes(257))
    for position in (-1, 1 << 64):
        with pytest.raises(InvalidRequest):
            mq.commit("orders", "billing", position)
    for wrong in (generation - 1, generation + 1, 0):
        with pytest.raises(Conflict, match=str(generation)) as raised:
            mq.commit("orders", "billing", ids[0] + 1, generation=wrong)
        assert raised.value.code is ErrorCode.CONFLICT
    assert mq.consume("orders", "billing").payloads == [b"a"]


# -- the broker ------------------------------------------------------------------------


def test_given_a_broker_when_asked_about_itself_then_it_answers(mq: Client) -> None:
    assert 0 < mq.ping() < 10
    server = mq.server
    assert isinstance(server, ServerInfo)
    assert server.protocol == 1
    assert server.durability == "fsync"
    assert server.version
    assert server.limits["payload_bytes_max"] == 1 << 20
    assert server.limits["frame_bytes_max"] >= server.limits["payload_bytes_max"] + (1 << 20)
