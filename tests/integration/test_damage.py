"""Damaged data directories: a start either has all that was acknowledged, or is refused with numbers and exit code 3."""

import re
import shutil
import subprocess
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import NamedTuple

import pytest
from rocksdict import Options, Rdict

from rocksmq.broker.mark import SLOT_BYTES, MarkFile
from rocksmq.clients import Client, StorageFailed
from rocksmq.clients.testing import Broker
from tests.helpers.ledger import wait_until

SEED = 7660
DATA_REFUSED = 3
PRODUCES, CONSUMES = 120, 3


class Loaded(NamedTuple):
    """A directory whose broker was killed: what it acknowledged, and its mark, which had caught up.

    ``earlier_mark``: the mark's bytes when all but the last produce was marked.
    """

    directory: Path
    messages: dict[int, bytes]
    position: int
    mark: int
    earlier_mark: bytes


def marked(directory: Path) -> int:
    """The number in the durable mark."""
    mark = MarkFile(directory / "mark")
    mark.close()
    return mark.number


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    """Loaded one request at a time, so that each is a group commit of its own."""
    directory = tmp_path_factory.mktemp("original") / "data"
    random = Random(SEED)
    messages: dict[int, bytes] = {}

    def produce(mq: Client) -> None:
        payload = random.randbytes(random.randrange(3_000))
        messages[mq.produce("orders", [payload])[0]] = payload

    with Broker(directory) as broker, broker.client() as mq:
        mq.create_channel("orders")
        mq.create_consumer_group("orders", "billing")
        for _ in range(PRODUCES - 1):
            produce(mq)
        position = 0
        with broker.client() as reader:  # which at its end gives up its consumer id: one commit more
            for _ in range(CONSUMES):
                position = reader.consume("orders", "billing", 10).next_position
        commits = 2 + PRODUCES - 1 + CONSUMES + 1
        wait_until(lambda: marked(directory) == commits, "the mark has caught up")
        earlier_mark = (directory / "mark").read_bytes()
        produce(mq)
        wait_until(lambda: marked(directory) == commits + 1, "the mark has caught up")
    return Loaded(directory, messages, position, commits + 1, earlier_mark)


@pytest.fixture
def loaded(original: Loaded, tmp_path: Path) -> Loaded:
    """A copy to damage."""
    shutil.copytree(original.directory, tmp_path / "data")
    return original._replace(directory=tmp_path / "data")


def log_of(loaded: Loaded) -> Path:
    """The write-ahead log; there is one."""
    (log,) = [path for path in (loaded.directory / "db").glob("*.log") if path.stat().st_size]
    return log


def starts(loaded: Loaded, *arguments: str, missing: int = 0) -> None:
    """It starts with all but the ``missing`` last messages, the position included, and takes more."""
    kept = dict(sorted(loaded.messages.items())[: len(loaded.messages) - missing])
    with Broker(loaded.directory, *arguments) as broker, broker.client() as mq:
        assert messages_of(mq) == kept
        assert mq.describe_consumer_group("orders", "billing").position == loaded.position
        first_id = mq.produce("orders", [b"more"])[0]
        assert first_id > max(loaded.messages), "an id was given out twice"


def messages_of(mq: Client) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    position: int | str = "earliest"
    while batch := mq.fetch("orders", position):
        found |= dict(zip(batch.ids, batch.payloads, strict=True))
        position = batch.next_position
    return found


def refusal(loaded: Loaded) -> str | None:
    """What it says when it is refused; None when it serves."""
    broker = Broker(loaded.directory)
    try:
        with broker:
            return None
    except RuntimeError as error:
        end = str(error)
    text = broker.log.read_text()
    assert f"exit code {DATA_REFUSED}:" in end, end
    assert "Traceback" not in text, text
    return text


def is_refused(loaded: Loaded, *fragments: str) -> str:
    text = refusal(loaded)
    assert text is not None, "it started"
    for fragment in fragments:
        assert fragment in text, text
    return text


def flip(path: Path, offset: int) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 0x10
    path.write_bytes(data)


def cut(path: Path, count: int) -> None:
    path.write_bytes(path.read_bytes()[:-count])


def test_given_no_damage_when_started_then_everything_is_there(loaded: Loaded) -> None:
    starts(loaded)


@pytest.mark.parametrize("count", [1, 7, 100, 3_000, 50_000])
def test_given_a_log_cut_at_its_end_when_the_mark_counts_it_then_refused_with_both_numbers(loaded: Loaded, count: int) -> None:
    cut(log_of(loaded), count)
    text = is_refused(loaded, f"group commit {loaded.mark} was synced", "--accept-loss", "backup")
    match = re.search(r"ends at (\d+), so (\d+) commits", text)
    assert match, text
    assert int(match[1]) + int(match[2]) == loaded.mark
    assert int(match[2]) >= 1


@pytest.mark.parametrize("count", [1, 7, 20])
def test_given_a_log_cut_in_the_last_commit_when_the_mark_does_not_count_it_yet_then_it_starts_without_it(
    loaded: Loaded, count: int
) -> None:
    (loaded.directory / "mark").write_bytes(loaded.earlier_mark)
    cut(log_of(loaded), count)
    starts(loaded, missing=1)


def test_given_a_log_cut_before_the_last_commit_when_the_mark_counts_that_then_refused(loaded: Loaded) -> None:
    (loaded.directory / "mark").write_bytes(loaded.earlier_mark)
    cut(log_of(loaded), 20_000)
    is_refused(loaded, f"group commit {loaded.mark - 1} was synced")


@pytest.mark.parametrize("tail", [bytes(4_096), b"\xff" * 4_096, Random(SEED).randbytes(5_000)])
def test_given_rubbish_behind_the_log_when_started_then_everything_is_there(loaded: Loaded, tail: bytes) -> None:
    with log_of(loaded).open("ab") as log:
        log.write(tail)
    starts(loaded)


@pytest.mark.parametrize("share", [0.001, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99])
def test_given_a_bit_flipped_in_the_log_when_started_then_refused_with_numbers(loaded: Loaded, share: float) -> None:
    log = log_of(loaded)
    flip(log, int(log.stat().st_size * share))
    is_refused(loaded, f"group commit {loaded.mark} was synced", "commits are missing")


def test_given_no_log_when_started_then_refused_with_numbers(loaded: Loaded) -> None:
    log_of(loaded).unlink()
    is_refused(loaded, f"group commit {loaded.mark} was synced", "ends at 0")


def test_given_no_mark_when_started_then_refused(loaded: Loaded) -> None:
    (loaded.directory / "mark").unlink()
    is_refused(loaded, "mark", "missing", "--accept-loss")


@pytest.mark.parametrize("slot", [0, 1])
@pytest.mark.parametrize("how", [bytes(SLOT_BYTES), b"\xff" * SLOT_BYTES, b"RMQMARK1" + bytes(SLOT_BYTES - 8)])
def test_given_one_damaged_slot_of_the_mark_when_started_then_the_other_serves(loaded: Loaded, slot: int, how: bytes) -> None:
    mark = loaded.directory / "mark"
    data = mark.read_bytes()
    mark.write_bytes(how + data[SLOT_BYTES:] if slot == 0 else data[:SLOT_BYTES] + how)
    starts(loaded)


@pytest.mark.parametrize("how", [bytes(2 * SLOT_BYTES), b"", b"\xff" * 100])
def test_given_both_slots_of_the_mark_damaged_when_started_then_refused(loaded: Loaded, how: bytes) -> None:
    (loaded.directory / "mark").write_bytes(how)
    is_refused(loaded, "mark", "damaged", "--accept-loss")


def flip_log(loaded: Loaded) -> None:
    flip(log_of(loaded), log_of(loaded).stat().st_size // 2)


def delete_log(loaded: Loaded) -> None:
    log_of(loaded).unlink()


def cut_log(loaded: Loaded) -> None:
    cut(log_of(loaded), 1)


def delete_mark(loaded: Loaded) -> None:
    (loaded.directory / "mark").unlink()


def damage_mark(loaded: Loaded) -> None:
    (loaded.directory / "mark").write_bytes(bytes(2 * SLOT_BYTES))


DAMAGES: list[Callable[[Loaded], None]] = [flip_log, delete_log, cut_log, delete_mark, damage_mark]


@pytest.mark.parametrize("damage", DAMAGES)
def test_given_a_refused_directory_when_the_loss_is_accepted_once_then_it_starts_without_the_flag_from_then_on(
    loaded: Loaded, damage: Callable[[Loaded], None]
) -> None:
    damage(loaded)
    is_refused(loaded)
    with Broker(loaded.directory, "--accept-loss"):
        pass  # killed before it has written anything
    with Broker(loaded.directory) as broker, broker.client() as mq:
        mq.create_channel("orders")
        kept = messages_of(mq)
        assert list(kept.items()) == sorted(loaded.messages.items())[: len(kept)], "what is left is not a prefix"
        assert mq.produce("orders", [b"more"])[0] > max(loaded.messages), "an id was given out twice"
        assert broker.terminate() == 0
    assert refusal(loaded) is None


@pytest.mark.parametrize("damage", [flip_log, delete_log, cut_log])
def test_given_a_refused_directory_when_the_log_is_put_back_then_everything_is_there(
    loaded: Loaded, damage: Callable[[Loaded], None]
) -> None:
    # Given: damage that an operator can repair, for instance from a copy.
    log = log_of(loaded)
    whole = log.read_bytes()
    damage(loaded)
    is_refused(loaded)
    # When
    log.write_bytes(whole)
    # Then
    starts(loaded)


def settled(loaded: Loaded) -> list[Path]:
    """Restart it once, so that everything is in tables; those."""
    with Broker(loaded.directory):
        pass
    return sorted((loaded.directory / "db").glob("*.sst"))


@pytest.mark.parametrize("pattern", ["*.sst", "MANIFEST-*", "CURRENT"])
def test_given_a_file_of_the_database_missing_when_started_then_refused(loaded: Loaded, pattern: str) -> None:
    settled(loaded)
    for path in (loaded.directory / "db").glob(pattern):
        path.unlink()
    is_refused(loaded)


@pytest.mark.parametrize("pattern", ["MANIFEST-*", "CURRENT"])
def test_given_a_bit_flipped_in_the_database_s_catalogue_when_started_then_refused_or_everything_is_there(
    loaded: Loaded, pattern: str
) -> None:
    settled(loaded)
    (path,) = (loaded.directory / "db").glob(pattern)
    flip(path, path.stat().st_size // 2)
    if refusal(loaded) is None:
        starts(loaded)


@pytest.mark.parametrize("share", [0.05, 0.2, 0.4, 0.6, 0.8, 0.95, 0.999])
def test_given_a_bit_flipped_in_a_table_when_read_then_an_error_or_the_right_bytes(loaded: Loaded, share: float) -> None:
    largest = max(settled(loaded), key=lambda path: path.stat().st_size)
    flip(largest, int(largest.stat().st_size * share))
    if refusal(loaded) is not None:
        return
    with Broker(loaded.directory) as broker, broker.client() as mq:
        with suppress(StorageFailed):
            assert messages_of(mq) == loaded.messages
        mq.ping()


FIRST_START_CUT_SHORT = {
    "nothing but the directory": {},
    "an empty lock": {"lock": ""},
    "half a format": {"lock": "rocksmqd", "format.new": '{"form'},
    "no database yet": {"lock": "rocksmqd", "format": '{"format": 1, "instance": "x"}'},
    "half a mark": {"lock": "rocksmqd", "format": '{"format": 1, "instance": "x"}', "mark.new": "RMQ"},
}


@pytest.mark.parametrize("case", FIRST_START_CUT_SHORT)
def test_given_a_first_start_that_was_killed_when_started_again_then_it_serves(tmp_path: Path, case: str) -> None:
    (tmp_path / "data").mkdir()
    for name, content in FIRST_START_CUT_SHORT[case].items():
        (tmp_path / "data" / name).write_text(content)
    with Broker(tmp_path / "data") as broker, broker.client() as mq:
        assert mq.create_channel("orders")


def test_given_a_database_without_its_families_when_started_then_it_serves(tmp_path: Path) -> None:
    # Given: a first start that was killed just after RocksDB had made its own files.
    first = Rdict(str(tmp_path / "data" / "db"), Options(raw_mode=True))
    first.close()
    (tmp_path / "data" / "format").write_text('{"format": 1, "instance": "x"}')
    with Broker(tmp_path / "data") as broker, broker.client() as mq:
        assert mq.create_channel("orders")


def test_given_a_first_start_when_killed_at_any_moment_then_the_next_one_serves(tmp_path: Path) -> None:
    random = Random(SEED)
    for turn in range(12):
        directory = tmp_path / f"data-{turn}"
        broker = Broker(directory)
        process = subprocess.Popen(broker.command(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            if turn % 2:  # once the directory is there, so that its making is met more often
                wait_until(directory.exists, "the directory is made")
            process.wait(random.random() * 0.05)
        except subprocess.TimeoutExpired:
            pass
        process.kill()
        process.wait()
        with Broker(directory) as again, again.client() as mq:
            assert mq.create_channel("orders")
