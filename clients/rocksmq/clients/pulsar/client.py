"""The one place that imports Pulsar's client: connections to it, and its failures as errors of our own.

That client is C++ with threads of its own. They call back holding the GIL, where an exception ends the process; a connection of
it does not survive a fork. What it says goes to the logger ``rocksmq.pulsar`` if that is set to DEBUG when it connects.
"""

import logging
import math
import os
from collections.abc import Callable
from typing import Any, TypeVar

from rocksmq.protocol.errors import (
    ChannelNotFound,
    Conflict,
    ConnectionFailed,
    InternalError,
    InvalidRequest,
    LimitExceeded,
    MessageTooLarge,
    Overloaded,
    PermissionDenied,
    ReadOnly,
    RocksMQError,
    Timeout,
    Unauthenticated,
)

try:
    import pulsar as _pulsar
except ImportError as error:
    raise ImportError(f"Pulsar needs its client ({error}): pip install 'rocksmq[pulsar]'") from error

pulsar: Any = _pulsar  # it has hardly any types
logger = logging.getLogger("rocksmq.pulsar")
CONNECT_SECONDS = 10.0
Result = TypeVar("Result")
_ERRORS: dict[str, type[RocksMQError]] = {  # by the name that Pulsar's client has for it
    "AlreadyClosed": ConnectionFailed,
    "AuthenticationError": Unauthenticated,
    "AuthorizationError": PermissionDenied,
    "ConnectError": ConnectionFailed,
    "ConsumerBusy": Conflict,
    "ErrorGettingAuthenticationData": Unauthenticated,
    "InvalidConfiguration": InvalidRequest,
    "InvalidMessage": InvalidRequest,
    "InvalidTopicName": InvalidRequest,
    "InvalidUrl": InvalidRequest,
    "MemoryBufferIsFull": Overloaded,
    "MessageTooBig": MessageTooLarge,
    "NotAllowedError": InvalidRequest,
    "NotConnected": ConnectionFailed,
    "OperationNotSupported": InvalidRequest,
    "ProducerBlockedQuotaExceededError": LimitExceeded,
    "ProducerBlockedQuotaExceededException": LimitExceeded,
    "ProducerBusy": Conflict,
    "ProducerFenced": Conflict,
    "ProducerQueueIsFull": Overloaded,
    "Timeout": Timeout,
    "TopicNotFound": ChannelNotFound,
    "TopicTerminated": ReadOnly,
    "UnsupportedVersionError": InvalidRequest,
}
_PASSING = (
    *("BrokerMetadataError", "BrokerPersistenceError", "Interrupted", "LookupError", "ReadError", "ServiceUnitNotReady"),
    *("TooManyLookupRequestException", "UnknownError"),
)


def connect(url: str, *, token: str | None = None, ca: str | None = None, operation_seconds: float = CONNECT_SECONDS) -> Any:
    """A `pulsar.Client`; nothing is connected yet. ``ca``: a file in PEM that vouches for the broker, for pulsar+ssl://.

    ``operation_seconds`` bounds each of its calls. Raises InvalidRequest.
    """
    authentication = None if token is None else pulsar.AuthenticationToken(token)

    def made() -> Any:
        return pulsar.Client(
            url,
            authentication=authentication,
            operation_timeout_seconds=max(1, math.ceil(operation_seconds)),
            connection_timeout_ms=max(1, math.ceil(operation_seconds * 1000)),
            tls_trust_certs_file_path=ca,
            tls_validate_hostname=True,
            logger=_logger(),
        )

    try:
        return asked(f"connecting to {url}", made)
    except (RuntimeError, ValueError) as error:
        raise InvalidRequest(f"{url!r} is no address of Pulsar, as pulsar://host:6650 is: {error}") from error


def _logger() -> Any:
    """Where the client says what it does.

    One of Python's is called twice for each message, whatever its level, which takes a third of a sender's time; and also while
    the interpreter ends. Failures are raised, so by default nothing is lost with it.
    """
    return logger if logger.isEnabledFor(logging.DEBUG) else pulsar.FileLogger(pulsar.LoggerLevel.Error, os.devnull)


def asked(what: str, call: Callable[[], Result]) -> Result:
    """What ``call`` returns. Raises Pulsar's failures as errors of our own, that say ``what`` failed."""
    try:
        return call()
    except pulsar.PulsarException as error:
        raise failure(what, type(error).__name__) from error


def failure(what: str, name: str) -> RocksMQError:
    """The error for a failure by the ``name`` that Pulsar's client has for it, as `pulsar.Result` or an exception's class."""
    kind = _ERRORS.get(name, ConnectionFailed if name in _PASSING else InternalError)
    return kind(f"Pulsar: {what}: {name}")
