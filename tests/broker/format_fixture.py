"""A small data directory with something of everything that is stored, for the tests of upgrades: one is kept for each format.

    python -m tests.broker.format_fixture

writes `fixtures/format-<n>.tar.xz` for the format that this version writes, before a version of that format is released and
never after. It holds two directories: `embedded`, as a kill -9 left it, and `elsewhere`, whose positions are in another
store, of which `positions.json` is what stands there. `content.json` says what a broker must serve of both.
"""

import io
import json
import shutil
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import trio

from rocksmq.broker.directory import FORMAT
from rocksmq.broker.durability import Durability
from rocksmq.broker.engine import RocksMQ
from rocksmq.broker.ids import IDAllocator
from rocksmq.broker.remote import Remote
from rocksmq.protocol.administration import SetChannel
from rocksmq.protocol.messages import MessageBatch
from rocksmq.protocol.operations import (
    Commit,
    Consume,
    CreateChannel,
    DescribeChannel,
    DescribeGroup,
    ListChannels,
    ListGroups,
    OpenProducer,
    Produce,
    ReleaseConsumer,
)
from tests.helpers.model_systems import copy_as_killed

from .check_support import settle
from .meta_support import MemoryRemote
from .support import NOON_MS, batch_of, identity, in_trio

FIXTURES = Path(__file__).parent / "fixtures"
LOOK_SECONDS = 0.01
AGE_MS = 1 << 42  # 139 years: nothing reaches it
PRODUCER, NAMED, READER, LEAVER = (identity(1 << 62, which) for which in range(1, 5))
INFORMATION = ("LOG", "LOCK", "OPTIONS-", "rocksdict-config.json")  # RocksDB needs none of these files
Content = dict[str, Any]


def opened(path: Path, remote: Remote | None = None, minutes: int = 0) -> RocksMQ:
    """A broker so many minutes after the first; ids of the fixture stay young, whenever the test runs."""
    now_ms = NOON_MS + minutes * 60_000
    durability = Durability.parse("interval:50")
    return RocksMQ(path, IDAllocator(clock=lambda: now_ms), durability=durability, remote=remote)


async def fill(mq: RocksMQ, round_: int) -> None:
    """Everything that has a record; the second time over goes on from the first."""
    if round_ == 0:
        owner, rules = ["tests", "nowhere", "a fixture"], {"max_age_ms": AGE_MS, "max_bytes": 1 << 40}
        await mq.call(CreateChannel("orders", None, rules, owner, b"r" * 16))
        await mq.create_channel("bills", durability="os")
        await mq.create_channel("short", durability="fsync")
        await mq.create_channel("empty")
        await mq.create_channel("gone")
        for channel, group in (("orders", "billing"), ("orders", "shipping"), ("bills", "archive"), ("empty", "early")):
            await mq.create_consumer_group(channel, group)
        await mq.call(OpenProducer("orders", "importer", NAMED))
    for number in range(20):
        text = b"message %d of round %d " % (number, round_) * 10
        await mq.produce("orders", [text, b"", text[:7]], headers={"n": b"%d" % number, "": b""} if number % 3 == 0 else None)
        await mq.produce("bills", [text])
        await mq.produce("short", [text, text])
    await mq.call(Produce("bills", PRODUCER, round_, *batch_of(b"numbered %d" % round_)))
    await mq.call(Produce("orders", NAMED, round_, *batch_of(b"named", b"too"), sequences=[10 * round_ + 1, 10 * round_ + 2]))
    claim = await mq.call(Consume("orders", "billing", READER, round_, 9, 1 << 22, 0))
    if round_ == 1:
        claim = await mq.call(Consume("orders", "billing", LEAVER, 0, 5, 1 << 22, 0))
        await mq.call(ReleaseConsumer("orders", "billing", LEAVER, 0, MessageBatch(claim).ids[-3], 3))
        await mq.seek("orders", "shipping", "latest")
        described = await mq.call(DescribeGroup("bills", "archive"))
        await mq.call(Commit("bills", "archive", described.position + 1, described.generation, b"kept with it"))
        await mq.call(SetChannel("short", {"max_messages": 33, "consumed_by_all": 1}))
        while (await mq.call(DescribeChannel("short"))).message_count != 33:
            await trio.sleep(LOOK_SECONDS)
        await mq.destroy_channel("gone")


async def served(mq: RocksMQ) -> Content:
    """All that a broker says and serves, as JSON; it changes nothing."""
    found: Content = {}
    for channel in (await mq.call(ListChannels("", ""))).names:
        described = await mq.call(DescribeChannel(channel))
        messages: list[Any] = []
        batch = await mq.fetch(channel, "earliest")
        while batch:
            for message in batch:
                headers = {name: value.hex() for name, value in sorted((message.headers or {}).items())}
                messages.append([message.id, message.payload.hex(), headers])
            batch = await mq.fetch(channel, batch.next_position)
        groups: dict[str, Any] = {}
        for name in (await mq.call(ListGroups(channel, ""))).names:
            group = await mq.call(DescribeGroup(channel, name))
            groups[name] = [group.creation_id, group.position, group.lag_messages, group.generation, group.metadata.hex()]
        figures = [described.number, described.owner, described.created_ms, described.begin_id, described.end_id]
        settings = [described.byte_count, described.durability, described.retention, described.has_default]
        found[channel] = {"described": [*figures, *settings], "messages": messages, "groups": groups}
    found["repeat"] = (await mq.call(Produce("bills", PRODUCER, 1, *batch_of(b"numbered 1")))).first_id
    found["claim"] = (await mq.call(Consume("orders", "billing", READER, 1, 9, 1 << 22, 0))).next_position
    return found


def make(path: Path) -> None:
    """Both directories, and what a broker serves of them."""
    content: dict[str, Content] = {}
    remote = MemoryRemote()
    for name, store in (("embedded", None), ("elsewhere", remote)):
        _make(path / name, store)
        shutil.copytree(path / name, path / "copy")
        content[name] = _served(path / "copy", _copy_of(store))
        shutil.rmtree(path / "copy")
    (path / "positions.json").write_text(json.dumps(remote.entries, indent=1))
    (path / "content.json").write_text(json.dumps(content, indent=1))


def _make(path: Path, remote: MemoryRemote | None) -> None:
    work = path.with_name("work")

    @in_trio
    async def live() -> None:
        async with opened(work, remote) as mq:
            await fill(mq, 0)
        settle(work)  # a part in tables, the rest in a log
        async with opened(work, remote, minutes=1) as mq:
            await fill(mq, 1)
            copy_as_killed(work, path)

    live()
    shutil.rmtree(work)
    for file in (path / "db").iterdir():
        if file.name.startswith(INFORMATION):
            file.unlink()


def _copy_of(remote: MemoryRemote | None) -> MemoryRemote | None:
    if remote is None:
        return None
    copy = MemoryRemote(remote.name)
    copy.entries = dict(remote.entries)
    return copy


def _served(path: Path, remote: MemoryRemote | None) -> Content:
    found: list[Content] = []

    @in_trio
    async def live() -> None:
        async with opened(path, remote, minutes=2) as mq:
            found.append(await served(mq))

    live()
    return found[0]


def main() -> None:
    FIXTURES.mkdir(exist_ok=True)
    target = FIXTURES / f"format-{FORMAT}.tar.xz"
    with tempfile.TemporaryDirectory(prefix="rocksmq-fixture-") as name:
        make(Path(name))
        with tarfile.open(target, "w:xz", preset=9) as tar:
            for file in sorted(Path(name).rglob("*")):
                _add(tar, file, str(file.relative_to(name)))
    sys.stdout.write(f"{target}: {target.stat().st_size:,} bytes\n")


def _add(tar: tarfile.TarFile, file: Path, name: str) -> None:
    """Without whose it was, and when."""
    entry = tarfile.TarInfo(name)
    entry.mode = 0o700 if file.is_dir() else 0o600
    if file.is_dir():
        entry.type = tarfile.DIRTYPE
        tar.addfile(entry)
        return
    content = file.read_bytes()
    entry.size = len(content)
    tar.addfile(entry, io.BytesIO(content))


if __name__ == "__main__":
    main()
