"""Reading for a group so that exactly what was written counts as read.

`Consumer` counts what it hands out. Here a batch is read once stdout has taken it; what it has not is given back.
"""

from types import TracebackType
from typing import Self

import click

from rocksmq.clients.claims import Claims, Unread
from rocksmq.clients.deadline import Deadline
from rocksmq.clients.link import Link
from rocksmq.clients.reading import MAX_BYTES
from rocksmq.protocol.errors import RocksMQError
from rocksmq.protocol.identity import Identity
from rocksmq.protocol.messages import MessageBatch

from .messages import MessageWriter
from .output import Failed, printable
from .patience import Patience
from .stop import Stop

HURRY_SECONDS = 1.0  # for giving back, when the command is to end at once


class Claimed:
    """Claims of one consumer id, a batch at a time; a context manager, whose end gives back what was not written.

    Waits as long as ``patience`` has it for a broker that went away.
    """

    def __init__(self, link: Link, channel: str, group: str, stop: Stop, patience: float | None, timeout: float | None) -> None:
        self._link = link
        self._claims = Claims(link, channel, group, Identity.new(link.present_id))
        self._stop = stop
        self._patience = Patience(patience)
        self._timeout = timeout
        self._unread: Unread | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if isinstance(error, KeyboardInterrupt):
            self._hurry()
            return
        try:
            self._give_back(self._timeout)
        except KeyboardInterrupt:
            self._hurry()
            raise
        except RocksMQError as failure:
            raise Failed(_not_given_back(failure)) from failure

    def next(self, count: int, wait_s: float) -> MessageBatch | None:
        """At most ``count`` messages; none when none came for ``wait_s``; None when an end is wanted."""
        while not self._stop.is_wanted:
            until, deadline = Deadline(wait_s), Deadline(self._timeout).extended(wait_s)
            try:
                batch = self._claims.next(count, MAX_BYTES, until, deadline, lambda: self._stop.is_wanted)
            except RocksMQError as error:
                if not self._stop.is_wanted:
                    self._patience.endure(error)
            else:
                self._patience.renew()
                return batch
        return None

    def write(self, batch: MessageBatch, writer: MessageWriter) -> int:
        """Write the batch that `next` gave, and how many messages of it were. Raises what `MessageWriter.write` raises."""
        try:
            writer.write(batch, self._stop)
        finally:
            if batch:
                self._claims.returned()
            if writer.written < len(batch):
                self._unread = Unread(batch.ids[writer.written], len(batch) - writer.written)
        return writer.written

    def _give_back(self, seconds: float | None) -> None:
        if self._unread is not None or self._claims.is_unresolved or self._link.is_up:
            self._claims.release(self._unread, Deadline(seconds))

    def _hurry(self) -> None:
        """Give back in a moment, or say that it was not: an end was asked for a second time."""
        try:
            self._give_back(HURRY_SECONDS)
        except RocksMQError as failure:
            click.echo(f"warning: {printable(_not_given_back(failure))}", err=True)


def _not_given_back(failure: RocksMQError) -> str:
    return f"what was claimed and not written was not given back, and the group may miss it: {failure.message}"
