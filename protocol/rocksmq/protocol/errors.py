"""Errors: one code a kind of failure, one class a code, told apart by what the caller can do.

Owns the numbers on the wire (SPEC §5) and the exception classes that broker and
client share. The broker raises them to refuse a request; the client raises the
same class again on its side. Knows nothing of sockets or storage.
"""

from collections.abc import Mapping
from enum import IntEnum
from typing import Any, ClassVar


class ErrorCode(IntEnum):
    """Numbers of SPEC §5. 0 is success; 100 and above never travel."""

    INVALID_REQUEST = 1
    CHANNEL_NOT_FOUND = 2
    GROUP_NOT_FOUND = 3
    CONFLICT = 4
    MESSAGE_TOO_LARGE = 5
    LIMIT_EXCEEDED = 6
    OVERLOADED = 7
    DISK_FULL = 8
    READ_ONLY = 9
    STORAGE_FAILED = 10
    META_UNAVAILABLE = 11
    OUT_OF_SEQUENCE = 12
    UNAUTHENTICATED = 13
    PERMISSION_DENIED = 14
    UNSUPPORTED_VERSION = 15
    SHUTTING_DOWN = 16
    PROTOCOL_ERROR = 17
    INTERNAL_ERROR = 18
    CONNECTION_FAILED = 100
    TIMEOUT = 101
    GAP_FOUND = 102
    BUFFER_FULL = 103
    PACK_PARTLY_PRODUCED = 104


class RocksMQError(Exception):
    """Root of every error of RocksMQ.

    ``code`` is the number on the wire, ``retryable`` says whether the same call
    may succeed later without a change, ``retry_after`` (seconds) is the broker's
    wish for when. ``expected_number`` and ``present_id`` are set on
    `OutOfSequence` only, ``not_stored`` by a `Producer`: the `OutgoingMessage`s that it
    gave up.
    """

    code: ClassVar[ErrorCode] = ErrorCode.INTERNAL_ERROR
    retryable: ClassVar[bool] = False

    def __init__(
        self,
        message: str,
        *,
        retry_after: float | None = None,
        expected_number: int | None = None,
        present_id: int | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.retry_after = retry_after
        self.expected_number = expected_number
        self.present_id = present_id
        self.not_stored: tuple[Any, ...] = ()


class ConnectionFailed(RocksMQError):
    """No broker answers at the address, or the connection was lost. A produce in flight is stored or not: unknown."""

    code = ErrorCode.CONNECTION_FAILED
    retryable = True


class Timeout(RocksMQError, TimeoutError):
    """The call's deadline passed without an answer. A produce in flight is stored or not: unknown."""

    code = ErrorCode.TIMEOUT


class InvalidRequest(RocksMQError, ValueError):
    """The request can never succeed as it is; the message names the field. Nothing was changed."""

    code = ErrorCode.INVALID_REQUEST


class ChannelNotFound(RocksMQError):
    """There is no channel of this name. Nothing was changed."""

    code = ErrorCode.CHANNEL_NOT_FOUND


class GroupNotFound(RocksMQError):
    """The channel has no consumer group of this name. Nothing was changed."""

    code = ErrorCode.GROUP_NOT_FOUND


class Conflict(RocksMQError):
    """Somebody else has taken over: another generation of the group. Nothing was changed."""

    code = ErrorCode.CONFLICT


class MessageTooLarge(RocksMQError):
    """A payload or its headers exceed the broker's limit; none of the batch was stored."""

    code = ErrorCode.MESSAGE_TOO_LARGE


class LimitExceeded(RocksMQError):
    """A configured count is reached; the message names the limit. Nothing was changed."""

    code = ErrorCode.LIMIT_EXCEEDED


class Overloaded(RocksMQError):
    """The broker has too much waiting; try again after ``retry_after``. Nothing was stored."""

    code = ErrorCode.OVERLOADED
    retryable = True


class DiskFull(RocksMQError):
    """The broker's disk has no room; it heals by itself once space is freed. Nothing was stored."""

    code = ErrorCode.DISK_FULL
    retryable = True


class ReadOnly(RocksMQError):
    """The broker takes no writes; reads go on. Nothing was stored."""

    code = ErrorCode.READ_ONLY


class StorageFailed(RocksMQError):
    """The disk or the database failed under the request. A produce is stored or not: unknown."""

    code = ErrorCode.STORAGE_FAILED


class MetaUnavailable(RocksMQError):
    """Group positions cannot be moved now; produce and fetch go on. The same call again finds out whether it was done."""

    code = ErrorCode.META_UNAVAILABLE
    retryable = True


class OutOfSequence(RocksMQError):
    """The batch's number is not the one that the broker expects. Stored or not: unknown."""

    code = ErrorCode.OUT_OF_SEQUENCE


class Unauthenticated(RocksMQError):
    """The token is missing, unknown or expired."""

    code = ErrorCode.UNAUTHENTICATED


class PermissionDenied(RocksMQError):
    """The token does not permit this operation on this channel."""

    code = ErrorCode.PERMISSION_DENIED


class UnsupportedVersion(RocksMQError):
    """Client and broker share no protocol version; the message names both windows."""

    code = ErrorCode.UNSUPPORTED_VERSION


class ShuttingDown(RocksMQError):
    """The broker is stopping; it will answer again after its restart."""

    code = ErrorCode.SHUTTING_DOWN
    retryable = True


class ProtocolError(RocksMQError):
    """The other side sent bytes that are not this protocol; the connection is closed."""

    code = ErrorCode.PROTOCOL_ERROR


class InternalError(RocksMQError):
    """The broker met a bug; its log has the details. A produce is stored or not: unknown."""

    code = ErrorCode.INTERNAL_ERROR


class GapFound(RocksMQError):
    """Retention removed messages that this reader had not read; ``gap``, a `Gap`, says which. It goes on behind them."""

    code = ErrorCode.GAP_FOUND
    gap: Any = None


class BufferFull(RocksMQError):
    """A time-tick stream holds as much as it may and still waits for the tick of the channel that is named. Nothing is lost."""

    code = ErrorCode.BUFFER_FULL


class PackPartlyProduced(RocksMQError):
    """Some channels' parts of a pack are stored, others are not, or it is unknown whether they are.

    ``ids``: by channel, those of the parts that are stored. ``errors``: by channel, what the others ended with. ``rest``, a
    `MsgPack`: to produce it sends only what is missing, and doubles nothing.
    """

    code = ErrorCode.PACK_PARTLY_PRODUCED

    def __init__(
        self,
        message: str,
        *,
        ids: Mapping[str, range] | None = None,
        errors: Mapping[str, RocksMQError] | None = None,
        rest: Any = None,
        **more: Any,
    ) -> None:
        super().__init__(message, **more)
        self.ids: Mapping[str, range] = ids or {}
        self.errors: Mapping[str, RocksMQError] = errors or {}
        self.rest = rest


CODE_MAX = 99  # on the wire; those above are of the client's own making
_CLASSES: list[type[RocksMQError]] = RocksMQError.__subclasses__()
ERRORS: dict[int, type[RocksMQError]] = {error.code: error for error in _CLASSES}

# After these it is unknown whether a produce was stored; after every other error it certainly was not.
OUTCOME_UNKNOWN = (ConnectionFailed, Timeout, StorageFailed, InternalError, ProtocolError, OutOfSequence)
