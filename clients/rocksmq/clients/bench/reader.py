"""The process at the far end of the end-to-end benchmark.

    python -m rocksmq.clients.bench.reader CHANNEL GROUP COUNT

Says a line when it is connected; after COUNT messages, the CLOCK_MONOTONIC nanoseconds at which it
had each, as a line of JSON.
"""

import json
import sys
import time

import click

from rocksmq.clients.client import Client
from rocksmq.protocol.errors import RocksMQError

SECONDS_MAX = 30.0  # without any message


def read(mq: Client, channel: str, group: str, count: int) -> list[int]:
    """When each message was in hand; fewer than ``count`` when nothing came for SECONDS_MAX."""
    received: list[int] = []
    while len(received) < count:
        payloads = mq.consume(channel, group, timeout=SECONDS_MAX).payloads
        received += [time.monotonic_ns()] * len(payloads)
        if not payloads:
            break
    return received


if __name__ == "__main__":
    name, name_of_group, wanted = sys.argv[1:]
    try:
        with Client() as client:
            click.echo("connected")
            click.echo(json.dumps(read(client, name, name_of_group, int(wanted))))
    except RocksMQError as error:
        sys.exit(f"the reading process: {error}")
