"""What a token must allow for an operation, and where: two columns of the table of operations (SPEC §3)."""

from enum import StrEnum


class Permission(StrEnum):
    """What a token must allow for an operation. ``DESCRIBE`` is what each of the three that follow it brings with it."""

    CONNECT = "connect"
    DESCRIBE = "describe"
    ADMIN = "admin"
    PRODUCE = "produce"
    CONSUME = "consume"


class Scope(StrEnum):
    """On which channels an operation's permission is needed."""

    NONE = "none"
    CHANNEL = "channel"  # of the request's field of that name
    CHANNELS = "channels"  # each of that field
    NUMBERS = "numbers"  # each of those numbers in that column
    STARTS = "starts"  # each of those whose numbers begin the pairs of that column
    MADE = "made"  # each that the request would make
    LISTED = "listed"  # none: the reply leaves out those without it
    ALL = "*"  # every one, and those to come
