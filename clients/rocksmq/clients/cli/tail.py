"""`rocksmq tail`: the last messages of a channel and those that follow, without a group."""

from typing import TYPE_CHECKING

import click

from rocksmq.protocol.errors import RocksMQError

from .messages import FORMAT_HELP, FORMATS, MessageWriter, is_json
from .patience import Patience, patience_option
from .session import Session, pass_session
from .stop import POLL_SECONDS, Stop

if TYPE_CHECKING:
    from rocksmq.clients.client import Client
    from rocksmq.protocol.messages import Start

COUNT_MAX = 10_000


@click.command()
@click.argument("channel")
@click.option(
    "-n",
    "--count",
    type=click.IntRange(0, COUNT_MAX),
    default=10,
    show_default=True,
    metavar="N",
    help="Begin with the last N messages.",
)
@click.option("--output", type=click.Choice(FORMATS), help=FORMAT_HELP)
@patience_option
@pass_session
def tail(session: Session, channel: str, count: int, output: str | None, patience: float | None) -> None:
    """Watch CHANNEL: its last messages, then each new one, also after a restart of the broker.

    It only looks: no group is created, no position moves. Ctrl-C ends it.

    \b
    Example:
      rocksmq tail orders -n 3
    """
    writer = MessageWriter(as_json=is_json(session, output))
    with session.client() as mq, Stop() as stop:
        position = start_of_last(mq, channel, count)
        waiting = Patience(patience)
        while not stop.is_wanted:
            try:
                batch = mq.fetch(channel, position, timeout=POLL_SECONDS)
            except RocksMQError as error:
                waiting.endure(error)
                continue
            waiting.renew()
            writer.write(batch, stop)
            position = batch.next_position


def start_of_last(mq: "Client", channel: str, count: int) -> "Start":
    """Where the last ``count`` messages begin.

    Ids leave holes, so it is found by halving the range of ids: at most 64 fetches, of ``count``
    messages each.
    """
    info = mq.describe_channel(channel)
    if info.begin_id is None or info.end_id is None or info.message_count <= count:
        return "earliest"
    if count == 0:
        return info.end_id + 1
    low, high = info.begin_id, info.end_id + 1  # at least ``count`` messages from low on, fewer from high on
    while high - low > 1:
        middle = (low + high) // 2
        ids = _ids_from(mq, channel, middle, info.end_id, count)
        if len(ids) < count:
            high = middle
        elif ids[-1] == info.end_id:
            return ids[0]
        else:
            low = ids[0]
    return low


def _ids_from(mq: "Client", channel: str, start: int, end_id: int, count: int) -> list[int]:
    """At most ``count`` ids from ``start`` to ``end_id``; a fetch may give fewer than asked for, when messages are large."""
    ids: list[int] = []
    while len(ids) < count and start <= end_id:
        batch = mq.fetch(channel, start, count - len(ids))
        ids += [message_id for message_id in batch.ids if message_id <= end_id]
        if not batch:
            break
        start = batch.next_position
    return ids
