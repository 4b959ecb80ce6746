"""How fast the mirror catches up with a real Pulsar, beside bare loops of pulsar-client in the same run.

    python -m tests.bench.mirror [MESSAGES [ROUNDS]]

Prints messages a second of 100 bytes, medians with lowest and highest of interleaved rounds, for the mirror; for the loop of
pulsar-client's documentation, which sends payloads with a callback each; for a loop that sends what the mirror sends, ids and
properties, with one callback in 1,000; for one that sends payloads alone like that. Then the mirror's ratio to each.
"""

import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rocksmq.clients.mirror.forward import ForwardMirror
from rocksmq.clients.mirror.options import MirrorOptions
from rocksmq.clients.pulsar.client import connect
from rocksmq.clients.testing import Broker
from tests.helpers.pulsar import Pulsar

MESSAGES = 500_000
ROUNDS = 5
PAYLOAD_BYTES = 100
PRODUCED_AT_ONCE = 5_000
ACKNOWLEDGED = 1_000  # of so many one
BATCH_MESSAGES = 1_000
BATCH_DELAY_MS = 5
SETTLED = 1_000  # messages until the mirror counts as running
POLL_SECONDS = 0.01
ORIGIN = "pulsar#1@1700000000000"


def mirrored(broker: Broker, pulsar: Pulsar, channel: str, payloads: list[bytes]) -> float:
    """Messages a second, from the first acknowledgements to the last."""
    with broker.client() as mq:
        mq.create_channel(channel)
        for begin in range(0, len(payloads), PRODUCED_AT_ONCE):
            mq.produce(channel, payloads[begin : begin + PRODUCED_AT_ONCE])
    mirror = ForwardMirror(MirrorOptions(source=broker.url, target=pulsar.url, channels=(channel,)))
    is_stopped = threading.Event()
    thread = threading.Thread(target=mirror.run, args=(is_stopped,))
    thread.start()
    try:
        begun, began_at = _until(mirror, SETTLED)
        done, ended_at = _until(mirror, len(payloads))
    finally:
        is_stopped.set()
        thread.join()
    return (done - begun) / (ended_at - began_at)


def _until(mirror: ForwardMirror, messages: int) -> tuple[int, float]:
    while (done := mirror.report().sums.messages) < messages:
        time.sleep(POLL_SECONDS)
    return done, time.perf_counter()


def same_content(pulsar: Pulsar, topic: str, payloads: list[bytes]) -> float:
    """Messages a second of a bare loop that sends what the mirror sends."""
    first = int(time.time() * 1_000) << 18
    return _bare(
        pulsar,
        topic,
        (
            (
                payload,
                {
                    "properties": {"rocksmq.id": str(one), "rocksmq.mirror": ORIGIN},
                    "sequence_id": one,
                    "event_timestamp": one >> 18,
                },
            )
            for one, payload in enumerate(payloads, first)
        ),
        len(payloads),
    )


def documented(pulsar: Pulsar, topic: str, payloads: list[bytes]) -> float:
    """Messages a second of a bare loop that has each payload acknowledged by itself."""
    return _bare(pulsar, topic, ((payload, {}) for payload in payloads), len(payloads), acknowledged=1)


def payloads_alone(pulsar: Pulsar, topic: str, payloads: list[bytes]) -> float:
    """Messages a second of a bare loop that sends nothing else."""
    return _bare(pulsar, topic, ((payload, {}) for payload in payloads), len(payloads))


def _bare(
    pulsar: Pulsar, topic: str, messages: Iterable[tuple[bytes, dict[str, Any]]], count: int, acknowledged: int = ACKNOWLEDGED
) -> float:
    client = connect(pulsar.url)
    producer = client.create_producer(
        f"persistent://public/default/{topic}",
        send_timeout_millis=0,
        max_pending_messages=0,
        batching_enabled=True,
        batching_max_messages=BATCH_MESSAGES,
        batching_max_publish_delay_ms=BATCH_DELAY_MS,
    )
    begin = time.perf_counter()
    for index, (payload, fields) in enumerate(messages, 1):
        producer.send_async(payload, None if index % acknowledged else _ignore, **fields)
    producer.flush()
    taken = time.perf_counter() - begin
    producer.close()
    client.close()
    return count / taken


def _ignore(result: Any, message_id: Any) -> None:
    """It is flushed in the end."""


def main() -> None:
    count, rounds = (int(given) for given in (*sys.argv[1:3], *(str(MESSAGES), str(ROUNDS))[len(sys.argv[1:3]) :]))
    payloads = [b"%0*d" % (PAYLOAD_BYTES, index) for index in range(count)]
    loops = {"documented loop": documented, "same content": same_content, "payloads alone": payloads_alone}
    rates: dict[str, list[float]] = {name: [] for name in ("mirror", *loops)}
    with (
        tempfile.TemporaryDirectory(prefix=".bench-", dir=Path.cwd()) as directory,
        Pulsar(Path(directory) / "pulsar") as pulsar,
    ):
        pulsar.start()
        with Broker(Path(directory) / "rocksmq") as broker:
            for number in range(rounds):
                rates["mirror"].append(mirrored(broker, pulsar, f"mirrored-{number}", payloads))
                for name, loop in loops.items():
                    rates[name].append(loop(pulsar, f"{loop.__name__}-{number}", payloads))
    for name, values in rates.items():
        spread = f"{min(values):,.0f} .. {max(values):,.0f}"
        sys.stdout.write(f"{name:<16} {statistics.median(values):>10,.0f} msg/s  ({spread})\n")
    for name in loops:
        ratios = [ours / theirs for ours, theirs in zip(rates["mirror"], rates[name], strict=True)]
        sys.stdout.write(f"mirror / {name:<15} {statistics.median(ratios):.2f}  ({min(ratios):.2f} .. {max(ratios):.2f})\n")


if __name__ == "__main__":
    main()
