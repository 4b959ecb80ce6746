"""What the command line `rocksmq` gets from the broker: commands on data directories (entry points `rocksmq.commands`)."""

import json
import sys
from contextlib import closing, nullcontext
from pathlib import Path
from time import monotonic
from typing import Any

import click

from .check import ChannelFound, Item, NoDataDirectory, Overview, Total
from .check import check as check_directory
from .commands_options import configured, with_store_options
from .daemon import meta_store
from .durability import Durability
from .findings import Finding, counted
from .store import DirectoryInUse

PROGRESS_SECONDS = 0.2
ERASE = "\r\x1b[K"
MB = 1_000_000


@click.command()
@click.argument("directory", metavar="DIR", type=click.Path(exists=True, file_okay=False, path_type=Path))
@with_store_options
@click.pass_context
def check(context: click.Context, /, directory: Path, file: Path | None, **flags: Any) -> None:
    """Check everything in a stopped broker's data directory.

    It reads each message and each record, and changes nothing. A problem is what was lost or damaged, or what a start would
    refuse; a note is worth knowing. Where etcd keeps the positions, --meta names it, and they are checked too.

    Exit code 0: no problem; 1: problems were found, or a broker runs on DIR; 2: DIR is no data directory.

    \b
    Example:
      rocksmq check /var/lib/rocksmq
      rocksmq check /var/lib/rocksmq --meta etcd://127.0.0.1:2379/rocksmq
    """
    as_json = bool(context.find_root().params.get("as_json"))
    config = configured(file, flags)
    remote = meta_store(config)
    bar = _Bar()
    problems = 0
    try:
        with nullcontext() if remote is None else closing(remote):
            for item in check_directory(directory, remote, Durability.parse(config.durability), progress=bar.show):
                bar.hide()
                click.echo(json.dumps(_record(item), default=str) if as_json else _line(item))
                if isinstance(item, Total):
                    problems = item.problems
    except NoDataDirectory as error:
        raise click.UsageError(str(error)) from error
    except DirectoryInUse as error:
        raise click.ClickException(f"{error}: stop it first") from error
    finally:
        bar.hide()
    if problems:
        context.exit(1)


class _Bar:
    """How far it is, on stderr, where a person watches."""

    def __init__(self) -> None:
        self._is_watched = sys.stderr.isatty()
        self._next = monotonic() + PROGRESS_SECONDS
        self._is_shown = False

    def show(self, done: int, total: int) -> None:
        if self._is_watched and monotonic() >= self._next:
            self._next = monotonic() + PROGRESS_SECONDS
            self._is_shown = True
            click.echo(f"{ERASE}{done / MB:,.0f} of {max(done, total) / MB:,.0f} MB", nl=False, err=True)

    def hide(self) -> None:
        if self._is_shown:
            self._is_shown = False
            click.echo(ERASE, nl=False, err=True)


def _record(item: Item) -> dict[str, object]:
    """As JSON: ``kind`` tells which it is."""
    if isinstance(item, Finding):
        return {"kind": "problem" if item.is_problem else "note", "subject": item.subject, "text": item.text}
    kind = {Overview: "directory", ChannelFound: "channel", Total: "total"}[type(item)]
    fields: dict[str, object] = {
        name: str(field) if isinstance(field, Path) else field for name, field in item._asdict().items()
    }
    return {"kind": kind, **fields}


def _line(item: Item) -> str:
    """For people."""
    if isinstance(item, Finding):
        return f"{'PROBLEM' if item.is_problem else 'note'}  {item.subject}: {item.text}"
    if isinstance(item, Overview):
        format_ = "of an unknown format" if item.format is None else f"format {item.format}"
        commit, mark = ("unknown" if number is None else number for number in (item.commit_number, item.mark))
        return (
            f"{item.path}: {format_}, instance {item.instance or 'unknown'}, last commit {commit}, durable mark {mark},"
            f" id window up to {'unknown' if item.window_end is None else item.window_end}"
        )
    if isinstance(item, ChannelFound):
        ids = "" if item.begin_id is None else f", ids {item.begin_id} to {item.end_id}"
        held = f"{counted(item.message_count, 'message')}, {counted(item.byte_count, 'byte')}"
        return f"channel {item.name}: {held}{ids}, {counted(item.groups, 'group')}"
    found = ", ".join((counted(item.problems, "problem"), counted(item.notes, "note")))
    return (
        f"checked {counted(item.channels, 'channel')}, {counted(item.groups, 'group')},"
        f" {counted(item.message_count, 'message')}, {counted(item.byte_count, 'byte')}: {found}"
    )
