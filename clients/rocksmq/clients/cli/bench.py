"""`rocksmq bench`: how fast this client, this broker and this disk are together."""

import sys
from collections.abc import Sequence
from pathlib import Path

import click

from .output import show_table
from .session import Session, pass_session

SCENARIOS = (
    "produce-100B",
    "produce-1KiB",
    "send-100B",
    "calls-100B",
    "consume-100B",
    "consume-1KiB",
    "iterate-100B",
    "one-at-a-time",
    "end-to-end",
)


@click.command()
@click.option(
    "--scenario", "scenarios", type=click.Choice(SCENARIOS), multiple=True, help="Only this one; repeatable. [default: all]"
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
@pass_session
def bench(
    session: Session, scenarios: Sequence[str], messages: int | None, rounds: int, broker_pid: int | None, floor_dir: Path
) -> None:
    """Measure the broker from here; some minutes, 2 GB of its disk.

    produce: Producer.send_many, until all is durable; send: Producer.send, a message a call; calls:
    Client.produce of 1,000, a call after the other; consume: Consumer.receive_batch, 10,000 at a time, payloads
    only; iterate: a Message at a time; one-at-a-time: Client.produce of one; end-to-end: until a waiting
    process has it. Each figure is the median of the rounds with lowest and highest. The floor is what
    loopback TCP and fdatasync take without any broker: compare the ratios, since machines differ. The
    channels bench.* that it makes are destroyed at the end.

    \b
    Example:
      rocksmq bench --scenario produce-1KiB --rounds 5
    """
    from rocksmq.clients.bench.rows import COLUMNS, cells
    from rocksmq.clients.bench.run import Bench, Options

    options = Options(session.url, scenarios or SCENARIOS, messages, rounds, broker_pid, floor_dir)
    with session.client() as mq:
        durability = mq.server.durability
        with Bench(mq, options, _say) as run:
            rows = run.run()
    if session.as_json:
        records: list[dict[str, object]] = [{**row.record(), "durability": durability} for row in rows]
        show_table(records, (), as_json=True)
        return
    click.echo(f"durability: {durability}, median of {rounds} rounds")
    show_table([cells(row.record()) for row in rows], COLUMNS, as_json=False)


def _say(text: str) -> None:
    """On stderr while a person watches."""
    if sys.stderr.isatty():
        click.echo(text, err=True)
