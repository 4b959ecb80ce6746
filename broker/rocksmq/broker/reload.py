"""SIGHUP: the options are read again, from the same file, environment and flags.

What can change while the broker runs takes effect; of the rest it is told that it waits for a restart. Options that
cannot be used change nothing.
"""

import logging
from collections.abc import Callable, Iterator

import trio

from rocksmq.metrics import catalogue
from rocksmq.metrics.instruments import Counters, MetricFamily, gauge

from .access import Access
from .config import BadConfiguration, Config

logger = logging.getLogger("rocksmq.broker")

AT_ONCE = ("log_level", "log_format")


class Reloader:
    """``read`` gives the options anew, and what is in the files of who may come in, or raises BadConfiguration.

    ``apply`` puts the options of AT_ONCE, and all of the latter, into effect.
    """

    def __init__(
        self, started_with: Config, read: Callable[[], tuple[Config, Access]], apply: Callable[[Config, Access], None]
    ) -> None:
        self.reloads = Counters(catalogue.RELOADS, (("ok",), ("failed",)))
        self.is_ok = True
        self._in_effect = started_with.values()
        self._read = read
        self._apply = apply

    async def reload(self) -> None:
        """Once; whatever goes wrong is logged and counted."""
        try:
            # In a thread, and left there at a stop: the file may be on a disk that hangs.
            found, access = await trio.to_thread.run_sync(self._read, abandon_on_cancel=True)
        except Exception as error:
            self.reloads.add("failed")
            self.is_ok = False
            is_bug = not isinstance(error, BadConfiguration)
            logger.error("the options could not be read again, and stay as they are: %s", error, exc_info=is_bug)
            return
        self.reloads.add("ok")
        self.is_ok = True
        changed = [key for key, value in found.values().items() if value != self._in_effect[key]]
        self._in_effect |= {key: getattr(found, key) for key in AT_ONCE}
        self._apply(found, access)
        told = ", ".join(f"{key} is {self._in_effect[key]}" for key in changed if key in AT_ONCE)
        logger.info("the options were read again: %s", told or "nothing to do")
        if waiting := ", ".join(key for key in changed if key not in AT_ONCE):
            logger.warning("changed options take effect at the next start: %s", waiting)

    def families(self) -> Iterator[MetricFamily]:
        """As metrics."""
        yield self.reloads.family()
        yield gauge(catalogue.RELOAD_OK, self.is_ok)
