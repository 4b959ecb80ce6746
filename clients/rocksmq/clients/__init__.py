"""The blocking client of RocksMQ.

from rocksmq.clients import Client
"""

from rocksmq.protocol.errors import (
    ChannelNotFound,
    Conflict,
    ConnectionFailed,
    DiskFull,
    ErrorCode,
    GroupNotFound,
    InternalError,
    InvalidRequest,
    LimitExceeded,
    MessageTooLarge,
    MetaUnavailable,
    OutOfSequence,
    Overloaded,
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
from .models import ChannelInfo, GroupInfo, OwnerDescription, SeekOutcome, SeekResult, ServerInfo

__all__ = [
    "ChannelInfo",
    "ChannelNotFound",
    "Client",
    "Conflict",
    "ConnectionFailed",
    "DiskFull",
    "ErrorCode",
    "Gap",
    "GroupInfo",
    "GroupNotFound",
    "InternalError",
    "InvalidRequest",
    "LimitExceeded",
    "Message",
    "MessageBatch",
    "MessageTooLarge",
    "MetaUnavailable",
    "OutOfSequence",
    "OutgoingMessage",
    "Overloaded",
    "OwnerDescription",
    "PermissionDenied",
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
