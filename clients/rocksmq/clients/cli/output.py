"""How results and failures are shown: a JSON object a line for programs, tables and properties for people."""

import json
import sys
from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from typing import IO, Any, cast

import click


class Failed(click.ClickException):
    """The operation failed: ``error: ...`` on one line of stderr, exit code 1."""

    def show(self, file: IO[Any] | None = None) -> None:
        """Say so; click gives no ``file``, which means stderr."""
        click.echo(f"error: {printable(self.message)}", file=file, err=True)


def printable(text: str) -> str:
    """``text`` on one line: whatever could steer a terminal is shown as its escape."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def json_line(record: Mapping[str, object]) -> str:
    """``record`` as one line of JSON, text as it is; a datetime in ISO format."""
    return json.dumps(record, ensure_ascii=False, default=str)


def bytes_field(name: str, value: bytes) -> dict[str, str]:
    """``value`` for JSON: under ``name`` if it is UTF-8 text, else in base64 under ``name_base64``."""
    try:
        return {name: value.decode()}
    except UnicodeDecodeError:
        return {f"{name}_base64": b64encode(value).decode()}


def bytes_list_field(name: str, values: Sequence[bytes]) -> dict[str, list[str]]:
    """``values`` for JSON, as `bytes_field`: all of them in base64 if one is no text."""
    try:
        return {name: [value.decode() for value in values]}
    except UnicodeDecodeError:
        return {f"{name}_base64": [b64encode(value).decode() for value in values]}


def show_record(record: Mapping[str, object], text: str, *, as_json: bool) -> None:
    """One result: as JSON, or as ``text`` for people."""
    show_line(json_line(record) if as_json else text)


def show_properties(record: Mapping[str, object], *, as_json: bool) -> None:
    """One thing: as JSON, or a line a property. Lists are joined, what is missing is a dash."""
    if as_json:
        show_line(json_line(record))
        return
    width = max(map(len, record))
    for name, value in record.items():
        show_line(f"{name:<{width}}  {_cell(value)}")


def show_table(records: Iterable[Mapping[str, object]], columns: Sequence[str], *, as_json: bool) -> None:
    """Many things: as JSON, a table on a terminal, or tab-separated in a pipe; ``columns`` are the keys that people see."""
    if as_json:
        for record in records:
            show_line(json_line(record))
        return
    rows = [[_cell(record[column]) for column in columns] for record in records]
    if sys.stdout.isatty():
        _draw(columns, rows)
    else:
        for row in [columns, *rows]:
            show_line("\t".join(row))


def show_line(line: str) -> None:
    """One line to stdout, which an OSError names."""
    try:
        click.echo(line)
    except OSError as error:
        error.filename = "stdout"
        raise


def _draw(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*columns, box=SIMPLE_HEAD, pad_edge=False)
    for row in rows:
        table.add_row(*map(Text, row))
    Console(markup=False).print(table)


def _cell(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_cell(part)}" for name, part in cast(dict[str, object], value).items()) or "-"
    if isinstance(value, list):
        return ", ".join(map(_cell, cast(list[object], value))) or "-"
    return "-" if value is None or value == "" else printable(str(value))
