"""What a broker has to offer to be measured: a server of its own, and its users' Python client at its best.

A `Peer` is made twice: where the server is started, and in each process that measures, which knows its URL only.
"""

import shutil
import signal
import socket
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar, NamedTuple

from rocksmq.clients.bench.usage import Usage, cpu_seconds

CHUNK = 1_000  # messages that a program has at hand at a time
START_SECONDS = 120.0
STOP_SECONDS = 30.0
FIRST_SECONDS = 30.0  # for a consumer to have a first message
POLL_SECONDS = 0.1
LOG_CHARACTERS = 2_000  # of the log's end, in an error


class PeerFailed(RuntimeError):
    """It did not serve, or did not store what it was given."""


class Serving(NamedTuple):
    """A started server."""

    url: str
    pid: int


class Timed:
    """What is measured begins with the first message, and ends with the last that is confirmed, or in hand and acknowledged.

    ``count`` messages, or as many as were begun within ``seconds``; ``done``: how many that were.
    """

    def __init__(self, pid: int, count: int, seconds: float) -> None:
        self._pid = pid
        self.count = count
        self._seconds = seconds
        self._made = time.perf_counter()
        self._began: tuple[float, float, float] | None = None
        self._first = 0
        self._seen = 0

    @property
    def is_over(self) -> bool:
        """Whether there were enough, or no more are to be begun. Raises PeerFailed when none came for long."""
        now = time.perf_counter()
        if self._began is None and now >= self._made + FIRST_SECONDS:
            raise PeerFailed("no message came")
        return self._seen >= self.count or (self._began is not None and now >= self._began[0] + self._seconds)

    def begin(self) -> None:
        """Now."""
        self._began = (time.perf_counter(), time.process_time(), cpu_seconds(self._pid))

    def chunks(self, payloads: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
        """What to send, CHUNK of ``payloads`` at a time; it begins with the first."""
        self.begin()
        while not self.is_over:
            chunk = payloads[: min(CHUNK, self.count - self._seen)]
            yield chunk
            self._seen += len(chunk)

    def got(self, count: int) -> None:
        """So many came. It begins when the first did, for to join a group takes as long as a broker's settings say."""
        self._seen += count
        if self._began is None:
            self._first = count
            self.begin()

    @property
    def done(self) -> int:
        """Messages in what was measured."""
        return self._seen - self._first

    def usage(self) -> Usage:
        """What it took until now."""
        assert self._began is not None, "something was sent or came"
        begin, client, server = self._began
        wall, client_cpu = time.perf_counter() - begin, time.process_time() - client
        return Usage(wall, client_cpu, cpu_seconds(self._pid) - server)


class Peer(ABC):
    """A broker, in one ``mode`` of durability. Its client's connections are left to the end of the process."""

    name: ClassVar[str]
    modes: ClassVar[Mapping[str, str]]  # what an acknowledgement means
    needs: ClassVar[str]  # what to install where it is missing
    has_send: ClassVar[bool] = False  # a call for one message beside that for many, or that is the only one and does not wait

    def __init__(self, mode: str, url: str = "") -> None:
        self.mode = mode
        self.url = url

    @classmethod
    @abstractmethod
    def is_here(cls) -> bool:
        """Whether server and client are installed."""

    @abstractmethod
    def versions(self) -> str:
        """Of server and client."""

    @abstractmethod
    def serve(self, directory: Path) -> "Generator[Serving, None, None]":
        """A fresh server with its data in ``directory``, until the generator ends."""

    # -- in a process that measures ------------------------------------------------

    @abstractmethod
    def create(self, topics: Sequence[str]) -> None:
        """Make topics."""

    @abstractmethod
    def produce(self, topic: str, payloads: Sequence[bytes], timed: Timed) -> None:
        """Send the chunks of ``timed`` as fast as the client can; return when all are confirmed. Raises if one is not."""

    def send(self, topic: str, payloads: Sequence[bytes], timed: Timed) -> None:
        """The same by the client's call for one message, in a loop. Where `has_send`."""
        raise NotImplementedError

    @abstractmethod
    def spread(self, topics: Sequence[str], payloads: Sequence[bytes], timed: Timed) -> None:
        """As `produce`; of each chunk, each message goes to the next topic."""

    @abstractmethod
    def consume(self, topic: str, timed: Timed) -> None:
        """Read from the beginning as a new durable consumer that acknowledges, until ``timed`` is over."""

    @abstractmethod
    def one_at_a_time(self, topic: str, payload: bytes, count: int) -> list[float]:
        """Seconds of each produce of one message, confirmed before the next."""

    @abstractmethod
    def pace(self, topic: str, due: Iterator[bytes]) -> None:
        """Send each message that ``due`` gives, as soon as it does."""

    @abstractmethod
    def receive(self, topic: str, count: int, ready: Callable[[], None], got: Callable[[bytes], None]) -> None:
        """Wait for ``count`` messages, acknowledging them: ``ready`` once it waits, ``got`` with each payload."""


@contextmanager
def running(command: Sequence[str], directory: Path, is_ready: Callable[[], bool]) -> Generator[int, None, None]:
    """The pid of a server, from when it is ready to the block's end. Raises PeerFailed with the end of its log."""
    directory.mkdir(parents=True, exist_ok=True)
    log = directory / "server.log"
    with log.open("ab") as out:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, cwd=directory)
    try:
        deadline = time.monotonic() + START_SECONDS
        while not is_ready():
            if process.poll() is not None or time.monotonic() > deadline:
                raise PeerFailed(f"{command[0]} does not serve: {log.read_text(errors='replace')[-LOG_CHARACTERS:]}")
            time.sleep(POLL_SECONDS)
        yield process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def listens(port: int) -> bool:
    """Whether anything does, on the loopback."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def has(*programs: str) -> bool:
    """Whether all of them can be run by their names."""
    return all(shutil.which(program) for program in programs)
