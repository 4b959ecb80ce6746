"""Each sentence of `rocksmq status`, provoked by numbers that call for it, and by none that do not."""

from collections.abc import Mapping

import pytest

from rocksmq.clients.cli.advice import groups_behind, notes, present
from rocksmq.clients.interval import Interval
from rocksmq.clients.status import BrokerStatus
from rocksmq.metrics import catalogue
from tests.clients.status_support import GIB, MIB, NOON, Samples, broker, histogram, one_look

HOUR = 3_600.0


def said(status: BrokerStatus) -> list[str]:
    return present(one_look(status), NOON)


def test_given_a_broker_that_is_well_when_looked_at_then_nothing_is_said() -> None:
    assert said(broker()) == []
    assert notes(one_look(broker())) == []


def test_given_no_metrics_at_all_when_looked_at_then_nothing_is_said() -> None:
    nothing = one_look(BrokerStatus(True, [], {}))
    assert (present(nothing, NOON), notes(nothing)) == ([], [])


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        (
            {catalogue.DISK_FREE: 9 * GIB},
            "the disk is nearly full: 9.0 GiB of 100 GiB are free, and below 1.0 GiB produce is refused: free space, or enlarge"
            " the disk",
        ),
        (
            {catalogue.DISK_FREE: 100 * MIB, catalogue.DISK_TOTAL: 300 * MIB, catalogue.DISK_RESERVE: 64 * MIB},
            "the disk is nearly full: 100 MiB of 300 MiB are free, and below 64.0 MiB produce is refused: free space, or"
            " enlarge the disk",
        ),
        (
            {catalogue.WRITE_STALLED: 1, catalogue.WRITE_RATE: 16 * MIB, catalogue.COMPACTION_PENDING: 3 * GIB},
            "RocksDB stops writes until it has caught up (3.0 GiB to compact): produce less, or use a faster disk",
        ),
        (
            {catalogue.WRITE_STALLED: 0, catalogue.WRITE_RATE: 16 * MIB, catalogue.COMPACTION_PENDING: 3 * GIB},
            "RocksDB slows writes down to 16.0 MiB/s until it has caught up (3.0 GiB to compact): produce less, or use a faster"
            " disk",
        ),
        (
            {catalogue.ETCD_UP: 0},
            "etcd does not answer, so consume, commit and seek are refused; produce and fetch go on: get etcd to answer, then"
            " it goes on by itself",
        ),
        (
            {catalogue.ID_AHEAD: 75.0},
            "message ids run 1 min 15 s ahead of the clock, which was set back: seeks by time miss by as much, until it has"
            " caught up; let NTP set the clock",
        ),
        (
            {catalogue.CONNECTIONS: {("open",): 800, ("handshake",): 100}, catalogue.CONNECTIONS_LIMIT: 1_000},
            "900 of 1,000 connections are taken, and beyond these clients are refused: close some, or raise connections_max or"
            " the limit on open files (ulimit -n)",
        ),
        (
            {catalogue.RELOAD_OK: 0},
            "the last SIGHUP failed, and the former options stay: the broker's log says what is wrong with the new ones",
        ),
        (
            {catalogue.GROUP_LAG_SECONDS: {("orders", "billing"): 0.25, ("orders", "mail"): 2 * HOUR + 300}},
            "nobody reads group mail of channel orders: 12,000 messages unread, the oldest since 2026-10-03 01:55:00 UTC"
            " (2 h 5 min ago): start its consumers, or destroy the group if it is needed no more",
        ),
        (
            {
                catalogue.AGGREGATED: 1,
                catalogue.GROUPS: 4_000,
                catalogue.GROUP_LAG_SECONDS: 3 * HOUR,
                catalogue.GROUP_LAG: 9,
                catalogue.GROUP_WAITING: 0,
            },
            "a group is 3 h behind, of 4,000, which are too many to name it: `rocksmq top --channel NAME` shows those of a"
            " channel",
        ),
    ],
)
def test_given_what_calls_for_it_when_looked_at_then_just_this_is_said(
    changed: Mapping[catalogue.Metric, Samples], sentence: str
) -> None:
    assert said(broker(changed)) == [sentence]


@pytest.mark.parametrize(
    "changed",
    [
        {catalogue.DISK_FREE: 11 * GIB},
        {catalogue.WRITE_STALLED: 0, catalogue.WRITE_RATE: 0},
        {catalogue.ETCD_UP: 1},
        {catalogue.ID_AHEAD: 1.0},
        {catalogue.CONNECTIONS: {("open",): 899}, catalogue.CONNECTIONS_LIMIT: 1_000},
        {catalogue.RELOAD_OK: 1},
        {catalogue.GROUP_LAG_SECONDS: {("orders", "mail"): 299.0}},
    ],
)
def test_given_what_does_not_call_for_it_when_looked_at_then_nothing_is_said(
    changed: Mapping[catalogue.Metric, Samples],
) -> None:
    assert said(broker(changed)) == []


@pytest.mark.parametrize("seconds", [0.3, 99.0])
def test_given_syncs_that_are_slow_when_looked_at_then_their_p99_is_told(seconds: float) -> None:
    metric = catalogue.SYNC_SECONDS
    slow = histogram(metric, (0.0002, 90), (seconds, 10))
    [sentence] = said(broker(histograms={metric: {(): slow}}))
    told = {0.3: "475 ms", 99.0: "10 s"}[seconds]
    assert f"one sync in a hundred has taken {told} or longer since the broker's start" in sentence
    assert said(broker(histograms={metric: {(): histogram(metric, (0.0002, 1_000), (0.3, 9))}})) == []


@pytest.mark.parametrize(
    ("check", "changed"),
    [("disk", {catalogue.DISK_FREE: MIB}), ("meta", {catalogue.ETCD_UP: 0})],
)
def test_given_a_check_that_fails_when_looked_at_then_it_is_not_said_twice(
    check: str, changed: Mapping[catalogue.Metric, Samples]
) -> None:
    assert said(broker(changed, problems=[f"{check}: it says so itself"])) == []
    assert len(said(broker(changed, problems=["store: it says something else"]))) == 1


# -- the mirror ----------------------------------------------------------------------


def mirror(*, up: int = 1, waiting: int = 0, stopped: int = 0, lag_seconds: float = 0.0) -> dict[catalogue.Metric, Samples]:
    return {
        catalogue.MIRROR_UP: {("pulsar",): up},
        catalogue.MIRROR_CHANNELS: {("pulsar", "waiting"): waiting, ("pulsar", "stopped"): stopped, ("pulsar", "running"): 5},
        catalogue.GROUP_LAG_SECONDS: {("orders", "mirror.pulsar"): lag_seconds},
    }


@pytest.mark.parametrize(
    ("changed", "sentences"),
    [
        (mirror(), []),
        (mirror(up=0, stopped=1, lag_seconds=HOUR), ["the mirror pulsar to Pulsar does not run: the broker starts it again"]),
        (mirror(stopped=1), ["the mirror pulsar has stopped at 1 channel, by what does not go away by itself"]),
        (mirror(waiting=2, lag_seconds=HOUR), ["the mirror pulsar waits for Pulsar with 2 channels, and goes on by itself"]),
        (
            mirror(waiting=1, stopped=1),
            ["the mirror pulsar has stopped at 1 channel", "the mirror pulsar waits for Pulsar with 1"],
        ),
        (mirror(lag_seconds=HOUR), ["the mirror pulsar is far behind, most at channel orders, by 1 h"]),
    ],
)
def test_given_a_mirror_of_the_brokers_own_when_looked_at_then_it_is_spoken_of_as_such(
    changed: Mapping[catalogue.Metric, Samples], sentences: list[str]
) -> None:
    found = said(broker(changed))
    assert len(found) == len(sentences)
    assert all(sentence.startswith(begin) for sentence, begin in zip(found, sentences, strict=True))


def test_given_the_group_of_a_mirror_that_runs_elsewhere_when_it_is_behind_then_it_is_a_group_like_others() -> None:
    changed = mirror() | {catalogue.GROUP_LAG_SECONDS: {("orders", "mirror.other"): HOUR}}
    [sentence] = said(broker(changed))
    assert sentence.startswith("nobody reads group mirror.other of channel orders")


# -- groups ------------------------------------------------------------------------

BEHIND: dict[catalogue.Metric, Samples] = {catalogue.GROUP_LAG_SECONDS: {("orders", "mail"): HOUR}}


def test_given_a_group_that_is_behind_when_it_moves_between_two_looks_then_it_is_read() -> None:
    later = broker({**BEHIND, catalogue.GROUP_OFFSET: {("orders", "mail"): 101}})
    assert said(later)[0].startswith("nobody reads group mail of channel orders: ")
    [sentence] = present(Interval(broker(BEHIND), later, 0.1), NOON)
    assert sentence == (
        "group mail of channel orders is read, but far behind: 12,000 messages unread, the oldest since 2026-10-03 03:00:00 UTC"
        " (1 h ago): add consumers if it does not catch up"
    )


def test_given_a_group_that_is_behind_when_its_consumers_wait_then_nobody_is_said_to_be_missing() -> None:
    [sentence] = said(broker({**BEHIND, catalogue.GROUP_WAITING: {("orders", "mail"): 1}}))
    assert "is read, but far behind" in sentence


def test_given_many_groups_that_are_behind_when_looked_at_then_the_worst_are_told_and_the_others_counted() -> None:
    lags: Samples = {("orders", f"group-{number}"): 1_000.0 * number for number in range(1, 9)}
    found = said(broker({catalogue.GROUP_LAG_SECONDS: lags}))
    assert [sentence.split(" of channel")[0] for sentence in found[:-1]] == [
        f"nobody reads group group-{n}" for n in (8, 7, 6, 5, 4)
    ]
    assert found[-1] == "3 more groups are behind: `rocksmq top` shows them"


def test_given_groups_when_those_behind_are_asked_for_then_the_worst_comes_first() -> None:
    lags: Samples = {("a", "x"): 400.0, ("a", "y"): 10.0, ("b", "x"): 500.0}
    assert groups_behind(broker({catalogue.GROUP_LAG_SECONDS: lags})) == [("b", "x"), ("a", "x")]
    assert groups_behind(broker({catalogue.GROUP_LAG_SECONDS: 500.0})) == [()]


# -- what is good to know ----------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "beginning"),
    [
        ({catalogue.COMMITS_REFUSED: 3}, "3 times since its start the broker refused a group commit because the disk was full"),
        ({catalogue.BACKGROUND_ERRORS: 2}, "2 times since the broker's start RocksDB failed in the background"),
        ({catalogue.MARK_FAILURES: 1}, "once since the broker's start the durable mark was not written"),
        (
            {catalogue.CONNECTIONS_REJECTED: {("connections_max",): 1_000, ("handshakes_max",): 234}},
            "1,234 times since the broker's start a client was refused",
        ),
        ({catalogue.POSITIONS_BROUGHT_BACK: 4}, "4 times at the broker's start a group was moved back to its channel's end"),
        (
            {catalogue.REQUESTS: {("PRODUCE", "OK"): 9, ("FETCH", "InternalError"): 1, ("SEEK", "InternalError"): 1}},
            "2 times since its start the broker met a bug: its log has each",
        ),
        (
            {catalogue.MIRROR_GAPS: {("pulsar", "orders"): 3, ("pulsar", "bills"): 1}},
            "4 times since the broker's start a message was removed before the mirror had sent it, and is missing in Pulsar",
        ),
        ({catalogue.MIRROR_SKIPPED: 2}, "2 times since the broker's start the mirror left a message out that is too large"),
        (
            {catalogue.MIRROR_NOT_DEDUPLICATED: {("pulsar", "orders"): 1, ("pulsar", "bills"): 0}},
            "Pulsar does not deduplicate 1 topic of the mirror: after a failure messages may be there twice",
        ),
        (
            {catalogue.AGGREGATED: 1, catalogue.SERIES: 5_000, catalogue.GROUP_LAG_SECONDS: 0},
            "5,000 channels and groups are too many to be shown one by one",
        ),
    ],
)
def test_given_what_is_good_to_know_when_looked_at_then_it_is_told_and_nothing_is_wrong(
    changed: Mapping[catalogue.Metric, Samples], beginning: str
) -> None:
    status = broker(changed)
    [note] = notes(one_look(status))
    assert note.startswith(beginning)
    assert said(status) == []
