"""A program that uses the client as any user would: one process of the crash harness, started by `staff`.

    python -m tests.crash.worker URL BOOK PART     PART: a `Part` as JSON

It has no retry code: what a call raises is noted, and it goes on with the next thing. It works until a line
on standard input ends it: ``drain``, once there is nothing more to read, or ``stop``, at once. End of file is ``stop``.
"""

import json
import logging
import sys
import threading
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

from rocksmq.clients import Client, RocksMQError

from .book import Book, Kind

TIMEOUT_SECONDS = 60.0  # of every call: longer than any outage of the harness


PARTS_MAX = 256  # a producer's number modulo this is its part's, or one of the threads'


class Part(NamedTuple):
    """What a worker does: ``role`` names a function of `producing` or `consuming`, ``options`` are its arguments.

    ``number`` is its own among the parts of its role's kind, ``life`` counts its restarts.
    """

    role: str
    number: int
    channel: str
    options: dict[str, Any]
    group: str = ""
    life: int = 0

    @property
    def name(self) -> str:
        return f"{self.role}-{self.number}"

    @property
    def is_producer(self) -> bool:
        return not self.group

    @property
    def producers(self) -> range:
        """Of the messages that this life produces, one a thread. A name goes on in the next life."""
        first = self.number if self.role == "named" else self.number + self.life * PARTS_MAX
        return range(first, first + self.options.get("threads", 1))


class Outages(logging.Handler):
    """Counts how often the client says that it is connected again."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.count = 0

    def emit(self, record: logging.LogRecord) -> None:
        self.count += str(record.msg).startswith("connected to")


class Worker:
    """What a role works with."""

    def __init__(self, mq: Client, book: Book, part: Part) -> None:
        self.mq = mq
        self.book = book
        self.part = part
        self.random = Random(f"{part.name}/{part.life}")
        self._must_stop = threading.Event()
        self._must_drain = False
        threading.Thread(target=self._obey, daemon=True).start()

    @property
    def must_stop(self) -> bool:
        return self._must_stop.is_set()

    @property
    def must_drain(self) -> bool:
        """Nothing more is produced: once nothing more comes, it is over."""
        return self._must_drain

    def pause(self, seconds: float) -> bool:
        """Work no faster than asked for; False when it is over."""
        return not self._must_stop.wait(seconds)

    def raised(self, error: RocksMQError) -> None:
        """A call ended with an error; nothing is done about it."""
        self.book.error(error)
        self.pause(0.01)

    def _obey(self) -> None:
        order = sys.stdin.readline().strip()
        self._must_drain = order == "drain"
        if not self._must_drain or self.part.is_producer:
            self._must_stop.set()


def main(url: str, path: str, text: str) -> None:
    """Play the part until told to end."""
    from .consuming import CONSUMERS
    from .producing import PRODUCERS

    part = Part(**json.loads(text))
    outages = Outages()
    logger = logging.getLogger("rocksmq.client")
    logger.setLevel(logging.INFO)
    logger.addHandler(outages)
    book = Book(Path(path))
    with Client(url, timeout=TIMEOUT_SECONDS, client_name=part.name) as mq:
        (PRODUCERS | CONSUMERS)[part.role](Worker(mq, book, part), **part.options)
    book.note(Kind.OUTAGES, [outages.count])
    book.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
