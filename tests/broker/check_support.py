"""A healthy data directory for the tests of `check`, and what damages a copy of it."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import NamedTuple

from rocksmq.broker import keys
from rocksmq.broker.check import check
from rocksmq.broker.durability import Durability
from rocksmq.broker.engine import RocksMQ
from rocksmq.broker.findings import Finding
from rocksmq.broker.records import Extent, GroupState
from rocksmq.broker.remote import Remote
from rocksmq.broker.store import Change, Family, Put, Store
from rocksmq.protocol.operations import Consume, OpenProducer, Produce, ReleaseConsumer

from .support import FSYNC, batch_of, identity, in_trio

PAYLOAD_BYTES = 5_000
CONSUMER, NAMED = identity(1 << 62, 1), identity(1 << 62, 2)


class Healthy(NamedTuple):
    """A directory that a broker has closed, and the ids of the messages of `orders`, a batch each."""

    path: Path
    batches: list[range]
    payloads: list[bytes]

    @property
    def ids(self) -> list[int]:
        return [message_id for batch in self.batches for message_id in batch]


def made(path: Path, on_done: Callable[[Path], None] = lambda path: None) -> Healthy:
    """Several channels and groups, headers, consumer ids, producers, things destroyed; ``on_done`` before the close."""
    random = Random(7660)
    batches: list[range] = []
    payloads: list[bytes] = []

    @in_trio
    async def fill() -> None:
        async with RocksMQ(path) as mq:
            for name in ("aside", "gone", "orders", "plain", "empty"):
                await mq.create_channel(name, durability="os" if name == "plain" else None)
            for group in ("billing", "shipping", "late", "gone"):
                await mq.create_consumer_group("orders", group)
            await mq.create_consumer_group("empty", "early")
            for number in range(20):
                three = [random.randbytes(PAYLOAD_BYTES) for _ in range(3)]
                batches.append(await mq.produce("orders", three, headers={"n": b"%d" % number} if number % 2 else None))
                payloads.extend(three)
                await mq.produce("gone", [b"x" * number])
                await mq.produce("plain", [b"", b"y" * number])
                await mq.produce("aside", [random.randbytes(100)])
            await mq.consume("orders", "billing", 7)
            await mq.consume("orders", "shipping", 1_000)
            await mq.seek("orders", "shipping", batches[3][1])
            await mq.consume("orders", "shipping", 4)
            await mq.seek("orders", "late", "latest")
            await mq.call(Consume("orders", "billing", CONSUMER, 0, 6, 1 << 22, 0))
            await mq.call(ReleaseConsumer("orders", "billing", CONSUMER, 0, batches[3][0], 4))
            await mq.call(OpenProducer("orders", "importer", NAMED))
            await mq.call(Produce("aside", identity(1 << 62, 3), 0, *batch_of(b"numbered")))
            batches.append(await produced(mq, b"named"))
            payloads.append(b"named")
            await mq.destroy_consumer_group("orders", "gone")
            await mq.destroy_channel("gone")
            on_done(path)

    fill()
    return Healthy(path, batches, payloads)


async def produced(mq: RocksMQ, payload: bytes) -> range:
    """One message of the named producer."""
    reply = await mq.call(Produce("orders", NAMED, 0, *batch_of(payload), sequences=[5, 5]))
    return range(reply.first_id, reply.first_id + 1)


def findings(path: Path, remote: Remote | None = None, durability: Durability = FSYNC) -> list[str]:
    """Everything found, a line each."""
    kinds = ("note", "problem")
    items = check(path, remote, durability)
    return [f"{kinds[i.is_problem]} {i.subject}: {i.text}" for i in items if isinstance(i, Finding)]


def only(path: Path, remote: Remote | None = None, durability: Durability = FSYNC) -> str:
    """The one thing that was found."""
    (found,) = findings(path, remote, durability)
    return found


def listing(path: Path) -> dict[str, tuple[int, int, str]]:
    """Size, time and content of every file but the lock, and the time of every folder."""
    return {
        str(entry): (
            entry.stat().st_size,
            entry.stat().st_mtime_ns,
            hashlib.sha256(entry.read_bytes()).hexdigest() if entry.is_file() else "",
        )
        for entry in [path, *path.rglob("*")]
        if entry.name != "lock"
    }


def change(path: Path, *changes: Change) -> None:
    """Write past the broker."""
    store = Store(path / "db")
    store.write(changes)
    store.sync()
    store.close()


def stored(path: Path, family: Family, key: bytes) -> bytes:
    """A value, read past the broker."""
    store = Store(path / "db")
    value = store.get(family, key)
    store.close()
    assert value is not None
    return value


def entries(path: Path, family: Family, prefix: bytes) -> list[tuple[bytes, bytes]]:
    """All under ``prefix``."""
    store = Store(path / "db")
    found = list(store.scan(family, prefix, prefix + b"\xff" * 64))
    store.close()
    return found


def number_of(path: Path, channel: str) -> int:
    """The channel's number."""
    (key,) = [key for key, value in entries(path, Family.META, keys.SETTINGS) if channel.encode() in value]
    return keys.from_u64(key[1:])


def change_extent(path: Path, channel: str, **fields: int) -> Extent:
    """Give the extent other values; what it was."""
    key = keys.extent_key(number_of(path, channel))
    extent = Extent.decode(stored(path, Family.META, key))
    changed = extent._replace(**{name: getattr(extent, name) + step for name, step in fields.items()})
    change(path, Put(Family.META, key, changed.encode()))
    return extent


def change_group(path: Path, group: str, new: Callable[[GroupState], GroupState], channel: str = "orders") -> GroupState:
    """Store another state, with the `current_id` that belongs to it; the new state."""
    key = keys.group_key(group, channel, "state")
    state = new(GroupState.decode(stored(path, Family.META, key)))
    current_id = keys.group_key(group, channel, "current_id")
    change(path, Put(Family.META, key, state.encode()), Put(Family.META, current_id, str(state.position).encode()))
    return state


def flip(file: Path, offset: int) -> None:
    """One bit."""
    content = bytearray(file.read_bytes())
    content[offset] ^= 0x10
    file.write_bytes(content)


def settle(path: Path) -> None:
    """Bring everything from the log into tables."""
    store = Store(path / "db")
    for family in Family:
        store.compact(family, b"", b"\xff" * 20)
    store.close()


def flip_stored(path: Path, content: bytes) -> None:
    """A bit of ``content``, wherever it lies in the tables."""
    (file,) = [table for table in (path / "db").glob("*.sst") if content in table.read_bytes()]
    flip(file, file.read_bytes().index(content))


def batch_entry(healthy: Healthy, index: int) -> tuple[bytes, bytes]:
    """Key and value of a batch of `orders`."""
    key = keys.batch_key(number_of(healthy.path, "orders"), healthy.batches[index][0])
    return key, stored(healthy.path, Family.DATA, key)
