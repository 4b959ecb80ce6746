"""`rocksmq group`: create, list, look at, move and destroy consumer groups."""

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from rocksmq.protocol.errors import GroupNotFound

from .confirm import confirm_destruction
from .output import bytes_field, show_properties, show_record, show_table
from .parameters import POSITION_HELP, position
from .session import Session, pass_session

if TYPE_CHECKING:
    from rocksmq.clients.models import GroupInfo
    from rocksmq.protocol.messages import Start


@click.group()
def group() -> None:
    """Create, list, look at, move and destroy consumer groups.

    \b
    Example:
      rocksmq group create orders billing --from latest
      rocksmq group list orders --long
    """


@group.command()
@click.argument("channel")
@click.argument("name", metavar="GROUP")
@click.option(
    "--from", "start", type=position, default="earliest", show_default=True, help=f"Where it starts: {POSITION_HELP}."
)
@pass_session
def create(session: Session, channel: str, name: str, start: "Start") -> None:
    """Create GROUP of CHANNEL. One that exists keeps its position.

    \b
    Example:
      rocksmq group create orders billing --from -10m
    """
    with session.client() as mq:
        created = mq.create_consumer_group(channel, name, start=start)
    text = f"group {name} of {channel} created" if created else f"group {name} of {channel} exists: its position stays"
    show_record({"channel": channel, "group": name, "created": created}, text, as_json=session.as_json)


@group.command("list")
@click.argument("channel")
@click.option("-l", "--long", is_flag=True, help="Show also positions and what is unread; a request a group.")
@pass_session
def list_(session: Session, channel: str, long: bool) -> None:
    """List the groups of CHANNEL.

    \b
    Example:
      rocksmq group list orders --long
    """
    with session.client() as mq:
        names = mq.list_consumer_groups(channel)
        if not long:
            for name in names:
                show_record({"channel": channel, "name": name}, name, as_json=session.as_json)
            return
        records: list[dict[str, object]] = []
        for name in names:
            try:
                records.append(_record(mq.describe_consumer_group(channel, name)))
            except GroupNotFound:
                continue  # it was destroyed since it was listed
    show_table(records, ["name", "position", "lag_messages", "lag_seconds"], as_json=session.as_json)


@group.command()
@click.argument("channel")
@click.argument("name", metavar="GROUP")
@pass_session
def info(session: Session, channel: str, name: str) -> None:
    """Show the position of GROUP of CHANNEL and what it has not read.

    lag_seconds is the age of the oldest unread message.

    \b
    Example:
      rocksmq group info orders billing
    """
    with session.client() as mq:
        found = mq.describe_consumer_group(channel, name)
    show_properties(_record(found), as_json=session.as_json)


def _record(found: "GroupInfo") -> dict[str, object]:
    record = asdict(found)
    return {**record, **bytes_field("metadata", record.pop("metadata"))}


@group.command(context_settings={"ignore_unknown_options": True})  # so that -10m is a position
@click.argument("channel")
@click.argument("name", metavar="GROUP")
@click.argument("to", metavar="POSITION", type=position)
@pass_session
def seek(session: Session, channel: str, name: str, to: "Start") -> None:
    """Move GROUP of CHANNEL to POSITION: the next message it reads is that one.

    POSITION is earliest, latest, a message id, a time such as 2026-10-01T12:00:00Z (with its zone), or
    how long ago such as -10m (s, m, h, d). Where there is no such message, the first one after it is taken.

    \b
    Example:
      rocksmq group seek orders billing -10m
    """
    with session.client() as mq:
        sought = mq.seek(channel, name, to)
    text = f"group {name} of {channel} is at {sought.position} ({sought.outcome})"
    show_record({"channel": channel, "group": name, **asdict(sought)}, text, as_json=session.as_json)


@group.command()
@click.argument("channel")
@click.argument("name", metavar="GROUP")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--missing-ok", is_flag=True, help="It is no failure if there is no such group.")
@pass_session
def destroy(session: Session, channel: str, name: str, yes: bool, missing_ok: bool) -> None:
    """Destroy GROUP of CHANNEL and its position; the messages stay.

    Asks first; where there is no terminal, --yes is needed.

    \b
    Example:
      rocksmq group destroy orders billing --yes
    """
    confirm_destruction(f"group {name} of {channel} with its position", yes)
    destroyed = True
    with session.client() as mq:
        try:
            mq.destroy_consumer_group(channel, name)
        except GroupNotFound:
            if not missing_ok:
                raise
            destroyed = False
    text = f"group {name} of {channel} destroyed" if destroyed else f"there is no group {name} of {channel}: nothing to destroy"
    show_record({"channel": channel, "group": name, "destroyed": destroyed}, text, as_json=session.as_json)
