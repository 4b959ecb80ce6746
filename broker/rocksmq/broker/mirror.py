"""The broker's own mirror, a child process: started, heard, ended, and started again when it ends by itself.

Owns the process and its pipes. A mirror speaks with Pulsar through a library in C++, whose crash must not be the broker's; so
whatever the child does, nothing is raised here. It holds its standard input as a sign of life: when the broker is gone, also by
kill -9, that ends, and the child with it. Its standard output is a report a line, its standard error goes into the log.
"""

import logging
import re
import subprocess
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import cast

import trio

from rocksmq.metrics import catalogue
from rocksmq.metrics.instruments import MetricFamily, gauge
from rocksmq.metrics.mirror import MirrorFigures

from .limits import MIB

logger = logging.getLogger("rocksmq.mirror")

BEAT_SECONDS = 1.0  # it reports about so often
LATE_BEATS = 10  # without a report: it is not up
SILENT_BEATS = 60  # then it hangs, and is killed; the first report takes the import of Pulsar's client and a connection
PAUSE_SECONDS_MIN = 1.0  # before the next start, twice as much each time
PAUSE_SECONDS_MAX = 60.0
WELL_SECONDS = 60.0  # after a life that long, the pause is the least again
STOP_SECONDS = 1.0  # to finish what is in flight and note it, while requests are taken; what is not noted is found again
LAST_SECONDS = 1.0  # to read what it wrote, once it has ended
REPORT_BYTES_MAX = 4 * MIB  # a thousand channels with an error each are 1 MiB
LOG_BYTES_MAX = 4_096  # of a line
READ_BYTES = 65_536
_CALM = re.compile(r"\S+: (starting|running|ended)\b")  # of a channel


class MirrorProcess:
    """The mirror named ``name``, run by ``command`` in ``environment``."""

    def __init__(self, name: str, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self.restarts = 0
        self._figures = MirrorFigures(name)
        self._command = command
        self._environment = environment
        self._process: trio.Process | None = None
        self._is_stopping = False
        self._ended = trio.Event()
        self._is_understood = True
        self._report: bytes | None = None  # the latest, if the figures do not show it yet
        self._silent_beats = SILENT_BEATS  # since a report came
        self._last_words = ""

    async def run(self) -> None:
        """Keep it running until `stop`; when cancelled, kill it."""
        pause = PAUSE_SECONDS_MIN
        try:
            while not self._is_stopping:
                begin = trio.current_time()
                how = await self._live()
                if self._is_stopping:
                    return
                if trio.current_time() - begin >= WELL_SECONDS:
                    pause = PAUSE_SECONDS_MIN
                logger.warning("the mirror %s; it is started again in %g s", how, pause)
                await trio.sleep(pause)
                self.restarts += 1
                pause = min(2 * pause, PAUSE_SECONDS_MAX)
        finally:
            self._ended.set()

    async def stop(self) -> None:
        """Have it finish what is in flight, note how far it came, and end; returns after STOP_SECONDS at the latest."""
        self._is_stopping = True
        process = self._process
        if process is not None:
            process.terminate()
            with trio.move_on_after(STOP_SECONDS):
                await self._ended.wait()

    def families(self, channels: Sequence[str] | None, *, is_aggregated: bool) -> Iterator[MetricFamily]:
        """As metrics: of those ``channels``; of all, if there are none; or ``is_aggregated``."""
        is_up = self._silent_beats < LATE_BEATS and self._take()
        yield from self._figures.families(channels, is_up=is_up, is_aggregated=is_aggregated)
        yield gauge(catalogue.MIRROR_RESTARTS, self.restarts, self._figures.mirror)

    def _take(self) -> bool:
        """Read the latest report, which is only done when somebody wants to know; False if it is none."""
        report, self._report = self._report, None
        if report is not None:
            try:
                self._figures.take(report)
                self._is_understood = True
            except ValueError as error:
                self._is_understood = False
                logger.warning("the mirror says what is not understood: %s", error)
        return self._is_understood

    # -- one life ------------------------------------------------------------------

    async def _live(self) -> str:
        """From a start to an end, and how it ended."""
        try:
            process = await trio.lowlevel.open_process(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=self._environment,
                start_new_session=True,  # a Ctrl-C at the terminal is for the broker, which then stops it
            )
        except OSError as error:
            return f"could not be started: {error.strerror}"
        self._process = process
        try:
            await self._follow(process)
        except Exception:
            logger.exception("a bug: the mirror is not followed any more")
        finally:
            self._process = None
            with trio.CancelScope(shield=True):
                process.kill()
                await process.wait()
                for stream in (process.stdin, process.stdout, process.stderr):
                    await cast(trio.abc.AsyncResource, stream).aclose()
            self._take()
            self._figures.begin_life()
            self._silent_beats = SILENT_BEATS
        return self._how_it_ended(cast(int, process.returncode))

    async def _follow(self, process: trio.Process) -> None:
        """Until it has ended, and what it wrote is read."""
        assert process.stdout is not None, "it is a pipe"
        assert process.stderr is not None, "it is a pipe"
        self._last_words = ""
        if self._is_stopping:  # asked for while it was started
            process.terminate()
        async with trio.open_nursery() as hearing:
            hearing.start_soon(self._hear_reports, process.stdout)
            hearing.start_soon(self._hear_log, process.stderr)
            async with trio.open_nursery() as watching:
                watching.start_soon(self._watch, process)
                await process.wait()
                watching.cancel_scope.cancel()
            hearing.cancel_scope.deadline = trio.current_time() + LAST_SECONDS  # others may hold the pipes

    async def _watch(self, process: trio.Process) -> None:
        """Kill it when it hangs. Beats are counted, since a broker that was stopped for a while has not heard it either."""
        beats = 0
        while beats < SILENT_BEATS:
            await trio.sleep(BEAT_SECONDS)
            beats = beats + 1 if self._silent_beats else 0
            self._silent_beats = min(self._silent_beats + 1, SILENT_BEATS)
        logger.error("the mirror has said nothing for %g s, and is killed", SILENT_BEATS * BEAT_SECONDS)
        process.kill()

    async def _hear_reports(self, stream: trio.abc.ReceiveStream) -> None:
        async for line in lines(stream, REPORT_BYTES_MAX):
            self._report = line
            self._silent_beats = 0

    async def _hear_log(self, stream: trio.abc.ReceiveStream) -> None:
        async for line in lines(stream, LOG_BYTES_MAX):
            text = line.decode(errors="replace").rstrip()
            if text:
                self._last_words = text
                logger.log(logging.INFO if _CALM.match(text) else logging.WARNING, "%s", text)

    def _how_it_ended(self, code: int) -> str:
        how = f"was ended by signal {-code}" if code < 0 else f"ended with exit code {code}"
        return f"{how} (it said last: {self._last_words})" if self._last_words else how


async def lines(stream: trio.abc.ReceiveStream, bytes_max: int) -> AsyncIterator[bytes]:
    """The lines of ``stream`` without their ends, of each the first ``bytes_max``; the last need not be ended."""
    begun = bytearray()
    while piece := await stream.receive_some(READ_BYTES):
        first, *others = bytes(piece).split(b"\n")
        begun += first[: bytes_max - len(begun)]
        for other in others:
            yield bytes(begun)
            begun = bytearray(other[:bytes_max])
    if begun:
        yield bytes(begun)
