"""Looks at a broker again and again, and goes on while it is away."""

import time
from types import TracebackType
from typing import TYPE_CHECKING, Self

from rocksmq.protocol.errors import InternalError, LimitExceeded, RocksMQError, StorageFailed, Timeout

from ..address import Address
from ..interval import Interval
from .overview import Overview, overview
from .session import Session
from .top_view import Frame

if TYPE_CHECKING:
    from ..client import Client
    from ..models import ServerInfo
    from ..status import BrokerStatus

# What a broker that ends, or has too much to do, may answer, beside what is retryable.
_PASSING = (Timeout, StorageFailed, LimitExceeded, InternalError)


class Watch:
    """A context manager. ``is_patient``: a broker that is away makes a frame that says so, and no error."""

    def __init__(self, session: Session, channel: str, *, is_patient: bool) -> None:
        self._session = session
        self._channel = channel
        self._is_patient = is_patient
        self._url = str(Address.parse(session.url))  # without its token
        self._client: Client | None = None
        self._server: ServerInfo | None = None
        self._status: BrokerStatus | None = None  # of the look before, if the broker was there
        self._at = 0.0  # of that look, on a clock that only rises
        self._overview: Overview | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._client is not None:
            self._client.close()

    def look(self) -> Frame:
        """What there is since the look before. Raises what waiting does not mend: a wrong URL, token or channel."""
        away = ""
        seconds = 0.0
        try:
            if self._client is None:
                self._client = self._session.client()
            status, at = self._client.status(self._channel), time.monotonic()
            seconds = at - self._at if self._status is not None else 0.0
            self._overview = overview(Interval(self._status, status, seconds))
            self._status, self._at = status, at
            self._server = self._client.server
        except RocksMQError as error:
            if not self._is_patient or not (error.retryable or isinstance(error, _PASSING)):
                raise
            away = error.message
            self._status = None  # what happens until it is back is no rate
        server = self._server
        return Frame(
            at=time.time(),
            seconds=seconds,
            url=self._url,
            version=server.version if server is not None else "",
            durability=server.durability if server is not None else "",
            channel=self._channel,
            overview=self._overview,
            away=away,
        )
