"""A channel's rules of retention: what users write, what the wire carries, and what a broker makes of it."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from rocksmq.clients import ChannelNotFound, Client, InvalidRequest
from rocksmq.clients.models import HeldSpace
from rocksmq.clients.testing import Broker
from rocksmq.protocol.administration import ConfirmClock, SetChannel
from rocksmq.protocol.operations import (
    CreateChannel,
    Created,
    Empty,
)
from rocksmq.protocol.retention import of_wire, to_wire
from tests.clients.support import answering, wait_until
from tests.helpers.fake_server import FakeServer, Peer

U64_MAX = (1 << 64) - 1
NO_AGES: list[object] = [0, -1, 0.0004, True, "7d", None, float("inf"), float("nan"), 1e306, 1 << 70]
NO_COUNTS: list[object] = [0, -1, 1.0, True, "1", None, 1 << 64]
BROKERS = {"max_messages": 1_000_000, "consumed_by_all": True}

RULES: list[tuple[dict[str, Any], dict[str, int]]] = [
    ({}, {}),
    ({"max_age": 3600}, {"max_age_ms": 3_600_000}),
    ({"max_age": 0.5}, {"max_age_ms": 500}),
    ({"max_age": 0.001, "max_bytes": 1}, {"max_age_ms": 1, "max_bytes": 1}),
    ({"max_messages": U64_MAX, "consumed_by_all": True}, {"max_messages": U64_MAX, "consumed_by_all": 1}),
]


@pytest.mark.parametrize(("rules", "wire"), RULES)
def test_given_rules_when_sent_and_told_then_they_come_back_in_the_words_they_were_given_in(
    rules: dict[str, Any], wire: dict[str, int]
) -> None:
    assert to_wire(rules) == wire
    told = of_wire(wire)
    assert told == rules
    assert list(map(type, told.values())) == list(map(type, rules.values()))


def test_given_no_rules_of_its_own_when_sent_then_it_is_null() -> None:
    assert to_wire(None) is None


def test_given_a_rule_of_a_later_broker_when_told_then_it_is_kept_as_it_is() -> None:
    assert of_wire({"max_depth": 7, "max_messages": 1}) == {"max_messages": 1, "max_depth": 7}


@pytest.mark.parametrize(
    ("retention", "said"),
    [
        ({"max_size": 1}, "has no rule 'max_size': it has max_age, max_bytes, max_messages, consumed_by_all"),
        ({"max_age_ms": 1}, "has no rule 'max_age_ms'"),
        ({5: 1}, "has no rule 5"),
        ([("max_age", 1)], "is not a mapping of max_age, max_bytes, max_messages, consumed_by_all, nor None"),
        ("max_age", "is not a mapping"),
        *(({"max_age": value}, "max_age is a number of seconds, from a millisecond to 2^53") for value in NO_AGES),
        *(({"max_bytes": value}, "max_bytes is a whole number, from 1 to 2^64 - 1") for value in NO_COUNTS),
        ({"max_messages": 0}, "max_messages is a whole number, from 1"),
        *(({"consumed_by_all": value}, "consumed_by_all is True or False") for value in (1, 0, None, "yes")),
    ],
)
def test_given_what_is_no_rule_when_sent_then_it_says_what_is_allowed(retention: Any, said: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        to_wire(retention)
    assert said in caught.value.message


def test_given_what_is_no_rule_when_asked_for_then_nothing_is_sent_and_else_it_goes_as_it_is() -> None:
    seen: list[Any] = []

    def handle(peer: Peer, correlation: int, request: Any) -> None:
        seen.append(request)
        peer.reply(correlation, Created(True) if isinstance(request, CreateChannel) else Empty())

    wrong: list[Callable[[Client], object]] = [
        lambda mq: mq.create_channel("c", retention={"max_bytes": 0}),
        lambda mq: mq.set_retention("c", {"for": "ever"}),
        lambda mq: mq.set_retention("a b", {}),
    ]
    with FakeServer(answering(handle)) as server, Client(server.url) as mq:
        for call in wrong:
            with pytest.raises(InvalidRequest):
                call(mq)
        assert seen == []
        mq.create_channel("c", retention={"max_age": 7, "consumed_by_all": False})
        mq.create_channel("c")
        mq.set_retention("c", {"max_bytes": 5})
        mq.set_retention("c", None)
        mq.confirm_clock()
    created, default, *others = seen
    assert (created.retention, default.retention) == ({"max_age_ms": 7_000, "consumed_by_all": 0}, None)
    assert others == [SetChannel("c", {"max_bytes": 5}), SetChannel("c", None), ConfirmClock()]


# -- with a broker ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """A broker with rules of its own that this module shares."""
    directory = tmp_path_factory.mktemp("retention")
    config = directory / "rocksmqd.toml"
    config.write_text("[retention]\nmax_messages = 1_000_000\nconsumed_by_all = true\n")
    with Broker(directory / "data", "--config", str(config)) as process:
        yield process


@pytest.fixture
def mq(broker: Broker) -> Iterator[Client]:
    """A client of it, without channels."""
    with broker.client() as client:
        for name in client.list_channels():
            client.destroy_channel(name)
        yield client


def rules_of(mq: Client) -> tuple[dict[str, Any], bool]:
    found = mq.describe_channel("c")
    return found.retention, found.retention_is_default


def test_given_rules_when_a_channel_is_created_then_it_has_them_until_others_are_set(mq: Client, broker: Broker) -> None:
    mq.create_channel("c", retention={"max_age": 0.5, "max_bytes": 10**12})
    assert rules_of(mq) == ({"max_age": 0.5, "max_bytes": 10**12}, False)
    mq.create_channel("c", retention={"max_messages": 1})  # it exists
    assert rules_of(mq) == ({"max_age": 0.5, "max_bytes": 10**12}, False)
    mq.set_retention("c", {"max_age": 3600, "consumed_by_all": True})
    assert rules_of(mq) == ({"max_age": 3600, "consumed_by_all": True}, False)
    broker.restart()
    assert rules_of(mq) == ({"max_age": 3600, "consumed_by_all": True}, False)


def test_given_no_rules_or_none_at_all_when_described_then_the_brokers_are_told_from_the_channels_own(mq: Client) -> None:
    mq.create_channel("c")
    assert rules_of(mq) == (BROKERS, True)
    mq.set_retention("c", {})
    assert rules_of(mq) == ({}, False)
    mq.set_retention("c", None)
    assert rules_of(mq) == (BROKERS, True)


def test_given_a_channel_that_is_missing_when_rules_are_set_then_it_is_not_found(mq: Client) -> None:
    with pytest.raises(ChannelNotFound):
        mq.set_retention("nowhere", {})


def test_given_a_group_that_is_behind_when_described_then_it_is_said_what_it_holds(mq: Client) -> None:
    mq.create_channel("c", retention={"consumed_by_all": True})
    for group in ("fast", "slow"):
        mq.create_consumer_group("c", group)
    ids = mq.produce("c", [b"12345", b"123", b"1"])
    mq.commit("c", "slow", ids[1])
    assert mq.describe_channel("c").held == HeldSpace("fast", ids[0], 9)
    mq.commit("c", "fast", ids[2])
    wait_until(lambda: mq.describe_channel("c").begin_id == ids[1])
    assert mq.describe_channel("c").held == HeldSpace("slow", ids[1], 4)
    mq.destroy_consumer_group("c", "slow")
    wait_until(lambda: mq.describe_channel("c").begin_id == ids[2])
    mq.commit("c", "fast", ids[2] + 1)
    wait_until(lambda: mq.describe_channel("c").message_count == 0)
    assert mq.describe_channel("c").held is None


def test_given_a_clock_that_is_right_when_confirmed_then_nothing_changes(mq: Client) -> None:
    mq.create_channel("c")
    mq.confirm_clock()
    assert mq.describe_channel("c").age_suspended is False
