import json

import pytest

from rocksmq.clients.mirror.report import CHANNELS_MAX, ERROR_CHARACTERS_MAX, ChannelReport, Report, State
from rocksmq.protocol.errors import ProtocolError


def one(channel: str, state: State = State.RUNNING, **more: object) -> ChannelReport:
    return ChannelReport(channel=channel, topic=f"t-{channel}", state=state, **more)  # type: ignore[arg-type]


def test_given_channels_when_reported_then_they_are_sorted_and_summed() -> None:
    report = Report("m", [one("b", messages=2, lag=5), one("a", messages=1, skipped=1, gaps=3, errors=4, bytes=7)])
    assert list(report) == ["a", "b"]
    sums = report.sums
    assert (sums.channels, sums.messages, sums.lag, sums.skipped, sums.gaps, sums.errors, sums.bytes) == (2, 3, 5, 1, 3, 4, 7)


def test_given_a_report_when_it_goes_through_json_then_it_is_the_same_and_one_line() -> None:
    report = Report("m", [one("a", last_error="x\ny", last_error_at=1.5, deduplication=False), one("b", lag=None)])
    line = report.to_json()
    back = Report.of_json(line)
    assert "\n" not in line
    assert dict(back) == dict(report)
    assert (back.mirror, back.sums) == (report.mirror, report.sums)


def test_given_what_concerns_all_channels_when_it_goes_through_json_then_it_is_the_same_and_cut() -> None:
    report = Report("m", [], state=State.WAITING, last_error="e" * 9_999, last_error_at=1.5)
    back = Report.of_json(report.to_json())
    assert (back.state, back.last_error, back.last_error_at) == (State.WAITING, "e" * ERROR_CHARACTERS_MAX, 1.5)


def test_given_a_report_of_an_earlier_version_when_read_then_the_mirror_runs() -> None:
    told = json.loads(Report("m", [one("a")], state=State.WAITING, last_error="e").to_json())
    del told["state"], told["last_error"], told["last_error_at"]
    back = Report.of_json(json.dumps(told))
    assert (back.state, back.last_error, back.last_error_at) == (State.RUNNING, "", 0.0)


def test_given_more_channels_than_a_line_holds_when_reported_then_the_sums_are_of_all() -> None:
    report = Report("m", [one(f"c{index:05}", messages=1) for index in range(CHANNELS_MAX + 5)])
    back = Report.of_json(report.to_json())
    assert len(back) == CHANNELS_MAX
    assert (back.sums.channels, back.sums.messages) == (CHANNELS_MAX + 5, CHANNELS_MAX + 5)


def test_given_more_channels_than_a_line_holds_when_some_are_in_trouble_then_these_are_told_first() -> None:
    fine = [one(f"a{index:05}") for index in range(CHANNELS_MAX)]
    troubled = [one("w", State.WAITING), one("z", State.STOPPED), one("y", State.STOPPED), one("e", State.ENDED)]
    back = Report.of_json(Report("m", fine + troubled).to_json())
    assert list(back)[:4] == ["y", "z", "w", "a00000"]
    assert "e" not in back


def test_given_a_long_error_when_reported_then_it_is_cut() -> None:
    told = json.loads(Report("m", [one("a", last_error="e" * 9_999)]).to_json())
    assert len(told["channels"][0]["last_error"]) == ERROR_CHARACTERS_MAX


def test_given_a_field_of_a_later_version_when_read_then_it_is_left_out() -> None:
    told = json.loads(Report("m", [one("a")]).to_json())
    told["channels"][0]["new"] = 1
    assert dict(Report.of_json(json.dumps(told))) == {"a": one("a")}


@pytest.mark.parametrize("line", ["", "x", "[]", "{}", '{"mirror":"m","sums":{},"channels":[]}', "null", '{"channels":[1]}'])
def test_given_something_else_when_read_then_protocol_error(line: str) -> None:
    with pytest.raises(ProtocolError, match="no report"):
        Report.of_json(line)
