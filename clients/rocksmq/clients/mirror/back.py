"""The way back: topics of Pulsar into channels, each message once and in order.

A channel's named producer remembers in the broker, in the very write of the messages, how far its topic is stored; so it is
exact through any failure of Pulsar, of the broker, of the link, and of the mirror. A thread a channel: none holds another up.
"""

import logging
import threading
import time
from contextlib import suppress

from rocksmq.protocol.errors import ConnectionFailed, RocksMQError, Timeout

from ..client import Client
from ..pulsar.client import asked, connect
from .back_channel import BackChannel
from .options import MirrorOptions
from .report import Report, State

logger = logging.getLogger("rocksmq.mirror")

CLOSE_SECONDS = 4.0  # for the channels to end
RETRY_SECONDS = 1.0


class BackMirror:
    """Made by `rocksmq mirror --from pulsar://…`; to be run once."""

    def __init__(self, options: MirrorOptions) -> None:
        """Connects to nothing yet. Raises InvalidRequest."""
        self._options = options.checked()
        self._is_ending = threading.Event()
        self._failure: RocksMQError | None = None
        self._state = State.STARTING
        self._last_error, self._last_error_at = "", 0.0  # of what keeps all channels waiting
        share = options.buffer_bytes // len(options.channels)
        self._channels = [
            BackChannel(options, channel, share, self._is_ending, self._fail) for channel in dict.fromkeys(options.channels)
        ]

    def report(self) -> Report:
        """How it is doing; from any thread."""
        return Report(
            self._options.name,
            [channel.report() for channel in self._channels],
            state=self._state,
            last_error=self._last_error,
            last_error_at=self._last_error_at,
        )

    def run(self, is_stopped: threading.Event) -> None:
        """Carry until the event is set; what was sent by then is waited for a moment.

        Raises what concerns the whole mirror for good: InvalidRequest, Unauthenticated, Conflict when another mirror of the
        name has taken over. A side that is away is waited for.
        """
        client = connect(
            self._options.source,
            token=self._options.pulsar_token,
            ca=self._options.pulsar_ca,
            operation_seconds=self._options.timeout,
        )
        try:
            mq = self._connected(is_stopped)
            if mq is not None:
                try:
                    self._carry(mq, client, is_stopped)
                finally:
                    mq.close()
        finally:
            self._is_ending.set()
            self._state = State.ENDED
            with suppress(RocksMQError):
                asked("closing", client.close)
        if self._failure is not None:
            raise self._failure

    def _connected(self, is_stopped: threading.Event) -> Client | None:
        """None: an end was wanted before a broker answered."""
        while not is_stopped.is_set():
            try:
                return Client(
                    self._options.target,
                    token=self._options.token,
                    timeout=self._options.timeout,
                    client_name=self._options.group,
                )
            except (ConnectionFailed, Timeout) as error:
                for channel in self._channels:
                    channel.failed(error)
                self._note()
                is_stopped.wait(RETRY_SECONDS)
        return None

    def _carry(self, mq: Client, client: object, is_stopped: threading.Event) -> None:
        threads = [
            threading.Thread(target=channel.run, args=(mq, client), name=f"mirror {number}", daemon=True)
            for number, channel in enumerate(self._channels)
        ]
        for thread in threads:
            thread.start()
        while not is_stopped.wait(0.1) and self._failure is None:
            self._note()
        self._is_ending.set()
        end = time.monotonic() + CLOSE_SECONDS
        for thread in threads:
            thread.join(max(0.0, end - time.monotonic()))

    def _note(self) -> None:
        """When all channels wait a side is away, and what one of them says is told of the whole."""
        reports = [channel.report() for channel in self._channels]
        states = {one.state for one in reports}
        if states == {State.WAITING}:
            self._state, self._last_error, self._last_error_at = State.WAITING, reports[0].last_error, reports[0].last_error_at
        elif states - {State.STARTING, State.WAITING}:
            self._state = State.RUNNING

    def _fail(self, error: RocksMQError) -> None:
        self._failure = self._failure or error
