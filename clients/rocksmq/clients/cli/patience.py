"""How long a command that is at work waits for a broker that went away."""

import math
import time

import click

from rocksmq.protocol.errors import RocksMQError, Timeout

from .output import printable
from .parameters import seconds

SECONDS = 300.0  # a restart with much to recover, or somebody who has to come and look

patience_option = click.option(
    "--patience",
    type=seconds,
    default=SECONDS,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait for a broker that goes away meanwhile; inf: for ever.",
)


class Patience:
    """Over ``seconds`` (None: never) after the last `renew`."""

    def __init__(self, seconds: float | None) -> None:
        self._seconds = math.inf if seconds is None else seconds
        self.renew()

    def renew(self) -> None:
        """Something was heard of the broker."""
        self._renewed_at = time.monotonic()
        self._is_told = False

    def is_over(self, seconds_max: float = math.inf) -> bool:
        """``seconds_max``: when there is no time to wait for longer."""
        return time.monotonic() - self._renewed_at >= min(self._seconds, seconds_max)

    def endure(self, error: RocksMQError) -> None:
        """Return when it is worth to try again, having said once why it waits; else raise ``error``."""
        if self.is_over() or not (error.retryable or isinstance(error, Timeout)):
            raise error
        if not self._is_told:
            self._is_told = True
            click.echo(f"waiting: {printable(error.message)}", err=True)
