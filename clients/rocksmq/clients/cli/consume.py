"""`rocksmq consume`: the next messages of a group, to stdout."""

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from .messages import FORMAT_HELP, FORMATS, MessageWriter, is_json
from .parameters import POSITION_HELP, position
from .progress import progress
from .session import Session, pass_session
from .stop import POLL_SECONDS, Stop

if TYPE_CHECKING:
    from rocksmq.clients.client import Client
    from rocksmq.protocol.messages import Start


@click.command()
@click.argument("channel")
@click.option("-g", "--group", required=True, metavar="GROUP", help="The consumer group; created if it is missing.")
@click.option("-n", "--count", type=click.IntRange(min=1), metavar="N", help="End after N messages.")
@click.option("-f", "--follow", is_flag=True, help="Wait for more when nothing is left, until Ctrl-C.")
@click.option(
    "--from",
    "start",
    type=position,
    metavar="POSITION",
    help=f"Where to start: {POSITION_HELP}. A group that exists is moved there first. "
    "[default: its position; earliest for a new one]",
)
@click.option("--output", type=click.Choice(FORMATS), help=FORMAT_HELP)
@click.option(
    "--batch",
    "batch_messages",
    type=click.IntRange(min=1),
    default=1_000,
    show_default=True,
    metavar="N",
    help="Messages asked for at a time, at most.",
)
@pass_session
def consume(
    session: Session,
    channel: str,
    group: str,
    count: int | None,
    follow: bool,
    start: "Start | None",
    output: str | None,
    batch_messages: int,
) -> None:
    """Write the next messages of GROUP of CHANNEL to stdout.

    The group's position moves past a batch when it is handed out. Ctrl-C waits until the batch in hand is
    written, so nothing is skipped; a reader that leaves early, such as head, drops the rest of that batch:
    use -n. Without --follow it ends when nothing is left.

    \b
    Example:
      rocksmq consume orders --group billing -n 10
      rocksmq consume orders --group audit --from -1h --follow --output json
    """
    writer = MessageWriter(as_json=is_json(session, output))
    with session.client() as mq, Stop() as stop:
        if not mq.create_consumer_group(channel, group, start="earliest" if start is None else start) and start is not None:
            mq.seek(channel, group, start)
        if sys.stdout.isatty() or not sys.stderr.isatty():
            _run(mq, channel, group, count, follow, batch_messages, writer, stop, lambda done: None)
            return
        total = None if follow else mq.describe_consumer_group(channel, group).lag_messages
        with progress(f"from {channel}", count if total is None or (count and count < total) else total) as advance:
            _run(mq, channel, group, count, follow, batch_messages, writer, stop, advance)


def _run(
    mq: "Client",
    channel: str,
    group: str,
    count: int | None,
    follow: bool,
    batch_messages: int,
    writer: MessageWriter,
    stop: Stop,
    advance: Callable[[int], None],
) -> None:
    left = count
    while left != 0 and not stop.is_wanted:
        size = batch_messages if left is None else min(batch_messages, left)
        batch = mq.consume(channel, group, size, timeout=POLL_SECONDS if follow else 0)
        if not batch and not follow:
            return
        writer.write(batch)
        advance(len(batch))
        if left is not None:
            left -= len(batch)
