"""What a message costs with more and more around it: `python -m tests.bench.curves [--part P] [--most N] [--dir DIR]`.

From 1 to 10,000 channels, groups of a channel, from 1 to 1,000 connections that produce, from 10,000 to 10 million messages
(or, by --most, 100 million) that are kept. A fresh broker for each point, fsync, and the same work in the same pieces. The
picture is tests/bench/curves.png: the broker's CPU, and the time, of a message; flat lines are what is wanted.
"""

import math
import secrets
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from html import escape
from pathlib import Path
from typing import NamedTuple

import click

from rocksmq.clients import Client
from rocksmq.clients.bench.crowd import produce_one_by_one
from rocksmq.clients.bench.throughput import receive_batches, send_many
from rocksmq.clients.bench.usage import Usage, measured
from rocksmq.clients.cli.output import show_table
from rocksmq.clients.testing import Broker
from tests.ops.dashboard import picture
from tests.ops.drawing import BACKGROUND, FAINT, GRID, PAGE, PALETTE, TEXT

PROJECT = Path(__file__).parents[2]
PICTURE = Path(__file__).with_name("curves.png")
PAYLOAD = secrets.token_bytes(100)
PIECE = 100  # messages of a batch or of a consume
CHUNK = 1_000
TIMEOUT = 60.0
WIDTH, HEIGHT, LEFT, TOP, BOTTOM, RIGHT = 520, 230, 60, 30, 40, 14
COLUMNS = ("what", "how many", "broker CPU µs", "time µs")


class Cost(NamedTuple):
    """Of one message, in microseconds, with so many of something."""

    many: int
    cpu: float
    wall: float


def cost(count: int, usage: Usage, messages: int) -> Cost:
    """What ``usage`` says for so many messages."""
    assert usage.broker_cpu is not None, "the broker's process is known"
    return Cost(count, usage.broker_cpu / messages * 1e6, usage.wall / messages * 1e6)


def channels(broker: Broker, mq: Client, count: int, messages: int) -> Cost:
    """Batches of PIECE to so many channels in turns, by a producer each."""
    messages = max(messages, PIECE * count)
    names = [f"channel-{number}" for number in range(count)]
    for name in names:
        mq.create_channel(name)
    with ExitStack() as stack:
        producers = [stack.enter_context(mq.producer(name, batch_messages=PIECE)) for name in names]
        with measured(broker.pid) as usage:
            for number in range(messages // PIECE):
                producers[number % count].send_many([PAYLOAD] * PIECE)
            for producer in producers:
                producer.flush(TIMEOUT)
    return cost(count, usage, messages)


def groups(broker: Broker, mq: Client, count: int, messages: int) -> Cost:
    """PIECE messages at a time, by so many groups of one channel in turns."""
    messages = max(messages, PIECE * count)
    mq.create_channel("read")
    send_many(mq, "read", [PAYLOAD] * CHUNK, messages // count)
    names = [f"group-{number}" for number in range(count)]
    for name in names:
        mq.create_consumer_group("read", name)
    with measured(broker.pid) as usage:
        for number in range(messages // PIECE):
            assert len(mq.consume("read", names[number % count], PIECE).payloads) == PIECE
    return cost(count, usage, messages)


def connections(broker: Broker, mq: Client, count: int, messages: int) -> Cost:
    """A message at a time by each of so many connections."""
    mq.create_channel("crowd")
    each = max(1, messages // count)
    with measured(broker.pid) as usage:
        crowded = produce_one_by_one(broker.url, "crowd", count, each)
    usage.wall = crowded.wall  # without the time that their processes took to start
    return cost(count, usage, each * count)


def backlog(broker: Broker, mq: Client, count: int, messages: int) -> Cost:
    """The messages from the middle of so many on, by a new group."""
    messages = min(messages, count // 2)
    mq.create_channel("long")
    send_many(mq, "long", [PAYLOAD] * CHUNK, count - messages)
    middle = mq.produce("long", [PAYLOAD])[0]
    send_many(mq, "long", [PAYLOAD] * CHUNK, messages)
    mq.create_consumer_group("long", "reader", start=middle)
    with measured(broker.pid) as usage:
        receive_batches(mq, "long", "reader", messages)
    return cost(count, usage, messages)


class Curve(NamedTuple):
    """``measure(broker, mq, count, messages)``: about that much work with so many; the counts rise."""

    title: str
    counts: Sequence[int]
    messages: int
    measure: Callable[[Broker, Client, int, int], Cost]


CURVES = {
    "channels": Curve("channels: produce, batches of 100", (1, 10, 100, 1_000, 10_000), 1_000_000, channels),
    "groups": Curve("groups of a channel: consume, 100 at a time", (1, 10, 100, 1_000, 10_000), 1_000_000, groups),
    "connections": Curve("connections: produce, a message at a time", (1, 10, 100, 1_000), 20_000, connections),
    "kept": Curve("messages kept: consume the last of them", tuple(10**power for power in range(4, 9)), 500_000, backlog),
}


def run(curve: Curve, directory: Path, part: float) -> list[Cost]:
    """Its points, each in a broker of its own."""
    found: list[Cost] = []
    for count in curve.counts:
        place = tempfile.TemporaryDirectory(prefix=".bench-", dir=directory)
        with place, Broker(Path(place.name) / "data") as broker, broker.client(timeout=TIMEOUT) as mq:
            found.append(curve.measure(broker, mq, count, int(curve.messages * part)))
    return found


# -- the picture


def _text(x: float, y: float, text: str, color: str = FAINT, anchor: str = "middle") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" fill="{color}" text-anchor="{anchor}" font-size="11">{escape(text)}</text>'


def chart(title: str, costs: Sequence[Cost]) -> str:
    """SVG of WIDTH by HEIGHT: how many on a logarithmic axis, microseconds a message from 0 on."""
    most = max(max(each.cpu, each.wall) for each in costs) * 1.1
    last = math.log10(costs[-1].many)
    first = math.log10(costs[0].many)

    def x(count: int) -> float:
        return LEFT + (math.log10(count) - first) / (last - first or 1.0) * (WIDTH - LEFT - RIGHT)

    def y(value: float) -> float:
        return HEIGHT - BOTTOM - value / most * (HEIGHT - TOP - BOTTOM)

    parts = [
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="{BACKGROUND}" stroke="{GRID}"/>',
        _text(8, 17, title, TEXT, "start"),
    ]
    for step in range(5):
        value = most * step / 4
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(value):.1f}" y2="{y(value):.1f}" stroke="{GRID}"/>')
        parts.append(_text(LEFT - 5, y(value) + 4, f"{value:.3g} µs", anchor="end"))
    parts += [_text(x(each.many), HEIGHT - BOTTOM + 14, f"{each.many:,}") for each in costs]
    for number, (name, values) in enumerate(
        (("broker CPU a message", [each.cpu for each in costs]), ("time a message", [each.wall for each in costs]))
    ):
        points = " ".join(f"{x(each.many):.1f},{y(value):.1f}" for each, value in zip(costs, values, strict=True))
        parts.append(f'<polyline points="{points}" fill="none" stroke="{PALETTE[number]}" stroke-width="2"/>')
        parts.append(_text(LEFT + 180 * number, HEIGHT - 8, name, PALETTE[number], "start"))
    return f'<svg width="{WIDTH}" height="{HEIGHT}">{"".join(parts)}</svg>'


def page(found: Mapping[str, Sequence[Cost]]) -> str:
    """HTML with a chart for each curve, behind its size in a comment."""
    charts = [
        f'<div style="position: absolute; left: 0; top: {number * (HEIGHT + 6)}px">{chart(CURVES[name].title, costs)}</div>'
        for number, (name, costs) in enumerate(found.items())
    ]
    style = f"<style>body {{ margin: 0; background: {PAGE}; font-family: sans-serif }}</style>"
    return f"<!-- {WIDTH} {len(charts) * (HEIGHT + 6)} -->{style}{''.join(charts)}"


@click.command()
@click.option("--curve", "names", multiple=True, type=click.Choice(list(CURVES)), default=list(CURVES))
@click.option("--part", type=click.FloatRange(0, 1, min_open=True), default=1.0, help="Of the messages of each point.")
@click.option("--most", type=click.IntRange(min=2), default=10**7, show_default=True, help="How many of something.")
@click.option("--dir", "directory", type=click.Path(exists=True, file_okay=False, path_type=Path), default=PROJECT)
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), default=PICTURE)
def main(names: Sequence[str], part: float, most: int, directory: Path, out: Path) -> None:
    """Measure, and draw; 100 million messages that are kept need 14 GB in DIR."""
    found: dict[str, list[Cost]] = {}
    for name in names:
        curve = CURVES[name]
        found[name] = run(curve._replace(counts=[count for count in curve.counts if count <= most]), directory, part)
    rows = [(name, f"{each.many:,}", f"{each.cpu:.3g}", f"{each.wall:.3g}") for name in names for each in found[name]]
    show_table([dict(zip(COLUMNS, row, strict=True)) for row in rows], COLUMNS, as_json=False)
    picture(page(found), out)


if __name__ == "__main__":
    main()
