"""Numbers as people read them."""

import pytest

from rocksmq.clients.cli.figures import count, counted, duration, moment, size

HOUR, DAY = 3_600, 86_400


@pytest.mark.parametrize(
    ("number", "shown"),
    [(None, "-"), (0, "0"), (0.04, "0.0"), (1, "1"), (1.25, "1.2"), (9.96, "10.0"), (12.6, "13"), (1_234_567.2, "1,234,567")],
)
def test_given_a_number_when_shown_then_it_is_short_and_grouped(number: float | None, shown: str) -> None:
    assert count(number) == shown


def test_given_one_or_several_when_counted_then_the_word_fits() -> None:
    assert (counted(1, "message"), counted(0, "message"), counted(2_000, "message")) == (
        "1 message",
        "0 messages",
        "2,000 messages",
    )


@pytest.mark.parametrize(
    ("number", "shown"),
    [
        (None, "-"),
        (0, "0 B"),
        (1_023, "1,023 B"),
        (1_024, "1.0 KiB"),
        (1_048_575, "1.0 MiB"),
        (99.94 * 1_024, "99.9 KiB"),
        (99.96 * 1_024, "100 KiB"),
        (5.25 * (1 << 30), "5.2 GiB"),
        (1 << 62, "4,096 PiB"),
    ],
)
def test_given_bytes_when_shown_then_the_unit_fits(number: float | None, shown: str) -> None:
    assert size(number) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (None, "-"),
        (0, "0 s"),
        (0.00001, "0.01 ms"),
        (0.000344, "0.34 ms"),
        (0.0012, "1.2 ms"),
        (0.00996, "10 ms"),
        (0.0345, "34 ms"),
        (0.9996, "1.0 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (59.4, "59 s"),
        (59.6, "1 min"),
        (754, "12 min 34 s"),
        (2 * HOUR + 301, "2 h 5 min"),
        (HOUR, "1 h"),
        (3 * DAY + 4 * HOUR + 59, "3 d 4 h"),
    ],
)
def test_given_a_duration_when_shown_then_the_unit_fits(seconds: float | None, shown: str) -> None:
    assert duration(seconds) == shown


def test_given_a_moment_when_shown_then_it_says_its_zone() -> None:
    assert moment(1_791_000_000.9) == "2026-10-03 04:00:00 UTC"
    assert moment(None) == "-"
