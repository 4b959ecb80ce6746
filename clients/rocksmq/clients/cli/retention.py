"""The options of `rocksmq channel` that are about retention, and its rules in words."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import click

from . import parameters

if TYPE_CHECKING:
    from rocksmq.clients.models import ChannelInfo

OFF = "off"
Command = TypeVar("Command", bound=Callable[..., Any])


def with_rules(command: Command) -> Command:
    """The options, for `Rules.of`."""
    options = (
        click.option("--max-age", metavar="AGE", help="Remove messages older than this, such as 7d (s, m, h, d)."),
        click.option("--max-bytes", metavar="SIZE", help="Remove the oldest above so many bytes, such as 10GB."),
        click.option("--max-messages", metavar="N", help="Remove the oldest above so many messages."),
        click.option("--consumed-by-all/--no-consumed-by-all", default=None, help="Remove messages that every group has read."),
        click.option("--keep-all", is_flag=True, help="No rule, whatever the broker's are."),
    )
    for option in reversed(options):
        command = option(command)
    return command


class Rules(NamedTuple):
    """As given: None is what was not; ``off`` takes a rule away."""

    max_age: str | None
    max_bytes: str | None
    max_messages: str | None
    consumed_by_all: bool | None
    keep_all: bool

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> "Rules":
        """Raises UsageError."""
        found = cls(*(options[name] for name in cls._fields))
        if found.keep_all and found.is_one_given:
            raise click.UsageError("--keep-all goes without any rule")
        return found

    @property
    def is_one_given(self) -> bool:
        return any(value is not None for value in self[:4])

    def onto(self, present: Mapping[str, Any]) -> dict[str, Any]:
        """The rules that these make of the ``present`` ones. Raises BadParameter."""
        readings: tuple[tuple[str, Callable[[str], Any]], ...] = (
            ("max_age", parameters.age),
            ("max_bytes", parameters.size),
            ("max_messages", _count),
        )
        found = {} if self.keep_all else dict(present)
        for name, read in readings:
            text = getattr(self, name)
            if text == OFF:
                found.pop(name, None)
            elif text is not None:
                found[name] = read(text)
        if self.consumed_by_all is not None:
            found["consumed_by_all"] = self.consumed_by_all
        return {name: value for name, value in found.items() if value is not False}


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise click.BadParameter(f"{text!r} is no number of messages: 1 at least")
    return int(text)


def in_words(retention: Mapping[str, Any]) -> str:
    """Such as ``removed when older than 7 d, or above 10 GB``."""
    told: list[str] = []
    if "max_age" in retention:
        told.append(f"older than {_exact(retention['max_age'], parameters.AGES, 's')}")
    if "max_bytes" in retention:
        told.append(f"above {_exact(retention['max_bytes'], parameters.SIZES, 'B')}")
    if "max_messages" in retention:
        told.append(f"above {retention['max_messages']:,} messages")
    if retention.get("consumed_by_all"):
        told.append("read by every group")
    return f"removed when {', or '.join(told)}" if told else "everything is kept"


def _exact(amount: float, units: Mapping[str, int], least: str) -> str:
    """In the largest of the units that makes it a whole number."""
    whole = [(factor, unit) for unit, factor in units.items() if amount % factor == 0]
    factor, unit = max(whole, default=(1, least))
    return f"{amount / factor if amount % factor else int(amount) // factor:,} {unit}"


def of_channel(found: "ChannelInfo") -> dict[str, object]:
    """What `channel info` says of it, for people."""
    from .figures import size

    whose = " (the broker's rules)" if found.retention_is_default else ""
    told: dict[str, object] = {"retention": f"{in_words(found.retention)}{whose}", "held": None}
    if (held := found.held) is not None:
        told["held"] = f"group {held.group} at id {held.from_id} holds {size(held.byte_count)}"
    if found.age_suspended:
        told["age_suspended"] = (
            "the broker's clock is in doubt, so nothing is removed for its age: once it is right, say"
            " `rocksmq status --confirm-clock`"
        )
    return told
