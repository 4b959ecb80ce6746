"""How alerts about the disk are provoked: a small file system that fills, and system calls that are slow or fail (strace)."""

import threading
import time
from pathlib import Path

from .provocations import at_work, provokes, watched
from .stage import MIB, Patient, PatientOnDisk, Watch

EXIT_STORAGE_FAILED = 5
DISK_BYTES = 1536 * MIB  # of which 5 % are more than 64 MiB


# Memtables so small that it flushes and compacts all the time.
BUSY = ("tests.crash.faulty_broker", "--memtable-bytes", "65536", "--")


@provokes("RocksMQWalSyncSlow", "RocksMQProduceSlow", how="each fdatasync takes 0.6 s (strace); then it does not")
def sync_slow(directory: Path) -> Watch:
    broker = Patient(directory / "data")
    with watched(broker) as watch, at_work(broker, lambda mq: mq.produce("orders", [b"x"]), clients=2):
        with broker.traced("fdatasync:delay_enter=600000"):
            watch.begin()
            watch.fires("RocksMQWalSyncSlow", "RocksMQProduceSlow")
        watch.resolves("RocksMQWalSyncSlow", "RocksMQProduceSlow")
    return watch


@provokes(
    "RocksMQErrors", how="fdatasync takes 0.3 s (strace), and eight producers of 8,000 bytes meet a queue of 20,000; then none"
)
def errors(directory: Path) -> Watch:
    broker = Patient(directory / "data", environment={"ROCKSMQ_LIMITS_PRODUCE_QUEUE_BYTES_MAX": "20000"})
    with watched(broker) as watch:
        with (
            broker.traced("fdatasync:delay_enter=300000"),
            at_work(broker, lambda mq: mq.produce("orders", [bytes(8_000)]), clients=8, pause=0.01),
        ):
            watch.begin()
            watch.fires("RocksMQErrors")
        watch.resolves("RocksMQErrors")
    return watch


@provokes("RocksMQDurableMarkBehind", how="each write of the file `mark` fails with EIO (strace); then it does not")
def mark_behind(directory: Path) -> Watch:
    broker = Patient(directory / "data")
    with watched(broker) as watch, at_work(broker, lambda mq: mq.produce("orders", [b"x"])):
        with broker.traced("pwrite64:error=EIO", path=broker.directory / "mark"):
            watch.begin()
            watch.fires("RocksMQDurableMarkBehind")
        watch.resolves("RocksMQDurableMarkBehind")
    return watch


@provokes(
    "RocksMQCrashed", how="each fdatasync fails with EIO (strace): the broker ends with exit code 5, and is started again"
)
def storage_failed(directory: Path) -> Watch:
    broker = Patient(directory / "data")
    with watched(broker) as watch, at_work(broker, lambda mq: mq.produce("orders", [b"x"])):
        with broker.traced("fdatasync:error=EIO"):
            assert broker.wait() == EXIT_STORAGE_FAILED
        broker.start()
        watch.begin()
        watch.fires("RocksMQCrashed")
        watch.resolves("RocksMQCrashed")
    return watch


@provokes("RocksMQDiskFull", how="a disk of 1.5 GiB of which 4 % are left, and a producer; then 20 %")
def disk_full(directory: Path) -> Watch:
    return left(directory, 0.04, "RocksMQDiskFull", 0.3)


@provokes("RocksMQDiskCritical", how="a disk of 1.5 GiB of which 8 % are left; then 30 %")
def disk_critical(directory: Path) -> Watch:
    return left(directory, 0.08, "RocksMQDiskCritical", 0.3)


@provokes("RocksMQDiskLow", how="a disk of 1.5 GiB of which 15 % are left; then 30 %")
def disk_low(directory: Path) -> Watch:
    return left(directory, 0.15, "RocksMQDiskLow", 0.3)


def left(directory: Path, share: float, alert: str, mended: float) -> Watch:
    broker = PatientOnDisk(directory / "data", DISK_BYTES)
    with watched(broker) as watch, at_work(broker, lambda mq: mq.produce("orders", [b"x"])):
        broker.leave(share)
        watch.begin()
        watch.fires(alert)
        broker.leave(mended)
        watch.resolves(alert)
    return watch


@provokes("RocksMQDiskFilling", how="a disk of 1.5 GiB of which 38 % are left, and 0.25 % less each second; then as it is")
def disk_filling(directory: Path) -> Watch:
    broker = PatientOnDisk(directory / "data", DISK_BYTES)
    with watched(broker) as watch:
        broker.leave(0.38)
        over = threading.Event()

        def fill() -> None:
            begin = time.monotonic()
            while not over.wait(0.5):
                broker.leave(max(0.12, 0.38 - 0.0025 * (time.monotonic() - begin)))

        thread = threading.Thread(target=fill)
        thread.start()
        try:
            watch.begin()
            watch.fires("RocksMQDiskFilling")
        finally:
            over.set()
            thread.join()
        watch.resolves("RocksMQDiskFilling")
    return watch


@provokes(
    "RocksMQWriteStalled",
    how="small memtables, and compactions whose reads and writes take 0.2 s each (strace); then they do not",
)
def write_stalled(directory: Path) -> Watch:
    broker = Patient(directory / "data", "--durability", "os", module=BUSY)
    with watched(broker) as watch, at_work(broker, lambda mq: mq.produce("orders", [bytes(60_000)]), pause=0.02):
        with broker.traced("write,pwrite64,pread64:delay_enter=200000", thread="rocksdb:low"):
            watch.begin()
            watch.fires("RocksMQWriteStalled")
        watch.resolves("RocksMQWriteStalled")
    return watch


@provokes("RocksMQBackgroundErrors", how="compactions whose writes fail with EIO (strace), until one has; then a restart")
def background_errors(directory: Path) -> Watch:
    broker = Patient(directory / "data", "--durability", "os", module=BUSY)
    with watched(broker) as watch, broker.client() as mq:
        with broker.traced("write,pwrite64:error=EIO", thread="rocksdb:low"):
            while not watch.prometheus.query("rocksmq_storage_background_errors_total > 0"):
                mq.produce("orders", [bytes(60_000)])
                time.sleep(2 * watch.prometheus.scrape_seconds)  # one more behind the error, and the broker would end
            watch.begin()
            watch.fires("RocksMQBackgroundErrors")
        broker.kill()
        broker.start()
        watch.resolves("RocksMQBackgroundErrors")
    return watch


@provokes("RocksMQNotReady", "RocksMQWalSyncSlow", how="an fdatasync that does not come back (strace); then it does")
def sync_hangs(directory: Path) -> Watch:
    broker = Patient(directory / "data")
    with watched(broker) as watch:
        with broker.client() as mq, broker.traced("fdatasync:delay_enter=30000"):
            for _ in range(30):
                mq.produce("orders", [b"x"])  # the disk is known to be slow: its syncs leave the loop
        with at_work(broker, lambda mq: mq.produce("orders", [b"x"])):
            with broker.traced("fdatasync:delay_enter=40000000"):
                watch.begin()
                watch.fires("RocksMQNotReady", "RocksMQWalSyncSlow")
            watch.resolves("RocksMQNotReady", "RocksMQWalSyncSlow")
    return watch
