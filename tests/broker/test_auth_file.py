"""The file of tokens: read strictly, changed as a whole."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rocksmq.broker.auth import ALL, Patterns, Token, digest_of
from rocksmq.broker.auth_file import FILE_BYTES_MAX, PATTERNS_MAX, TOKENS_MAX, BadTokens, change, parsed, read, rendered

SHOP = Token("shop", digest_of("s"), 1, 2, Patterns.of(["orders.*"]), Patterns(), Patterns())
OPS = Token("ops", digest_of("o"), 1, None, ALL, ALL, ALL)
NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,20}", fullmatch=True)
PATTERNS = st.lists(st.one_of(NAMES, NAMES.map(lambda name: f"{name}*"), st.just("*")), max_size=4).map(
    lambda texts: Patterns.of(sorted(set(texts)))
)
SECONDS = st.integers(0, 253_402_300_799)
TOKENS = st.builds(
    Token, NAMES, st.binary(min_size=32, max_size=32), SECONDS, st.none() | SECONDS, PATTERNS, PATTERNS, PATTERNS
)


def row(**changed: Any) -> dict[str, Any]:
    """One token as it stands in a file; ``changed`` None: without that key."""
    fields: dict[str, Any] = json.loads(rendered([SHOP]))["tokens"][0] | changed
    return {key: value for key, value in fields.items() if value is not ...}


def text(*rows: Any) -> str:
    return json.dumps({"tokens": rows})


@given(st.lists(TOKENS, max_size=4, unique_by=(lambda token: token.name, lambda token: token.sha256)))
def test_given_tokens_when_written_and_read_then_they_are_the_same_in_what_they_allow(tokens: list[Token]) -> None:
    found = parsed(rendered(tokens))
    assert [token[:4] for token in found] == [token[:4] for token in tokens]
    for one, other in zip(found, tokens, strict=True):
        assert [patterns.texts for patterns in one[-3:]] == [patterns.texts for patterns in other[-3:]]
    assert parsed(rendered(found)) == found


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "it is empty"),
        (" \n", "it is empty"),
        ("{", "not valid JSON"),
        ("[" * 100_000, "nested too deep"),
        ("[]", "not of the form"),
        ("null", "not of the form"),
        ("{}", "not of the form"),
        ('{"tokens": {}}', "not of the form"),
        ('{"tokens": [], "more": 1}', "not of the form"),
        ('{"tokens": [], "tokens": []}', "a key stands twice"),
        (text(1), "token 1 in it: it is no object"),
        (text(row(), row(sha256="0" * 64)), "two tokens have the same name"),
        (text(row(), row(name="b")), "two tokens have the same sha256"),
        (text(row(more=1)), "there is no key 'more'"),
        (text(row(consume=...)), "consume is missing"),
        (text(row(name="")), "name is not a name"),
        (text(row(name="a b")), "name is not a name"),
        (text(row(name=1)), "name is not a name"),
        (text(row(sha256="0" * 63)), "sha256 is not 64 digits"),
        (text(row(sha256="A" * 64)), "sha256 is not 64 digits"),
        (text(row(created=None)), "created is no whole number"),
        (text(row(expires=1.5)), "expires is no whole number of seconds since 1970, nor null"),
        (text(row(expires=True)), "expires is no whole number"),
        (text(row(expires=-1)), "expires is no whole number"),
        (text(row(expires="2030-01-01")), "expires is no whole number"),
        (text(row(produce="*")), "produce is no list"),
        (text(row(produce=[1])), "produce is no list"),
        (text(row(admin=["a*b"])), "admin: 'a*b' is no name"),
        (text(row(admin=["a"] * (PATTERNS_MAX + 1))), "admin has more than 100 patterns"),
        (text(*(row() for _ in range(TOKENS_MAX + 1))), "it holds 1001 tokens, at most 1000"),
    ],
)
def test_given_what_is_no_file_of_tokens_when_read_then_it_says_what_about_it(content: str, said: str) -> None:
    with pytest.raises(BadTokens, match=said.replace("*", r"\*")):
        parsed(content)


def test_given_a_file_that_cannot_be_used_when_read_then_it_says_why(tmp_path: Path) -> None:
    file = tmp_path / "tokens.json"
    with pytest.raises(BadTokens, match="cannot be read: No such file"):
        read(file)
    with pytest.raises(BadTokens, match="cannot be read: Is a directory"):
        read(tmp_path)
    file.write_bytes(b"\xff")
    with pytest.raises(BadTokens, match="not text in UTF-8"):
        read(file)
    file.write_bytes(b" " * (FILE_BYTES_MAX + 1))
    with pytest.raises(BadTokens, match="longer than"):
        read(file)
    file.write_text(rendered([SHOP]))
    for mode in (0o606, 0o620):
        file.chmod(mode)
        with pytest.raises(BadTokens, match="others than its owner may write it"):
            read(file)
    file.chmod(0o606)
    with pytest.raises(BadTokens, match="chmod go-w"):
        read(file)
    file.chmod(0o644)
    assert read(file) == (SHOP,)


def test_given_no_file_when_one_may_be_made_then_it_is_for_its_owner_only(tmp_path: Path) -> None:
    file = tmp_path / "tokens.json"
    change(file, lambda tokens: [*tokens, SHOP], may_make=True)
    assert read(file) == (SHOP,)
    assert file.stat().st_mode & 0o777 == 0o600
    change(file, lambda tokens: [*tokens, OPS], may_make=True)
    assert read(file) == (SHOP, OPS)
    assert os.listdir(tmp_path) == ["tokens.json"]


def test_given_no_file_when_none_may_be_made_then_there_is_still_none(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        change(tmp_path / "tokens.json", lambda tokens: tokens, may_make=False)
    assert os.listdir(tmp_path) == []


def test_given_a_file_with_other_rights_when_changed_then_it_keeps_them_and_its_name(tmp_path: Path) -> None:
    file, link = tmp_path / "tokens.json", tmp_path / "link.json"
    file.write_text(rendered([SHOP]))
    file.chmod(0o640)
    link.symlink_to(file)
    change(link, lambda tokens: [*tokens, OPS], may_make=False)
    assert file.stat().st_mode & 0o777 == 0o640
    assert link.is_symlink()
    assert read(file) == (SHOP, OPS)


def test_given_a_file_that_is_not_understood_when_changed_then_it_stays_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "tokens.json"
    file.write_text("{")
    with pytest.raises(BadTokens):
        change(file, lambda tokens: [], may_make=True)
    assert file.read_text() == "{"


def test_given_too_many_tokens_when_one_is_added_then_the_file_stays_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "tokens.json"
    full = [Token(f"t{number}", digest_of(str(number)), 0, None) for number in range(TOKENS_MAX)]
    file.write_text(rendered(full))
    with pytest.raises(BadTokens, match="it would hold 1001 tokens"):
        change(file, lambda tokens: [*tokens, SHOP], may_make=False)
    assert len(read(file)) == TOKENS_MAX


def test_given_many_who_add_tokens_at_once_then_all_of_them_are_there(tmp_path: Path) -> None:
    file = tmp_path / "tokens.json"
    program = (
        "import sys; from pathlib import Path; from rocksmq.broker.auth import Token, digest_of;"
        "from rocksmq.broker.auth_file import change\n"
        "for i in range(20):\n"
        "    name = f'{sys.argv[2]}-{i}'\n"
        "    change(Path(sys.argv[1]), lambda t: [*t, Token(name, digest_of(name), 0, None)], may_make=True)"
    )
    others = [subprocess.Popen([sys.executable, "-c", program, str(file), str(number)]) for number in range(4)]
    assert [other.wait(60) for other in others] == [0] * 4
    assert {token.name for token in read(file)} == {f"{number}-{i}" for number in range(4) for i in range(20)}
