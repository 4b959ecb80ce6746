"""`rocksmq mirror status`: what mirrors to Pulsar wrote down with their groups' positions."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from rocksmq.protocol.errors import ChannelNotFound, GroupNotFound

from .output import show_table
from .session import Session, pass_session

if TYPE_CHECKING:
    from ..client import Client
    from ..models import GroupInfo

PREFIX = "mirror."
COLUMNS = ("mirror", "channel", "topic", "state", "lag", "messages", "skipped", "gaps", "last_error")


@click.command()
@click.argument("name", required=False)
@pass_session
def status(session: Session, name: str | None) -> None:
    """Show how the mirrors to Pulsar are doing, or only the one of NAME, channel by channel.

    It asks the broker: each mirror writes its state beside the position of its group, so this works from
    anywhere, and tells of a mirror that is dead what it said last. The lag, in messages, is the group's own, of now: one that
    grows beside the state running belongs to a mirror that is gone. Other counts are of all the mirror's lives.

    \b
    Example:
      rocksmq mirror status
      rocksmq --json mirror status pulsar | jq 'select(.state != "running")'
    """
    with session.client() as mq:
        records = [_record(group) for group in _groups(mq, name)]
    if not records and not session.as_json:
        click.echo("no mirror" if name is None else f"no channel has a group {PREFIX}{name}", err=True)
        return
    show_table(records, COLUMNS, as_json=session.as_json)


def _groups(mq: "Client", name: str | None) -> "Iterator[GroupInfo]":
    """Those of the mirrors; what goes meanwhile is left out."""
    for channel in mq.list_channels():
        try:
            wanted = mq.list_consumer_groups(channel) if name is None else [PREFIX + name]
            for group in wanted:
                if group.startswith(PREFIX):
                    yield mq.describe_consumer_group(channel, group)
        except (ChannelNotFound, GroupNotFound):
            continue


def _record(group: "GroupInfo") -> dict[str, object]:
    from ..mirror.notes import decode

    note = decode(group.metadata)
    record: dict[str, object] = {"mirror": group.name.removeprefix(PREFIX), "channel": group.channel}
    if note is None:
        return record | dict.fromkeys(("topic", "state"), None) | {"lag": group.lag_messages} | dict.fromkeys(COLUMNS[5:], None)
    at = datetime.fromtimestamp(note.last_error_at, UTC).isoformat(timespec="seconds") if note.last_error_at else None
    return record | {
        "topic": note.topic,
        "state": str(note.state),
        "lag": group.lag_messages,
        "lag_seconds": group.lag_seconds,
        "messages": note.messages,
        "bytes": note.bytes,
        "skipped": note.skipped,
        "gaps": note.gaps,
        "last_error": note.last_error or None,
        "last_error_at": at,
    }
