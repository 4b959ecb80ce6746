"""What `check` finds wrong or worth knowing, one sentence each, and what would put it right."""

from typing import NamedTuple


class Finding(NamedTuple):
    """A problem is lost or damaged data; everything else is a note. ``subject``: whose it is, such as ``channel orders``."""

    is_problem: bool
    subject: str
    text: str


class Repair(NamedTuple):
    """What `repair` would do for the problems before it.

    ``argument``: of ``--repair``, its parts joined by colons. ``message_count``: messages that the channel would no longer
    have, ``readable_count`` of which can be read now; their ids are from ``begin_id`` to ``end_id``, None when there are
    none. ``loses``: what else would be lost.
    """

    argument: str
    does: str
    loses: str = ""
    message_count: int = 0
    readable_count: int = 0
    begin_id: int | None = None
    end_id: int | None = None


def problem(subject: str, text: str) -> Finding:
    return Finding(True, subject, text)


def note(subject: str, text: str) -> Finding:
    return Finding(False, subject, text)


def counted(count: int, one: str) -> str:
    """Such as ``1 message`` and ``2,000 messages``."""
    return f"{count:,} {one}" if count == 1 else f"{count:,} {one}s"


def argument(verb: str, *names: object) -> str:
    """Of ``--repair``. Names of channels, groups and producers have no colons."""
    return ":".join((verb, *map(str, names)))


def told(repair: Repair) -> str:
    """What it loses, for people."""
    parts: list[str] = []
    if repair.message_count:
        unreadable = repair.message_count - repair.readable_count
        parts.append(f"{counted(repair.message_count, 'message')}, ids {repair.begin_id} to {repair.end_id}")
        if unreadable == repair.message_count:
            parts.append("none of which can be read")
        elif unreadable:
            parts.append(f"{unreadable:,} of which cannot be read")
    if repair.loses:
        parts.append(repair.loses)
    return f"loses {', '.join(parts)}" if parts else "loses nothing"
