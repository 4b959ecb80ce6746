"""Message streams over many channels (contract §7); the guide is clients/msgstream.md.

from rocksmq.clients.msgstream import RmqMsgStreamFactory
"""

from rocksmq.protocol.errors import BufferFull, PackPartlyProduced

from .dispatch import MemUDFactory, ProtoUDFactory, UnknownMsgType, UnmarshalDispatcher, UnmarshalDispatcherFactory
from .factory import (
    MemMsgStreamFactory,
    MsgStreamFactory,
    PulsarMsgStream,
    PulsarMsgStreamFactory,
    PulsarTtMsgStream,
    RmqMsgStream,
    RmqMsgStreamFactory,
    RmqTtMsgStream,
    msg_stream_factory,
)
from .header import Header, Undecodable, header_of, pack_header
from .memory import MemBroker
from .messages import DeleteMsg, InsertMsg, SearchMsg, SearchResultMsg, SegStatisticsMsg, TimeSyncMsg, TimeTickMsg
from .repack import default_repack, delete_repack, insert_repack
from .stream import MsgStream
from .tt_stream import TtMsgStream
from .types import MsgPack, MsgPosition, MsgType, RepackFunc, StreamGap, TsMsg, UnmarshalFunc

__all__ = [
    "BufferFull",
    "DeleteMsg",
    "Header",
    "InsertMsg",
    "MemBroker",
    "MemMsgStreamFactory",
    "MemUDFactory",
    "MsgPack",
    "MsgPosition",
    "MsgStream",
    "MsgStreamFactory",
    "MsgType",
    "PackPartlyProduced",
    "ProtoUDFactory",
    "PulsarMsgStream",
    "PulsarMsgStreamFactory",
    "PulsarTtMsgStream",
    "RepackFunc",
    "RmqMsgStream",
    "RmqMsgStreamFactory",
    "RmqTtMsgStream",
    "SearchMsg",
    "SearchResultMsg",
    "SegStatisticsMsg",
    "StreamGap",
    "TimeSyncMsg",
    "TimeTickMsg",
    "TsMsg",
    "TtMsgStream",
    "Undecodable",
    "UnknownMsgType",
    "UnmarshalDispatcher",
    "UnmarshalDispatcherFactory",
    "UnmarshalFunc",
    "default_repack",
    "delete_repack",
    "header_of",
    "insert_repack",
    "msg_stream_factory",
    "pack_header",
]
