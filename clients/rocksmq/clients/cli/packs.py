"""Packs of message streams as lines: for people, or a JSON object a pack. Pure."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from .output import bytes_field, bytes_list_field, json_line, printable

if TYPE_CHECKING:
    from rocksmq.clients.msgstream import MsgPack, MsgPosition, TsMsg

VALUES_SHOWN = 8  # of a message's rows, to people
TEXT_SHOWN = 60  # characters of each


def text_lines(pack: "MsgPack") -> list[str]:
    """The pack's range and counts, and a line a message, in which long values are cut short."""
    late = f", {pack.late_count} late" if pack.late_count else ""
    count = "1 message" if len(pack.msgs) == 1 else f"{len(pack.msgs)} messages"
    return [f"pack {_range(pack.begin_ts, pack.end_ts)}: {count}{late}", *map(_text_of, pack.msgs)]


def pack_json(pack: "MsgPack") -> str:
    """The whole pack as one line: ``jq -c '.msgs[]'`` gives its messages."""
    return json_line(
        {
            "begin_ts": pack.begin_ts,
            "end_ts": pack.end_ts,
            "late_count": pack.late_count,
            "msgs": [_record_of(msg) for msg in pack.msgs],
            "start_positions": _records(pack.start_positions),
            "end_positions": _records(pack.end_positions),
            "gaps": [gap._asdict() for gap in pack.gaps],
        }
    )


def _range(begin_ts: int, end_ts: int) -> str:
    return f"{begin_ts}" if begin_ts == end_ts else f"{begin_ts}..{end_ts}"


def _type_of(msg: "TsMsg") -> tuple[int, str | None]:
    """Number and name; no name where the type is not one of the library's."""
    from rocksmq.clients.msgstream import MsgType
    from rocksmq.clients.msgstream.looking import ForeignMsg

    if isinstance(msg, ForeignMsg):
        return msg.msg_type, None
    return int(msg.type), MsgType(msg.type).name


def _text_of(msg: "TsMsg") -> str:
    number, name = _type_of(msg)
    channel = "" if msg.position is None else msg.position.channel_name
    words = [channel, name or f"type {number}", f"id {msg.id}", _range(msg.begin_ts, msg.end_ts)]
    if msg.late:
        words.append("late")
    return "  " + "  ".join([*words, *_content_of(msg)])


def _content_of(msg: "TsMsg") -> Iterable[str]:
    from rocksmq.clients.msgstream import DeleteMsg, InsertMsg
    from rocksmq.clients.msgstream.messages import PayloadMsg

    if isinstance(msg, InsertMsg):
        yield f"rows {_listed([_shown(row) for row in msg.rows[:VALUES_SHOWN]], len(msg.rows))}"
    elif isinstance(msg, DeleteMsg):
        yield f"keys {_listed([str(key) for key in msg.primary_keys[:VALUES_SHOWN]], len(msg.primary_keys))}"
    elif isinstance(msg, PayloadMsg) and msg.payload:
        yield _shown(msg.payload)


def _listed(values: Sequence[str], count: int) -> str:
    more = f" and {count - len(values)} more" if count > len(values) else ""
    return ", ".join(values) + more


def _shown(value: bytes) -> str:
    text = printable(value[: 4 * TEXT_SHOWN].decode(errors="backslashreplace"))
    return text if len(text) <= TEXT_SHOWN else f"{text[:TEXT_SHOWN]}…"


def _records(positions: Iterable["MsgPosition"]) -> list[dict[str, Any]]:
    return [position._asdict() for position in positions]


def _record_of(msg: "TsMsg") -> dict[str, Any]:
    from rocksmq.clients.msgstream import DeleteMsg, InsertMsg
    from rocksmq.clients.msgstream.messages import PayloadMsg

    number, name = _type_of(msg)
    record: dict[str, Any] = {
        "position": None if msg.position is None else msg.position._asdict(),
        "type": number,
        "type_name": name,
        "id": msg.id,
        "begin_ts": msg.begin_ts,
        "end_ts": msg.end_ts,
        "late": msg.late,
    }
    if name is not None:
        record["hash_keys"] = msg.hash_keys
    if isinstance(msg, (InsertMsg, DeleteMsg)):
        record["timestamps"] = msg.timestamps
    if isinstance(msg, InsertMsg):
        record |= {"row_ids": msg.row_ids, **bytes_list_field("rows", msg.rows)}
    elif isinstance(msg, DeleteMsg):
        record["primary_keys"] = msg.primary_keys
    elif isinstance(msg, PayloadMsg):
        record |= bytes_field("payload", msg.payload)
    return record
