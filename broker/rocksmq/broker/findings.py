"""What `check` finds wrong or worth knowing, one sentence each."""

from typing import NamedTuple


class Finding(NamedTuple):
    """A problem is lost or damaged data; everything else is a note. ``subject``: whose it is, such as ``channel orders``."""

    is_problem: bool
    subject: str
    text: str


def problem(subject: str, text: str) -> Finding:
    return Finding(True, subject, text)


def note(subject: str, text: str) -> Finding:
    return Finding(False, subject, text)


def counted(count: int, one: str) -> str:
    """Such as ``1 message`` and ``2,000 messages``."""
    return f"{count:,} {one}" if count == 1 else f"{count:,} {one}s"
