"""The one place that imports protobuf, and only when a payload is made or read: messages kept in memory need none of it."""

from functools import cache
from typing import Any

from .types import MsgType

ANY = 0  # as a type: what every payload can be read as


def decode_error() -> type[Exception]:
    """What protobuf raises for bytes that are no message."""
    from google.protobuf.message import DecodeError

    return DecodeError


@cache
def body_class(msg_type: int) -> Any:
    """The generated class for payloads of that type. Raises ImportError, saying what to install, where protobuf is missing."""
    try:
        from . import messages_pb2
    except Exception as error:  # one that is too old raises an error of its own kind
        raise ImportError(f"payloads of message streams need protobuf ({error}): pip install 'rocksmq[msgstream]'") from error
    return {
        ANY: messages_pb2.AnyMsg,
        MsgType.INSERT: messages_pb2.InsertMsg,
        MsgType.DELETE: messages_pb2.DeleteMsg,
        MsgType.SEARCH: messages_pb2.SearchMsg,
        MsgType.SEARCH_RESULT: messages_pb2.SearchResultMsg,
        MsgType.SEG_STATISTICS: messages_pb2.SegStatisticsMsg,
        MsgType.TIME_TICK: messages_pb2.TimeTickMsg,
        MsgType.TIME_SYNC: messages_pb2.TimeSyncMsg,
    }[msg_type]
