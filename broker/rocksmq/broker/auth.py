"""Who may do what: tokens, and the patterns of channel names that each of them has. Pure; their file is `auth_file`'s.

A token is 256 random bits, shown once; only its SHA-256 is kept. Whoever has none that is good is told the same, whatever the
cause. A broker without a file of tokens admits everybody as `ANYBODY`, who may do everything: there is one way to decide.
"""

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterator, Sequence
from enum import StrEnum
from typing import NamedTuple, NoReturn, cast

from rocksmq.metrics import catalogue
from rocksmq.metrics.instruments import Counter, Counters, MetricFamily, gauge
from rocksmq.protocol.errors import Unauthenticated
from rocksmq.protocol.permissions import Permission

PREFIX = "rmq_"  # so that scanners for leaked secrets know one
SECRET_BYTES = 32
_PATTERN = re.compile(r"\*|[A-Za-z0-9][A-Za-z0-9._-]{0,199}\*?")


class Refusal(StrEnum):
    """Why somebody was not admitted: for the log and the metrics, never for the client."""

    MISSING = "missing"
    UNKNOWN = "unknown"
    EXPIRED = "expired"


class BadPattern(ValueError):
    """It says of no channel whether it is meant."""


class Patterns(NamedTuple):
    """Which channels: those of ``names``, and those whose names start with one of ``prefixes``."""

    names: frozenset[str] = frozenset()
    prefixes: tuple[str, ...] = ()

    @classmethod
    def of(cls, texts: Sequence[str]) -> "Patterns":
        """From ``orders`` for that one, ``orders.*`` for all that start so, ``*`` for all. Raises BadPattern."""
        for text in texts:
            if not _PATTERN.fullmatch(text):
                raise BadPattern(f"{text!r} is no name of a channel, nor the beginning of one with * behind it")
        names = frozenset(text for text in texts if not text.endswith("*"))
        return cls(names, tuple(text[:-1] for text in texts if text.endswith("*")))

    def cover(self, name: str) -> bool:
        """Whether the channel of that name is among them."""
        return name.startswith(self.prefixes) or name in self.names

    @property
    def cover_all(self) -> bool:
        """Whether every channel is, those to come as well."""
        return "" in self.prefixes

    @property
    def texts(self) -> list[str]:
        """As they are written."""
        return sorted((*self.names, *(f"{prefix}*" for prefix in self.prefixes)))


class Token(NamedTuple):
    """What is kept of a token. Seconds since 1970; ``expires`` None: never."""

    name: str
    sha256: bytes
    created: int
    expires: int | None
    produce: Patterns = Patterns()
    consume: Patterns = Patterns()
    admin: Patterns = Patterns()

    def has_expired(self, now: float) -> bool:
        """Whether it is of no more use at ``now``."""
        return self.expires is not None and now >= self.expires

    def patterns(self, permission: Permission) -> tuple[Patterns, ...]:
        """Those of which one must cover a channel for the permission on it: any right at all is enough to see it."""
        if permission is Permission.DESCRIBE:
            return self.produce, self.consume, self.admin
        return (cast(Patterns, getattr(self, permission)),)

    def allows(self, permission: Permission, channel: str) -> bool:
        """Whether it gives ``permission`` on that channel."""
        return any(patterns.cover(channel) for patterns in self.patterns(permission))

    def allows_all(self, permission: Permission) -> bool:
        """Whether it gives ``permission`` on every channel, those to come as well."""
        return any(patterns.cover_all for patterns in self.patterns(permission))


ALL = Patterns.of(["*"])
ANYBODY = Token("", b"", 0, None, ALL, ALL, ALL)


def new_secret() -> str:
    """A token that nobody has yet."""
    return PREFIX + secrets.token_urlsafe(SECRET_BYTES)


def digest_of(secret: str) -> bytes:
    """What is kept of it. It has 256 random bits, so that nothing slower is needed."""
    return hashlib.sha256(secret.encode()).digest()


class Authority:
    """Admits clients by their tokens; ``tokens`` None: everybody."""

    def __init__(self, tokens: Sequence[Token] | None) -> None:
        self.is_on = tokens is not None
        self.denied = Counter(catalogue.PERMISSIONS_DENIED)
        self._tokens: dict[bytes, Token] = {}
        self._failures = Counters(catalogue.AUTHENTICATION_FAILURES, ((reason,) for reason in Refusal))
        self.replace(tokens or ())

    def replace(self, tokens: Sequence[Token]) -> None:
        """From now on these. Who was admitted by another is found out by `is_current`."""
        self._tokens = {token.sha256: token for token in tokens}

    def admit(self, secret: str | None, now: float) -> Token:
        """The token of that secret. Raises Unauthenticated."""
        if not self.is_on:
            return ANYBODY
        if secret is None:
            self._refuse(Refusal.MISSING)
        given = digest_of(secret)
        # Each is compared, so that the time tells nothing of those that are kept.
        found = [token for digest, token in self._tokens.items() if hmac.compare_digest(digest, given)]
        if not found:
            self._refuse(Refusal.UNKNOWN)
        if found[0].has_expired(now):
            self._refuse(Refusal.EXPIRED)
        return found[0]

    def _refuse(self, reason: Refusal) -> NoReturn:
        self._failures.add(reason)
        raise Unauthenticated("the token is missing, unknown or expired: get one from whoever runs the broker")

    def is_current(self, token: Token, now: float) -> bool:
        """Whether whoever was admitted by ``token`` would be now, with the same rights."""
        return not self.is_on or (self._tokens.get(token.sha256) == token and not token.has_expired(now))

    def families(self) -> Iterator[MetricFamily]:
        """As metrics."""
        yield from (self._failures.family(), self.denied.family())
        yield gauge(catalogue.AUTHENTICATION_ON, self.is_on)


EVERYBODY = Authority(None)
