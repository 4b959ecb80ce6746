"""The commands `rocksmq meta export` and `rocksmq meta import`: positions from one store to another, the broker stopped."""

import json
from collections.abc import Generator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import IO, Any

import click

from .check import NoDataDirectory
from .commands_options import check_user, configured, private_files, with_store_options
from .config import Config
from .daemon import meta_store
from .directory import DataDirectory
from .durability import Durability
from .findings import counted
from .meta_move import Check, Importer, Positions, read_positions, refusing
from .reconcile import PrefixInUse
from .remote import Remote, RemoteFailed
from .store import DataRefused, DirectoryInUse

DATA_DIR = click.option("--data-dir", help="The broker's data directory.  [default: data]")
ACCEPT_LOSS = click.option("--accept-loss", is_flag=True, help="Go on although something does not belong together.")


@click.group()
def meta() -> None:
    """Move group positions between the stores that keep them. The broker is stopped meanwhile.

    \b
    Example:
      rocksmq meta export --data-dir data > positions.jsonl
      rocksmq meta import --data-dir data --meta etcd://127.0.0.1:2379/rocksmq positions.jsonl
    """


@meta.command("export")
@DATA_DIR
@with_store_options
@ACCEPT_LOSS
def export(file: Path | None, accept_loss: bool, **flags: Any) -> None:
    """Write the positions in the store --meta to stdout, a line of JSON for each group. Nothing is changed.

    \b
    Example:
      rocksmq meta export --data-dir data > positions.jsonl
    """
    config = configured(file, flags)
    with _store(config) as remote:
        positions = read_positions(_directory(config), remote, _check(accept_loss))
    for line in positions.lines():
        click.echo(line)
    click.echo(f"{counted(len(positions.groups), 'group')} of {positions.header.store}", err=True)


@meta.command("import")
@click.argument("positions", type=click.File("r"))
@DATA_DIR
@with_store_options
@ACCEPT_LOSS
@click.pass_context
def import_(context: click.Context, /, positions: IO[str], file: Path | None, accept_loss: bool, **flags: Any) -> None:
    """Make what `export` wrote all that the store --meta has, read it back, and bind the data directory to it.

    POSITIONS is a file, or - for stdin. Run it as the broker's user.

    \b
    Example:
      rocksmq meta import --data-dir data --meta etcd://127.0.0.1:2379/rocksmq positions.jsonl
    """
    config = configured(file, flags)
    path = _directory(config)
    check_user(path)
    with _store(config) as remote:
        found = Positions.parse(positions)
        with private_files(), closing(DataDirectory(path)) as directory:
            importer = Importer(directory, remote, Durability.parse(config.durability), _check(accept_loss))
            count = importer.write(found)
    for group, channel in importer.left_out:
        click.echo(f"left out: group {group} of {channel}, a channel that was destroyed", err=True)
    if context.find_root().params.get("as_json"):
        click.echo(json.dumps({"groups": count, "from": found.header.store, "to": importer.name}))
        return
    click.echo(f"{counted(count, 'group')} moved from {found.header.store} to {importer.name}, read back and compared")
    click.echo(f"from now on the broker is started with --meta {config.meta}")


def _directory(config: Config) -> Path:
    """Raises UsageError."""
    path = Path(config.data_dir)
    if not (path / "format").exists():
        raise click.UsageError(f"{path} is no RocksMQ data directory: --data-dir names it")
    return path


@contextmanager
def _store(config: Config) -> Generator[Remote | None, None, None]:
    """That of the positions. What goes wrong in the block ends the command with a line that says so."""
    try:
        remote = meta_store(config)
        try:
            yield remote
        finally:
            if remote is not None:
                remote.close()
    except RemoteFailed as error:
        raise click.ClickException(f"{config.meta}: {error}{f' ({error.detail})' if error.detail else ''}") from error
    except DirectoryInUse as error:
        raise click.ClickException(f"{error}: stop it first") from error
    except NoDataDirectory as error:
        raise click.UsageError(str(error)) from error
    except (PrefixInUse, DataRefused) as error:
        raise click.ClickException(str(error)) from error


def _check(accept_loss: bool) -> Check:
    return _accept if accept_loss else refusing


def _accept(problems: list[str]) -> None:
    for problem in problems:
        click.echo(f"accepted: {problem}", err=True)
