"""Two small data directories with something of everything in them, and all that can be read of such a directory.

One is left by a broker that ended in order, the other by a kill -9 under load: several logs, tables at the top and at the
bottom. Everything in them was synced, and the mark has caught up: so nothing of it may be missing without a word.
"""

import hashlib
import os
import shutil
from collections.abc import Callable, Generator
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from random import Random
from typing import Any, NamedTuple, TypedDict

import trio
from rocksdict import Options

from rocksmq.broker import store, store_options
from rocksmq.broker.engine import RocksMQ
from rocksmq.broker.mark import MarkFile
from rocksmq.broker.store import Family, Store
from rocksmq.protocol.administration import SetChannel
from rocksmq.protocol.batch import RecordBatch
from rocksmq.protocol.errors import RocksMQError
from rocksmq.protocol.messages import pack_messages
from rocksmq.protocol.operations import (
    Consume,
    DescribeGroup,
    ListChannels,
    ListGroups,
    OpenProducer,
    Produce,
)
from tests.helpers.model_systems import copy_as_killed

SEED = 7660
CHANNELS = {"orders": None, "bills": "os", "short": None, "empty": None}
GROUPS = {"orders": ("billing", "shipping"), "bills": ("archive",), "empty": ("early",)}
FILLED = ("orders", "bills", "short")
KEPT_MESSAGES = 20  # of `short`, by its retention
SMALL_MEMTABLE_BYTES = 192 * 1024
FLUSHED_A_SECOND = 24 * 1024  # so slow that a second log is begun before the first memtable is a table
LOOKS_MAX, LOOK_SECONDS = 2_000, 0.01
BIRTH = 1 << 60  # of our producers' ids: behind every forgetting mark


class Content(TypedDict):
    """What a broker serves, as JSON. An error's text stands where something cannot be read."""

    messages: dict[str, Any]  # by channel: ids and digests
    groups: dict[str, Any]  # by group and channel: position, lag, generation
    repeats: list[Any]  # first ids that a repeated produce is answered with
    highest_id: int


class Base(NamedTuple):
    """A directory as its broker left it, and what is in it."""

    name: str
    path: Path
    content: Content

    def files(self) -> list[Path]:
        """All of them, relative to the directory."""
        return sorted(file.relative_to(self.path) for file in self.path.rglob("*") if file.is_file())


def bases(parent: Path) -> list[Base]:
    """Make both in ``parent``."""
    work = parent / "work"
    writer = _Writer(work)
    writer.fill(30, creates=True)
    with _opened(work) as opened:
        for family in Family:
            opened.compact(family, b"", b"\xff" * 20)
    writer.fill(12)
    writer.fill(12)
    writer.fill(8)
    shutil.copytree(work, parent / "stopped")
    writer.fill(36, kills_into=parent / "killed")
    found = [Base(name, parent / name, _content_of_copy(parent, name)) for name in ("stopped", "killed")]
    assert len(list((parent / "killed" / "db").glob("*.log"))) > 1, "several logs are wanted"
    assert len(list((parent / "killed" / "db").glob("*.sst"))) > 2, "tables at the top and at the bottom are wanted"
    return found


@contextmanager
def _opened(path: Path) -> Generator[Store, None, None]:
    opened = Store(path / "db")
    try:
        yield opened
    finally:
        opened.close()


def _content_of_copy(parent: Path, name: str) -> Content:
    """What a broker serves of a copy: what is damaged later was never opened since."""
    copy = parent / "copy"
    shutil.copytree(parent / name, copy)
    found = content(copy)
    shutil.rmtree(copy)
    assert "error" not in str(found), found
    return found


class _Writer:
    """Fills a directory, a broker's life at a time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._random = Random(SEED)
        self._number = 0

    def fill(self, batches: int, *, creates: bool = False, kills_into: Path | None = None) -> None:
        """So many batches into each channel. ``kills_into``: a copy is made, as a kill -9 would leave it."""
        if kills_into is None:
            trio.run(self._fill, batches, creates, None)
            return
        # In a process of its own, since a close would wait for the slow tables.
        process = get_context("spawn").Process(target=self._fill_and_die, args=(batches, kills_into))
        process.start()
        process.join()
        assert process.exitcode == 0, process.exitcode

    def _fill_and_die(self, batches: int, kills_into: Path) -> None:
        with _many_logs():
            trio.run(self._fill, batches, False, kills_into)

    async def _fill(self, batches: int, creates: bool, kills_into: Path | None) -> None:
        async with RocksMQ(self._path) as mq:
            if creates:
                await self._create(mq)
            for _ in range(batches):
                for channel in FILLED:
                    await self._produce(mq, channel)
            await mq.consume("orders", "billing", 20)
            await mq.call(Consume("orders", "shipping", _identity(9), self._number, 15, 1 << 22, 0))
            self._number += 1
            await mq.call(SetChannel("short", {"max_messages": KEPT_MESSAGES}))
            await _until(lambda: mq.core.channels.find("short").visible.message_count <= KEPT_MESSAGES, "`short` is cut")
            await self._produce(mq, "orders")  # synced, and with it all before
            if kills_into is not None:
                await _until(lambda: _marked(self._path) == mq.core.committer.written_number, "the mark has caught up")
                copy_as_killed(self._path, kills_into)
                os._exit(0)

    async def _create(self, mq: RocksMQ) -> None:
        for channel, durability in CHANNELS.items():
            await mq.create_channel(channel, durability=durability)
        for channel, groups in GROUPS.items():
            for group in groups:
                await mq.create_consumer_group(channel, group)
        await mq.call(OpenProducer("orders", "importer", _identity(5)))
        await mq.call(Produce("orders", _identity(5), 0, *_batch(b"named"), sequences=[5, 5]))
        for which, channel in enumerate(FILLED):
            await mq.call(Produce(channel, _identity(which), 0, *_batch(channel.encode())))

    async def _produce(self, mq: RocksMQ, channel: str) -> None:
        payloads = [self._random.randbytes(self._random.randrange(2_000)) for _ in range(self._random.randrange(1, 5))]
        await mq.produce(channel, payloads, headers={"h": self._random.randbytes(9)} if self._random.random() < 0.3 else None)


async def _until(is_so: Callable[[], bool], what: str) -> None:
    for _ in range(LOOKS_MAX):
        if is_so():
            return
        await trio.sleep(LOOK_SECONDS)
    raise AssertionError(f"it did not happen that {what}")


def _marked(path: Path) -> int:
    mark = MarkFile(path / "mark")
    mark.close()
    return mark.number


@contextmanager
def _many_logs() -> Generator[None, None, None]:
    """Small memtables, that become tables slowly."""
    options, memtable_bytes = store_options.options_of, store.MEMTABLE_BYTES

    def slow(cache: Any) -> Options:
        made = options(cache)
        made.set_ratelimiter(FLUSHED_A_SECOND, 100_000, 10)
        return made

    store.MEMTABLE_BYTES = SMALL_MEMTABLE_BYTES
    store_options.options_of = slow
    try:
        yield
    finally:
        store_options.options_of, store.MEMTABLE_BYTES = options, memtable_bytes


def _identity(which: int) -> bytes:
    return BIRTH.to_bytes(8, "big") + which.to_bytes(8, "big")


def _batch(payload: bytes) -> RecordBatch:
    return pack_messages([payload], None)


# -- reading ---------------------------------------------------------------------------------


def content(path: Path) -> Content:
    """Start a broker on ``path``, and read all. Raises what a start raises."""
    return trio.run(_content, path)


async def _content(path: Path) -> Content:
    async with RocksMQ(path) as mq:
        found = Content(messages={}, groups={}, repeats=[], highest_id=0)
        for channel in (await mq.call(ListChannels("", ""))).names:
            found["messages"][channel] = await _messages(mq, channel)
            for group in (await mq.call(ListGroups(channel, ""))).names:
                found["groups"][f"{group} of {channel}"] = await _group(mq, channel, group)
        for which, channel in enumerate(FILLED):
            found["repeats"].append(
                await _told(mq, Produce(channel, _identity(which), 0, *_batch(channel.encode())), "first_id")
            )
        ids: list[int] = [
            message[0] for messages in found["messages"].values() if not isinstance(messages, str) for message in messages
        ]
        found["highest_id"] = max((*ids, *(id_ for id_ in found["repeats"] if isinstance(id_, int))), default=0)
        return found


async def _messages(mq: RocksMQ, channel: str) -> list[list[Any]] | str:
    found: list[list[Any]] = []
    try:
        batch = await mq.fetch(channel, "earliest", 100)
        while batch:
            for message in batch:
                digest = hashlib.sha256(message.payload + repr(sorted((message.headers or {}).items())).encode())
                found.append([message.id, digest.hexdigest()[:16]])
            batch = await mq.fetch(channel, batch.next_position, 100)
    except RocksMQError as error:
        return f"error: {error}"
    return found


async def _group(mq: RocksMQ, channel: str, group: str) -> list[int] | str:
    try:
        described = await mq.call(DescribeGroup(channel, group))
    except RocksMQError as error:
        return f"error: {error}"
    return [described.position, described.lag_messages, described.generation]


async def _told(mq: RocksMQ, request: Any, field: str) -> Any:
    try:
        return getattr(await mq.call(request), field)
    except RocksMQError as error:
        return f"error: {error}"
