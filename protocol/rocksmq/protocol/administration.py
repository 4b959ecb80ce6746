"""Requests and replies of who runs a broker: settings, the clock, its status, backups. Their rows stand in `operations.OPS`."""

from typing import NamedTuple

from .cbor import Gathered
from .wire import U64, Column, Flag, Id, Retention, Text, Texts


class Status(NamedTuple):
    """``channel``: "", or whose series are wanted however many there are."""

    channel: Text


class StatusReported(NamedTuple):
    """``problems``: the checks that fail, for people. ``metrics``: Prometheus' text exposition format 0.0.4."""

    is_ready: Flag
    problems: Texts
    metrics: Column | Gathered


class SetChannel(NamedTuple):
    """Other settings for a channel: its retention, None: the broker's."""

    channel: Text
    retention: Retention | None


class ConfirmClock(NamedTuple):
    """The broker's clock is right as it is: messages are removed for their age again."""


class BackupBegin(NamedTuple):
    """Makes a checkpoint to copy from, or keeps that of the same ``request_id`` for another lease."""

    request_id: Id


class BackupBegun(NamedTuple):
    """``path``: a directory on the broker's machine. All that was acknowledged before is up to group commit ``mark``."""

    path: Text
    instance: Text
    mark: U64
    lease_ms: U64


class BackupEnd(NamedTuple):
    """Removes the checkpoint; one that is gone is done."""

    request_id: Id
