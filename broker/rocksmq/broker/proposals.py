"""What `check` offers to repair, beside the cuts of channels: a verb of `repair` each, with what is lost by it. Pure."""

from collections.abc import Iterable

from . import keys
from .findings import Repair, argument
from .records import Extent, GroupState


def entry(key: bytes) -> Repair:
    """Of the family ``data``, under a key that no batch has."""
    return Repair(argument("entry", key.hex()), "removes that entry", "its bytes, which are no messages")


def extent(channel: str) -> Repair:
    loses = "the knowledge of what retention removed: it begins with the first message that is stored"
    return Repair(argument("extent", channel), "writes the record of what it holds anew, by its batches", loses)


def settings(number: int, groups: Iterable[tuple[str, str, GroupState]], taken: set[str]) -> Repair:
    """The channel's name is what its groups have, if it is not ``taken`` by another."""
    names = {channel for _, channel, state in groups if state.channel_number == number} - taken
    name = min(names, default=f"recovered-{number}")
    loses = "its durability mode, retention and owner: it has the broker's defaults"
    return Repair(argument("settings", number, name), f"makes it the channel {name}", loses)


def removed_channel(number: int, held: Extent | None) -> Repair:
    does, loses = "removes the channel, with its groups and what is known of producers", "all that is stored of it"
    if held is None or not held.message_count:
        return Repair(argument("remove-channel", number), does, loses)
    count = held.message_count
    return Repair(argument("remove-channel", number), does, loses, count, count, held.begin_id, held.end_id)


def group(channel: str, name: str) -> Repair:
    does = f"brings group {name} in line with the messages: its position and offset, and what its consumers were handed"
    loses = "its place, if that lies beyond the channel's end, and wrong entries: who asks for them again gets an error"
    return Repair(argument("group", channel, name), does, loses)


def removed_group(channel: str, name: str, current_id: bytes | None) -> Repair:
    stood = "" if current_id is None else f": it stood at {current_id.decode(errors='backslashreplace')}"
    return Repair(argument("remove-group", channel, name), f"removes group {name} of {channel}", f"its position{stood}")


def producer(channel: str, producer_id: bytes) -> Repair:
    loses = "what is known of its batches: one that it sends again is refused, and it goes on under a new id"
    found = producer_id.hex()
    return Repair(argument("producer", channel, found), f"forgets producer {found} on {channel}", loses)


def producers_beyond(channel: str) -> Repair:
    loses = "what is known of their batches: one that is sent again is refused instead of answered"
    return Repair(argument("producers", channel), f"forgets the producers of what lies beyond the end of {channel}", loses)


def record(key: bytes) -> Repair:
    """Of a producer's name, or of a producer under a key that none has."""
    loses = "what it told"
    if key.startswith(keys.NAME):
        loses = "how far the producer of that name had stored: whoever opens the name must know it"
    return Repair(argument("record", key.hex()), "removes that record", loses)


GARBAGE = Repair("garbage", "removes entries and records of channels that do not exist")
IDS = Repair("ids", "moves the id window behind every id that is known, and up to the clock")
REWRITE = Repair(
    "rewrite",
    "copies what can be read into a new database; the old one stays beside it, as db.damaged. It takes as much disk again",
)


def mark(missing_commits: int | None) -> Repair:
    """``missing_commits``: that were synced; None: it cannot be told."""
    does = "writes the durable mark anew, at the last commit that is there"
    if missing_commits is None:
        return Repair("mark", does, "the only proof that all is there that was acknowledged")
    return Repair("mark", does, f"what stood in {missing_commits:,} commits: as --accept-loss of a start")
