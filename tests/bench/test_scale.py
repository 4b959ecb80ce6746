"""A small part of `make bench-scale`: what comes back is what was sent, and memory does not grow with the data. No times."""

from pathlib import Path

import pytest

from .scale import measured
from .scale_place import MIB, RSS_BYTES_MAX, Tally, cells

MESSAGES, CHANNELS = 4_000_000, 1_000


@pytest.mark.slow
def test_given_four_million_messages_and_a_thousand_channels_when_used_and_killed_then_all_is_there_and_memory_is_bounded(
    tmp_path: Path,
) -> None:
    tally = measured(tmp_path, MESSAGES, CHANNELS, batch_messages=1_000, seeks=100, rounds=2)
    peaks = {name: max(figure.values) for name, figure in tally.items() if name.startswith("most memory")}
    assert len(peaks) == 5, "while loading, seeking, reading, and twice with many channels"
    assert max(peaks.values()) <= RSS_BYTES_MAX / MIB, peaks


def test_given_figures_when_shown_then_each_goal_is_held_against_the_median() -> None:
    tally = Tally()
    for value in (0.1, 0.2, 9.0):
        tally.note("quick", "s", value, at_most=1)
        tally.note("slow", "s", value * 10, at_most=1)
        tally.note("ratio", "ratio", value, at_least=0.2)
        tally.note("free", "msg/s", value * 1e6)
    tally.note_calls("calls", [0.001] * 99 + [1.0], at_most=5)
    shown = {name: cells(figure.record()) for name, figure in tally.items()}
    assert {name: cell[""] for name, cell in shown.items()} == {
        "quick": "met",
        "slow": "MISSED",
        "ratio": "met",
        "free": "",
        "calls, p50": "",
        "calls, p99": "MISSED",
    }
    assert [shown["free"][column] for column in ("median", "lowest", "highest")] == ["200,000", "100,000", "9,000,000"]
