"""Redis Streams, by redis-py with hiredis."""

import importlib.metadata
import subprocess
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import redis

from rocksmq.clients.bench.latency import WARM_UP
from tests.helpers.etcd import free_port

from .peer import Peer, PeerFailed, Serving, Timed, has, running

SERVER = "redis-server"
READ_MESSAGES = 1_000
BLOCK_MS = 30_000


class RedisStreams(Peer):
    """As `Peer`."""

    name = "Redis Streams"
    modes: ClassVar = {"default": "in memory, snapshots now and then", "fsync": "appendfsync always"}
    needs = "apt-get install redis-server"

    @classmethod
    def is_here(cls) -> bool:
        return has(SERVER)

    def versions(self) -> str:
        said = subprocess.run([SERVER, "--version"], capture_output=True, text=True, check=True).stdout.split()
        version = importlib.metadata.version
        return f"Redis {said[2].removeprefix('v=')}, redis-py {version('redis')}, hiredis {version('hiredis')}"

    def serve(self, directory: Path) -> Generator[Serving, None, None]:
        port = free_port()
        command = [SERVER, "--port", str(port), "--bind", "127.0.0.1", "--dir", str(directory)]
        if self.mode == "fsync":
            command += ["--appendonly", "yes", "--appendfsync", "always"]
        self.url = f"redis://127.0.0.1:{port}"
        with running(command, directory, self._answers) as pid:
            yield Serving(self.url, pid)

    def _answers(self) -> bool:
        try:
            return bool(self._client().ping())
        except redis.ConnectionError:
            return False

    def _client(self) -> Any:  # whose commands are typed for both of its clients, the other being asynchronous
        return redis.Redis.from_url(self.url)  # pyright: ignore[reportUnknownMemberType]

    def create(self, topics: Sequence[str]) -> None:
        """A stream comes with its first entry."""

    def produce(self, topic: str, payloads: Sequence[bytes], timed: Timed) -> None:
        self.spread([topic] * len(payloads), payloads, timed)

    def spread(self, topics: Sequence[str], payloads: Sequence[bytes], timed: Timed) -> None:
        client = self._client()
        client.ping()
        for chunk in timed.chunks(payloads):
            with client.pipeline(transaction=False) as pipeline:
                for topic, payload in zip(topics, chunk, strict=False):
                    pipeline.xadd(topic, {b"d": payload})
                pipeline.execute()

    def consume(self, topic: str, timed: Timed) -> None:
        client = self._client()
        client.xgroup_create(topic, "readers", id="0")
        while not timed.is_over:
            entries = _entries(client.xreadgroup("readers", "one", {topic: ">"}, count=READ_MESSAGES))
            client.xack(topic, "readers", *[entry for entry, _ in entries])
            timed.got(len([fields[b"d"] for _, fields in entries]))

    def one_at_a_time(self, topic: str, payload: bytes, count: int) -> list[float]:
        client = self._client()
        taken: list[float] = []
        for _ in range(WARM_UP + count):
            begin = time.perf_counter()
            client.xadd(topic, {b"d": payload})
            taken.append(time.perf_counter() - begin)
        return taken[WARM_UP:]

    def pace(self, topic: str, due: Iterator[bytes]) -> None:
        client = self._client()
        for payload in due:
            client.xadd(topic, {b"d": payload})

    def receive(self, topic: str, count: int, ready: Callable[[], None], got: Callable[[bytes], None]) -> None:
        client = self._client()
        client.xgroup_create(topic, "waiting", id="0", mkstream=True)
        ready()
        while count > 0:
            entries = _entries(client.xreadgroup("waiting", "one", {topic: ">"}, count=READ_MESSAGES, block=BLOCK_MS))
            for _, fields in entries:
                got(fields[b"d"])
            client.xack(topic, "waiting", *[entry for entry, _ in entries])
            count -= len(entries)


def _entries(reply: Any) -> list[tuple[bytes, dict[bytes, bytes]]]:
    """Of the only stream asked for: one pair in RESP2, a map of lists in RESP3. Raises PeerFailed when there are none."""
    if not reply:
        raise PeerFailed("no message came")
    found: list[tuple[bytes, dict[bytes, bytes]]] = next(iter(reply.values()))[0] if hasattr(reply, "values") else reply[0][1]
    return found
