"""The process at the far end of the benchmarks of message streams.

    python -m rocksmq.clients.bench.stream_reader

Takes a `Job` as JSON from stdin. Says as a line of JSON how many seconds it took to open the stream, and, when
the job is done, a `Report` as another.
"""

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import NamedTuple

import click

from rocksmq.clients.msgstream import MsgStream, RmqMsgStreamFactory
from rocksmq.protocol.errors import RocksMQError

SUBSCRIPTION = "bench"
PATIENCE_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Job:
    """What to read: ``messages`` by a plain stream, or up to the tick ``last_ts`` by a time-tick stream.

    ``patience``: seconds without a pack after which it gives up.
    """

    channels: Sequence[str]
    messages: int = 0
    last_ts: int = 0
    patience: float = PATIENCE_SECONDS

    def is_over(self, received: int, end_ts: int) -> bool:
        """Whether it is done."""
        return end_ts >= self.last_ts if self.last_ts else received >= self.messages


class Pack(NamedTuple):
    """What is known of a pack; ``received_ns`` is of CLOCK_MONOTONIC, one clock for the whole machine."""

    end_ts: int
    received_ns: int
    message_count: int
    late_count: int


@dataclass(frozen=True, slots=True)
class Report:
    """What was read, and the CPU seconds that it took behind the opening."""

    packs: Sequence[Pack]
    cpu_seconds: float


def opened(factory: RmqMsgStreamFactory, job: Job) -> MsgStream:
    """The stream of the job, started."""
    stream = factory.new_tt_msg_stream() if job.last_ts else factory.new_msg_stream()
    try:
        stream.as_consumer(job.channels, SUBSCRIPTION)
        stream.start()
    except BaseException:
        stream.close()
        raise
    return stream


def read(stream: MsgStream, job: Job) -> list[Pack]:
    """The packs of the job, fewer when none came for as long as it has patience."""
    packs: list[Pack] = []
    received = end_ts = 0
    while not job.is_over(received, end_ts):
        pack = stream.consume(timeout=job.patience)
        if pack is None:
            break
        end_ts = pack.end_ts
        received += len(pack.msgs)
        packs.append(Pack(end_ts, time.monotonic_ns(), len(pack.msgs), pack.late_count if job.last_ts else 0))
    return packs


def main() -> None:
    """Do the job."""
    job = Job(**json.loads(sys.stdin.readline()))
    factory = RmqMsgStreamFactory()
    begin = time.perf_counter()
    with opened(factory, job) as stream:
        click.echo(json.dumps(time.perf_counter() - begin))
        cpu_begin = time.process_time()
        packs = read(stream, job)
        click.echo(json.dumps(asdict(Report(packs, time.process_time() - cpu_begin))))


if __name__ == "__main__":
    try:
        main()
    except RocksMQError as error:
        sys.exit(f"the reading process: {error}")
