"""A mirror's figures, from its reports."""

from collections.abc import Sequence

import pytest

from rocksmq.clients.mirror.report import CHANNELS_MAX, ChannelReport, Report, State, Sums
from rocksmq.metrics.mirror import STATES, MirrorFigures
from tests.helpers.stand_in_mirror import a_report


def figures_of(*channels: ChannelReport) -> MirrorFigures:
    found = MirrorFigures("m")
    found.take(Report("m", channels).to_json())
    return found


def shown(
    figures: MirrorFigures, names: Sequence[str] | None = None, *, is_up: bool = True, is_aggregated: bool = False
) -> dict[str, float]:
    """Every sample by name, without what all have alike, and labels."""
    families = figures.families(names, is_up=is_up, is_aggregated=is_aggregated)
    return {
        (metric.name + sample.labels).removeprefix("rocksmq_mirror_").replace('mirror="m"', ""): sample.value
        for metric, samples in families
        for sample in samples
        if sample
    }


def test_given_the_states_of_a_report_when_compared_then_they_are_those_that_are_counted() -> None:
    assert tuple(state.value for state in State) == STATES


def test_given_a_report_as_the_mirror_writes_it_when_taken_then_all_of_it_is_shown() -> None:
    report = ChannelReport(
        channel="orders",
        topic="t",
        state=State.STOPPED,
        messages=1,
        bytes=2,
        skipped=3,
        gaps=4,
        errors=5,
        lag=6,
        deduplication=False,
        last_error="it is gone",
        last_error_at=7.5,
    )
    assert shown(figures_of(report)) == {
        "up{}": 1,
        **{f'channels{{,state="{state}"}}': state == "stopped" for state in STATES},
        'channel_up{,channel="orders"}': 0,
        'channel_stopped{,channel="orders"}': 1,
        'messages_total{,channel="orders"}': 1,
        'bytes_total{,channel="orders"}': 2,
        'skipped_messages_total{,channel="orders"}': 3,
        'gap_messages_total{,channel="orders"}': 4,
        'errors_total{,channel="orders"}': 5,
        'lag_messages{,channel="orders"}': 6,
        'not_deduplicated{,channel="orders"}': 1,
        'last_error_timestamp_seconds{,channel="orders"}': 7.5,
    }


@pytest.mark.parametrize("deduplication", [None, True])
def test_given_what_is_not_known_when_shown_then_it_is_not_made_up(deduplication: bool | None) -> None:
    report = ChannelReport(channel="orders", topic="t", state=State.RUNNING, deduplication=deduplication)
    found = shown(figures_of(report))
    assert found['not_deduplicated{,channel="orders"}'] == 0
    assert not any(name.startswith("lag_messages") for name in found)


def test_given_reports_of_several_lives_when_taken_then_counts_go_on() -> None:
    figures = figures_of(a_report(messages=10))
    figures.take(Report("m", [a_report(messages=15)]).to_json())
    figures.begin_life()
    assert shown(figures)['messages_total{,channel="orders"}'] == 15
    figures.take(Report("m", [a_report(messages=15)]).to_json())
    assert shown(figures)['messages_total{,channel="orders"}'] == 30
    figures.take(Report("m", [a_report(messages=4)]).to_json())
    assert shown(figures)['messages_total{,channel="orders"}'] == 34, "the channel was made anew"


def test_given_a_channel_that_is_gone_when_shown_then_its_series_are_and_the_sums_stay() -> None:
    figures = figures_of(a_report("a"), a_report("b"), a_report("c", State.ENDED))
    figures.take(Report("m", [a_report("a", messages=11)]).to_json())
    found = shown(figures)
    assert 'messages_total{,channel="a"}' in found
    assert not any('"b"' in name or '"c"' in name for name in found)
    assert shown(figures, is_aggregated=True)["messages_total{}"] == 31


def test_given_a_channel_that_has_ended_when_shown_then_it_has_no_series_and_is_counted_among_the_ended() -> None:
    found = shown(figures_of(a_report("gone", State.ENDED)))
    assert found['channels{,state="ended"}'] == 1
    assert not any('"gone"' in name for name in found)


def test_given_names_when_shown_then_there_are_series_of_those_only() -> None:
    found = shown(figures_of(a_report("a"), a_report("b")), ["b", "not-mirrored"])
    assert {name.split('channel="')[1] for name in found if 'channel="' in name} == {'b"}'}


def test_given_too_many_when_shown_then_there_are_sums_and_the_latest_error() -> None:
    one = ChannelReport(channel="a", topic="t", state=State.STOPPED, lag=5, deduplication=False, last_error_at=8.0, errors=1)
    found = shown(figures_of(one, a_report("b"), a_report("c")), is_aggregated=True)
    assert not any("channel=" in name for name in found)
    assert (found["channel_up{}"], found["channel_stopped{}"], found["not_deduplicated{}"]) == (2, 1, 1)
    assert (found["lag_messages{}"], found["errors_total{}"], found["last_error_timestamp_seconds{}"]) == (11, 1, 8)


def test_given_more_channels_than_a_report_holds_when_taken_then_the_sums_are_of_all() -> None:
    channels = [a_report(f"c{number}", messages=1) for number in range(CHANNELS_MAX + 5)]
    figures = figures_of(*channels)
    assert shown(figures, is_aggregated=True)["messages_total{}"] == CHANNELS_MAX + 5
    figures.take(Report("m", channels[:-1], Sums(channels=CHANNELS_MAX + 4, messages=CHANNELS_MAX + 7)).to_json())
    assert shown(figures, is_aggregated=True)["messages_total{}"] == CHANNELS_MAX + 7
    figures.take(Report("m", channels[:-2]).to_json())
    assert shown(figures, is_aggregated=True)["messages_total{}"] == CHANNELS_MAX + 7, "a sum never falls"


def test_given_a_mirror_that_is_down_when_shown_then_only_what_it_counted_is_known() -> None:
    found = shown(figures_of(a_report()), is_up=False)
    assert (found["up{}"], found['channel_up{,channel="orders"}'], found['channels{,state="running"}']) == (0, 0, 0)
    assert found['messages_total{,channel="orders"}'] == 10
    assert not any(name.startswith("lag_messages") for name in found)


@pytest.mark.parametrize(
    "text",
    [
        *("", "{", "[]", "1", "null", '"x"', "{}", '{"sums": {}, "channels": []}', '{"channels": [], "sums": []}'),
        Report("m", [a_report()]).to_json().replace('"running"', '"dancing"'),
        Report("m", [a_report()]).to_json().replace('"messages":10', '"messages":"many"'),
        Report("m", [a_report()]).to_json().replace('"messages":10', '"messages":Infinity'),
        Report("m", [a_report()]).to_json()[:-1],
        "[" * 100_000,
    ],
)
def test_given_what_is_no_report_when_taken_then_it_is_refused_and_changes_nothing(text: str) -> None:
    figures = figures_of(a_report())
    before = shown(figures)
    with pytest.raises(ValueError, match="this is no report of a mirror"):
        figures.take(text)
    assert shown(figures) == before
