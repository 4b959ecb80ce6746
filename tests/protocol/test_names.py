"""Names of channels and groups (SPEC §3.1)."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rocksmq.protocol.errors import InvalidRequest
from rocksmq.protocol.names import NAME_BYTES_MAX, checked_name
from tests.protocol.strategies import deterministic, names


@pytest.mark.parametrize("name", ["a", "Z", "0", "a.b_c-d", "orders.2024-01", "x" * NAME_BYTES_MAX])
def test_given_an_allowed_name_when_checked_then_it_comes_back(name: str) -> None:
    assert checked_name("channel", name) is name


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        ".hidden",
        "-flag",
        "_x",
        "a/b",
        "a\\b",
        "a b",
        " a",
        "a\n",
        "a\x00",
        "naïve",
        "\N{ARABIC-INDIC DIGIT ONE}",
        "x" * (NAME_BYTES_MAX + 1),
        b"bytes",
        7,
        None,
        ["a"],
    ],
)
def test_given_another_name_when_checked_then_it_is_refused_with_its_kind(name: object) -> None:
    with pytest.raises(InvalidRequest, match=r"^group name .* is not allowed: 1 to 200 of"):
        checked_name("group", name)


def test_given_a_long_name_when_refused_then_the_message_stays_short() -> None:
    with pytest.raises(InvalidRequest) as refusal:
        checked_name("channel", "\x1b" * 100_000)
    assert len(refusal.value.message) < 200
    assert "\x1b" not in refusal.value.message


@deterministic
@given(names)
def test_given_any_name_of_the_pattern_when_checked_then_it_is_allowed(name: str) -> None:
    assert checked_name("channel", name) == name


@deterministic
@given(st.text())
def test_given_any_text_when_checked_then_exactly_the_pattern_of_the_spec_decides(text: str) -> None:
    if re.search(r"\A[A-Za-z0-9][A-Za-z0-9._-]{0,199}\Z", text):
        assert checked_name("channel", text) == text
    else:
        with pytest.raises(InvalidRequest):
            checked_name("channel", text)
