"""The messages that come with the library, one class a type.

Their fields are checked when a message is made and again when it is marshalled, so that a wrong one is refused before
anything is sent. A payload is `header.py`'s header and a body of messages.proto; `unmarshal` takes nothing that `marshal`
could not have made, save for other valid encodings of the same, and fields that it does not know, which it drops.
"""

import struct
from array import array
from collections.abc import Iterable, Sequence
from typing import Any, Self

from rocksmq.protocol.errors import InvalidRequest
from rocksmq.protocol.messages import payload_of

from .header import Header, Undecodable, decoded, pack_header
from .one_row import ROW_BYTES_MAX, checked_keys, is_keys_alone, maybe_keys, maybe_row, pack_keys, pack_row
from .schema import body_class
from .types import HASH_KEY_MAX, ID_MAX, ID_MIN, TIMESTAMP_MAX, MsgType, TsMsg, integer

# Item types of `array`, which checks type and range of a whole column in one call.
_RANGES = {"Q": (0, TIMESTAMP_MAX), "q": (ID_MIN, ID_MAX), "I": (0, HASH_KEY_MAX)}
_ALL_BYTES = {bytes}


class ContentMsg(TsMsg):
    """What the messages below share: equal are those of the same class, id and fields, wherever they were read."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ContentMsg) and type(self) is type(other) and self._content() == other._content()

    __hash__ = None  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]

    def _content(self) -> tuple[Any, ...]:
        raise NotImplementedError

    def _packed(self, begin_ts: int, end_ts: int, **fields: Any) -> bytes:
        """The payload. Raises InvalidRequest for fields that were changed to what they cannot be."""
        try:
            body: bytes = body_class(self.type)(hash_keys=self.hash_keys, **fields).SerializeToString()
        except (TypeError, ValueError) as error:
            raise self._wrong(error) from None
        return pack_header(self.type, self.id, begin_ts, end_ts) + body

    def _wrong(self, error: Exception) -> InvalidRequest:
        return InvalidRequest(f"a field of {self!r} is wrong: {error}")


class RowsMsg(ContentMsg):
    """A message of rows, at least one, each with a timestamp and a hash key of its own."""

    __slots__ = ("timestamps",)

    timestamps: list[int]

    def set_ts(self, ts: int) -> None:
        """All of its rows are of ``ts``. Raises InvalidRequest."""
        super().set_ts(ts)
        self.timestamps = [ts] * len(self.timestamps)

    def uneven(self) -> str:
        """What is wrong with the lengths of its columns; empty: they are equal, and not 0."""
        raise NotImplementedError

    def rows_at(self, indexes: Sequence[int]) -> Self:
        """Those rows as a message of their own, of the same id."""
        raise NotImplementedError

    def _packed_keys(self, row_ids: list[int]) -> bytes:
        """All but the row of a message that has one."""
        if wrong := self.uneven():
            raise InvalidRequest(wrong)
        try:
            return pack_keys(self.type, self.id, self.timestamps[0], row_ids[0], self.hash_keys[0])
        except struct.error as error:
            raise self._wrong(error) from None

    def _packed_rows(self, **columns: Any) -> bytes:
        if wrong := self.uneven():
            raise InvalidRequest(wrong)
        stamps = self.timestamps
        try:
            begin_ts, end_ts = min(stamps), max(stamps)
        except TypeError as error:
            raise self._wrong(error) from None
        return self._packed(begin_ts, end_ts, timestamps=stamps, **columns)

    def _read_as(self, header: Header) -> Self:
        """Itself, just read, if its columns fit together and to the header. Raises Undecodable."""
        if wrong := self.uneven():
            raise Undecodable(wrong)
        stamps = self.timestamps
        if header.begin_ts != min(stamps) or header.end_ts != max(stamps):
            raise Undecodable(f"its timestamps are from {min(stamps)} to {max(stamps)}, not as {header} tells")
        return self


class InsertMsg(RowsMsg):
    """Rows to insert, bytes each, with their ids."""

    __slots__ = ("row_ids", "rows")
    type = MsgType.INSERT

    def __init__(
        self,
        id: int,  # noqa: A002
        timestamps: Iterable[int],
        row_ids: Iterable[int],
        rows: Iterable[bytes],
        hash_keys: Iterable[int],
    ) -> None:
        columns: tuple[Any, ...] = timestamps, row_ids, rows, hash_keys
        if type(id) is int and _is_one(*columns):
            (stamp,), (row_id,), (row,), (key,) = columns
            try:
                id, stamp, row_id, key = checked_keys(id, stamp, row_id, key)  # noqa: A001
            except struct.error:
                pass  # what is wrong is told below
            else:
                self.timestamps, self.row_ids, self.rows = [stamp], [row_id], [row]
                TsMsg.__init__(self, id, stamp, stamp, [key])
                return
        self.timestamps = stamps = _integers("timestamps", "Q", timestamps)
        self.row_ids = _integers("row_ids", "q", row_ids)
        self.rows = _bytes("rows", rows)
        self.hash_keys = keys = _integers("hash_keys", "I", hash_keys)
        if wrong := self.uneven():
            raise InvalidRequest(wrong)
        TsMsg.__init__(self, integer("id", id, ID_MIN, ID_MAX), min(stamps), max(stamps), keys)

    def uneven(self) -> str:
        """What is wrong with the lengths of its columns; empty: they are equal, and not 0."""
        count = len(self.rows)
        if count and count == len(self.timestamps) == len(self.row_ids) == len(self.hash_keys):
            return ""
        return _lengths(self, self.timestamps, row_ids=self.row_ids, rows=self.rows)

    def rows_at(self, indexes: Sequence[int]) -> "InsertMsg":
        """Those rows as a message of their own, of the same id."""
        part = InsertMsg.__new__(InsertMsg)
        part.timestamps = stamps = [self.timestamps[index] for index in indexes]
        part.row_ids = [self.row_ids[index] for index in indexes]
        part.rows = [self.rows[index] for index in indexes]
        TsMsg.__init__(part, self.id, min(stamps), max(stamps), [self.hash_keys[index] for index in indexes])
        return part

    def marshal(self) -> bytes:
        """Itself as bytes. Raises InvalidRequest for fields that were changed to what they cannot be."""
        rows = self.rows
        if len(rows) == 1 and type(rows[0]) is bytes and len(rows[0]) <= ROW_BYTES_MAX:
            return self._packed_keys(self.row_ids) + pack_row(rows[0])
        return self._packed_rows(row_ids=self.row_ids, rows=rows)

    @classmethod
    def unmarshal(cls, payload: bytes) -> Self:
        """The message in ``payload``. Raises Undecodable for what is none."""
        keys = maybe_keys(cls.type, payload)
        if keys is not None:
            row = maybe_row(payload)
            if row is not None:
                msg_id, timestamp, row_id, hash_key = keys
                msg = cls.__new__(cls)
                TsMsg.__init__(msg, msg_id, timestamp, timestamp, [hash_key])
                msg.timestamps = [timestamp]
                msg.row_ids = [row_id]
                msg.rows = [row]
                return msg
        header, body = decoded(cls.type, payload)
        msg = cls.__new__(cls)
        TsMsg.__init__(msg, header.id, header.begin_ts, header.end_ts, body.hash_keys[:])
        msg.timestamps = body.timestamps[:]
        msg.row_ids = body.row_ids[:]
        msg.rows = body.rows[:]
        return msg._read_as(header)

    def _content(self) -> tuple[Any, ...]:
        return self.id, self.timestamps, self.row_ids, self.rows, self.hash_keys


class DeleteMsg(RowsMsg):
    """Primary keys of what to delete."""

    __slots__ = ("primary_keys",)
    type = MsgType.DELETE

    def __init__(
        self,
        id: int,  # noqa: A002
        timestamps: Iterable[int],
        primary_keys: Iterable[int],
        hash_keys: Iterable[int],
    ) -> None:
        self.timestamps = stamps = _integers("timestamps", "Q", timestamps)
        self.primary_keys = _integers("primary_keys", "q", primary_keys)
        self.hash_keys = keys = _integers("hash_keys", "I", hash_keys)
        if wrong := self.uneven():
            raise InvalidRequest(wrong)
        TsMsg.__init__(self, integer("id", id, ID_MIN, ID_MAX), min(stamps), max(stamps), keys)

    def uneven(self) -> str:
        """What is wrong with the lengths of its columns; empty: they are equal, and not 0."""
        count = len(self.primary_keys)
        if count and count == len(self.timestamps) == len(self.hash_keys):
            return ""
        return _lengths(self, self.timestamps, primary_keys=self.primary_keys)

    def rows_at(self, indexes: Sequence[int]) -> "DeleteMsg":
        """Those rows as a message of their own, of the same id."""
        part = DeleteMsg.__new__(DeleteMsg)
        part.timestamps = stamps = [self.timestamps[index] for index in indexes]
        part.primary_keys = [self.primary_keys[index] for index in indexes]
        TsMsg.__init__(part, self.id, min(stamps), max(stamps), [self.hash_keys[index] for index in indexes])
        return part

    def marshal(self) -> bytes:
        """Itself as bytes. Raises InvalidRequest for fields that were changed to what they cannot be."""
        if len(self.primary_keys) == 1:
            return self._packed_keys(self.primary_keys)
        return self._packed_rows(primary_keys=self.primary_keys)

    @classmethod
    def unmarshal(cls, payload: bytes) -> Self:
        """The message in ``payload``. Raises Undecodable for what is none."""
        keys = maybe_keys(cls.type, payload)
        if keys is not None and is_keys_alone(payload):
            msg_id, timestamp, primary_key, hash_key = keys
            msg = cls.__new__(cls)
            TsMsg.__init__(msg, msg_id, timestamp, timestamp, [hash_key])
            msg.timestamps = [timestamp]
            msg.primary_keys = [primary_key]
            return msg
        header, body = decoded(cls.type, payload)
        msg = cls.__new__(cls)
        TsMsg.__init__(msg, header.id, header.begin_ts, header.end_ts, body.hash_keys[:])
        msg.timestamps = body.timestamps[:]
        msg.primary_keys = body.primary_keys[:]
        return msg._read_as(header)

    def _content(self) -> tuple[Any, ...]:
        return self.id, self.timestamps, self.primary_keys, self.hash_keys


class InstantMsg(ContentMsg):
    """A message of one timestamp, which is its begin and its end."""

    __slots__ = ()

    def __init__(self, id: int, timestamp: int, hash_keys: Iterable[int]) -> None:  # noqa: A002
        stamp = integer("timestamp", timestamp, 0, TIMESTAMP_MAX)
        super().__init__(integer("id", id, ID_MIN, ID_MAX), stamp, stamp, _integers("hash_keys", "I", hash_keys))

    @property
    def timestamp(self) -> int:
        """When it was."""
        return self.begin_ts

    def marshal(self) -> bytes:
        """Itself as bytes. Raises InvalidRequest for fields that were changed to what they cannot be."""
        return self._packed(self.begin_ts, self.begin_ts)

    @classmethod
    def unmarshal(cls, payload: bytes) -> Self:
        """The message in ``payload``. Raises Undecodable for what is none."""
        return cls._read(payload)[0]

    @classmethod
    def _read(cls, payload: bytes) -> tuple[Self, Any]:
        header, body = decoded(cls.type, payload)
        _, msg_id, begin_ts, end_ts = header
        if begin_ts != end_ts:
            raise Undecodable(f"{cls.__name__} has one timestamp, but {header} tells two")
        msg = cls.__new__(cls)
        TsMsg.__init__(msg, msg_id, begin_ts, end_ts, body.hash_keys[:])
        return msg, body

    def _content(self) -> tuple[Any, ...]:
        return self.id, self.begin_ts, self.hash_keys


class PayloadMsg(InstantMsg):
    """A message of one timestamp and bytes that only its sender and its reader understand."""

    __slots__ = ("payload",)

    def __init__(self, id: int, timestamp: int, payload: bytes, hash_keys: Iterable[int]) -> None:  # noqa: A002
        self.payload = payload if type(payload) is bytes else _bytes("payload", [payload])[0]
        super().__init__(id, timestamp, hash_keys)

    def marshal(self) -> bytes:
        """Itself as bytes. Raises InvalidRequest for fields that were changed to what they cannot be."""
        return self._packed(self.begin_ts, self.begin_ts, payload=self.payload)

    @classmethod
    def unmarshal(cls, payload: bytes) -> Self:
        """The message in ``payload``. Raises Undecodable for what is none."""
        msg, body = cls._read(payload)
        msg.payload = body.payload
        return msg

    def _content(self) -> tuple[Any, ...]:
        return *super()._content(), self.payload


class SearchMsg(PayloadMsg):
    """A search."""

    __slots__ = ()
    type = MsgType.SEARCH


class SearchResultMsg(PayloadMsg):
    """What a search found."""

    __slots__ = ()
    type = MsgType.SEARCH_RESULT


class SegStatisticsMsg(PayloadMsg):
    """Statistics of segments."""

    __slots__ = ()
    type = MsgType.SEG_STATISTICS


class TimeTickMsg(InstantMsg):
    """The promise that no message with an end_ts up to its timestamp follows in its channel. Usually broadcast."""

    __slots__ = ()
    type = MsgType.TIME_TICK

    def __init__(self, timestamp: int, id: int = 0, hash_keys: Iterable[int] = (0,)) -> None:  # noqa: A002
        super().__init__(id, timestamp, hash_keys)


class TimeSyncMsg(InstantMsg):
    """A time, delivered like any other message: it promises nothing."""

    __slots__ = ()
    type = MsgType.TIME_SYNC

    def __init__(self, timestamp: int, id: int = 0, hash_keys: Iterable[int] = (0,)) -> None:  # noqa: A002
        super().__init__(id, timestamp, hash_keys)


MESSAGE_CLASSES: tuple[type[TsMsg], ...] = (
    InsertMsg,
    DeleteMsg,
    SearchMsg,
    SearchResultMsg,
    SegStatisticsMsg,
    TimeTickMsg,
    TimeSyncMsg,
)


def _lengths(msg: TsMsg, timestamps: Sequence[int], **columns: Sequence[Any]) -> str:
    counts = {name: len(column) for name, column in {"timestamps": timestamps, **columns, "hash_keys": msg.hash_keys}.items()}
    return f"{type(msg).__name__} has at least one row, and as many of each: {counts}"


def _is_one(timestamps: Any, row_ids: Any, rows: Any, hash_keys: Any) -> bool:
    """Whether they are lists of one item each, of which the row is bytes."""
    return (
        type(timestamps) is type(row_ids) is type(rows) is type(hash_keys) is list
        and len(timestamps) == len(row_ids) == len(rows) == len(hash_keys) == 1
        and type(rows[0]) is bytes
    )


def _integers(name: str, item_type: str, values: Iterable[int]) -> list[int]:
    """A list of its own of integers in the range. Raises InvalidRequest."""
    try:
        return array(item_type, [*values]).tolist()
    except (TypeError, OverflowError) as error:
        least, most = _RANGES[item_type]
        raise InvalidRequest(f"{name} are integers from {least} to {most}: {error}") from None


def _bytes(name: str, values: Iterable[bytes]) -> list[bytes]:
    """A list of its own of bytes. Raises InvalidRequest."""
    try:
        listed = [*values]
        return listed if set(map(type, listed)) <= _ALL_BYTES else [payload_of(value) for value in listed]
    except TypeError as error:
        raise InvalidRequest(f"{name} is wrong: {error}") from None
