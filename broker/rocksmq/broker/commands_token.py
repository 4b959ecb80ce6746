"""The commands `rocksmq token create`, `list` and `revoke`: they change the broker's file of tokens, not the broker."""

import json
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import click

from .auth import BadPattern, Patterns, Token, digest_of, new_secret
from .auth_file import NAME, BadTokens, change, read

Command = TypeVar("Command", bound=Callable[..., Any])
DAY_SECONDS = 86_400
DAYS_MAX = 36_500

_FILE = click.option(
    "--auth-file",
    "file",
    metavar="FILE",
    envvar="ROCKSMQ_AUTH_FILE",
    required=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="The broker's file of tokens.  [default: ROCKSMQ_AUTH_FILE]",
)


def _patterns(context: click.Context, parameter: click.Parameter, texts: Sequence[str]) -> Patterns:
    try:
        return Patterns.of(texts)
    except BadPattern as error:
        raise click.BadParameter(str(error)) from None


def _name(context: click.Context, parameter: click.Parameter, text: str) -> str:
    if not NAME.fullmatch(text):
        raise click.BadParameter(f"{text!r} is no name: letters, digits, '.', '_' and '-', 200 at most, the first no sign")
    return text


def _granting(permission: str, does: str) -> Callable[[Command], Command]:
    return click.option(
        f"--{permission}",
        multiple=True,
        metavar="PATTERN",
        callback=_patterns,
        help=f"Channels that it may {does}: NAME, BEGINNING* or *; may be repeated.",
    )


@click.group()
def token() -> None:
    """Make, list and revoke the tokens that a broker admits its clients by.

    They stand in a file, --auth-file of rocksmqd, as hashes: a token is shown once, when it is made. The broker reads the
    file at its start and at SIGHUP (systemctl reload rocksmqd).

    \b
    Example:
      rocksmq token create billing --consume 'orders.*' --auth-file tokens.json
      rocksmqd --auth-file tokens.json
    """


@token.command("create")
@click.argument("name", callback=_name)
@_granting("produce", "produce to")
@_granting("consume", "read, with groups of its own making")
@_granting("admin", "make, change and destroy; * for the broker itself too")
@click.option("--days", type=click.IntRange(1, DAYS_MAX), help="How long it is good.  [default: for ever]")
@_FILE
@click.pass_context
def create_(
    context: click.Context, /, name: str, produce: Patterns, consume: Patterns, admin: Patterns, days: int | None, file: Path
) -> None:
    """Make a token for NAME, and print it: this once. A FILE that is missing is made.

    It may do nothing but what is said here. Any right on a channel lets it see that channel's description.

    \b
    Example:
      rocksmq token create shop --produce orders --days 90 --auth-file tokens.json
      rocksmq token create ops --produce '*' --consume '*' --admin '*' --auth-file tokens.json
    """
    if not any((*produce, *consume, *admin)):
        raise click.UsageError("it would be allowed nothing: give --produce, --consume or --admin")
    secret, now = new_secret(), int(time.time())
    made = Token(name, digest_of(secret), now, None if days is None else now + days * DAY_SECONDS, produce, consume, admin)

    def with_it(tokens: tuple[Token, ...]) -> list[Token]:
        if any(other.name == name for other in tokens):
            raise BadTokens(f"a token named {name} is in it already: revoke that one first, or take another name")
        return [*tokens, made]

    with _telling(file):
        change(file, with_it, may_make=True)
    if _is_json(context):
        click.echo(json.dumps({**_record(made, now), "token": secret}))
    else:
        click.echo(secret)
        click.echo(f"{name}: {_told(made, now)}; the broker knows it once it has read {file} again (SIGHUP)", err=True)


@token.command("list")
@_FILE
@click.pass_context
def list_(context: click.Context, /, file: Path) -> None:
    """List the tokens of FILE: names and rights; the tokens themselves are kept nowhere."""
    with _telling(file):
        tokens = read(file)
    now = int(time.time())
    for found in tokens:
        click.echo(json.dumps(_record(found, now)) if _is_json(context) else f"{found.name}: {_told(found, now)}")


@token.command("revoke")
@click.argument("name")
@_FILE
@click.pass_context
def revoke_(context: click.Context, /, name: str, file: Path) -> None:
    """Take the token of NAME out of FILE. Once the broker has read it again, the connections made with it are ended."""

    def without_it(tokens: tuple[Token, ...]) -> list[Token]:
        left = [other for other in tokens if other.name != name]
        if len(left) == len(tokens):
            raise BadTokens(f"no token named {name} is in it")
        return left

    with _telling(file):
        change(file, without_it, may_make=False)
    if _is_json(context):
        click.echo(json.dumps({"name": name, "revoked": True}))
    else:
        click.echo(f"{name}: revoked; the broker admits it until it has read {file} again (SIGHUP)", err=True)


def _is_json(context: click.Context) -> bool:
    return bool(context.find_root().params.get("as_json"))


@contextmanager
def _telling(file: Path) -> Generator[None, None, None]:
    """Raises ClickException."""
    try:
        yield
    except BadTokens as error:
        raise click.ClickException(f"{file}: {error}") from error


def _record(token: Token, now: int) -> dict[str, object]:
    rights = {name: getattr(token, name).texts for name in ("produce", "consume", "admin")}
    return {
        "name": token.name,
        "created": token.created,
        "expires": token.expires,
        "has_expired": token.has_expired(now),
        **rights,
    }


def _told(token: Token, now: int) -> str:
    rights = [f"{name} {' '.join(texts)}" for name in ("produce", "consume", "admin") if (texts := getattr(token, name).texts)]
    until = "never expires"
    if token.expires is not None:
        at = datetime.fromtimestamp(token.expires, UTC)
        until = f"{'expired' if token.has_expired(now) else 'expires'} {at:%Y-%m-%d %H:%M} UTC"
    return f"{', '.join(rights) or 'may do nothing'}; {until}"
