"""What the broker syncs, and when, as the kernel sees it (strace): an acknowledgement in mode fsync comes behind the sync."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest

from rocksmq.clients import Client
from rocksmq.clients.testing import Broker
from tests.helpers.ledger import wait_until
from tests.helpers.raw_strace import Call, calls, needs_strace, strace

pytestmark = needs_strace

TRACED = "write,pwrite64,fdatasync,fsync,sync_file_range,sendmsg"
SYNCS = ("fdatasync", "fsync", "sync_file_range")
PRODUCES = 200
WINDOW_MS = 3_000  # of ids: each begins with a sync in every mode


class TracedBroker(Broker):
    """A broker under strace."""

    @property
    def trace(self) -> Path:
        return self.directory.with_name("trace")

    def command(self) -> list[str]:
        return [*strace(self.trace, TRACED), *super().command()]

    def calls(self) -> list[Call]:
        return calls(self.trace)

    def is_log(self, path: str) -> bool:
        return path.startswith(f"{self.directory}/db/") and path.endswith(".log")

    def is_sync_of_log(self, call: Call) -> bool:
        return call.name in SYNCS and self.is_log(call.path)

    def syncs_of_log(self) -> int:
        """How often the write-ahead log was synced so far."""
        return sum(map(self.is_sync_of_log, self.calls()))


@pytest.fixture
def durability(request: pytest.FixtureRequest) -> str:
    mode: str = getattr(request, "param", "fsync")
    return mode


@pytest.fixture
def broker(tmp_path: Path, durability: str) -> Iterator[TracedBroker]:
    with TracedBroker(tmp_path / "data", "--durability", durability) as process:
        yield process


@pytest.fixture
def mq(broker: TracedBroker) -> Iterator[Client]:
    """A client, and a channel in use: the first id window has begun."""
    with broker.client() as client:
        client.create_channel("orders")
        client.produce("orders", [b"first"])
        yield client


def synced_beyond(broker: TracedBroker, count: int) -> bool:
    return broker.syncs_of_log() > count


class Produced(NamedTuple):
    """What a run of produces led to."""

    calls: list[Call]
    windows: int  # at most so many windows of ids were begun meanwhile


def produce_one_by_one(broker: TracedBroker, mq: Client, channel: str, count: int) -> Produced:
    """What the kernel saw between the reply before the first and that to the last; the broker has ended then."""
    ids = [mq.produce(channel, [b"x" * 100])[0] for _ in range(count)]
    broker.terminate()  # a reply reaches the client before strace has noted it; now all is noted
    found = broker.calls()
    replies = [index for index, call in enumerate(found) if call.name == "sendmsg"]
    calls = found[replies[-count - 1] + 1 : replies[-1] + 1]
    return Produced(calls, 1 + ((ids[-1] >> 18) - (ids[0] >> 18)) // WINDOW_MS)


def test_given_fsync_when_produced_one_by_one_then_each_answer_comes_behind_a_write_and_a_sync(
    broker: TracedBroker, mq: Client
) -> None:
    found = produce_one_by_one(broker, mq, "orders", PRODUCES)
    # Then: between any two replies the log was written and, after that, synced.
    answered = 0
    written = synced = False
    for call in found.calls:
        if call.name in ("write", "pwrite64") and broker.is_log(call.path):
            written, synced = True, False
        elif broker.is_sync_of_log(call):
            synced = written
        elif call.name == "sendmsg":
            assert written, f"reply {answered} was sent with nothing written"
            assert synced, f"reply {answered} was sent with nothing synced"
            written = synced = False
            answered += 1
    assert answered == PRODUCES
    assert sum(map(broker.is_sync_of_log, found.calls)) >= PRODUCES


@pytest.mark.parametrize("durability", ["os", "interval:60000"], indirect=True)
def test_given_a_weaker_mode_when_produced_one_by_one_then_nothing_is_synced_but_id_windows(
    broker: TracedBroker, mq: Client
) -> None:
    found = produce_one_by_one(broker, mq, "orders", PRODUCES)
    syncs = sum(map(broker.is_sync_of_log, found.calls))
    assert syncs <= found.windows
    assert sum(call.name == "write" and broker.is_log(call.path) for call in found.calls) >= PRODUCES


@pytest.mark.parametrize("durability", ["os"], indirect=True)
def test_given_mode_os_when_a_channel_asks_for_fsync_then_its_produces_are_synced(broker: TracedBroker, mq: Client) -> None:
    mq.create_channel("safe", durability="fsync")
    found = produce_one_by_one(broker, mq, "safe", PRODUCES)
    assert sum(map(broker.is_sync_of_log, found.calls)) >= PRODUCES


def test_given_mode_fsync_when_a_channel_asks_for_os_then_its_produces_are_not_synced(broker: TracedBroker, mq: Client) -> None:
    mq.create_channel("fast", durability="os")
    found = produce_one_by_one(broker, mq, "fast", PRODUCES)
    assert sum(map(broker.is_sync_of_log, found.calls)) <= found.windows


@pytest.mark.parametrize("durability", ["os"], indirect=True)
def test_given_mode_os_when_something_is_created_sought_or_destroyed_then_each_is_synced(
    broker: TracedBroker, mq: Client
) -> None:
    steps: dict[str, Callable[[], object]] = {
        "create a channel": lambda: mq.create_channel("more"),
        "create a group": lambda: mq.create_consumer_group("more", "readers"),
        "seek": lambda: mq.seek("more", "readers", "earliest"),
        "destroy a group": lambda: mq.destroy_consumer_group("more", "readers"),
        "destroy a channel": lambda: mq.destroy_channel("more"),
    }
    for name, step in steps.items():
        before = broker.syncs_of_log()
        step()
        assert broker.syncs_of_log() > before, f"{name} was answered without a sync"


@pytest.mark.parametrize("durability", ["interval:50"], indirect=True)
def test_given_interval_when_nothing_more_comes_then_it_is_synced_all_the_same(broker: TracedBroker, mq: Client) -> None:
    for _ in range(3):
        before = broker.syncs_of_log()
        mq.produce("orders", [b"x"])
        wait_until(partial(synced_beyond, broker, before), "the log is synced")


def test_given_a_new_directory_when_started_then_it_and_its_parent_are_synced_before_it_serves(broker: TracedBroker) -> None:
    synced = [call.path for call in broker.calls() if call.name in SYNCS]
    assert str(broker.directory.parent) in synced, "a power cut may take the directory itself"
    mark = next((index for index, path in enumerate(synced) if Path(path).stem == "mark"), None)
    assert mark is not None, "the mark was not synced"
    assert str(broker.directory) in synced[mark:], "a power cut may take the mark's name"


def test_given_fsync_when_the_load_pauses_then_the_mark_follows_and_is_synced(broker: TracedBroker, mq: Client) -> None:
    mark = str(broker.directory / "mark")
    before = sum(call.path == mark and call.name in SYNCS for call in broker.calls())
    mq.produce("orders", [b"x"])
    wait_until(lambda: sum(c.path == mark and c.name in SYNCS for c in broker.calls()) > before, "the mark is synced")
