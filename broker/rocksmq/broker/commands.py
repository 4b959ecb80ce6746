"""The command `rocksmq check`, on the data directory of a stopped broker (entry points `rocksmq.commands`)."""

import json
import sys
from collections.abc import Callable, Iterable
from contextlib import closing, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import click

from .check import ChannelFound, Item, NoDataDirectory, Overview, Total, examine
from .check import check as check_directory
from .commands_bar import Bar
from .commands_options import check_user, configured, private_files, with_store_options
from .daemon import meta_store
from .durability import Durability
from .findings import Finding, Repair, counted, told
from .patch import NotRepaired
from .repair import Offers, locked_for_repair, repair
from .store import DataRefused, DirectoryInUse

Show = Callable[[dict[str, object], str], None]


@click.command()
@click.argument("directory", metavar="DIR", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--repair", "repairs", metavar="WHAT", multiple=True, help="Do what the check offers as this; may be repeated.")
@click.option("--yes", is_flag=True, help="Do not ask before a repair.")
@with_store_options
@click.pass_context
def check(
    context: click.Context, /, directory: Path, file: Path | None, repairs: tuple[str, ...], yes: bool, **flags: Any
) -> None:
    """Check everything in a stopped broker's data directory.

    It reads each message and each record, and changes nothing. A problem is what was lost or damaged, or what a start would
    refuse; a note is worth knowing. Where etcd keeps the positions, --meta names it, and they are checked too.

    Below a problem that can be repaired stands by what, and what would be lost by that. --repair does it, and nothing that was
    not named: it checks first, shows what it is about to do, asks, does that, and checks again. Run it as the broker's user.

    Exit code 0: no problem, or none is left; 1: there are problems, a repair was not done, or a broker runs on DIR; 2: DIR is
    no data directory, or WHAT is nothing that is offered.

    \b
    Example:
      rocksmq check /var/lib/rocksmq
      rocksmq check /var/lib/rocksmq --meta etcd://127.0.0.1:2379/rocksmq
      rocksmq check /var/lib/rocksmq --repair end:orders:469520834498560
    """
    as_json = bool(context.find_root().params.get("as_json"))
    config = configured(file, flags)
    remote = meta_store(config)
    bar = Bar()

    def show(record: dict[str, object], line: str) -> None:
        bar.hide()
        click.echo(json.dumps(record, default=str) if as_json else line)

    try:
        with nullcontext() if remote is None else closing(remote):
            durability = Durability.parse(config.durability)
            if repairs:
                check_user(directory)
                examined = partial(examine, directory, remote, durability, bar.show, offers_repairs=True)
                with private_files(), locked_for_repair(directory):
                    _repair(directory, examined, repairs, show, bar, asks=not yes)
                    problems = _shown(examined(), show)[-1]
            else:
                problems = _shown(check_directory(directory, remote, durability, bar.show, offers_repairs=True), show)[-1]
    except NoDataDirectory as error:
        raise click.UsageError(str(error)) from error
    except DirectoryInUse as error:
        raise click.ClickException(f"{error}: stop it first") from error
    except (NotRepaired, DataRefused) as error:
        raise click.ClickException(f"not repaired: {error}") from error
    finally:
        bar.hide()
    if not isinstance(problems, Total) or problems.problems:
        context.exit(1)


def _shown(items: Iterable[Item], show: Show) -> list[Item]:
    """The same, each shown."""
    listed: list[Item] = []
    for item in items:
        show(as_record(item), as_line(item))
        listed.append(item)
    return listed


def _repair(
    directory: Path, examined: Callable[[], Iterable[Item]], wanted: tuple[str, ...], show: Show, bar: Bar, *, asks: bool
) -> None:
    """Raises UsageError, Abort, NotRepaired, DataRefused, OSError."""
    offers = Offers.of(_shown(examined(), show))
    if unknown := [argument for argument in wanted if argument not in offers.repairs]:
        offered = ", ".join(offers.repairs) or "nothing"
        raise click.UsageError(f"--repair {unknown[0]} is nothing that this check offers; it offers: {offered}")
    click.echo("about to be done:", err=True)
    for argument in wanted:
        click.echo(f"  {argument}: {offers.repairs[argument].does}; {told(offers.repairs[argument])}", err=True)
    if asks:
        if not sys.stdin.isatty():
            raise click.UsageError("nobody can be asked here: --yes says that it is to be done")
        click.confirm("Do it?", abort=True, err=True)
    for argument, did in repair(directory, offers, wanted, bar.show):
        show({"kind": "repaired", "argument": argument, "text": did}, f"repaired  {argument}: {did}")


def as_record(item: Item) -> dict[str, object]:
    """As JSON: ``kind`` tells which it is."""
    if isinstance(item, Finding):
        return {"kind": "problem" if item.is_problem else "note", "subject": item.subject, "text": item.text}
    kind = {Overview: "directory", ChannelFound: "channel", Repair: "repair", Total: "total"}[type(item)]
    fields: dict[str, object] = {
        name: str(field) if isinstance(field, Path) else field for name, field in item._asdict().items()
    }
    return {"kind": kind, **fields}


def as_line(item: Item) -> str:
    """For people."""
    if isinstance(item, Finding):
        return f"{'PROBLEM' if item.is_problem else 'note'}  {item.subject}: {item.text}"
    if isinstance(item, Repair):
        return f"         --repair {item.argument}  {item.does}; {told(item)}"
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
