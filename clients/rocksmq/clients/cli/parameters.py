"""Types of arguments: positions in a channel, and headers; a wrong one is a usage error that says what is right."""

import os
import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Never

import click

if TYPE_CHECKING:
    from rocksmq.protocol.messages import Start

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_AGO = re.compile(r"-([0-9]{1,9})([smhd])")
_ID = re.compile(r"[0-9]{1,20}")
_ID_MAX = (1 << 64) - 1

POSITION_HELP = "earliest, latest, a message id, a time such as 2026-10-01T12:00:00Z, or how long ago such as -10m (s, m, h, d)"


class PositionType(click.ParamType):
    """Converts to what the client takes as a start. A time must have a zone: a naive one would mean another moment elsewhere."""

    name = "position"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> "Start":
        """Raises BadParameter."""
        text = str(value)
        if text in ("earliest", "latest"):
            return text
        if _ID.fullmatch(text):
            if int(text) > _ID_MAX:
                self.fail(f"{text} is no message id: at most {_ID_MAX}", param, ctx)
            return int(text)
        if ago := _AGO.fullmatch(text):
            return self._moment_ago(ago, param, ctx)
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            self._fail_unknown(text, param, ctx)
        if moment.utcoffset() is None:
            self.fail(f"{text} has no time zone: append Z for UTC, or an offset such as +02:00", param, ctx)
        return moment

    def _moment_ago(self, ago: re.Match[str], param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        try:
            return datetime.now(UTC) - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
        except OverflowError:
            self.fail(f"{ago[0]} is before the year 1", param, ctx)

    def _fail_unknown(self, text: str, param: click.Parameter | None, ctx: click.Context | None) -> Never:
        self.fail(f"{text!r} is no position: give {POSITION_HELP}", param, ctx)


class HeaderType(click.ParamType):
    """NAME=VALUE to a name and bytes, exactly those of the command line."""

    name = "header"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, bytes]:
        """Raises BadParameter."""
        name, equals, content = str(value).partition("=")
        if not name or not equals:
            self.fail(f"{value!r} is no header: give NAME=VALUE", param, ctx)
        try:
            name.encode()
        except UnicodeEncodeError:
            self.fail(f"the name of the header {value!r} is not UTF-8 text", param, ctx)
        return name, os.fsencode(content)


POSITION = PositionType()
HEADER = HeaderType()
