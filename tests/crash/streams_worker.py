"""A process of `streams`: one life of a producer, of the ticker, or of a reader.

    python -m tests.crash.streams_worker PART     PART: a `Part` as JSON

It retries whatever may be retried, and works until a line on standard input ends it: ``stop``, or ``drain FINAL``, once FINAL
is the last tick everywhere. Exit code 0: it ended as it was told to; CONFLICT: another one has taken its subscription over.
"""

import json
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import NamedTuple, TypeVar

from rocksmq.clients import RocksMQError, Timeout
from rocksmq.clients.msgstream import RmqMsgStreamFactory

from .streams_book import Book

CONFLICT = 3
TIMEOUT_SECONDS = (0.3, 1.0, 10.0)  # of the calls, one of them a life
Result = TypeVar("Result")


class Part(NamedTuple):
    """What a process does: ``role`` names a function of `streams_producing` or `streams_reading`."""

    role: str
    number: int
    life: int
    seed: str
    url: str
    clock_port: int
    channels: list[str]
    directory: str

    @property
    def name(self) -> str:
        return f"{self.role}-{self.number}"

    @property
    def book(self) -> Path:
        """What this life notes."""
        return Path(self.directory) / f"{self.name}.{self.life}.book"

    @property
    def output(self) -> Path:
        """What all lives of a reader have put out, if they store their positions with it."""
        return Path(self.directory) / f"{self.name}.out"


class Worker:
    """What a role works with."""

    def __init__(self, part: Part) -> None:
        self.part = part
        self.book = Book(part.book)
        self.random = Random(f"{part.seed}/{part.name}/{part.life}")
        self.final: int | None = None  # to be read up to
        self._must_stop = threading.Event()
        threading.Thread(target=self._obey, daemon=True).start()

    @property
    def must_stop(self) -> bool:
        return self._must_stop.is_set()

    def pause(self, seconds: float) -> None:
        """Unless it is over."""
        self._must_stop.wait(seconds)

    def factory(self, buffer_size: int | None = None) -> RmqMsgStreamFactory:
        """Of streams that give up after any time."""
        timeout = self.random.choice(TIMEOUT_SECONDS)
        if buffer_size is None:
            return RmqMsgStreamFactory(self.part.url, timeout=timeout)
        return RmqMsgStreamFactory(self.part.url, timeout=timeout, buffer_size=buffer_size)

    def persist(self, call: Callable[[], Result]) -> Result:
        """``call`` until it succeeds. Raises what cannot be retried."""
        while True:
            try:
                return call()
            except RocksMQError as error:
                self.failed(error)

    def failed(self, error: RocksMQError) -> None:
        """A call failed, and is to be made again. Raises the error if that would not do."""
        if not is_passing(error):
            raise error
        self.book.note("error", [type(error).__name__, str(error)])
        self.pause(0.01)

    def _obey(self) -> None:
        words = sys.stdin.readline().split()
        if words[:1] == ["drain"]:
            self.final = int(words[1])
        else:
            self._must_stop.set()


def is_passing(error: RocksMQError) -> bool:
    """Whether the same call may succeed later."""
    return error.retryable or isinstance(error, Timeout)


def main(text: str) -> None:
    """Play the part until told to end."""
    from .streams_producing import PRODUCERS
    from .streams_reading import READERS, FencedOff

    worker = Worker(Part(**json.loads(text)))
    try:
        (PRODUCERS | READERS)[worker.part.role](worker)
    except FencedOff:
        sys.exit(CONFLICT)


if __name__ == "__main__":
    main(sys.argv[1])
