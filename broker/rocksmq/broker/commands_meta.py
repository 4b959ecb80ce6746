"""The commands `rocksmq meta export` and `rocksmq meta import`: positions from one store to another, the broker stopped."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NoReturn

import click

from .config import BadConfiguration, load
from .daemon import meta_store
from .directory import DataDirectory
from .durability import Durability
from .meta_move import Mover, Positions
from .meta_remote import RemoteFailed
from .reconcile import PrefixInUse
from .store import DataRefused, DirectoryInUse

OPTIONS = (
    click.option("--config", "file", type=click.Path(path_type=Path), help="The broker's TOML file."),
    click.option("--data-dir", help="The broker's data directory.  [default: data]"),
    click.option("--meta", metavar="embedded|URL", help="The store, as for rocksmqd.  [default: embedded]"),
    click.option("--meta-ca", metavar="FILE", help="Who signed etcd's certificate."),
    click.option("--meta-cert", metavar="FILE", help="The broker's certificate for etcd."),
    click.option("--meta-key", metavar="FILE", help="The key of --meta-cert."),
    click.option("--meta-user", metavar="NAME", help="The broker's user in etcd."),
    click.option("--meta-password-file", metavar="FILE", help="Holds the password of --meta-user."),
    click.option("--durability", metavar="MODE", help="What the broker runs with."),
    click.option("--accept-loss", is_flag=True, help="Go on although something does not belong together."),
)


def _with_options(command: Callable[..., None]) -> Callable[..., None]:
    for option in reversed(OPTIONS):
        command = option(command)
    return command


@click.group()
def meta() -> None:
    """Move group positions between the stores that keep them. The broker is stopped meanwhile.

    \b
    Example:
      rocksmq meta export --data-dir data > positions.jsonl
      rocksmq meta import --data-dir data --meta etcd://127.0.0.1:2379/rocksmq positions.jsonl
    """


@meta.command("export")
@_with_options
def export(**options: Any) -> None:
    """Write the positions in the store --meta to stdout, a line of JSON for each group.

    \b
    Example:
      rocksmq meta export --data-dir data > positions.jsonl
    """
    with _mover(**options) as mover:
        positions = mover.read()
    for line in positions.lines():
        click.echo(line)
    click.echo(f"{len(positions.groups)} groups of {positions.header.store}", err=True)


@meta.command("import")
@click.argument("positions", type=click.File("r"))
@_with_options
def import_(positions: IO[str], **options: Any) -> None:
    """Make what `export` wrote all that the store --meta has, read it back, and bind the data directory to it.

    \b
    Example:
      rocksmq meta import --data-dir data --meta etcd://127.0.0.1:2379/rocksmq positions.jsonl
    """
    with _mover(**options) as mover:
        found = Positions.parse(positions)
        mover.write(found)
    click.echo(f"{len(found.groups)} groups moved from {found.header.store}, and verified")


@contextmanager
def _mover(*, file: Path | None, accept_loss: bool, **flags: Any) -> Iterator[Mover]:
    """The data directory and the store, opened. Ends the command with a line that says what is wrong."""
    try:
        config = load(file, os.environ, {key: value for key, value in flags.items() if value is not None})
    except BadConfiguration as error:
        raise click.UsageError(str(error)) from None
    if not Path(config.data_dir).is_dir():
        raise click.UsageError(f"there is no data directory {config.data_dir}: --data-dir names it")
    try:
        remote = meta_store(config)
        directory = DataDirectory(Path(config.data_dir))
        try:
            yield Mover(directory, remote, Durability.parse(config.durability), accept_loss=accept_loss)
        finally:
            directory.close()
            if remote is not None:
                remote.close()
    except RemoteFailed as error:
        _fail(f"{config.meta}: {error}")
    except (DirectoryInUse, PrefixInUse, DataRefused, OSError) as error:
        _fail(str(error))


def _fail(why: str) -> NoReturn:
    click.echo(f"error: {why}", err=True)
    sys.exit(1)
