"""The blocking client of RocksMQ.

from rocksmq.clients import Client
"""

from rocksmq.protocol.errors import (
    BufferFull,
    ChannelNotFound,
    Conflict,
    ConnectionFailed,
    DiskFull,
    ErrorCode,
    GapFound,
    GroupNotFound,
    InternalError,
    InvalidRequest,
    LimitExceeded,
    MessageTooLarge,
    MetaUnavailable,
    OutOfSequence,
    Overloaded,
    PackPartlyProduced,
    PermissionDenied,
    ProtocolError,
    ReadOnly,
    RocksMQError,
    ShuttingDown,
    StorageFailed,
    Timeout,
    Unauthenticated,
    UnsupportedVersion,
)
from rocksmq.protocol.messages import Gap, Message, MessageBatch, OutgoingMessage

from .client import Client
from .consumer import Consumer
from .models import ChannelDescription, ChannelInfo, GroupInfo, OwnerDescription, SeekOutcome, SeekResult, ServerInfo
from .producer import Producer
from .status import BrokerStatus, Histogram, Metric

__all__ = [
    "BrokerStatus",
    "BufferFull",
    "ChannelDescription",
    "ChannelInfo",
    "ChannelNotFound",
    "Client",
    "Conflict",
    "ConnectionFailed",
    "Consumer",
    "DiskFull",
    "ErrorCode",
    "Gap",
    "GapFound",
    "GroupInfo",
    "GroupNotFound",
    "Histogram",
    "InternalError",
    "InvalidRequest",
    "LimitExceeded",
    "Message",
    "MessageBatch",
    "MessageTooLarge",
    "MetaUnavailable",
    "Metric",
    "OutOfSequence",
    "OutgoingMessage",
    "Overloaded",
    "OwnerDescription",
    "PackPartlyProduced",
    "PermissionDenied",
    "Producer",
    "ProtocolError",
    "ReadOnly",
    "RocksMQError",
    "SeekOutcome",
    "SeekResult",
    "ServerInfo",
    "ShuttingDown",
    "StorageFailed",
    "Timeout",
    "Unauthenticated",
    "UnsupportedVersion",
]
