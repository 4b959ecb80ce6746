"""`rocksmq produce`: lines or whole files as messages."""

import io
import os
import select
import stat
import sys
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, cast

import click

from rocksmq.protocol.errors import MessageTooLarge, RocksMQError

from .lines import LineCutter
from .output import Failed, show_record
from .parameters import header
from .progress import progress
from .session import Session, pass_session
from .stop import POLL_SECONDS, Interrupted, Stop

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
    code 0, all is durable; else stderr says how much is. Ctrl-C ends it after the last whole line that was read.

    \b
    Example:
      produce-events | rocksmq produce orders --create
      rocksmq produce images --whole-file --header type=png *.png
    """
    if len({name for name, _ in headers}) < len(headers):
        raise click.UsageError("a header was given twice: a message has one value a name")
    from .sender import Sender

    names = files or (STDIN,)
    with session.client() as mq, Stop() as stop:
        if create_channel:
            mq.create_channel(channel)
        sender = Sender(mq, channel, dict(headers), session.timeout)
        payload_bytes_max = mq.server.limits["payload_bytes_max"]
        send = _send_whole if whole_file else _send_lines
        try:
            with progress(f"to {channel}", _size(names), unit_is_bytes=True) as advance:
                with suppress(Interrupted):
                    for name in names:
                        with _opened(name) as source:
                            send(sender, name, _chunks(source, sender, stop, advance), payload_bytes_max)
                sender.flush()
        except (RocksMQError, OSError) as error:
            text = error.message if isinstance(error, RocksMQError) else str(error)
            raise Failed(f"{text}; {sender.account(error)}") from error
        _show(session, channel, sender)


def _send_lines(sender: "Sender", name: str, chunks: Iterable[bytes], payload_bytes_max: int) -> None:
    cutter = LineCutter(payload_bytes_max)
    for chunk in chunks:
        try:
            lines = cutter.cut(chunk)
        except MessageTooLarge as error:
            raise MessageTooLarge(f"{_shown(name)}: {error}") from None
        sender.send(lines)
    sender.send(cutter.rest())


def _send_whole(sender: "Sender", name: str, chunks: Iterable[bytes], payload_bytes_max: int) -> None:
    content = bytearray()
    for chunk in chunks:
        content += chunk
        if len(content) > payload_bytes_max:
            raise MessageTooLarge(f"{_shown(name)}: larger than the limit of {payload_bytes_max} bytes (payload_bytes_max)")
    sender.send([bytes(content)])


def _chunks(source: io.BufferedIOBase, sender: "Sender", stop: Stop, advance: Callable[[int], None]) -> Iterator[bytes]:
    """What ``source`` gives, as it comes. Raises Interrupted, so that what was read in part is not taken for whole."""
    while not stop.is_wanted:
        if not _is_ready(source, 0):
            sender.flush()  # before waiting for more: so a failure is told at once
            if not _is_ready(source, POLL_SECONDS):
                continue
        chunk = source.read1(CHUNK_BYTES)
        if not chunk:
            return
        yield chunk
        advance(len(chunk))
    raise Interrupted


def _shown(name: str) -> str:
    return "stdin" if name == STDIN else name


@contextmanager
def _opened(name: str) -> Generator[io.BufferedIOBase, None, None]:
    if name != STDIN:
        with open(name, "rb") as source:
            yield source
        return
    if sys.stdin.isatty():
        click.echo("reading from the terminal: each line is a message, Ctrl-D ends", err=True)
    yield cast(io.BufferedIOBase, sys.stdin.buffer)


def _is_ready(source: io.BufferedIOBase, seconds: float) -> bool:
    """Whether a read returns at once, with bytes or the end, within so many seconds."""
    try:
        poll = select.poll()
        poll.register(source.fileno(), select.POLLIN)
    except io.UnsupportedOperation:
        return True  # it is in memory
    return bool(poll.poll(seconds * 1_000))


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
        "last_id": sender.last_id,
    }
    ids = f", the last with id {sender.last_id}" if sender.messages else ""
    messages = "1 message" if sender.messages == 1 else f"{sender.messages:,} messages"
    show_record(record, f"{messages}, {sender.payload_bytes:,} bytes{ids}", as_json=session.as_json)
