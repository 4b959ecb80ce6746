"""Writes the golden vectors of protocol/vectors from typed values: `python -m tests.protocol.make_vectors`.

Run by hand, and only for a change of the protocol that is meant: the vectors are what other
clients are tested against. SPEC §9 says how the files are to be read.
"""

import json
from itertools import chain
from pathlib import Path
from struct import Struct
from typing import Any, cast

from rocksmq.protocol.batch import RecordBatch
from rocksmq.protocol.cbor import Gathered
from rocksmq.protocol.errors import RocksMQError
from rocksmq.protocol.messages import MessageBatch
from rocksmq.protocol.operations import ManyMessages, Messages, Produce
from tests.protocol.vector_cases import CASES, Case

VECTORS = Path(__file__).parents[2] / "protocol" / "vectors"
PART = Struct("<IIIQQ")  # of FETCH_MANY (SPEC §3.24)
ERROR_FIELDS = ("code", "message", "retry_after_ms", "expected_number", "present_id")


def plain(value: Any) -> Any:
    """A field's value with every kind of buffer as bytes."""
    if isinstance(value, Gathered):
        return b"".join(value.parts)
    return bytes(value) if type(value) in (bytearray, memoryview) else value


def fields_of(value: Any) -> dict[str, Any]:
    """Fields of a request, reply or error by name, in the order of the frame, buffers as bytes."""
    if value is None:
        return {}
    if isinstance(value, RocksMQError):
        retry_after_ms = None if value.retry_after is None else round(value.retry_after * 1000)
        found = (int(value.code), value.message, retry_after_ms, value.expected_number, value.present_id)
        return dict(zip(ERROR_FIELDS, found, strict=True))
    return {name: plain(field) for name, field in zip(value._fields, value, strict=True)}


def to_json(value: Any) -> Any:
    """``value`` with byte strings as ``{"hex": ...}``, also within an array."""
    if isinstance(value, list):
        return [to_json(entry) for entry in cast(list[object], value)]
    return {"hex": value.hex()} if isinstance(value, bytes) else value


def from_json(value: Any) -> object:
    """What `to_json` was given."""
    if isinstance(value, list):
        return [from_json(entry) for entry in cast(list[object], value)]
    if not isinstance(value, dict):
        return value
    found = cast(dict[str, Any], value)
    return bytes.fromhex(found["hex"]) if set(found) == {"hex"} else found


def _messages_of(value: Any) -> list[dict[str, Any]] | None:
    if isinstance(value, Messages):
        return [{"id": m.id, "payload": to_json(m.payload), "headers": _json_headers(m.headers)} for m in MessageBatch(value)]
    if isinstance(value, ManyMessages):
        indexes = chain.from_iterable([index] * count for index, _, count, *_ in PART.iter_unpack(value.parts))
        found = _messages_of(Messages(0, None, 0, None, *value[2:])) or []
        return [{"index": index, **message} for index, message in zip(indexes, found, strict=True)]
    if isinstance(value, Produce):
        batch = MessageBatch(_as_reply(value.batch))
        return [{"payload": to_json(m.payload), "headers": _json_headers(m.headers)} for m in batch]
    return None


def _as_reply(batch: RecordBatch) -> Messages:
    runs = (0).to_bytes(8, "little") + batch.message_count.to_bytes(4, "little")
    return Messages(0, None, 0, None, runs, *batch)


def _json_headers(headers: dict[str, bytes]) -> dict[str, Any]:
    return {name: to_json(value) for name, value in headers.items()}


def entry(case: Case) -> dict[str, Any]:
    """``case`` as it stands in its file."""
    meaning = {name: to_json(value) for name, value in fields_of(case.value).items()}
    made: dict[str, Any] = {
        "name": case.name,
        "kind": case.kind,
        "op": None if case.op is None else case.op.name,
        "hex": case.frame.hex(),
        "meaning": {"correlation": case.correlation, **meaning},
    }
    messages = _messages_of(case.value)
    return made if messages is None else {**made, "messages": messages}


def files() -> dict[str, list[dict[str, Any]]]:
    """All entries, by the name of their file without its ending."""
    made: dict[str, list[dict[str, Any]]] = {}
    for case in CASES:
        made.setdefault(case.file, []).append(entry(case))
    return made


def main() -> None:
    VECTORS.mkdir(exist_ok=True)
    for name, entries in files().items():
        (VECTORS / f"{name}.json").write_text(json.dumps(entries, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
