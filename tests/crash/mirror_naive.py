"""A mirror as one would write it in an hour, so that `mirror` is seen to find what is wrong with it.

    python -m tests.crash.mirror_naive early|late --from rocksmq://… --to pulsar://… [options that it does not know]

It commits its position ``early``, before Pulsar has what it read, or ``late``; so with kills it loses, or doubles.
"""

import base64
import os
import signal
import sys
import threading
from functools import partial
from typing import Any

import click

from rocksmq.clients import Client, ConnectionFailed, Consumer, Message
from rocksmq.clients.mirror.report import ChannelReport, State
from rocksmq.clients.mirror.report import Report as MirrorReport
from rocksmq.clients.pulsar.client import asked, connect
from rocksmq.protocol.errors import Conflict

from .mirror_read import HEADER_64, ID, ID_MILLISECONDS_SHIFT

BATCH_MESSAGES = 500
ENDED_BY_SIGTERM = 143


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("kind", type=click.Choice(("early", "late")))
@click.option("--from", "source")
@click.option("--to", "target")
@click.option("--name")
@click.option("--channels")
@click.option("--key-header")
def main(kind: str, source: str, target: str, name: str, channels: str, key_header: str) -> None:
    """Copy the channels that begin as ``channels`` does until SIGTERM."""
    signal.signal(signal.SIGTERM, _end)
    mq, client = Client(source, timeout=None), connect(target)
    names = mq.list_channels(channels.rstrip("*"))
    threads = [
        threading.Thread(target=_copy, args=(kind, mq, client, one, f"mirror.{name}", key_header), daemon=True) for one in names
    ]
    for thread in threads:
        thread.start()
    running = [ChannelReport(channel=one, topic="", state=State.RUNNING) for one in names]
    click.echo(MirrorReport(name, running).to_json())
    for thread in threads:
        thread.join()


def _end(number: int, frame: object) -> None:
    sys.exit(ENDED_BY_SIGTERM)


def _copy(kind: str, mq: Client, client: Any, channel: str, group: str, key_header: str) -> None:
    mq.create_consumer_group(channel, group)
    producer = asked(
        "opening",
        partial(
            client.create_producer,
            f"persistent://public/default/{channel}",
            send_timeout_millis=0,
            block_if_queue_full=True,
            batching_enabled=True,
            batching_max_publish_delay_ms=5,
        ),
    )
    consumer: Consumer = mq.consumer(channel, group, ack="manual")
    while True:
        try:
            messages = consumer.receive_batch(BATCH_MESSAGES, timeout=1.0)
            if kind == "early":
                consumer.commit()
            for message in messages:
                _send(producer, message, key_header)
            asked("flushing", producer.flush)
            if kind == "late":
                consumer.commit()
        except Conflict:
            os._exit(1)  # of the whole process
        except ConnectionFailed:
            continue


def _send(producer: Any, message: Message, key_header: str) -> None:
    properties: dict[str, str] = {ID: str(message.id)}
    for name, value in message.headers.items():
        try:
            properties[name] = value.decode()
        except UnicodeDecodeError:
            properties[HEADER_64 + name] = base64.b64encode(value).decode()
    key = message.headers.get(key_header, b"").decode() or None
    time = message.id >> ID_MILLISECONDS_SHIFT
    producer.send_async(message.payload, None, properties, partition_key=key, event_timestamp=time)


if __name__ == "__main__":
    main()
