"""Real input: every line of Python's standard library goes in through the command line and comes out unchanged, in order.

Blank lines, lines that are not UTF-8 and very long ones are among them.
"""

import subprocess
import sys
import sysconfig
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from datetime import timedelta
from hashlib import sha256
from itertools import islice, pairwise
from pathlib import Path
from random import Random
from typing import NamedTuple

import pytest

from rocksmq.clients import Client, SeekOutcome
from rocksmq.clients.testing import Broker
from tests.helpers.ledger import Ledger
from tests.helpers.ledger_group import GroupLedger
from tests.helpers.ledger_load import Load, consume, pipeline

SEED = 7660
CLI = (sys.executable, "-c", "from rocksmq.clients.cli import main; main()")
FILES_A_CALL = 300
PATIENCE_SECONDS = 120
CHANNEL = "stdlib"


class Library(NamedTuple):
    """What went in."""

    lines: list[bytes]
    digest: str


def digest_of(lines: Iterable[bytes]) -> str:
    """Of all lines, each with its newline: two different sequences of lines never agree."""
    whole = sha256()
    for line in lines:
        whole.update(line + b"\n")
    return whole.hexdigest()


def source_files() -> list[Path]:
    """Every .py file of the standard library."""
    root = Path(sysconfig.get_paths()["stdlib"])
    return sorted(path for path in root.rglob("*.py") if "site-packages" not in path.parts)


def lines_of(data: bytes) -> list[bytes]:
    """As the command line cuts them: at each newline, and nowhere else."""
    lines = data.split(b"\n")
    return lines if lines[-1] else lines[:-1]


def command(broker: Broker, *arguments: str, data: bytes | None = None) -> bytes:
    """Run the client's command line; its stdout."""
    done = subprocess.run(
        [*CLI, "--url", broker.url, *arguments], input=data, capture_output=True, timeout=PATIENCE_SECONDS, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def put_in(broker: Broker) -> Library:
    """All files: as arguments of several calls, and the last ones through a pipe."""
    files = source_files()
    assert len(files) > FILES_A_CALL, "this Python has no whole standard library: install its complete package"
    lines: list[bytes] = []
    by_name = files[: -len(files) // 4]
    for start in range(0, len(by_name), FILES_A_CALL):
        names = by_name[start : start + FILES_A_CALL]
        command(broker, "produce", CHANNEL, "--create", *map(str, names))
        for name in names:
            lines += lines_of(name.read_bytes())
    piped = b"".join(path.read_bytes() for path in files[len(by_name) :])
    command(broker, "produce", CHANNEL, "-", data=piped)
    lines += lines_of(piped)
    return Library(lines, digest_of(lines))


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    with Broker(tmp_path_factory.mktemp("library") / "data") as process:
        yield process


@pytest.fixture(scope="module")
def library(broker: Broker) -> Library:
    found = put_in(broker)
    print(f"{len(found.lines):,} lines, {sum(map(len, found.lines)):,} bytes")  # noqa: T201
    return found


@pytest.fixture(scope="module")
def ids(broker: Broker, library: Library) -> list[int]:
    """The id of each line."""
    found: list[int] = []
    with broker.client() as mq:
        position: int | str = "earliest"
        while batch := mq.fetch(CHANNEL, position, 10_000):
            found += batch.ids
            position = batch.next_position
    assert len(found) == len(library.lines)
    assert all(earlier < later for earlier, later in pairwise(found)), "ids do not rise"
    return found


def sizes(random: Random) -> Iterator[int]:
    """How many to ask for: one at a time, seven, a thousand, then all sorts."""
    yield from [1] * 2_000
    yield from [7] * 2_000
    yield from [1_000] * 100
    while True:
        yield random.choice((1, 2, 99, 1_000, 2_500, 10_000))


@pytest.mark.slow
def test_given_the_library_when_consumed_in_batches_of_all_sizes_then_every_line_comes_once_and_in_order(
    broker: Broker, library: Library
) -> None:
    found: list[bytes] = []
    with broker.client() as mq:
        mq.create_consumer_group(CHANNEL, "sizes")
        for size in sizes(Random(SEED)):
            batch = mq.consume(CHANNEL, "sizes", size)
            if not batch:
                break
            assert len(batch) <= size
            found += batch.payloads
        assert mq.describe_consumer_group(CHANNEL, "sizes").lag_messages == 0
    assert len(found) == len(library.lines)
    assert digest_of(found) == library.digest


@pytest.mark.slow
def test_given_the_library_when_consumed_by_the_command_line_then_its_output_is_what_went_in(
    broker: Broker, library: Library
) -> None:
    output = command(broker, "consume", CHANNEL, "--group", "shell")
    assert output.count(b"\n") == len(library.lines)
    assert sha256(output).hexdigest() == library.digest


@pytest.mark.slow
def test_given_the_library_when_sought_to_its_middle_by_id_then_exactly_that_line_comes_next(
    broker: Broker, library: Library, ids: list[int]
) -> None:
    random = Random(SEED)
    with broker.client() as mq:
        mq.create_consumer_group(CHANNEL, "seeker", start="latest")
        for index in (len(ids) // 2, 0, len(ids) - 1, *random.sample(range(len(ids)), 30)):
            sought = mq.seek(CHANNEL, "seeker", ids[index])
            assert (sought.position, sought.outcome) == (ids[index], SeekOutcome.EXACT)
            comes(mq, library, ids, index)
        # An id behind a batch that no message has leads to the next one.
        index = next(i for i in range(len(ids) // 2, len(ids)) if ids[i] > ids[i - 1] + 1)
        assert mq.seek(CHANNEL, "seeker", ids[index - 1] + 1).outcome == SeekOutcome.NEXT
        comes(mq, library, ids, index)


def comes(mq: Client, library: Library, ids: list[int], index: int) -> None:
    """The group's next messages are those from ``index`` on, and the lag says so."""
    assert mq.describe_consumer_group(CHANNEL, "seeker").lag_messages == len(ids) - index
    batch = mq.consume(CHANNEL, "seeker", 100)
    assert list(batch.ids) == ids[index : index + 100]
    assert batch.payloads == library.lines[index : index + 100]


@pytest.mark.slow
def test_given_the_library_when_sought_by_time_then_the_first_line_at_or_after_it_comes_next(
    broker: Broker, library: Library, ids: list[int]
) -> None:
    random = Random(SEED)
    with broker.client() as mq:
        mq.create_consumer_group(CHANNEL, "seeker", start="latest")
        for index in (len(ids) // 2, *random.sample(range(len(ids)), 30)):
            (message,) = mq.fetch(CHANNEL, ids[index], 1)
            for later_us in (0, 1, 999, 1_000):
                moment = message.timestamp + timedelta(microseconds=later_us)
                milliseconds = (ids[index] >> 18) + (later_us > 0)
                expected = bisect_left(ids, milliseconds << 18)
                sought = mq.seek(CHANNEL, "seeker", moment)
                if expected == len(ids):
                    assert sought.outcome == SeekOutcome.LATEST
                else:
                    assert sought.position == ids[expected]
                    comes(mq, library, ids, expected)


def batches(lines: list[bytes]) -> Iterator[list[bytes]]:
    remaining = iter(lines)
    while batch := list(islice(remaining, 500)):
        yield batch


@pytest.mark.slow
def test_given_a_second_load_when_killed_in_the_middle_then_nothing_acknowledged_is_missing(
    broker: Broker, library: Library, ids: list[int]
) -> None:
    # Given: two pipelines with the library's lines, and a consumer.
    random = Random(SEED)
    ledger = Ledger()
    group = GroupLedger(ledger, "again", "readers")
    with broker.client() as mq:
        mq.create_channel("again")
        mq.create_consumer_group("again", "readers")
        before = mq.describe_channel(CHANNEL)
    load = Load(ledger, broker.url, str(SEED))
    half = len(library.lines) // 2
    load.start("first", pipeline(ledger, "again", "first", lambda _: batches(library.lines[:half])))
    load.start("second", pipeline(ledger, "again", "second", lambda _: batches(library.lines[half:])))
    load.start("consumer", consume(group, 2_000))
    # When
    try:
        ledger.wait_for(random.randint(300, 900))
    finally:
        broker.kill()
        load.stop()
    broker.start()
    # Then
    with broker.client() as mq:
        found = ledger.check(mq, ["again"])
        group.check(mq)
        print(f"{ledger.acknowledged_count} acknowledgements, {found:,} lines found")  # noqa: T201
        assert mq.describe_channel(CHANNEL) == before
        comes_again = mq.fetch(CHANNEL, ids[len(ids) // 2], 1_000)
        assert comes_again.payloads == library.lines[len(ids) // 2 :][:1_000]
        ledger.check_again(mq)
