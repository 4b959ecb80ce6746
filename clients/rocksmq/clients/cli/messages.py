"""Messages to stdout: raw bytes, or a JSON object a line."""

import sys
from typing import TYPE_CHECKING, BinaryIO

import click

from .output import bytes_field, json_line
from .session import Session

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


class MessageWriter:
    """Writes batches to stdout, each whole and flushed; a gap before one goes to stderr."""

    def __init__(self, *, as_json: bool) -> None:
        self._stdout: BinaryIO = sys.stdout.buffer
        self._as_json = as_json

    def write(self, batch: "MessageBatch") -> None:
        """Raises BrokenPipeError when nobody reads any more."""
        if (gap := batch.gap) is not None:
            count = "messages" if gap.message_count is None else f"{gap.message_count:,} messages"
            click.echo(f"warning: retention removed {count} from id {gap.from_id} on before they were read", err=True)
        if not batch:
            return
        lines = [_json_line(message) for message in batch] if self._as_json else batch.payloads
        rest = memoryview(b"\n".join([*lines, b""]))
        while rest:  # under PYTHONUNBUFFERED a signal may end a write early
            rest = rest[self._stdout.write(rest) :]
        self._stdout.flush()


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
