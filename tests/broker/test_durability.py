"""Durability modes as text."""

import pytest

from rocksmq.broker.durability import INTERVAL_MS_MAX, Durability, Mode
from rocksmq.protocol.errors import InvalidRequest


@pytest.mark.parametrize(
    ("text", "mode", "interval_ms"),
    [
        ("fsync", Mode.FSYNC, 0),
        ("os", Mode.OS, 0),
        ("interval:1", Mode.INTERVAL, 1),
        ("interval:100", Mode.INTERVAL, 100),
        (f"interval:{INTERVAL_MS_MAX}", Mode.INTERVAL, INTERVAL_MS_MAX),
    ],
)
def test_given_a_mode_when_parsed_then_it_is_that_mode_and_shows_as_the_same_text(
    text: str, mode: Mode, interval_ms: int
) -> None:
    parsed = Durability.parse(text)
    assert parsed == (mode, interval_ms)
    assert str(parsed) == text


@pytest.mark.parametrize(
    "text",
    ["", "FSYNC", "fsync ", "interval", "interval:", "interval:0", "interval:-1", "interval:1.5", "interval:0100",
     "interval:60001", "interval:999999", "interval:\u0661", "os\n", "none", "interval:100ms"],
)  # fmt: skip
def test_given_anything_else_when_parsed_then_it_is_refused_naming_what_is_allowed(text: str) -> None:
    with pytest.raises(InvalidRequest, match=r"fsync, os or interval:<ms>"):
        Durability.parse(text)


def test_given_a_very_long_text_when_refused_then_the_message_stays_short() -> None:
    with pytest.raises(InvalidRequest) as refused:
        Durability.parse("x" * 10_000)
    assert len(str(refused.value)) < 300
