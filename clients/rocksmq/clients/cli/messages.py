"""Lines to stdout, of which it is known what was taken; and messages as such: raw bytes, or a JSON object a line."""

import io
import select
import sys
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, cast

import click

from .output import bytes_field, json_line
from .session import Session
from .stop import POLL_SECONDS, Stop

if TYPE_CHECKING:
    from rocksmq.protocol.messages import Message, MessageBatch

FORMATS = ("raw", "json")
FORMAT_HELP = (
    "raw: each payload and a newline; json: an object a line with id, timestamp, payload (payload_base64 if it is no text) "
    "and headers. [default: raw; json after --json]"
)


def is_json(session: Session, wanted: str | None) -> bool:
    """Whether messages are shown as JSON. Raises UsageError when --json and --output differ."""
    if session.as_json and wanted == "raw":
        raise click.UsageError("--json and --output raw exclude each other")
    return session.as_json or wanted == "json"


class LineWriter:
    """Writes lines to stdout, past its buffer, so that it is known what was taken.

    ``written``: how many of the last lines were taken whole, also when `write_lines` raised.
    """

    def __init__(self) -> None:
        buffer = sys.stdout.buffer
        self._stdout = cast(io.RawIOBase, getattr(buffer, "raw", buffer))  # under PYTHONUNBUFFERED it is raw itself
        self.written = 0

    def write_lines(self, lines: Sequence[bytes], stop: Stop) -> None:
        """Write them all; when an end is wanted, only the one that was begun. Raises BrokenPipeError, OSError."""
        self.written = 0
        content = memoryview(b"\n".join([*lines, b""]))
        ends = list(accumulate(len(line) + 1 for line in lines))
        done, until = 0, len(content) if lines else 0
        try:
            while done < until:
                if stop.is_wanted:
                    until = ends[bisect_left(ends, done)] if done else 0
                if done < until and self._has_room():
                    done += self._stdout.write(content[done : min(_piece_end(ends, done), until)]) or 0
        except OSError as error:
            error.filename = "stdout"
            raise
        finally:
            self.written = bisect_right(ends, done)

    def _has_room(self) -> bool:
        """Whether a write of PIPE_BUF bytes returns at once, or fails, within POLL_SECONDS: so that Ctrl-C is heeded."""
        try:
            poll = select.poll()
            poll.register(self._stdout.fileno(), select.POLLOUT)
        except io.UnsupportedOperation:
            return True  # it is in memory
        return bool(poll.poll(POLL_SECONDS * 1_000))


class MessageWriter(LineWriter):
    """Writes batches, a line a message; a gap before one goes to stderr."""

    def __init__(self, *, as_json: bool) -> None:
        super().__init__()
        self._as_json = as_json

    def write(self, batch: "MessageBatch", stop: Stop) -> None:
        """As `write_lines`."""
        self.written = 0
        if (gap := batch.gap) is not None:
            tell_gap("", gap.from_id, gap.message_count)
        self.write_lines([_json_line(message) for message in batch] if self._as_json else batch.payloads, stop)


def tell_gap(channel: str, from_id: int, message_count: int | None) -> None:
    """On stderr; ``channel`` is empty where there is only one."""
    count = "messages" if message_count is None else f"{message_count:,} messages"
    where = f" of {channel}" if channel else ""
    click.echo(f"warning: retention removed {count}{where} from id {from_id} on before they were read", err=True)


def _piece_end(ends: Sequence[int], begin: int) -> int:
    """Of what a pipe with room takes whole: messages, or the next part of a large one. So a message is rarely torn."""
    most = begin + select.PIPE_BUF
    count = bisect_right(ends, most)
    return ends[count - 1] if count and ends[count - 1] > begin else most


def _json_line(message: "Message") -> bytes:
    record: dict[str, object] = {"id": message.id, "timestamp": message.timestamp.isoformat(timespec="milliseconds")}
    record.update(bytes_field("payload", message.payload))
    headers: dict[str, str] = {}
    in_base64: dict[str, str] = {}
    for name, value in message.headers.items():
        field = bytes_field(name, value)
        if name in field:
            headers.update(field)
        else:
            in_base64[name] = field[f"{name}_base64"]
    record["headers"] = headers
    if in_base64:
        record["headers_base64"] = in_base64
    return json_line(record).encode()
