"""The commands `rocksmq backup create`, `verify` and `restore`."""

import json
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Protocol, cast

import click

from .backup import Created, Lease, Restored, create, restore, verify
from .backup_files import BackupFailed, BackupMisused
from .backup_target import Base, target_of
from .check import Total
from .commands import as_line, as_record
from .commands_bar import Bar
from .findings import counted
from .store import DataRefused, DirectoryInUse

MB = 1_000_000


class Caller(Protocol):
    """What the root command gives (`Session`)."""

    def calling(self) -> AbstractContextManager[Callable[[Any], Any]]: ...


@click.group()
def backup() -> None:
    """Copy a running broker's data; verify such copies, and make data directories of them.

    \b
    Example:
      rocksmq backup create /backups/monday
      rocksmq backup verify /backups/monday
      rocksmq backup restore /backups/monday /var/lib/rocksmq-new
    """


@backup.command("create")
@click.argument("target", metavar="TARGET", type=click.Path(path_type=Path))
@click.option(
    "--base",
    metavar="EARLIER",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="A backup beside TARGET: what has not changed since is linked to it, not copied.",
)
@click.pass_context
def create_(context: click.Context, /, target: Path, base: Path | None) -> None:
    """Copy the running broker's data to TARGET: a new directory, or a file whose name ends with .tar.zst.

    It runs on the broker's machine, as the broker's user; produce and consume go on meanwhile. All that was acknowledged before
    it began is in it. On the broker's own file system tables are linked instead of copied.

    \b
    Example:
      rocksmq backup create /backups/monday
      rocksmq backup create /backups/tuesday --base /backups/monday
      rocksmq backup create /backups/wednesday.tar.zst
    """
    bar = Bar()
    caller = cast(Caller, context.find_root().obj)
    with _telling(bar), target_of(target, None if base is None else Base(base)) as made, caller.calling() as call:
        lease = Lease(call)
        try:
            created = create(lease, made, bar.show)
        finally:
            lease.end()
    if not created.manifest.has_positions:
        click.echo(f"the positions are kept in {created.manifest.positions}, and no copy of them: they are not in it", err=True)
    _show(context, _record_of(created, target), _line_of(created, target))


@backup.command("verify")
@click.argument("source", metavar="BACKUP", type=click.Path(exists=True, path_type=Path))
@click.pass_context
def verify_(context: click.Context, /, source: Path) -> None:
    """Compare all files of BACKUP with its manifest, then check everything in them, as `rocksmq check` does.

    Exit code 0: no problem; 1: problems were found; 2: it is no backup.

    \b
    Example:
      rocksmq backup verify /backups/monday
    """
    bar = Bar()
    problems = 0
    with _telling(bar):
        for item in verify(source, bar.show, lambda text: click.echo(text, err=True)):
            bar.hide()
            click.echo(json.dumps(as_record(item), default=str) if _is_json(context) else as_line(item))
            if isinstance(item, Total):
                problems = item.problems
    if problems:
        context.exit(1)


@backup.command("restore")
@click.argument("source", metavar="BACKUP", type=click.Path(exists=True, path_type=Path))
@click.argument("directory", metavar="DIR", type=click.Path(path_type=Path))
@click.pass_context
def restore_(context: click.Context, /, source: Path, directory: Path) -> None:
    """Make a data directory DIR, which is empty or absent, of BACKUP; then a broker starts on it.

    It gets an instance id of its own. The positions of groups are in it, wherever they were kept. Run it as the broker's user.

    \b
    Example:
      rocksmq backup restore /backups/monday /var/lib/rocksmq-new
      rocksmqd --data-dir /var/lib/rocksmq-new
    """
    bar = Bar()
    with _telling(bar):
        restored = restore(source, directory, bar.show)
    if restored.positions_from is not None:
        click.echo(_moved(restored), err=True)
    record = {"directory": str(directory), "instance": restored.instance, "commit_number": restored.commit_number}
    told = f"restored to {directory}: instance {restored.instance}, group commit {restored.commit_number:,}"
    more = {"groups": restored.groups, "backup_of": restored.manifest.instance, "created": restored.manifest.created}
    _show(context, {**record, **more}, f"{told}, {counted(restored.groups, 'group')}")


def _moved(restored: Restored) -> str:
    """Where the positions are now."""
    if not restored.has_positions:
        return f"the positions were kept in {restored.positions_from}, and are not in the backup: its groups are missing"
    return (
        f"the positions were kept in {restored.positions_from}, and are in the directory now: start the broker without --meta,"
        " or move them to a prefix of their own with `rocksmq meta export` and `import`"
    )


def _record_of(created: Created, target: Path) -> dict[str, object]:
    manifest = created.manifest
    return {
        "target": str(target),
        "instance": manifest.instance,
        "created": manifest.created,
        "commit_number": manifest.commit_number,
        "positions": manifest.positions,
        "has_positions": manifest.has_positions,
        "files": len(manifest.files),
        "bytes": manifest.byte_count,
        "copied_bytes": created.copied_bytes,
        "linked_bytes": created.linked_bytes,
    }


def _line_of(created: Created, target: Path) -> str:
    manifest = created.manifest
    files = counted(len(manifest.files), "file")
    copied, linked = (f"{count / MB:,.1f} MB" for count in (created.copied_bytes, created.linked_bytes))
    return (
        f"{target}: group commit {manifest.commit_number:,} of instance {manifest.instance}, {files},"
        f" {copied} copied, {linked} linked"
    )


def _show(context: click.Context, record: dict[str, object], line: str) -> None:
    click.echo(json.dumps(record) if _is_json(context) else line)


def _is_json(context: click.Context) -> bool:
    return bool(context.find_root().params.get("as_json"))


@contextmanager
def _telling(bar: Bar) -> Generator[None]:
    """What goes wrong in the block ends the command with a line that says so."""
    try:
        yield
    except BackupMisused as error:
        raise click.UsageError(str(error)) from error
    except (BackupFailed, DirectoryInUse, DataRefused) as error:
        raise click.ClickException(str(error)) from error
    finally:
        bar.hide()
