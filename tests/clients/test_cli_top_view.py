"""How `rocksmq top` looks: golden blocks of text and screens of several sizes, of fixed numbers."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from rich.console import Console

from rocksmq.clients.cli.overview import Latency, Overview, overview
from rocksmq.clients.cli.top_view import Frame, block, screen
from rocksmq.clients.interval import Interval
from rocksmq.metrics import catalogue
from tests.clients.status_support import NOON, Samples, a_second_of_load, broker, histogram, one_look

URL = "rocksmq://127.0.0.1:7660"


def frame(found: Overview | None, **changed: Any) -> Frame:
    known = Frame(NOON, 1.0, URL, "0.1.0", "fsync", "", found, "")
    return known._replace(**changed)


def loaded(**more: Any) -> Overview:
    return overview(a_second_of_load(**more))


def shown(what: Frame, width: int, height: int) -> list[str]:
    """The lines of a screen, none of which is wider or further down than there is room for."""
    console = Console(width=width, height=height, force_terminal=False)
    with console.capture() as capture:
        console.print(screen(what, width, height))
    lines = capture.get().splitlines()
    assert len(lines) <= height
    assert all(len(line) <= width for line in lines)
    return [line.rstrip() for line in lines]


def with_groups(count: int) -> Overview:
    """As many groups, each a second farther behind than the one before."""
    keys = [("orders", f"group-{number}") for number in range(count)]
    changed: dict[catalogue.Metric, Samples] = {
        catalogue.GROUP_LAG: dict.fromkeys(keys, 5),
        catalogue.GROUP_LAG_SECONDS: {key: number for number, key in enumerate(keys)},
        catalogue.GROUP_OFFSET: dict.fromkeys(keys, 7),
        catalogue.GROUP_WAITING: dict.fromkeys(keys, 0),
    }
    return loaded(changed=changed)


def in_three(*cells: str) -> str:
    """A line of a screen of 120 columns."""
    return "".join(f"{cell:<40}" for cell in cells).rstrip()


def test_given_a_second_of_load_when_shown_as_text_then_the_block_has_all_of_it() -> None:
    assert block(frame(loaded())) == [
        "2026-10-03 04:00:00 UTC  rocksmq://127.0.0.1:7660  rocksmqd 0.1.0  fsync  up 3 h 5 min",
        "ready",
        "holds        2 channels, 2 groups, 12,345 messages, 6.0 MiB",
        "in           12,348 msg/s  4.0 MiB/s",
        "out          12,005 msg/s  3.0 MiB/s",
        "requests     162/s, 2 errors/s",
        "commits      80/s of 154 msg, 48.8 KiB",
        "produce      p50 0.78 ms  p99 2.4 ms",
        "read         p50 0.18 ms  p99 0.25 ms",
        "sync         p50 0.18 ms  p99 0.25 ms",
        "end to end   p50 1.8 ms   p99 2.5 ms",
        "connections  12 of 4,096, 3 long polls",
        "disk         45.0 GiB free of 100 GiB",
        "memory       231 MiB, cpu 63%",
        "positions    embedded",
        "channel   group    unread  behind  produced/s  read/s  waiting",
        "orders    mail     12,000    46 s      12,345       0        0",
        "orders    billing   1,000  250 ms      12,345  12,000        2",
        "invoices  -             -       -           3       -        -",
        "",
    ]


def test_given_a_wide_terminal_when_drawn_then_figures_stand_in_three_columns() -> None:
    title = "rocksmq://127.0.0.1:7660  rocksmqd 0.1.0  fsync  up 3 h 5 min"
    assert shown(frame(loaded()), 120, 20) == [
        f"{title:<112}04:00:00",
        "ready  2 channels, 2 groups, 12,345 messages, 6.0 MiB",
        "",
        in_three(
            "in           12,348 msg/s  4.0 MiB/s",
            "produce      p50 0.78 ms  p99 2.4 ms",
            "connections  12 of 4,096, 3 long polls",
        ),
        in_three(
            "out          12,005 msg/s  3.0 MiB/s",
            "read         p50 0.18 ms  p99 0.25 ms",
            "disk         45.0 GiB free of 100 GiB",
        ),
        in_three("requests     162/s, 2 errors/s", "sync         p50 0.18 ms  p99 0.25 ms", "memory       231 MiB, cpu 63%"),
        in_three("commits      80/s of 154 msg, 48.8 KiB", "end to end   p50 1.8 ms   p99 2.5 ms", "positions    embedded"),
        "",
        "channel   group          unread      behind produced/s     read/s waiting",
        "orders    mail           12,000        46 s     12,345          0       0",
        "orders    billing         1,000      250 ms     12,345     12,000       2",
        "invoices  -                   -           -          3          -       -",
    ]


def test_given_a_usual_terminal_when_drawn_then_figures_stand_in_two_columns() -> None:
    lines = shown(frame(loaded()), 80, 24)
    assert lines[3] == "in           12,348 msg/s  4.0 MiB/s    sync         p50 0.18 ms  p99 0.25 ms"
    assert lines[-4:] == shown(frame(loaded()), 120, 20)[-4:]


def test_given_a_narrow_terminal_when_drawn_then_columns_of_the_table_are_left_out_and_names_cut() -> None:
    lines = shown(frame(loaded()), 50, 40)
    assert lines[0] == "rocksmq://127.0.0.1:7660  rocksmqd 0.1.…  04:00:00"
    assert lines[3:5] == ["in           12,348 msg/s  4.0 MiB/s", "out          12,005 msg/s  3.0 MiB/s"]
    assert lines[-4:-2] == [
        "channel   group          unread      behind",
        "orders    mail           12,000        46 s",
    ]


def test_given_long_names_when_drawn_then_they_share_what_the_numbers_leave() -> None:
    keys = [("c" * 200, "g" * 200), ("c" * 200, "h")]
    changed: dict[catalogue.Metric, Samples] = {
        catalogue.GROUP_LAG: dict.fromkeys(keys, 5),
        catalogue.GROUP_LAG_SECONDS: {keys[0]: 20, keys[1]: 10},
    }
    lines = shown(frame(loaded(changed=changed)), 80, 24)
    assert lines[-4].startswith(f"{'c' * 11}… {'g' * 11}… ")
    assert lines[-3].startswith(f"{'c' * 11}… h ")


@pytest.mark.parametrize(("width", "height"), [(1, 1), (10, 3), (20, 6), (30, 50), (200, 8), (300, 100)])
def test_given_any_size_when_drawn_then_nothing_is_beyond_it(width: int, height: int) -> None:
    for found in (loaded(), with_groups(500), loaded(problems=["disk: " + "x" * 900] * 9), None):
        for away in ("", "no broker answers: " + "y" * 500):
            shown(frame(found, away=away), width, height)


def test_given_more_groups_than_fit_when_drawn_then_the_worst_are_there_and_the_others_are_counted() -> None:
    lines = shown(frame(with_groups(100)), 120, 20)
    assert len(lines) == 20
    assert [line.split()[1] for line in lines[9:-1]] == [f"group-{number}" for number in range(99, 89, -1)]
    assert lines[-1] == "and 91 more"  # a channel without groups too


def test_given_as_many_groups_as_fit_when_drawn_then_all_are_there() -> None:
    lines = shown(frame(with_groups(10)), 120, 20)
    assert [line.split()[1] for line in lines[9:]] == [*(f"group-{number}" for number in range(9, -1, -1)), "-"]


def test_given_more_groups_than_a_block_has_when_shown_then_the_others_are_counted() -> None:
    lines = block(frame(with_groups(100)))
    assert lines[-2] == "and 91 more"
    assert len(lines) == 15 + 1 + 10 + 2


def test_given_sums_only_when_shown_then_it_says_so_and_how_far_behind_the_worst_is() -> None:
    changed: Mapping[catalogue.Metric, Samples] = {
        catalogue.AGGREGATED: 1,
        catalogue.CHANNEL_MESSAGES: 99,
        catalogue.GROUP_LAG: 5,
        catalogue.GROUP_LAG_SECONDS: 7_200.0,
    }
    said = "too many channels and groups to list (the worst is 2 h behind): --channel NAME shows one"
    assert block(frame(loaded(changed=changed)))[-2] == said
    assert shown(frame(loaded(changed=changed)), 120, 20)[-1] == said
    assert "behind" not in block(frame(loaded(changed={**changed, catalogue.GROUP_LAG_SECONDS: 0})))[-2]


def test_given_series_that_were_left_out_when_shown_then_it_says_so_too() -> None:
    look = one_look(broker())
    metrics = {name: metric for name, metric in look.later.metrics.items() if "channel" not in metric.labels}
    lines = block(frame(overview(one_look(type(look.later)(True, [], metrics)))))
    assert lines[2] == "holds        2 channels, 2 groups, - messages, -"
    assert lines[-2] == "too many channels and groups to list: --channel NAME shows one"


def test_given_a_broker_that_is_not_ready_when_shown_then_each_problem_has_a_line() -> None:
    what = frame(loaded(problems=["disk: it is full", "meta: \x1b[31metcd"]))
    assert block(what)[1:3] == ["not ready: disk: it is full", "not ready: meta: \\x1b[31metcd"]
    assert shown(what, 80, 24)[1:4] == [
        "not ready: disk: it is full",
        "not ready: meta: \\x1b[31metcd",
        "2 channels, 2 groups, 12,345 messages, 6.0 MiB",
    ]


def test_given_a_broker_that_is_ready_all_the_same_when_shown_then_each_problem_is_to_look_at() -> None:
    found = loaded(problems=["clock: it was set"])
    what = frame(replace(found, is_ready=True))
    assert block(what)[1:3] == ["ready", "to look at: clock: it was set"]
    assert shown(what, 80, 24)[1:3] == [
        "ready  2 channels, 2 groups, 12,345 messages, 6.0 MiB",
        "to look at: clock: it was set",
    ]


def test_given_a_broker_that_is_away_when_shown_then_the_screen_keeps_what_was_known_and_a_block_does_not() -> None:
    what = frame(loaded(), away="no broker answers")
    assert shown(what, 120, 20)[1:5:3] == ["away: no broker answers", shown(frame(loaded()), 120, 20)[3]]
    assert shown(what, 120, 20)[2] == "what is below is from before"
    assert "up 3 h" not in shown(what, 120, 20)[0]
    assert block(what)[1:] == ["away: no broker answers", "what is below is from before", ""]


def test_given_a_broker_that_was_never_there_when_shown_then_only_that_is_told() -> None:
    what = frame(None, version="", durability="", away="no broker answers")
    assert block(what) == ["2026-10-03 04:00:00 UTC  rocksmq://127.0.0.1:7660", "away: no broker answers", ""]
    assert shown(what, 40, 10) == ["rocksmq://127.0.0.1:7660        04:00:00", "away: no broker answers"]


def test_given_one_channel_when_shown_then_the_title_says_so() -> None:
    assert block(frame(loaded(), channel="orders"))[0].endswith("  up 3 h 5 min  channel orders only")


# -- what is picked ----------------------------------------------------------------


def test_given_one_look_when_picked_then_rates_and_latencies_are_not_known_and_the_rest_is() -> None:
    found = overview(one_look(broker()))
    assert (found.produced.messages_per_second, found.errors_per_second, found.produce) == (None, None, Latency(None, None))
    assert (found.channels, found.messages, found.connections) == (2, 12_345, 12)
    assert [(reader.group, reader.lag_messages, reader.read_per_second) for reader in found.readers] == [
        ("mail", 12_000, None),
        ("billing", 1_000, None),
        ("", None, None),
    ]
    assert "in           - msg/s  -/s" in block(frame(found))


def test_given_a_broker_that_tells_nothing_when_picked_then_nothing_is_known() -> None:
    nothing = broker()
    nothing = type(nothing)(True, [], {})
    found = overview(Interval(nothing, nothing, 1.0))
    assert (found.up_since, found.messages, found.readers, found.disk_free_bytes, found.connections) == (
        None,
        None,
        [],
        None,
        0,
    )
    assert block(frame(found))[0] == f"2026-10-03 04:00:00 UTC  {URL}  rocksmqd 0.1.0  fsync"


@pytest.mark.parametrize(
    ("up", "said"), [(1, "positions    etcd p50 1.8 ms   p99 2.5 ms"), (0, "positions    etcd does not answer")]
)
def test_given_positions_in_etcd_when_shown_then_it_is_told_how_fast_it_answers(up: float, said: str) -> None:
    metric = catalogue.ETCD_SECONDS
    earlier = broker(histograms={metric: {("txn",): histogram(metric)}})
    later = broker({catalogue.ETCD_UP: up}, histograms={metric: {("txn",): histogram(metric, (0.002, 9))}})
    assert said in block(frame(overview(Interval(earlier, later, 1.0))))


def test_given_a_seek_back_when_picked_then_no_rate_is_negative() -> None:
    earlier, later = broker(), broker({catalogue.GROUP_OFFSET: {("orders", "billing"): 10, ("orders", "mail"): 100}})
    rates = {reader.group: reader.read_per_second for reader in overview(Interval(earlier, later, 1.0)).readers}
    assert rates["billing"] == 0


MIRRORING: dict[catalogue.Metric, Samples] = {
    catalogue.MIRROR_UP: {("pulsar",): 1},
    catalogue.MIRROR_CHANNELS: {("pulsar", state): number for number, state in enumerate(("starting", "running", "stopped"))},
    catalogue.MIRROR_LAG: {("pulsar", "orders"): 12_000, ("pulsar", "invoices"): 345},
}


def mirroring(changed: dict[catalogue.Metric, Samples]) -> Overview:
    sent = catalogue.MIRROR_MESSAGES
    earlier: dict[catalogue.Metric, Samples] = {**MIRRORING, sent: {("pulsar", "orders"): 1_000}}
    later: dict[catalogue.Metric, Samples] = {**MIRRORING, sent: {("pulsar", "orders"): 3_500}, **changed}
    return overview(Interval(broker(earlier), broker(later), 1.0))


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({}, "mirror       up, 1 running, 2 stopped, lag 12,345, 2,500 msg/s"),
        ({catalogue.MIRROR_LAG: {}, catalogue.MIRROR_CHANNELS: {}}, "mirror       up, lag -, 2,500 msg/s"),
        ({catalogue.MIRROR_UP: {("pulsar",): 0}}, "mirror       down"),
    ],
)
def test_given_a_broker_with_a_mirror_when_shown_then_a_line_says_how_it_does(
    changed: dict[catalogue.Metric, Samples], said: str
) -> None:
    found = frame(mirroring(changed))
    assert said in block(found)
    assert said in shown(found, 80, 30)
    assert all("mirror" not in line for line in [*block(frame(loaded())), *shown(frame(loaded()), 80, 30)])
