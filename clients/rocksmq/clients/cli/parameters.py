"""Arguments that click has no type for: positions in a channel, headers, durations. A wrong one is a usage error."""

import math
import os
import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from rocksmq.protocol.messages import Start

POSITION_HELP = "earliest, latest, a message id, a time such as 2026-10-01T12:00:00Z, or how long ago such as -10m (s, m, h, d)"
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_AGO = re.compile(r"-([0-9]{1,9})([smhd])")
_ID = re.compile(r"[0-9]{1,20}")
_ID_MAX = (1 << 64) - 1


def position(text: str) -> "Start":
    """What the client takes as a start. Raises BadParameter; also for a naive time, which means other moments elsewhere."""
    if text in ("earliest", "latest"):
        return text
    if _ID.fullmatch(text):
        if int(text) > _ID_MAX:
            raise click.BadParameter(f"{text} is no message id: at most {_ID_MAX}")
        return int(text)
    if ago := _AGO.fullmatch(text):
        try:
            return datetime.now(UTC) - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
        except OverflowError:
            raise click.BadParameter(f"{text} is before the year 1") from None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        what = "no option here, and no position" if text.startswith("--") else "no position"
        raise click.BadParameter(f"{text!r} is {what}: give {POSITION_HELP}") from None
    if moment.utcoffset() is None:
        raise click.BadParameter(f"{text} has no time zone: append Z for UTC, or an offset such as +02:00")
    return moment


def header(text: str) -> tuple[str, bytes]:
    """Name and value of NAME=VALUE, the value byte for byte as on the command line. Raises BadParameter."""
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise click.BadParameter(f"{text!r} is no header: give NAME=VALUE")
    try:
        name.encode()
    except UnicodeEncodeError:
        raise click.BadParameter(f"the name of {text!r} is not UTF-8 text") from None
    return name, os.fsencode(value)


def seconds(text: str | float) -> float | None:
    """A duration above 0; None is for ever. Raises BadParameter."""
    try:
        found = float(text)
    except ValueError:
        found = math.nan
    if not found > 0:
        raise click.BadParameter(f"{text} is no duration: give seconds, more than 0, or inf for ever")
    return None if found == math.inf else found
