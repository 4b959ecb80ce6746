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
AGES = {unit: round(timedelta(**{name: 1}).total_seconds()) for unit, name in _UNITS.items()}
_AGO = re.compile(r"-([0-9]{1,9})([smhd])")
_AMOUNT = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,3})?)([A-Za-z]*)")
SIZES = {"B": 1} | {
    unit: (1024 if "i" in unit else 1000) ** (index % 4 + 1)
    for index, unit in enumerate(("kB", "MB", "GB", "TB", "KiB", "MiB", "GiB", "TiB"))
}
_SIZES = {"": 1} | {unit.upper(): factor for unit, factor in SIZES.items()}
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


def age(text: str) -> float:
    """Seconds of such as 7d, above 0. Raises BadParameter."""
    found = _AMOUNT.fullmatch(text)
    factor = AGES.get(found[2]) if found else None
    amount = float(found[1]) * factor if found and factor else 0.0
    if not amount > 0:
        raise click.BadParameter(f"{text!r} is no age: give a number and s, m, h or d, such as 7d")
    return amount


def size(text: str) -> int:
    """Bytes of such as 10GB or 512MiB, 1 at least. Raises BadParameter."""
    found = _AMOUNT.fullmatch(text)
    factor = _SIZES.get(found[2].upper()) if found else None
    count = round(float(found[1]) * factor) if found and factor else 0
    if count < 1:
        raise click.BadParameter(f"{text!r} is no size: give bytes, or a number and {', '.join(list(SIZES)[1:])}, such as 10GB")
    return count


def seconds(text: str | float) -> float | None:
    """A duration above 0; None is for ever. Raises BadParameter."""
    try:
        found = float(text)
    except ValueError:
        found = math.nan
    if not found > 0:
        raise click.BadParameter(f"{text} is no duration: give seconds, more than 0, or inf for ever")
    return None if found == math.inf else found
