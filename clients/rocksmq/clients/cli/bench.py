"""`rocksmq bench`: how fast this client, this broker and this disk are together."""

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .output import Failed, show_table
from .session import Session, pass_session

if TYPE_CHECKING:
    from rocksmq.clients.bench.compare import Record
    from rocksmq.clients.bench.run import Bench, Options
    from rocksmq.clients.client import Client

SCENARIOS = {
    "messages": (
        "produce-100B",
        "produce-1KiB",
        "send-100B",
        "calls-100B",
        "consume-100B",
        "consume-1KiB",
        "iterate-100B",
        "one-at-a-time",
        "open-loop",
        "end-to-end",
    ),
    "many": ("channels-100B", "connections-100B", "groups-100B", "mixed-100B"),
    "msgstream": (
        "stream-plain",
        "stream-produce",
        "stream-consume",
        "stream-plain-search",
        "stream-produce-search",
        "stream-consume-search",
        "stream-ticks",
        "stream-latency",
        "stream-idle",
    ),
}
CHANNELS, CONNECTIONS, SECONDS, RATE = 1_000, 64, 10.0, 1_000.0


@click.command()
@click.argument("suite", type=click.Choice(list(SCENARIOS)), default="messages", metavar="[SUITE]")
@click.option(
    "--scenario",
    "scenarios",
    type=click.Choice([name for names in SCENARIOS.values() for name in names]),
    metavar="NAME",
    multiple=True,
    help="Only this one of the suite; repeatable. [default: all]",
)
@click.option(
    "--messages", type=click.IntRange(min=2), metavar="N", help="Messages of each scenario. [default: the scenario's own]"
)
@click.option(
    "--rounds", type=click.IntRange(min=1), default=3, show_default=True, metavar="N", help="How often each is measured."
)
@click.option(
    "--broker-pid",
    type=click.IntRange(min=1),
    metavar="PID",
    help="The broker's process on this machine: shows its CPU and memory.",
)
@click.option(
    "--floor-dir",
    type=click.Path(exists=True, file_okay=False, writable=True, path_type=Path),
    default=".",
    show_default=True,
    help="Where fdatasync is timed; take the broker's disk.",
)
@click.option(
    "--channels",
    type=click.IntRange(min=1),
    default=CHANNELS,
    show_default=True,
    metavar="N",
    help="Of channels-100B, and of stream-idle; of that at most 60 where positions are in etcd.",
)
@click.option(
    "--connections",
    type=click.IntRange(min=1),
    default=CONNECTIONS,
    show_default=True,
    metavar="N",
    help="Of connections-100B.",
)
@click.option(
    "--seconds",
    type=click.FloatRange(min=0.1),
    default=SECONDS,
    show_default=True,
    metavar="SECONDS",
    help="How long stream-idle is watched, twice a round.",
)
@click.option(
    "--rate",
    type=click.FloatRange(min=1),
    default=RATE,
    show_default=True,
    metavar="N",
    help="Of open-loop: messages that are due a second.",
)
@click.option(
    "--compare",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    nargs=2,
    metavar="BEFORE AFTER",
    help="Measure nothing: show two files that --json made beside each other.",
)
@pass_session
def bench(
    session: Session,
    suite: str,
    scenarios: Sequence[str],
    messages: int | None,
    rounds: int,
    broker_pid: int | None,
    floor_dir: Path,
    channels: int,
    connections: int,
    seconds: float,
    rate: float,
    compare: tuple[Path, Path] | None,
) -> None:
    """Measure the broker from here; some minutes, 2 GB of its disk.

    Each figure is the median of the rounds with lowest and highest. The floor is what loopback TCP and
    fdatasync take without any broker: compare the ratios, since machines differ. The channels bench.* that it
    makes are destroyed at the end.

    SUITE messages, the default. produce-100B, produce-1KiB: Producer.send_many, until all is durable;
    send-100B: Producer.send, a message a call; calls-100B: Client.produce of 1,000, a call after the other;
    consume-100B, consume-1KiB: Consumer.receive_batch, 10,000 at a time, payloads only; iterate-100B: a Message
    at a time; one-at-a-time: Client.produce of one; open-loop: at a steady rate, each counted from when it was due, whether
    it could be sent then or not; end-to-end: from when it was due until a waiting process has it.

    SUITE many, 100 B. channels-100B: in turns to 1,000 channels, each with a Producer of its own, until all is durable;
    connections-100B: 64 connections of two processes, a Client.produce of one at a time each, and one of them alone;
    groups-100B: 100 groups of a channel that each read all of it, one after the other; mixed-100B: Producer.send_many while
    another process consumes.

    SUITE msgstream, messages of 16 bytes. stream-plain: InsertMsg of one row, made and produced in packs of
    4,000 into 4 channels, until a process that reads meanwhile has the last; stream-produce and stream-consume:
    each side alone; the same with SearchMsg, -search; stream-ticks: 8 channels, packs of 1,000, a tick every
    10 ms, until the time-tick reader has the last pack; stream-latency: 1,000 messages a second, from before
    a tick is broadcast until the waiting reader has its pack; stream-idle: a time-tick stream over 1,000
    channels, how long it takes to open and how busy it is, at rest and with a tick a second. The client's CPU
    is that of writer and reader.

    \b
    Example:
      rocksmq bench --scenario produce-1KiB --rounds 5
      rocksmq bench many --scenario channels-100B --channels 100
      rocksmq --json bench > before.json; ...; rocksmq bench --compare before.json after.json
      rocksmq bench msgstream --scenario stream-plain --scenario stream-ticks
    """
    from rocksmq.clients.bench.compare import COMPARED, compared
    from rocksmq.clients.bench.rows import COLUMNS, cells
    from rocksmq.clients.bench.run import Options

    if compare is not None:
        show_table(compared(*map(_records, compare)), COMPARED, as_json=session.as_json)
        return
    wrong = [name for name in scenarios if name not in SCENARIOS[suite]]
    if wrong:
        raise click.BadParameter(
            f"{wrong[0]} is not of the suite {suite}: {', '.join(SCENARIOS[suite])}", param_hint="--scenario"
        )
    chosen = scenarios or SCENARIOS[suite]
    options = Options(session.url, chosen, messages, rounds, broker_pid, floor_dir, channels, connections, seconds, rate)
    kind = _suite(suite)
    with session.client() as mq:
        durability = mq.server.durability
        with kind(mq, options, _say) as run:
            rows = run.run()
    if session.as_json:
        records: list[dict[str, object]] = [{**row.record(), "durability": durability} for row in rows]
        show_table(records, (), as_json=True)
        return
    click.echo(f"durability: {durability}, median of {rounds} rounds")
    show_table([cells(row.record()) for row in rows], COLUMNS, as_json=False)


def _records(path: Path) -> "list[Record]":
    """The rows in a file. Raises Failed."""
    try:
        records = [json.loads(line) for line in path.read_text().splitlines()]
    except ValueError as error:
        raise Failed(f"{path} is no file of `rocksmq --json bench`: {error}") from error
    if not all(
        isinstance(record, dict) and {"name", "unit", "median", "lowest", "highest"} <= record.keys() for record in records
    ):
        raise Failed(f"{path} is no file of `rocksmq --json bench`: a line has no figure")
    return records


def _suite(name: str) -> "Callable[[Client, Options, Callable[[str], None]], Bench]":
    """What runs the suite. Raises Failed where a package that it needs is missing."""
    if name == "messages":
        from rocksmq.clients.bench.messages import MessagesBench

        return MessagesBench
    if name == "many":
        from rocksmq.clients.bench.many import ManyBench

        return ManyBench
    from rocksmq.clients.bench.msgstream import MsgStreamBench

    try:
        MsgStreamBench.check_installed()
    except ImportError as error:
        raise Failed(str(error)) from error
    return MsgStreamBench


def _say(text: str) -> None:
    """On stderr while a person watches."""
    if sys.stderr.isatty():
        click.echo(text, err=True)
