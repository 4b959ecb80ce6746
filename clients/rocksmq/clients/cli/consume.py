"""`rocksmq consume`: the next messages of a group, to stdout."""

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, closing, nullcontext
from typing import TYPE_CHECKING

import click

from .messages import FORMAT_HELP, FORMATS, MessageWriter, is_json
from .parameters import POSITION_HELP, position
from .patience import patience_option
from .progress import progress
from .session import Session, pass_session
from .stop import POLL_SECONDS, Stop

if TYPE_CHECKING:
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
    help="Messages claimed at a time, at most.",
)
@patience_option
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
    patience: float | None,
) -> None:
    """Write the next messages of GROUP of CHANNEL to stdout.

    Each message is written once, though the broker be restarted meanwhile. At the end, by Ctrl-C too or when
    the reader of a pipe leaves, what was not written is given back: the group's next reader gets it first.
    What a reader such as head took from the pipe, or left in it, was written: use -n to take no more than that.

    Without --follow it ends when nothing is left.

    \b
    Example:
      rocksmq consume orders --group billing -n 10
      rocksmq consume orders --group audit --from -1h --follow --output json
    """
    writer = MessageWriter(as_json=is_json(session, output))
    with Stop() as stop:
        total = _prepare(session, channel, group, start, wants_total=not follow)
        if count is not None:
            total = count if total is None else min(count, total)
        from .claimed import Claimed

        with (
            _progress(channel, total) as advance,
            closing(session.link()) as link,
            Claimed(link, channel, group, stop, patience, session.timeout) as reading,
        ):
            left = count
            while left != 0:
                size = batch_messages if left is None else min(batch_messages, left)
                batch = reading.next(size, POLL_SECONDS if follow else 0)
                if batch is None:
                    break
                written = reading.write(batch, writer)
                advance(written)
                if not (batch or follow):
                    break
                left = None if left is None else left - written


def _prepare(session: Session, channel: str, group: str, start: "Start | None", wants_total: bool) -> int | None:
    """See that the group is there, and where it was told to be; how many messages it has not read, for a bar."""
    with session.client() as mq:
        if not mq.create_consumer_group(channel, group, start="earliest" if start is None else start) and start is not None:
            mq.seek(channel, group, start)
        return mq.describe_consumer_group(channel, group).lag_messages if wants_total and _has_bar() else None


def _has_bar() -> bool:
    """Messages on a terminal, and a bar there too, would run into each other."""
    return sys.stderr.isatty() and not sys.stdout.isatty()


def _progress(channel: str, total: int | None) -> AbstractContextManager[Callable[[int], None]]:
    return progress(f"from {channel}", total) if _has_bar() else nullcontext(lambda done: None)
