"""SIGTERM, SIGINT and SIGHUP, heard whatever the loop does, and the end that comes when stopping takes too long.

They are blocked in all threads, and a thread of their own waits for them: a handler of Python's would run between two
steps of the main thread, of which there is none while a disk hangs in a sync. A process started by this one inherits that,
and has to unblock them.
"""

import logging
import os
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn

import trio

logger = logging.getLogger("rocksmq.broker")

EXIT_UNFINISHED = 6
EXIT_SIGNAL = 128  # plus its number: 130, 143
ENDING = {signal.SIGTERM, signal.SIGINT}


def hold() -> None:
    """Keep the signals for `Signals`, which hears also those that came before it; to be called before any thread is started."""
    signal.pthread_sigmask(signal.SIG_BLOCK, ENDING | {signal.SIGHUP})


def cut_off(why: str) -> NoReturn:
    """End at once, as by kill -9: whatever was acknowledged is stored, and nothing else will be acknowledged."""
    logger.critical("%s: cut off, as by kill -9; what was acknowledged is stored", why)
    os._exit(EXIT_UNFINISHED)


class Signals:
    """Those of one process, from within its loop.

    Once `stop` is set there are ``stop_seconds`` to end; then, or at one more signal, the process ends at once.
    """

    def __init__(self, stop_seconds: float) -> None:
        self.stop = trio.Event()  # SIGTERM or SIGINT came
        self._hung_up = trio.Event()
        self._stop_seconds = stop_seconds
        self._loop = trio.lowlevel.current_trio_token()
        threading.Thread(target=self._listen, name="signals", daemon=True).start()

    async def hung_up(self) -> None:
        """Wait for a SIGHUP; several that came meanwhile are one."""
        await self._hung_up.wait()
        self._hung_up = trio.Event()

    def _listen(self) -> None:
        while signal.sigwait(ENDING | {signal.SIGHUP}) == signal.SIGHUP:
            self._in_loop(self._hang_up)
        self._in_loop(self.stop.set)
        again = signal.sigtimedwait(ENDING, self._stop_seconds)
        if again is not None:
            os._exit(EXIT_SIGNAL + again.si_signo)
        cut_off(f"not stopped within {self._stop_seconds:g} s")

    def _hang_up(self) -> None:
        self._hung_up.set()  # the event of that moment

    def _in_loop(self, act: Callable[[], None]) -> None:
        with suppress(trio.RunFinishedError):  # it ends anyway
            self._loop.run_sync_soon(act)
