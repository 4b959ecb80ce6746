"""Options of the commands that read a stopped broker's data directory: which store keeps its positions, as for rocksmqd."""

import os
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import click

from .config import BadConfiguration, Config, load

CALL_SECONDS = 10.0  # at least, of a call to etcd: nobody waits but who gave the command
Command = TypeVar("Command", bound=Callable[..., Any])

_OPTIONS = (
    click.option("--config", "file", type=click.Path(path_type=Path), help="The broker's TOML file."),
    click.option("--meta", metavar="embedded|URL", help="The store of the positions, as for rocksmqd.  [default: embedded]"),
    click.option("--meta-ca", metavar="FILE", help="Who signed etcd's certificate.  [default: the system's]"),
    click.option("--meta-cert", metavar="FILE", help="The broker's certificate for etcd."),
    click.option("--meta-key", metavar="FILE", help="The key of --meta-cert."),
    click.option("--meta-user", metavar="NAME", help="The broker's user in etcd."),
    click.option("--meta-password-file", metavar="FILE", help="Holds the password of --meta-user."),
    click.option("--durability", metavar="MODE", help="What the broker runs with: fsync, interval:<ms>, os.  [default: fsync]"),
)


def with_store_options(command: Command) -> Command:
    """``command`` with the options; it gets ``file``, and the others as flags for `configured`."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def configured(file: Path | None, flags: Mapping[str, Any]) -> Config:
    """The broker's configuration, from ``file``, the environment and the ``flags`` that are not None. Raises UsageError."""
    try:
        config = load(file, os.environ, {key: value for key, value in flags.items() if value is not None})
    except BadConfiguration as error:
        raise click.UsageError(str(error)) from None
    limits = config.limits
    return replace(config, limits=replace(limits, meta_call_seconds=max(limits.meta_call_seconds, CALL_SECONDS)))


def check_user(path: Path) -> None:
    """Raises UsageError for root in somebody else's data directory: the broker could not read what root writes there."""
    format_file = path / "format"  # a mounted directory may be root's, with the broker's files in it
    owner = (format_file if format_file.exists() else path).stat().st_uid
    if os.geteuid() == 0 and owner != 0:
        raise click.UsageError(f"{path} belongs to the user with id {owner}: run this as that user, as the broker")


@contextmanager
def private_files() -> Generator[None, None, None]:
    """Files that are made in the block are nobody else's, as the broker's are."""
    before = os.umask(0o077)
    try:
        yield
    finally:
        os.umask(before)
