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

from rocksmq.protocol.errors import MessageTooLarge, PermissionDenied, RocksMQError

from .lines import LineCutter
from .output import Failed, show_record
from .parameters import header
from .patience import patience_option
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
@patience_option
@pass_session
def produce(
    session: Session,
    channel: str,
    files: Sequence[str],
    whole_file: bool,
    create_channel: bool,
    headers: Sequence[tuple[str, bytes]],
    patience: float | None,
) -> None:
    """Send the lines of the FILEs, or of stdin, to CHANNEL.

    Each line is a message. Its newline is cut off, all else is kept byte for byte; a blank line is an empty
    message. What came through a pipe or from a terminal is sent at once.

    Each message is stored once and in order, though the broker be restarted meanwhile: while nothing is stored for
    --patience seconds, no more is read. When the command ends with exit code 0, all is durable; else stderr says how much is.
    Ctrl-C ends it after the last whole line that was read, a second one at once.

    --json prints one object at the end: channel, messages, bytes, and last_id, null if there were none.

    \b
    Example:
      tail -F shop.log | rocksmq produce orders --create
      rocksmq produce images --whole-file --header type=png *.png
    """
    if len({name for name, _ in headers}) < len(headers):
        raise click.UsageError("a header was given twice: a message has one value a name")
    with session.client() as mq, Stop() as stop:
        if create_channel:
            mq.create_channel(channel)
        else:
            with suppress(PermissionDenied):  # who may only produce is told by the first message
                mq.describe_channel(channel)
        from .sender import Sender

        sender = Sender(mq.producer(channel), dict(headers), stop, patience, session.timeout)
        payload_bytes_max = mq.server.limits["payload_bytes_max"]
        names = files or (STDIN,)
        try:
            with progress(f"to {channel}", _size(names), unit_is_bytes=True) as advance:
                with suppress(Interrupted):
                    for name in names:
                        with _opened(name) as source:
                            chunks = _chunks(source, sender, stop, advance)
                            (_send_whole if whole_file else _send_lines)(sender, name, chunks, payload_bytes_max)
                sender.flush()
        except (RocksMQError, OSError) as error:
            raise Failed(sender.account(error)) from error
        except KeyboardInterrupt:
            click.echo(f"interrupted: {sender.abandon()}", err=True)
            raise
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
        if not chunk and not stop.is_wanted:
            return  # and not because the signal ended who writes, too, in the midst of a line
        if not chunk:
            break
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
    messages, size, last_id = sender.messages, sender.payload_bytes, sender.last_id
    record = {"channel": channel, "messages": messages, "bytes": size, "last_id": last_id}
    ids = {0: "", 1: f", id {last_id}"}.get(messages, f", the last with id {last_id}")
    text = f"{_counted(messages, 'message')}, {_counted(size, 'byte')}{ids}"
    show_record(record, text, as_json=session.as_json)


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
