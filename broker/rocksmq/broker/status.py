"""Answers STATUS (SPEC §3.27): whether the broker is ready, what is wrong, and its metrics.

Owns the tasks that write the metrics out, one after the other and a slice of the loop at a time: those of a thousand channels
are some 10,000 lines. Knows neither what is measured nor what is checked.
"""

import logging
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from time import perf_counter
from typing import NamedTuple, TypeAlias

import trio

from rocksmq.metrics.catalogue import CATALOGUE
from rocksmq.protocol.administration import Status, StatusReported
from rocksmq.protocol.cbor import Gathered
from rocksmq.protocol.codec import MESSAGE_CHARACTERS_MAX
from rocksmq.protocol.errors import InternalError, Overloaded, RocksMQError, ShuttingDown
from rocksmq.protocol.operations import (
    STATUS_LINES_MAX,
    STATUS_ROOM_BYTES,
)

from .commit import Done

logger = logging.getLogger("rocksmq.broker")

REPORTS_MAX = 4  # at a time: each may hold a frame, and whoever watches asks once a second
RETRY_SECONDS = 0.25
SLICE_SECONDS = 0.0005  # of writing out; then others have their turn
OF_CHANNELS = {metric.name.encode() for metric in CATALOGUE if "channel" in metric.labels}

Exposition: TypeAlias = Callable[[Sequence[str] | None], Iterator[bytes]]


class Check(NamedTuple):
    """One of what must be well; ``reason`` is empty while it is ok. One that is not vital may fail, and the broker is ready."""

    name: str
    ok: bool
    reason: str
    is_vital: bool = True

    @property
    def passes(self) -> bool:
        """Whether the broker may be ready by this one."""
        return self.ok or not self.is_vital


class StatusReports:
    """``spawn``, which starts a task, is set once by the owner; ``checks``, if there are any."""

    spawn: Callable[[Callable[[], Awaitable[None]]], None]

    def __init__(self, exposition: Exposition, frame_bytes_max: int) -> None:
        """``exposition`` of the channels of these names, or as /metrics has it (None), in chunks that are quick to make.

        Each family begins a chunk. It may raise ChannelNotFound.
        """
        self.checks: Callable[[], Iterable[Check]] = lambda: ()
        self._exposition = exposition
        self._bytes_max = frame_bytes_max - STATUS_ROOM_BYTES
        self._count = 0
        self._turn = trio.Lock()

    def submit(self, request: Status, done: Done) -> None:
        """As a handler of `Core`. Raises ChannelNotFound, InvalidRequest, Overloaded."""
        if self._count >= REPORTS_MAX:
            raise Overloaded(
                f"{REPORTS_MAX} requests for the status are being answered already: try again", retry_after=RETRY_SECONDS
            )
        chunks = self._exposition([request.channel] if request.channel else None)
        self._count += 1

        async def report() -> None:
            try:
                reply: StatusReported | RocksMQError = await self._report(chunks)
            except trio.Cancelled:
                done(ShuttingDown("the broker is stopping: try again once it is back"))
                raise
            except RocksMQError as error:
                reply = error
            except Exception:
                logger.exception("a bug: the status could not be told")
                reply = InternalError("the broker met a bug; its log has the details")
            finally:
                self._count -= 1
            done(reply)

        self.spawn(report)

    async def _report(self, chunks: Iterator[bytes]) -> StatusReported:
        async with self._turn:
            metrics = await self._written_out(chunks)
        failing = [check for check in self.checks() if not check.ok]
        problems = [f"{check.name}: {check.reason}"[:MESSAGE_CHARACTERS_MAX] for check in failing]
        return StatusReported(all(check.passes for check in failing), problems, metrics)

    async def _written_out(self, chunks: Iterator[bytes]) -> Gathered:
        """All of it, or what is not of channels and groups if that is too much."""
        of_broker: list[bytes] = []
        of_channels: list[bytes] = []
        into = of_broker
        size = line_count = 0
        is_whole = True
        slice_end = perf_counter() + SLICE_SECONDS
        for chunk in chunks:
            if chunk.startswith(b"# HELP "):
                into = of_channels if chunk.split(b" ", 3)[2] in OF_CHANNELS else of_broker
            if into is of_broker or is_whole:
                into.append(chunk)
                size += len(chunk)
                line_count += chunk.count(b"\n")
            if size > self._bytes_max or line_count > STATUS_LINES_MAX:
                is_whole = False
                of_channels.clear()
            if perf_counter() > slice_end:
                await trio.lowlevel.checkpoint()
                slice_end = perf_counter() + SLICE_SECONDS
        parts = of_broker + of_channels
        return Gathered(parts, sum(map(len, parts)))
