"""Storage that fails or fills up under a running broker, made by the kernel: a limit on file sizes, and a small file system."""

import os
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import pytest

from rocksmq.clients import Client, ConnectionFailed, DiskFull, RocksMQError, StorageFailed
from rocksmq.clients.testing import Broker
from tests.helpers.ledger import wait_until
from tests.helpers.raw_bystander import check_text
from tests.helpers.raw_strace import needs_strace
from tests.helpers.small_disk import BrokerOnSmallDisk, needs_mount
from tests.ops.stage import Patient

STORAGE_FAILED = 5
MIB = 1 << 20
FILE_BYTES_MAX = 4 * MIB
RESERVE_BYTES = 64 * MIB
WRITES_MAX = 200_000


class BrokerOfSmallFiles(Broker):
    """Its writes fail (EFBIG) once a file has so many bytes; an error that is not "no space left"."""

    is_limited = True

    def command(self) -> list[str]:
        if not self.is_limited:
            return super().command()
        return ["sh", "-c", f'ulimit -f {FILE_BYTES_MAX // 512}; exec "$@"', "sh", *super().command()]


def test_given_writes_that_fail_when_producing_then_no_more_is_acknowledged_and_exit_5(tmp_path: Path) -> None:
    acknowledged: dict[int, bytes] = {}
    with BrokerOfSmallFiles(tmp_path / "data") as broker:
        with broker.client(timeout=3) as mq:
            mq.create_channel("orders")
            with pytest.raises((StorageFailed, ConnectionFailed)) as caught:  # noqa: PT012
                while len(acknowledged) < 1_000:
                    payload = os.urandom(50_000)
                    acknowledged[mq.produce("orders", [payload])[0]] = payload
            check_text(caught.value)
        assert acknowledged
        # Then
        assert broker.wait() == STORAGE_FAILED, broker.log.read_text()[-2_000:]
        last_line = broker.log.read_text().splitlines()[-1]
        assert last_line.startswith("rocksmqd: "), last_line
        broker.is_limited = False
        broker.start()
        with broker.client() as mq:
            found = messages_of(mq)
            assert {message_id: found.get(message_id) for message_id in acknowledged} == acknowledged
            assert len(found) - len(acknowledged) in (0, 1), "the failed one may be there, once"
            assert mq.produce("orders", [b"more"])[0] > max(found)


def messages_of(mq: Client) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    position: int | str = "earliest"
    while batch := mq.fetch("orders", position):
        found |= dict(zip(batch.ids, batch.payloads, strict=True))
        position = batch.next_position
    return found


class BrokerOnFullDisk(Broker):
    """Its data directory is a small file system without a free byte, with what was in the directory before."""

    def command(self) -> list[str]:
        script = (
            'mount -t tmpfs -o size=16m tmpfs /mnt && cp -a "$0/." /mnt && mount --move /mnt "$0"'
            ' && { cat /dev/zero > "$0/filler" 2>&-; exec "$@"; }'
        )
        return ["unshare", "-rm", "sh", "-c", script, str(self.directory), *super().command()]


@needs_mount
@pytest.mark.parametrize("is_new", [True, False])
def test_given_a_full_disk_when_started_then_the_data_are_not_refused_for_it(tmp_path: Path, is_new: bool) -> None:
    broker = BrokerOnFullDisk(tmp_path / "data")
    broker.directory.mkdir()
    if not is_new:
        with Broker(broker.directory) as before, before.client() as mq:
            mq.create_channel("orders")
            mq.produce("orders", [b"x"])
    with pytest.raises(RuntimeError, match=f"(?s)exit code {STORAGE_FAILED}: .*the disk is full"):
        broker.start()
    if not is_new:
        with Broker(broker.directory) as after, after.client() as mq:
            assert mq.fetch("orders", "earliest").payloads == [b"x"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[BrokerOnSmallDisk]:
    with BrokerOnSmallDisk(tmp_path / "data") as broker:
        with broker.client() as mq:
            mq.create_channel("orders")
            mq.create_consumer_group("orders", "billing")
            mq.produce("orders", [b"%d" % number for number in range(100)])
        yield broker


def produce_until_refused(mq: Client) -> DiskFull:
    with pytest.raises(DiskFull) as caught:  # noqa: PT012
        for _ in range(WRITES_MAX):
            mq.produce("orders", [b"x"])
    return caught.value


def can_produce(mq: Client) -> bool:
    try:
        mq.produce("orders", [b"x"])
    except DiskFull:
        return False
    return True


@needs_mount
def test_given_less_than_the_reserve_when_producing_then_disk_full_and_reading_and_positions_go_on(
    small_disk: BrokerOnSmallDisk,
) -> None:
    with small_disk.client(timeout=0.5) as impatient, small_disk.client() as mq:
        small_disk.fill(but=RESERVE_BYTES - MIB)
        error = produce_until_refused(impatient)
        check_text(error, " MiB free", "64 MiB", "reserve", "nothing was stored", "free space")
        assert error.retryable
        assert error.retry_after is not None
        before = mq.describe_channel("orders")
        assert mq.consume("orders", "billing", 2).payloads == [b"0", b"1"]
        assert mq.fetch("orders", "earliest", 3).payloads == [b"0", b"1", b"2"]
        assert mq.seek("orders", "billing", "earliest").position == before.begin_id
        assert mq.describe_channel("orders") == before, "a refused produce left something"
        # It heals by itself.
        small_disk.free()
        wait_until(lambda: can_produce(impatient), "produce works again")
        assert mq.describe_channel("orders").message_count == before.message_count + 1


@needs_mount
def test_given_a_disk_without_a_byte_when_consuming_then_disk_full_and_fetch_goes_on_and_all_heals(
    small_disk: BrokerOnSmallDisk,
) -> None:
    with small_disk.client(timeout=0.5) as mq:
        before = mq.describe_channel("orders")
        position = before.begin_id
        # What is written already may have room to grow in; the rest is taken away again and again.
        with pytest.raises(DiskFull) as caught:  # noqa: PT012
            for _ in range(WRITES_MAX):
                small_disk.fill(but=0)
                position = mq.consume("orders", "billing", 1).next_position
                if mq.describe_consumer_group("orders", "billing").lag_messages == 0:
                    position = mq.seek("orders", "billing", "earliest").position
        check_text(caught.value, "disk is full")
        assert len(mq.fetch("orders", "earliest")) == before.message_count
        assert mq.describe_consumer_group("orders", "billing").position == position
        small_disk.free()

        def consumes() -> bool:
            try:
                return bool(mq.consume("orders", "billing", 1))
            except DiskFull:
                return False

        wait_until(consumes, "consume works again")
        wait_until(lambda: can_produce(mq), "produce works again")
        assert mq.describe_channel("orders").message_count == before.message_count + 1
    assert small_disk.terminate() == 0
    assert "Traceback" not in small_disk.log.read_text()


@needs_strace
@pytest.mark.parametrize("error", ["EIO", "ENOSPC", "EROFS"])
@pytest.mark.parametrize("call", ["fdatasync", "write"])
def test_given_a_system_call_on_the_log_that_fails_when_producing_then_exit_5_or_another_log_but_nothing_is_lost(
    tmp_path: Path, call: str, error: str
) -> None:
    """A failed sync ends the broker, whatever the error: nobody knows what of the page cache reached the disk then."""
    acknowledged: list[bytes] = []
    with Patient(tmp_path / "data") as broker, broker.client(timeout=2) as mq:
        mq.create_channel("orders")
        (log,) = (broker.directory / "db").glob("*.log")

        def produce(payload: bytes) -> None:
            mq.produce("orders", [payload])
            acknowledged.append(payload)

        produce(b"before")
        with broker.traced(f"{call}:error={error}", path=log):
            wait_until(lambda: "TracerPid:\t0" not in Path(f"/proc/{broker.pid}/status").read_text(), "strace is there")
            began = time.monotonic()
            try:
                produce(b"meanwhile")
            except RocksMQError as refused:
                check_text(refused)
                assert broker.wait() == STORAGE_FAILED
                print(f"{call} {error}: exit 5 after {time.monotonic() - began:.3f} s")  # noqa: T201
                with pytest.raises(OSError, match="refused"):
                    urlopen(f"{broker.http_url}/readyz")
                broker.start()
            else:
                assert (call, error) == ("write", "ENOSPC"), "the database goes on in another log, with the same messages"
        produce(b"after")
        found = list(messages_of(mq).values())
        assert [payload for payload in found if payload in acknowledged] == acknowledged
        assert set(found) <= {b"before", b"meanwhile", b"after"}
        assert len(set(found)) == len(found)
