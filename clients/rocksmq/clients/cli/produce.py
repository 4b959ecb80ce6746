"""`rocksmq produce`: lines or whole files as messages."""

import io
import os
import select
import signal
import stat
import sys
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, cast

import click

from rocksmq.protocol.errors import MessageTooLarge, RocksMQError

from .lines import LineCutter
from .output import Failed, show_record
from .parameters import header
from .progress import progress
from .session import Session, pass_session

if TYPE_CHECKING:
    from .sender import Sender

CHUNK_BYTES = 512 * 1024
STDIN = "-"


@click.command()
@click.argument("channel")
@click.argument(
    "files", nargs=-1, metavar="[FILE...|-]", type=click.Path(exists=True, dir_okay=False, readable=True, allow_dash=True)
)
@click.option("--whole-file", is_flag=True, help="Each file is one message, not each line.")
@click.option("--create", "create_channel", is_flag=True, help="Create the channel if it is missing.")
@click.option(
    "--header", "headers", type=header, multiple=True, metavar="NAME=VALUE", help="A header of every message; repeatable."
)
@pass_session
def produce(
    session: Session,
    channel: str,
    files: Sequence[str],
    whole_file: bool,
    create_channel: bool,
    headers: Sequence[tuple[str, bytes]],
) -> None:
    """Send the lines of the FILEs, or of stdin, to CHANNEL.

    Each line is a message. Its newline is cut off, all else is kept byte for byte; a blank line is an empty
    message. What came through a pipe or from a terminal is sent at once. When the command ends with exit
    code 0, all is durable; else stderr says how much is.

    \b
    Example:
      produce-events | rocksmq produce orders --create
      rocksmq produce images --whole-file --header type=png *.png
    """
    if len({name for name, _ in headers}) < len(headers):
        raise click.UsageError("a header was given twice: a message has one value a name")
    from .sender import Sender

    names = files or (STDIN,)
    with session.client() as mq:
        if create_channel:
            mq.create_channel(channel)
        sender = Sender(mq, channel, dict(headers), session.timeout)
        payload_bytes_max = mq.server.limits["payload_bytes_max"]
        send = _send_whole if whole_file else _send_lines
        with progress(f"to {channel}", _size(names), unit_is_bytes=True) as advance:
            is_interrupted = _run(sender, (partial(send, sender, name, payload_bytes_max, advance) for name in names))
    _show(session, channel, sender)
    if is_interrupted:
        raise click.exceptions.Exit(128 + signal.SIGINT)


def _run(sender: "Sender", parts: Iterable[Callable[[], None]]) -> bool:
    """Do the parts in order and wait until what they sent is durable; True if Ctrl-C cut them short."""
    is_interrupted = False
    try:
        try:
            for part in parts:
                part()
        except KeyboardInterrupt:
            is_interrupted = True
        sender.flush()
    except (RocksMQError, OSError) as error:
        text = error.message if isinstance(error, RocksMQError) else str(error)
        raise Failed(f"{text}; {sender.account(error)}") from error
    return is_interrupted


def _send_lines(sender: "Sender", name: str, payload_bytes_max: int, advance: Callable[[int], None]) -> None:
    cutter = LineCutter(payload_bytes_max)
    with _opened(name) as source:
        while True:
            if not _is_ready(source):
                sender.flush()  # before waiting for more: so a failure is told at once
            chunk = source.read1(CHUNK_BYTES)
            if not chunk:
                break
            sender.send(cutter.cut(chunk))
            advance(len(chunk))
    sender.send(cutter.rest())


def _send_whole(sender: "Sender", name: str, payload_bytes_max: int, advance: Callable[[int], None]) -> None:
    with _opened(name) as source:
        content = source.read(payload_bytes_max + 1)
    if len(content) > payload_bytes_max:
        raise MessageTooLarge(f"{name} is larger than the limit of {payload_bytes_max} bytes (payload_bytes_max)")
    sender.send([content])
    advance(len(content))


@contextmanager
def _opened(name: str) -> Generator[io.BufferedIOBase, None, None]:
    if name != STDIN:
        with open(name, "rb") as source:
            yield source
        return
    if sys.stdin.isatty():
        click.echo("reading from the terminal: each line is a message, Ctrl-D ends", err=True)
    yield cast(io.BufferedIOBase, sys.stdin.buffer)


def _is_ready(source: io.BufferedIOBase) -> bool:
    """Whether a read returns at once, with bytes or the end."""
    try:
        poll = select.poll()
        poll.register(source.fileno(), select.POLLIN)
    except io.UnsupportedOperation:
        return True  # it is in memory
    return bool(poll.poll(0))


def _size(names: Sequence[str]) -> int | None:
    """Bytes of all files together; None if one is a stream."""
    found = [os.stat(name) for name in names if name != STDIN]
    if len(found) < len(names) or not all(stat.S_ISREG(file.st_mode) for file in found):
        return None
    return sum(file.st_size for file in found)


def _show(session: Session, channel: str, sender: "Sender") -> None:
    record = {
        "channel": channel,
        "messages": sender.messages,
        "bytes": sender.payload_bytes,
        "first_id": sender.first_id,
        "last_id": sender.last_id,
    }
    ids = f", ids from {sender.first_id} to {sender.last_id}" if sender.messages else ""
    show_record(record, f"{sender.messages:,} messages, {sender.payload_bytes:,} bytes{ids}", as_json=session.as_json)
