"""The two brokers that the model is played against: the engine in process, and a broker process behind a client."""

import os
import shutil
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import trio

from rocksmq.broker.engine import RocksMQ
from rocksmq.clients import Client
from rocksmq.clients.testing import Broker
from rocksmq.protocol.messages import MessageBatch, OutgoingMessage, Start
from rocksmq.protocol.operations import Commit, DescribeChannel, DescribeGroup, ListChannels, ListGroups, Outcome

from .model import ChannelView, GroupView, Sought

Result = TypeVar("Result")


def copy_as_killed(source: Path, target: Path) -> None:
    """Copy a data directory in use, as a kill -9 now would leave it; again while the database moves its files about."""

    def files() -> dict[str, tuple[int, int]]:
        with os.scandir(source / "db") as entries:
            return {entry.path: (entry.stat().st_ino, entry.stat().st_mtime_ns) for entry in entries}

    while True:
        shutil.rmtree(target, ignore_errors=True)
        try:
            before = files()
            shutil.copytree(source, target)
            if files() == before:
                return
        except (FileNotFoundError, shutil.Error):
            continue


class EngineSystem:
    """The engine, with a Trio loop of its own in a thread; a crash goes on from a copy of the files as they are."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._generation = 0
        self._start()

    # -- as a System -----------------------------------------------------------------

    def create_channel(self, channel: str) -> bool:
        return self._do(lambda mq: mq.create_channel(channel))

    def destroy_channel(self, channel: str) -> None:
        self._do(lambda mq: mq.destroy_channel(channel))

    def list_channels(self, prefix: str) -> list[str]:
        names: list[str] = self._do(lambda mq: mq.call(ListChannels(prefix, ""))).names
        return names

    def describe_channel(self, channel: str) -> ChannelView:
        found = self._do(lambda mq: mq.call(DescribeChannel(channel)))
        groups = self._do(lambda mq: mq.call(ListGroups(channel, ""))).names
        begin_id, end_id = (found.begin_id, found.end_id) if found.message_count else (None, None)
        return ChannelView(begin_id, end_id, found.message_count, found.byte_count, groups)

    def create_group(self, channel: str, group: str, start: Start) -> bool:
        return self._do(lambda mq: mq.create_consumer_group(channel, group, start=start))

    def destroy_group(self, channel: str, group: str) -> None:
        self._do(lambda mq: mq.destroy_consumer_group(channel, group))

    def describe_group(self, channel: str, group: str) -> GroupView:
        found = self._do(lambda mq: mq.call(DescribeGroup(channel, group)))
        return GroupView(found.position, found.lag_messages, found.generation, found.metadata)

    def produce(self, channel: str, messages: list[OutgoingMessage]) -> range:
        return self._do(lambda mq: mq.produce(channel, messages))

    def consume(self, channel: str, group: str, max_messages: int, max_bytes: int) -> MessageBatch:
        return self._do(lambda mq: mq.consume(channel, group, max_messages, max_bytes=max_bytes))

    def fetch(self, channel: str, start: Start, max_messages: int, max_bytes: int) -> MessageBatch:
        return self._do(lambda mq: mq.fetch(channel, start, max_messages, max_bytes=max_bytes))

    def commit(self, channel: str, group: str, position: int, generation: int | None, metadata: bytes) -> None:
        self._do(lambda mq: mq.call(Commit(channel, group, position, generation, metadata)))

    def seek(self, channel: str, group: str, to: Start) -> Sought:
        found = self._do(lambda mq: mq.seek(channel, group, to))
        return Sought(found.position, Outcome(found.outcome).name.lower(), found.generation)

    def restart(self) -> None:
        self.close()
        self._start()

    def crash(self) -> None:
        old = self._directory
        self._generation += 1
        self._directory = old.with_name(f"crashed-{self._generation}")

        async def leave_behind(mq: RocksMQ) -> None:
            copy_as_killed(old, self._directory)  # the loop stands still meanwhile

        self._do(leave_behind)
        self.close()
        shutil.rmtree(old)
        self._start()

    def close(self) -> None:
        trio.from_thread.run_sync(self._ending.set, trio_token=self._token)
        self._thread.join()

    # -- the loop ----------------------------------------------------------------------

    def _start(self) -> None:
        self._ready = threading.Event()
        self._thread = threading.Thread(target=trio.run, args=(self._serve,))
        self._thread.start()
        assert self._ready.wait(30)

    async def _serve(self) -> None:
        self._ending = trio.Event()
        self._token = trio.lowlevel.current_trio_token()
        async with RocksMQ(self._directory) as self._mq:
            self._ready.set()
            await self._ending.wait()

    def _do(self, call: Callable[[RocksMQ], Awaitable[Result]]) -> Result:
        async def run() -> Result:
            return await call(self._mq)

        return trio.from_thread.run(run, trio_token=self._token)


class ClientSystem:
    """A broker process and one client of it, which outlives the broker's restarts; a crash is kill -9."""

    def __init__(self, directory: Path) -> None:
        self._broker = Broker(directory)
        self._broker.start()
        self._mq: Client = self._broker.client()

    def create_channel(self, channel: str) -> bool:
        return self._mq.create_channel(channel)

    def destroy_channel(self, channel: str) -> None:
        self._mq.destroy_channel(channel)

    def list_channels(self, prefix: str) -> list[str]:
        return self._mq.list_channels(prefix)

    def describe_channel(self, channel: str) -> ChannelView:
        found = self._mq.describe_channel(channel)
        return ChannelView(found.begin_id, found.end_id, found.message_count, found.byte_count, found.groups)

    def create_group(self, channel: str, group: str, start: Start) -> bool:
        return self._mq.create_consumer_group(channel, group, start=start)

    def destroy_group(self, channel: str, group: str) -> None:
        self._mq.destroy_consumer_group(channel, group)

    def describe_group(self, channel: str, group: str) -> GroupView:
        found = self._mq.describe_consumer_group(channel, group)
        return GroupView(found.position, found.lag_messages, found.generation, found.metadata)

    def produce(self, channel: str, messages: list[OutgoingMessage]) -> range:
        return self._mq.produce(channel, messages)

    def consume(self, channel: str, group: str, max_messages: int, max_bytes: int) -> MessageBatch:
        return self._mq.consume(channel, group, max_messages, max_bytes=max_bytes)

    def fetch(self, channel: str, start: Start, max_messages: int, max_bytes: int) -> MessageBatch:
        return self._mq.fetch(channel, start, max_messages, max_bytes=max_bytes)

    def commit(self, channel: str, group: str, position: int, generation: int | None, metadata: bytes) -> None:
        self._mq.commit(channel, group, position, generation=generation, metadata=metadata)

    def seek(self, channel: str, group: str, to: Start) -> Sought:
        found = self._mq.seek(channel, group, to)
        return Sought(found.position, str(found.outcome), found.generation)

    def restart(self) -> None:
        assert self._broker.terminate() == 0
        self._broker.start()

    def crash(self) -> None:
        self._broker.kill()
        self._broker.start()

    def close(self) -> None:
        self._mq.close()
        self._broker.kill()
