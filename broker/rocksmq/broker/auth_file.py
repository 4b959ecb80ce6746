"""The file of tokens: JSON, of hashes only. Read strictly: what is not understood must not give or take a right silently."""

import fcntl
import json
import os
import re
import stat
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeGuard

from .auth import BadPattern, Patterns, Token

TOKENS_MAX = 1_000
PATTERNS_MAX = 100  # of a permission of a token
FILE_BYTES_MAX = 16 << 20
SECONDS_MAX = 253_402_300_799  # the last second of the year 9999
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_GRANTED = ("produce", "consume", "admin")
_KEYS = {"name", "sha256", "created", "expires", *_GRANTED}


class BadTokens(ValueError):
    """The file of tokens cannot be used; the message says what about it."""


def parsed(text: str) -> tuple[Token, ...]:
    """The tokens of a file's content. Raises BadTokens."""
    if not text.strip():
        raise BadTokens('it is empty; a file without tokens, which admits nobody, holds {"tokens": []}')
    try:
        tree = json.loads(text, object_pairs_hook=_without_repetition)
    except RecursionError:
        raise BadTokens("it is nested too deep") from None
    except ValueError as error:
        raise BadTokens(f"it is not valid JSON: {error}") from None
    rows = tree.get("tokens") if _is_object(tree) and set(tree) == {"tokens"} else None
    if not _is_list(rows):
        raise BadTokens('it is not of the form {"tokens": [...]}')
    if len(rows) > TOKENS_MAX:
        raise BadTokens(f"it holds {len(rows)} tokens, at most {TOKENS_MAX} may be in it")
    tokens = tuple(_token(number, row) for number, row in enumerate(rows, 1))
    for field in ("name", "sha256"):
        if len({getattr(token, field) for token in tokens}) < len(tokens):
            raise BadTokens(f"two tokens have the same {field}")
    return tokens


def _is_list(value: object) -> TypeGuard[list[Any]]:
    return isinstance(value, list)


def _is_object(value: object) -> TypeGuard[dict[str, Any]]:
    return isinstance(value, dict)


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key stands twice in one object")
    return found


def _token(number: int, row: Any) -> Token:
    def refuse(why: str) -> BadTokens:
        return BadTokens(f"token {number} in it: {why}")

    if not _is_object(row):
        raise refuse("it is no object")
    fields = row
    if unknown := sorted(set(fields) - _KEYS):
        raise refuse(f"there is no key {unknown[0]!r}; the keys are {', '.join(sorted(_KEYS))}")
    if missing := sorted(_KEYS - set(fields)):
        raise refuse(f"{missing[0]} is missing")
    for key, pattern, wanted in (("name", NAME, "a name as of a channel"), ("sha256", _SHA256, "64 digits, 0 to 9 and a to f")):
        if not isinstance(fields[key], str) or not pattern.fullmatch(fields[key]):
            raise refuse(f"{key} is not {wanted}")
    for key in ("created", "expires"):
        seconds = fields[key]
        if not ((type(seconds) is int and 0 <= seconds <= SECONDS_MAX) or (seconds is None and key == "expires")):
            raise refuse(f"{key} is no whole number of seconds since 1970{', nor null' if key == 'expires' else ''}")
    granted: list[Patterns] = []
    for key in _GRANTED:
        texts = fields[key]
        if not _is_list(texts) or any(type(text) is not str for text in texts):
            raise refuse(f"{key} is no list of patterns of channel names")
        if len(texts) > PATTERNS_MAX:
            raise refuse(f"{key} has more than {PATTERNS_MAX} patterns")
        try:
            granted.append(Patterns.of(texts))
        except BadPattern as error:
            raise refuse(f"{key}: {error}") from None
    return Token(fields["name"], bytes.fromhex(fields["sha256"]), fields["created"], fields["expires"], *granted)


def rendered(tokens: Sequence[Token]) -> str:
    """As the content of a file."""
    rows = [
        {
            "name": token.name,
            "sha256": token.sha256.hex(),
            "created": token.created,
            "expires": token.expires,
            **{key: getattr(token, key).texts for key in _GRANTED},
        }
        for token in tokens
    ]
    return json.dumps({"tokens": rows}, indent=2) + "\n"


def read(path: Path) -> tuple[Token, ...]:
    """The tokens in the file. Raises BadTokens, also for a file that is missing or that others than its owner may write."""
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            content = file.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise BadTokens(f"it cannot be read: {error.strerror}") from None
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise BadTokens("others than its owner may write it: take that away with  chmod go-w")
    if len(content) > FILE_BYTES_MAX:
        raise BadTokens(f"it is longer than {FILE_BYTES_MAX} bytes")
    try:
        return parsed(content.decode())
    except UnicodeDecodeError:
        raise BadTokens("it is not text in UTF-8") from None


def change(path: Path, changed: Callable[[tuple[Token, ...]], Sequence[Token]], *, may_make: bool) -> None:
    """Put what ``changed`` makes of the tokens in the file in their place: all of it or nothing, even through a crash.

    ``may_make``: a file that is missing is made, for its owner only. Two changes at once come one after the other.
    Raises BadTokens, OSError, and whatever ``changed`` does.
    """
    path = path.resolve()
    descriptor = _locked(path, may_make=may_make)
    try:
        is_new = not os.fstat(descriptor).st_size and may_make
        tokens = changed(() if is_new else read(path))
        if len(tokens) > TOKENS_MAX:
            raise BadTokens(f"it would hold {len(tokens)} tokens, at most {TOKENS_MAX} may be in it: revoke some")
        _replace(path, rendered(tokens), os.fstat(descriptor))
    finally:
        os.close(descriptor)


def _locked(path: Path, *, may_make: bool) -> int:
    """A descriptor of the file that stands there, with its lock."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT if may_make else 0), 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(descriptor), path.stat()):
                    return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # whoever had the lock has put another in its place


def _replace(path: Path, content: str, former: os.stat_result) -> None:
    new = path.with_name(f".{path.name}.new")
    new.unlink(missing_ok=True)  # of a change that was killed; whoever else has put it there must not have it open
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        os.fchmod(descriptor, stat.S_IMODE(former.st_mode))
        if (former.st_uid, former.st_gid) != (os.geteuid(), os.getegid()):
            os.fchown(descriptor, former.st_uid, former.st_gid)  # the broker's user must be able to read it, whoever runs this
        file.write(content)
        file.flush()
        os.fsync(descriptor)
    new.replace(path)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
