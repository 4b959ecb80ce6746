"""What systemd is told of this process, by the protocol of sd_notify: a datagram of lines to the socket in NOTIFY_SOCKET.

Whatever is wrong with that socket never harms the broker: it is logged, and that is all.
"""

import logging
import os
import socket
from collections.abc import MutableMapping

import trio

logger = logging.getLogger("rocksmq.broker")

TELL_SECONDS = 1.0  # for a supervisor that does not read; then it goes without
PARTS = 3  # of the watchdog's time, one for each beat: one that comes late is not missed yet


class Notifier:
    """Tells whoever started this process, if that asked for it.

    ``watchdog_seconds``: within which it wants a beat each time; None: never.
    """

    def __init__(self, environment: MutableMapping[str, str]) -> None:
        """Takes its variables out of ``environment``: a child of this process must not speak for it."""
        address = environment.pop("NOTIFY_SOCKET", "")
        period, pid = environment.pop("WATCHDOG_USEC", ""), environment.pop("WATCHDOG_PID", "")
        self._address = _usable(address)
        is_meant = self._address is not None and pid in ("", str(os.getpid()))
        is_number = period.isascii() and period.isdigit() and int(period) > 0
        self.watchdog_seconds = int(period) / 1e6 if is_meant and is_number else None

    @property
    def is_asked(self) -> bool:
        """Whether a supervisor listens."""
        return self._address is not None

    async def tell(self, *lines: str) -> None:
        """Send ``lines``, such as ``READY=1``."""
        if self._address is None:
            return
        try:
            with trio.fail_after(TELL_SECONDS), trio.socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
                await sock.connect(self._address)  # or it would count as writable while the other side's queue is full
                await sock.send("\n".join(lines).encode())
        except (OSError, trio.TooSlowError) as error:
            logger.warning("systemd could not be told %s: %s", lines[0], str(error) or "it does not read")


def _usable(address: str) -> str | None:
    if address.startswith("@"):
        return "\0" + address[1:]  # in the kernel's name space, not the file system's
    if address.startswith("/"):
        return address
    if address:
        logger.warning("NOTIFY_SOCKET is neither a path nor an abstract name: nothing is told")
    return None
