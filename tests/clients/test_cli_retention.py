"""`rocksmq channel create` and `set` with rules of retention, what `channel info` says of them, `status --confirm-clock`."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from rocksmq.clients import Client
from rocksmq.clients.cli.retention import in_words, of_channel
from rocksmq.clients.models import ChannelInfo, HeldSpace
from rocksmq.clients.testing import Broker
from rocksmq.protocol.administration import ConfirmClock, StatusReported
from rocksmq.protocol.operations import (
    Empty,
)
from tests.clients.cli_support import rocksmq
from tests.clients.support import answering
from tests.helpers.fake_server import FakeServer, Peer

NOBODY = "rocksmq://127.0.0.1:1"
WEEK = 7 * 86_400


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """A broker that this module shares."""
    with Broker(tmp_path_factory.mktemp("retention") / "data") as process:
        yield process


@pytest.fixture
def mq(broker: Broker) -> Iterator[Client]:
    """A client of it, without channels."""
    with broker.client() as client:
        for name in client.list_channels():
            client.destroy_channel(name)
        yield client


def info(**changed: Any) -> ChannelInfo:
    return ChannelInfo("c", None, datetime.fromtimestamp(0, UTC), None, None, 0, 0, "fsync", {}, [], **changed)


def test_given_rules_when_a_channel_is_created_then_it_has_them(broker: Broker, mq: Client) -> None:
    options = ["--max-age", "7d", "--max-bytes", "10GB", "--max-messages", "5", "--consumed-by-all"]
    assert rocksmq(broker.url, "channel", "create", "c", *options).exit_code == 0
    rules = {"max_age": WEEK, "max_bytes": 10**10, "max_messages": 5, "consumed_by_all": True}
    found = mq.describe_channel("c")
    assert (found.retention, found.retention_is_default) == (rules, False)


@pytest.mark.parametrize(("option", "is_default"), [(None, True), ("--keep-all", False), ("--no-consumed-by-all", False)])
def test_given_no_rule_when_a_channel_is_created_then_it_has_none_and_only_keep_all_is_its_own(
    broker: Broker, mq: Client, option: str | None, is_default: bool
) -> None:
    assert rocksmq(broker.url, "channel", "create", "c", *([option] if option else [])).exit_code == 0
    found = mq.describe_channel("c")
    assert (found.retention, found.retention_is_default) == ({}, is_default)


def test_given_rules_when_others_are_set_then_what_is_not_named_stays_and_off_takes_one_away(
    broker: Broker, mq: Client
) -> None:
    mq.create_channel("c", retention={"max_age": WEEK, "max_bytes": 1_000, "consumed_by_all": True})
    result = rocksmq(broker.url, "channel", "set", "c", "--max-bytes", "off", "--max-messages", "9")
    said = "channel c: removed when older than 7 d, or above 9 messages, or read by every group\n"
    assert (result.exit_code, result.stdout, result.stderr) == (0, said, "")
    assert mq.describe_channel("c").retention == {"max_age": WEEK, "max_messages": 9, "consumed_by_all": True}
    result = rocksmq(broker.url, "--json", "channel", "set", "c", "--no-consumed-by-all", "--max-age", "off")
    assert json.loads(result.stdout) == {"channel": "c", "retention": {"max_messages": 9}, "retention_is_default": False}
    result = rocksmq(broker.url, "channel", "set", "c", "--max-messages", "off")
    assert result.stdout == "channel c: everything is kept\n"
    assert mq.describe_channel("c").retention_is_default is False


def test_given_rules_when_all_or_its_own_are_taken_away_then_it_keeps_all_or_has_the_brokers(
    broker: Broker, mq: Client
) -> None:
    mq.create_channel("c", retention={"max_bytes": 1_000})
    assert rocksmq(broker.url, "channel", "set", "c", "--keep-all").exit_code == 0
    found = mq.describe_channel("c")
    assert (found.retention, found.retention_is_default) == ({}, False)
    assert rocksmq(broker.url, "channel", "set", "c", "--default-retention").exit_code == 0
    assert mq.describe_channel("c").retention_is_default is True


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], "name the rules that change, or --keep-all, or --default-retention"),
        (["--keep-all", "--default-retention"], "name the rules that change, or --keep-all, or --default-retention"),
        (["--default-retention", "--max-age", "7d"], "name the rules that change, or --keep-all, or --default-retention"),
        (["--keep-all", "--max-age", "7d"], "--keep-all goes without any rule"),
    ],
)
def test_given_options_that_exclude_each_other_when_set_then_it_is_wrong_usage(options: list[str], said: str) -> None:
    result = rocksmq(NOBODY, "channel", "set", "c", *options)
    assert result.exit_code == 2
    assert said in " ".join(result.stderr.split())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--max-age", "7"], "'7' is no age: give a number and s, m, h or d, such as 7d"),
        (["--max-bytes", "10XB"], "'10XB' is no size: give bytes, or a number and kB, MB, GB, TB, KiB, MiB, GiB, TiB"),
        (["--max-messages", "0"], "'0' is no number of messages: 1 at least"),
        (["--max-messages", "1e6"], "'1e6' is no number of messages: 1 at least"),
    ],
)
def test_given_what_is_no_rule_when_created_then_the_error_says_what_is_right(options: list[str], said: str) -> None:
    result = rocksmq(NOBODY, "channel", "create", "c", *options)
    assert (result.exit_code, result.stdout) == (2, "")
    assert said in " ".join(result.stderr.split())


@pytest.mark.parametrize("option", ["--max-age", "--max-bytes", "--max-messages"])
def test_given_off_when_a_channel_is_created_then_it_has_no_such_rule(broker: Broker, mq: Client, option: str) -> None:
    assert rocksmq(broker.url, "channel", "create", "c", option, "off").exit_code == 0
    assert mq.describe_channel("c").retention == {}


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        ({}, "everything is kept"),
        ({"max_age": WEEK}, "removed when older than 7 d"),
        ({"max_age": 129_600, "max_bytes": 512 << 20}, "removed when older than 36 h, or above 512 MiB"),
        ({"max_age": 90_061, "max_messages": 1_000_000}, "removed when older than 90,061 s, or above 1,000,000 messages"),
        ({"max_age": 0.05, "max_bytes": 1_537}, "removed when older than 0.05 s, or above 1,537 B"),
        (
            {"max_age": 1 << 53, "consumed_by_all": True},
            "removed when older than 9,007,199,254,740,992 s, or read by every group",
        ),
    ],
)
def test_given_rules_when_told_then_they_are_as_exact_as_given(rules: dict[str, Any], said: str) -> None:
    assert in_words(rules) == said


def test_given_what_holds_space_back_when_told_then_group_id_and_bytes_are_named_and_what_to_do() -> None:
    told = of_channel(info(held=HeldSpace("billing", 77, 3_435_973_837), age_suspended=True, retention_is_default=False))
    assert told == {
        "retention": "everything is kept",
        "held": "group billing at id 77 holds 3.2 GiB",
        "age_suspended": "the broker's clock is in doubt, so nothing is removed for its age: once it is right, say"
        " `rocksmq status --confirm-clock`",
    }
    assert of_channel(info()) == {"retention": "everything is kept (the broker's rules)", "held": None}


def test_given_a_group_that_is_behind_when_info_is_asked_for_then_text_and_json_say_what_it_holds(
    broker: Broker, mq: Client
) -> None:
    mq.create_channel("c", retention={"consumed_by_all": True})
    mq.create_consumer_group("c", "slow")
    (first,) = mq.produce("c", [bytes(2_048)])
    shown = rocksmq(broker.url, "channel", "info", "c").stdout
    assert "\nretention      removed when read by every group\n" in shown
    assert f"\nheld           group slow at id {first} holds 2.0 KiB\n" in shown
    found = json.loads(rocksmq(broker.url, "--json", "channel", "info", "c").stdout)
    assert found["held"] == {"group": "slow", "from_id": first, "byte_count": 2_048}
    assert (found["retention"], found["retention_is_default"], found["age_suspended"]) == (
        {"consumed_by_all": True},
        False,
        False,
    )


# -- the clock -----------------------------------------------------------------------------


def in_doubt(seen: list[Any]) -> FakeServer:
    """A broker whose clock is in doubt until it is confirmed."""

    def handle(peer: Peer, correlation: int, request: Any) -> None:
        seen.append(request)
        if isinstance(request, (Empty, ConfirmClock)):
            peer.reply(correlation, Empty())
        else:
            is_confirmed = any(isinstance(known, ConfirmClock) for known in seen)
            problems = [] if is_confirmed else ["clock: it was set back by 90 s"]
            peer.reply(correlation, StatusReported(True, problems, b""))

    return FakeServer(answering(handle))


def test_given_a_clock_in_doubt_when_the_status_is_asked_for_then_it_is_ready_and_something_to_look_at() -> None:
    with in_doubt([]) as server:
        result = rocksmq(server.url, "status")
    assert result.exit_code == 0
    assert "\nto look at:\n- clock: it was set back by 90 s\n" in result.stdout
    assert "all is well" not in result.stdout
    assert "not ready" not in result.stdout


def test_given_a_clock_in_doubt_when_it_is_confirmed_then_all_is_well() -> None:
    seen: list[Any] = []
    with in_doubt(seen) as server:
        result = rocksmq(server.url, "status", "--confirm-clock")
    assert (result.exit_code, len([one for one in seen if isinstance(one, ConfirmClock)])) == (0, 1)
    assert "\nall is well\n" in result.stdout


def test_given_a_broker_when_its_clock_is_confirmed_then_it_takes_it(broker: Broker) -> None:
    result = rocksmq(broker.url, "status", "--confirm-clock")
    assert (result.exit_code, result.stderr) == (0, "")
