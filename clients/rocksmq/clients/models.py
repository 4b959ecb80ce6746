"""What the client's calls return and take, besides messages."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any


@dataclass(frozen=True, slots=True)
class OwnerDescription:
    """Who a channel belongs to."""

    role: str
    address: str = ""
    description_text: str = ""


@dataclass(frozen=True, slots=True)
class ChannelDescription:
    """A channel and who it belongs to, None if its creation did not say."""

    channel_name: str
    owner: OwnerDescription | None


@dataclass(frozen=True, slots=True)
class HeldSpace:
    """What ``consumed_by_all`` keeps for the group that is furthest behind: so many bytes, from ``from_id`` on."""

    group: str
    from_id: int
    byte_count: int


@dataclass(frozen=True, slots=True)
class ChannelInfo:
    """A channel. ``begin_id`` and ``end_id`` are the first and last message's, None when it is empty; bytes are of
    payloads and headers.

    ``retention`` are the rules in force, the broker's if ``retention_is_default``; ``held`` says which group holds messages
    back; ``age_suspended``: nothing is removed for its age, until `Client.confirm_clock`."""

    name: str
    owner: OwnerDescription | None
    created_at: datetime
    begin_id: int | None
    end_id: int | None
    message_count: int
    byte_count: int
    durability: str
    retention: dict[str, Any]
    groups: list[str]
    retention_is_default: bool = True
    held: HeldSpace | None = None
    age_suspended: bool = False


@dataclass(frozen=True, slots=True)
class GroupInfo:
    """A consumer group. ``position`` is the id of the next message to read; ``lag_seconds`` the age of the oldest
    unread one."""

    channel: str
    name: str
    position: int
    lag_messages: int
    lag_seconds: float
    generation: int
    metadata: bytes


class SeekOutcome(StrEnum):
    """What a seek found; see `Client.seek`."""

    EXACT = "exact"
    NEXT = "next"
    EARLIEST = "earliest"
    LATEST = "latest"


@dataclass(frozen=True, slots=True)
class SeekResult:
    """The group's new position, how it came about, and its new generation."""

    position: int
    outcome: SeekOutcome
    generation: int


@dataclass(frozen=True, slots=True)
class ServerInfo:
    """The broker at the other end: its version, the protocol's, its durability mode, its limits by name."""

    version: str
    protocol: int
    durability: str
    limits: dict[str, int]
