"""`rocksmq msgstream`: the channels of message streams, several at a time (the Message Stream Service)."""

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from .confirm import confirm_destruction
from .msgstream_tail import tail
from .output import show_record, show_table
from .session import Session, pass_session

if TYPE_CHECKING:
    from rocksmq.clients.models import ChannelDescription

NAMES_ASKED_MAX = 10  # beyond it the question only counts them


@click.group()
def msgstream() -> None:
    """Create, look at and destroy the channels of message streams.

    \b
    Example:
      rocksmq msgstream create --role proxy --count 4
    """


@msgstream.command()
@click.option(
    "--role", required=True, metavar="TEXT", help="The kind of program that they belong to; their names begin with it."
)
@click.option("--address", default="", metavar="TEXT", help="Where that program is found.")
@click.option("--description", default="", metavar="TEXT", help="What the channels are for.")
@click.option("--count", type=click.IntRange(min=1), default=1, show_default=True, metavar="N", help="How many.")
@pass_session
def create(session: Session, role: str, address: str, description: str, count: int) -> None:
    """Create channels and print their names, one a line.

    The names are new: the role, 32 random digits, a running number. All of the channels are created, or none.

    \b
    Example:
      rocksmq msgstream create --role proxy --address 10.0.0.1 --count 4 > channels
    """
    from rocksmq.clients.models import OwnerDescription

    with session.client() as mq:
        names = mq.create_channels(OwnerDescription(role, address, description), count)
    for name in names:
        show_record({"name": name}, name, as_json=session.as_json)


@msgstream.command()
@click.argument("names", metavar="CHANNEL...", nargs=-1, required=True)
@click.option("--yes", is_flag=True, help="Do not ask.")
@pass_session
def destroy(session: Session, names: tuple[str, ...], yes: bool) -> None:
    """Destroy each CHANNEL with its messages and groups.

    If one of them does not exist, none is destroyed. Asks first; where there is no terminal, --yes is needed.

    \b
    Example:
      rocksmq msgstream destroy $(cat channels) --yes
    """
    channels = tuple(dict.fromkeys(names))
    shown = f"{len(channels)} channels" if len(channels) > NAMES_ASKED_MAX else f"channels {', '.join(channels)}"
    confirm_destruction(f"{shown} with all their messages and groups", yes)
    with session.client() as mq:
        mq.destroy_channels(channels)
    for name in channels:
        show_record({"channel": name, "destroyed": True}, f"channel {name} destroyed", as_json=session.as_json)


@msgstream.command()
@click.argument("names", metavar="CHANNEL...", nargs=-1, required=True)
@pass_session
def describe(session: Session, names: tuple[str, ...]) -> None:
    """Show who each CHANNEL belongs to.

    \b
    Example:
      rocksmq msgstream describe $(cat channels)
    """
    with session.client() as mq:
        found = mq.describe_channels(names)
    records = [asdict(description) if session.as_json else _row(description) for description in found]
    show_table(records, ["channel_name", "role", "address", "description_text"], as_json=session.as_json)


def _row(found: "ChannelDescription") -> dict[str, object]:
    """Each part of the owner in a column of its own."""
    owner = {"role": None, "address": None, "description_text": None} if found.owner is None else asdict(found.owner)
    return {"channel_name": found.channel_name, **owner}


msgstream.add_command(tail)
