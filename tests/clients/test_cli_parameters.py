"""Positions and headers of the command line."""

from datetime import UTC, datetime, timedelta, timezone

import click
import pytest

from rocksmq.clients.cli.parameters import age, header, position, seconds, size


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("earliest", "earliest"),
        ("latest", "latest"),
        ("0", 0),
        ("18446744073709551615", (1 << 64) - 1),
        ("2026-10-01T12:00:00Z", datetime(2026, 10, 1, 12, tzinfo=UTC)),
        ("2026-10-01 12:00+02:00", datetime(2026, 10, 1, 12, tzinfo=timezone(timedelta(hours=2)))),
    ],
)
def test_given_a_position_when_read_then_it_is_what_the_client_takes(text: str, expected: object) -> None:
    assert position(text) == expected


@pytest.mark.parametrize(
    ("text", "ago"),
    [
        ("-90s", timedelta(seconds=90)),
        ("-10m", timedelta(minutes=10)),
        ("-3h", timedelta(hours=3)),
        ("-2d", timedelta(days=2)),
    ],
)
def test_given_a_time_ago_when_read_then_it_is_that_long_before_now(text: str, ago: timedelta) -> None:
    before = datetime.now(UTC)
    found = position(text)
    assert isinstance(found, datetime)
    assert before <= found + ago <= datetime.now(UTC)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("2026-10-01T12:00:00", "2026-10-01T12:00:00 has no time zone: append Z for UTC, or an offset such as +02:00"),
        ("2026-10-01", "2026-10-01 has no time zone"),
        ("18446744073709551616", "is no message id: at most 18446744073709551615"),
        ("-999999999d", "-999999999d is before the year 1"),
        ("yesterday", "'yesterday' is no position: give earliest, latest, a message id"),
        ("-10", "'-10' is no position"),
        ("-10y", "'-10y' is no position"),
        ("--yes", "'--yes' is no option here, and no position"),
        ("", "'' is no position"),
    ],
)
def test_given_no_position_when_read_then_the_error_says_what_is_right(text: str, said: str) -> None:
    with pytest.raises(click.BadParameter) as caught:
        position(text)
    assert said in caught.value.message


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a=b", ("a", b"b")),
        ("a=", ("a", b"")),
        ("a=b=c", ("a", b"b=c")),
        ("é=ü", ("é", "ü".encode())),
        ("raw=\udcff", ("raw", b"\xff")),  # how Python hands on bytes of the command line that are no text
    ],
)
def test_given_a_header_when_read_then_its_value_is_kept_byte_for_byte(text: str, expected: tuple[str, bytes]) -> None:
    assert header(text) == expected


@pytest.mark.parametrize("text", ["", "a", "=b", "\udcff=b"])
def test_given_no_header_when_read_then_it_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter):
        header(text)


@pytest.mark.parametrize(("text", "expected"), [("1", 1.0), ("0.5", 0.5), (10.0, 10.0), ("inf", None)])
def test_given_a_duration_when_read_then_it_is_seconds_or_for_ever(text: str | float, expected: float | None) -> None:
    assert seconds(text) == expected


@pytest.mark.parametrize("text", ["0", "-1", "nan", "-inf", "soon", ""])
def test_given_no_duration_when_read_then_the_error_says_what_is_right(text: str) -> None:
    with pytest.raises(click.BadParameter, match="is no duration: give seconds, more than 0, or inf for ever"):
        seconds(text)


@pytest.mark.parametrize(
    ("text", "expected"), [("90s", 90.0), ("10m", 600.0), ("0.5h", 1_800.0), ("7d", 604_800.0), ("0.001s", 0.001)]
)
def test_given_an_age_when_read_then_it_is_seconds(text: str, expected: float) -> None:
    assert age(text) == expected


@pytest.mark.parametrize("text", ["", "7", "0d", "-7d", "7D", "7 d", "7w", "1e3s", "d", "7d1h", "\u0667d", "0.0001s"])
def test_given_no_age_when_read_then_the_error_says_what_is_right(text: str) -> None:
    with pytest.raises(click.BadParameter, match="is no age: give a number and s, m, h or d, such as 7d"):
        age(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1", 1),
        ("5B", 5),
        ("1.5kB", 1_500),
        ("10GB", 10**10),
        ("10gb", 10**10),
        ("2TB", 2 * 10**12),
        ("3KiB", 3 << 10),
        ("512MiB", 512 << 20),
        ("0.5GiB", 1 << 29),
        ("1tib", 1 << 40),
    ],
)
def test_given_a_size_when_read_then_it_is_bytes(text: str, expected: int) -> None:
    assert size(text) == expected


@pytest.mark.parametrize("text", ["", "0", "-1", "10XB", "1 GB", "1,000", "1e9", "GB", "0.0001kB", "5K", "\u0661GB"])
def test_given_no_size_when_read_then_the_error_says_what_is_right(text: str) -> None:
    with pytest.raises(click.BadParameter, match="is no size: give bytes, or a number and kB, MB, GB, TB, KiB"):
        size(text)
