"""`rocksmq channel`: create, list, look at and destroy channels."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from rocksmq.protocol.errors import ChannelNotFound

from .confirm import confirm_destruction
from .output import show_properties, show_record, show_table
from .retention import Rules, in_words, of_channel, with_rules
from .session import Session, pass_session

if TYPE_CHECKING:
    from rocksmq.clients.models import ChannelInfo, OwnerDescription


@click.group()
def channel() -> None:
    """Create, list, look at and destroy channels.

    \b
    Example:
      rocksmq channel create orders
      rocksmq channel list --long
    """


@channel.command()
@click.argument("name", metavar="CHANNEL")
@click.option(
    "--durability",
    metavar="MODE",
    help="When a produce is acknowledged: fsync, interval:<ms> or os. [default: the broker's]",
)
@click.option("--owner-role", metavar="TEXT", help="The kind of program that the channel belongs to.")
@click.option("--owner-address", default="", metavar="TEXT", help="Where that program is found.")
@click.option("--owner-description", default="", metavar="TEXT", help="What the channel is for.")
@with_rules
@pass_session
def create(
    session: Session,
    /,
    name: str,
    durability: str | None,
    owner_role: str | None,
    owner_address: str,
    owner_description: str,
    **options: Any,
) -> None:
    """Create CHANNEL. One that exists keeps its messages and settings.

    Without a rule of its own it is kept by the broker's rules of retention.

    \b
    Example:
      rocksmq channel create orders --durability interval:100 --owner-role shop
      rocksmq channel create events --max-age 7d --max-bytes 10GB
    """
    if owner_role is None and (owner_address or owner_description):
        raise click.UsageError("--owner-address and --owner-description go with --owner-role")
    rules = Rules.of(options)
    retention = rules.onto({}) if rules.keep_all or rules.is_one_given else None
    owner = _owner(owner_role, owner_address, owner_description)
    with session.client() as mq:
        created = mq.create_channel(name, durability=durability, retention=retention, owner=owner)
    text = f"channel {name} created" if created else f"channel {name} exists: its messages and settings stay"
    show_record({"channel": name, "created": created}, text, as_json=session.as_json)


def _owner(role: str | None, address: str, description: str) -> "OwnerDescription | None":
    from rocksmq.clients.models import OwnerDescription

    return None if role is None else OwnerDescription(role, address, description)


@channel.command("set")
@click.argument("name", metavar="CHANNEL")
@with_rules
@click.option("--default-retention", is_flag=True, help="The broker's rules, and none of the channel's own.")
@pass_session
def set_(session: Session, /, name: str, default_retention: bool, **options: Any) -> None:
    """Change by which rules messages are removed from CHANNEL; they apply at once.

    A rule that is not named stays; "off" takes it away. What any rule lets go is removed; a group that had not read it is
    told how many messages these were.

    \b
    Example:
      rocksmq channel set orders --max-age 7d --max-bytes off
    """
    rules = Rules.of(options)
    if sum((default_retention, rules.keep_all, rules.is_one_given)) != 1:
        raise click.UsageError("name the rules that change, or --keep-all, or --default-retention")
    with session.client() as mq:
        if default_retention:
            mq.set_retention(name, None)
        else:
            mq.set_retention(name, rules.onto(mq.describe_channel(name).retention))
        found = mq.describe_channel(name)
    record = {"channel": name, "retention": found.retention, "retention_is_default": found.retention_is_default}
    show_record(record, f"channel {name}: {in_words(found.retention)}", as_json=session.as_json)


@channel.command("list")
@click.argument("prefix", default="")
@click.option("-l", "--long", is_flag=True, help="Show also what each channel holds; a request a channel.")
@pass_session
def list_(session: Session, prefix: str, long: bool) -> None:
    """List the channels, or those whose names start with PREFIX.

    \b
    Example:
      rocksmq channel list --long shop.
    """
    with session.client() as mq:
        names = mq.list_channels(prefix)
        if not long:
            for name in names:
                show_record({"name": name}, name, as_json=session.as_json)
            return
        records: list[dict[str, object]] = []
        for name in names:
            try:
                records.append(_record(mq.describe_channel(name), as_json=session.as_json))
            except ChannelNotFound:
                continue  # it was destroyed since it was listed
    show_table(records, ["name", "message_count", "byte_count", "durability", "groups", "owner"], as_json=session.as_json)


@channel.command()
@click.argument("name", metavar="CHANNEL")
@pass_session
def info(session: Session, name: str) -> None:
    """Show what CHANNEL holds; its bytes are those of payloads and headers.

    \b
    Example:
      rocksmq --json channel info orders
    """
    with session.client() as mq:
        found = mq.describe_channel(name)
    show_properties(_record(found, as_json=session.as_json), as_json=session.as_json)


def _record(found: "ChannelInfo", *, as_json: bool) -> dict[str, object]:
    record: dict[str, object] = {**asdict(found), "created_at": found.created_at.isoformat(timespec="milliseconds")}
    if as_json:
        return record
    for name in ("retention_is_default", "age_suspended"):
        del record[name]
    return {**record, "owner": _owner_text(found.owner), **of_channel(found)}


def _owner_text(owner: "OwnerDescription | None") -> str | None:
    """For people: ``role at address (description)``, without what is empty."""
    if owner is None:
        return None
    place = f"at {owner.address}" if owner.address else ""
    purpose = f"({owner.description_text})" if owner.description_text else ""
    return " ".join(part for part in (owner.role, place, purpose) if part)


@channel.command()
@click.argument("name", metavar="CHANNEL")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--missing-ok", is_flag=True, help="It is no failure if there is no such channel.")
@pass_session
def destroy(session: Session, name: str, yes: bool, missing_ok: bool) -> None:
    """Destroy CHANNEL with its messages, groups and positions.

    Asks first; where there is no terminal, --yes is needed.

    \b
    Example:
      rocksmq channel destroy orders --yes
    """
    confirm_destruction(f"channel {name} with all its messages and groups", yes)
    destroyed = True
    with session.client() as mq:
        try:
            mq.destroy_channel(name)
        except ChannelNotFound:
            if not missing_ok:
                raise
            destroyed = False
    text = f"channel {name} destroyed" if destroyed else f"there is no channel {name}: nothing to destroy"
    show_record({"channel": name, "destroyed": destroyed}, text, as_json=session.as_json)
