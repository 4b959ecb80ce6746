"""The imitated power cut: a whole broker loses nothing acknowledged and starts again; one without its fsync is found out.

The plan of each cut follows from the seed, which is printed. TEST_SEED replays another one, TEST_POWER_CUTS asks for more.
"""

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest
import trio

from rocksmq.broker.daemon import EXIT_DATA_REFUSED
from rocksmq.clients import Client
from rocksmq.protocol.identity import Identity
from rocksmq.protocol.messages import MessageBatch
from rocksmq.protocol.operations import Fetch, Position
from tests.helpers.ledger import Ledger
from tests.helpers.ledger_load import Load, pipeline
from tests.helpers.ledger_load import produce as one_by_one
from tests.helpers.raw import Raw

from .power import cut_power
from .process import FaultyBroker
from .scenario import KEPT, OLD, prepare, produce

SEED = int(os.environ.get("TEST_SEED", "7660"))
CUTS = int(os.environ.get("TEST_POWER_CUTS", "5"))
CHANNELS = ("small", "large")
MEMTABLE_BYTES = 1 << 20
STARTING = ("before-open", "after-open", "in-recovery")


def database(tmp_path: Path, **lengths: int) -> Path:
    """A data directory with logs of these lengths."""
    directory = tmp_path / "data"
    (directory / "db").mkdir(parents=True)
    for name, length in lengths.items():
        (directory / "db" / f"{name.removeprefix('log_')}.log").write_bytes(b"x" * length)
    return directory


def left(directory: Path) -> dict[str, int]:
    return {log.name: log.stat().st_size for log in (directory / "db").iterdir()}


def test_given_notes_when_cut_then_only_the_newest_log_ends_where_it_was_synced(tmp_path: Path) -> None:
    directory, notes = database(tmp_path, log_000009=500, log_000010=900), tmp_path / "notes"
    notes.write_text(json.dumps({"000009.log": 300, "000010.log": 700}))
    assert cut_power(directory, notes) == 200
    assert left(directory) == {"000009.log": 500, "000010.log": 700}
    assert cut_power(directory, notes) == 0


def test_given_a_log_that_was_never_synced_when_cut_then_it_is_gone(tmp_path: Path) -> None:
    directory, notes = database(tmp_path, log_000009=500, log_000010=900), tmp_path / "notes"
    notes.write_text(json.dumps({"000009.log": 500}))
    assert cut_power(directory, notes) == 900
    assert left(directory) == {"000009.log": 500}


def test_given_random_numbers_when_cut_then_any_part_of_the_end_is_lost_and_nothing_synced(tmp_path: Path) -> None:
    directory, notes = database(tmp_path, log_000010=900), tmp_path / "notes"
    notes.write_text(json.dumps({"000010.log": 700}))
    random = Random(SEED)
    log = directory / "db" / "000010.log"
    lost: set[int] = set()
    for _ in range(1_000):
        log.write_bytes(b"x" * 900)
        lost.add(cut_power(directory, notes, random))
        assert log.stat().st_size >= 700
    assert min(lost) == 0
    assert max(lost) == 200


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[FaultyBroker]:
    """Not started yet; it notes what it syncs."""
    with FaultyBroker(tmp_path / "data", power=True, memtable_bytes=MEMTABLE_BYTES) as process:
        yield process


def stored(broker: FaultyBroker) -> list[bytes]:
    """What the old channel holds."""
    with Raw(broker.address) as raw:
        return MessageBatch(raw.call(Fetch(OLD, Position.EARLIEST, 0, 100, 1 << 20, 0))).payloads


@pytest.mark.parametrize("mutant", [None, "no-fsync"])
def test_given_no_fsync_when_the_power_is_cut_then_what_was_acknowledged_is_lost(
    broker: FaultyBroker, mutant: str | None
) -> None:
    trio.run(prepare, broker.directory)
    broker.mutant, broker.faults = mutant, ["after-mark=kill"]
    assert broker.start()
    with Raw(broker.address) as raw:
        produce(raw, OLD, Identity.new(raw.server.present_id), [b"four"])
    assert broker.wait() == -signal.SIGKILL
    lost = cut_power(broker.directory, broker.notes)
    broker.mutant, broker.faults = None, ()
    if mutant is None:
        assert lost == 0
        assert broker.start()
        assert stored(broker) == [*KEPT, b"four"]
    else:
        assert lost > 0
        assert not broker.start(), "the durable mark tells that something is missing"
        assert broker.wait() == EXIT_DATA_REFUSED
        broker.arguments = ["--accept-loss"]
        assert broker.start()
        assert stored(broker) == KEPT


def large(random: Random) -> Iterator[list[bytes]]:
    """Batches that fill a memtable soon."""
    while True:
        yield [random.randbytes(random.randrange(100_000)) for _ in range(random.randint(1, 3))]


def test_given_fsync_when_the_power_is_cut_again_and_again_then_it_starts_with_all_that_was_acknowledged(
    broker: FaultyBroker,
) -> None:
    random, ledger = Random(SEED), Ledger()
    assert broker.start()
    with Client(broker.url) as mq:
        for channel in CHANNELS:
            mq.create_channel(channel)
    for cut in range(CUTS):
        load = Load(ledger, broker.url, f"{SEED}/{cut}")
        try:
            load.start("small", one_by_one(ledger, "small", f"small-{cut}", 3))
            load.start("large", pipeline(ledger, "large", f"large-{cut}", large))
            ledger.wait_for(ledger.acknowledged_count + random.randint(1, 100))
            time.sleep(random.random() * 0.01)  # the moment is any, not just behind an acknowledgement
        finally:
            broker.kill()
            load.stop()
        lost = cut_power(broker.directory, broker.notes, random.choice((None, random)))
        if random.random() < 0.4:
            broker.faults = [f"{random.choice(STARTING)}=kill"]
            assert not broker.start()
            assert broker.wait() == -signal.SIGKILL
            lost += cut_power(broker.directory, broker.notes, random.choice((None, random)))
            broker.faults = ()
        assert broker.start(), broker.log.read_text()[-2_000:]
        with Client(broker.url) as mq:
            found = ledger.check(mq, CHANNELS)
        ledger.give_up_unanswered((f"small-{cut}", f"large-{cut}"))
        print(f"seed {SEED}, cut {cut}: {lost} bytes lost, {found} messages more")  # noqa: T201
