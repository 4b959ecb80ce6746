"""What the audit of `streams` judges: the logs as they are at the end, and what all processes wrote down."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from pathlib import Path

from rocksmq.clients import Client
from rocksmq.clients.msgstream import ProtoUDFactory

from .streams_book import read_book
from .streams_content import Item
from .streams_pack import Entry, Logs, Pack

READ_AT_ONCE = 5_000


@dataclass(slots=True)
class SentPart:
    """A part of a pack for one channel. ``stored``: first id and count as they were told; None: nobody knows whether it is."""

    channel: str
    items: list[Item]
    stored: tuple[int, int] | None = None


class Ending(Enum):
    """Where the subscription is when a life is over: behind its last pack, before it, or one of both."""

    BEHIND = auto()
    BEFORE = auto()
    EITHER = auto()


@dataclass(slots=True)
class ReaderLife:
    """What one life of a reader without positions of its own has read."""

    name: str
    packs: list[Pack] = field(default_factory=list[Pack])
    ending: Ending = Ending.EITHER


@dataclass(slots=True)
class Evidence:
    """All of it. ``senders``: the parts, in order, by life of a producer; the others by reader."""

    logs: Logs
    senders: dict[str, list[SentPart]]
    exact: dict[str, list[Pack]]  # of the time-tick stream, over all lives
    copies: dict[str, list[Pack]]  # of the plain stream, likewise
    subscribed: dict[str, list[ReaderLife]]
    plain: dict[str, list[ReaderLife]]


def read_logs(mq: Client, channels: Sequence[str]) -> dict[str, list[Entry]]:
    """All that the channels have. Raises AssertionError for what is no message of a stream."""
    dispatcher = ProtoUDFactory().new_unmarshal_dispatcher()
    logs: dict[str, list[Entry]] = {}
    for channel in channels:
        log = logs[channel] = []
        position: int | str = "earliest"
        while batch := mq.fetch(channel, position, READ_AT_ONCE):
            assert batch.gap is None, f"{channel} has a gap: {batch.gap}"
            for place, payload in zip(batch.ids, batch.payloads, strict=True):
                log.append(Entry.of(place, dispatcher.unmarshal(payload, dispatcher.header_of(payload).type)))
            position = batch.next_position
    return logs


def sent_in(path: Path) -> list[SentPart]:
    """What one life of a producer notes."""
    packs: dict[int, dict[str, SentPart]] = {}
    for kind, body in read_book(path):
        if kind == "sent":
            number, items = body
            packs[number] = {channel: SentPart(channel, [Item(*item) for item in listed]) for channel, listed in items.items()}
        elif kind == "stored":
            number, stored = body
            for channel, (first_id, count) in stored.items():
                assert packs[number][channel].stored is None, f"{path.name}: {channel} of pack {number} was told twice"
                packs[number][channel].stored = (first_id, count)
    return [part for pack in packs.values() for part in pack.values()]


def put_out(path: Path) -> list[Pack]:
    """What all lives of a reader have put out."""
    return [Pack.of_json(record.body) for record in read_book(path)]


def life_in(path: Path) -> ReaderLife:
    """What one life of a reader notes."""
    life = ReaderLife(path.stem)
    for kind, body in read_book(path):
        if kind == "pack":
            life.packs.append(Pack.of_json(body))
            life.ending = Ending.EITHER
        elif kind == "moved":
            life.ending = Ending.BEHIND
        elif kind == "left" and life.ending is Ending.EITHER:
            life.ending = Ending.BEFORE
    return life


def errors_in(path: Path) -> list[str]:
    """What failed and was made again, by type."""
    return [body[0] for kind, body in read_book(path) if kind == "error"]


def by_channel(parts: Sequence[SentPart]) -> Mapping[str, list[SentPart]]:
    """In the order in which they were sent."""
    found: dict[str, list[SentPart]] = {}
    for part in parts:
        found.setdefault(part.channel, []).append(part)
    return found
