"""The table of fail points: where a fault may strike a broker, and which faults happen there in the real world.

`faults` makes the points real. A fault is written ``POINT[/OPERATION]=ACTION[:ARGUMENT][@N]``: it strikes when
the point is reached for the N-th time in this process (the first, if nothing is said; ``@*``: each time).

    before-write=kill@3            kill -9 when the third group commit is about to be written
    before-write=raise:disk-full   the first write finds the disk full
    during-sync=delay:40@*         a slow disk: every sync takes 40 ms longer
    before-reply/produce=raise     the connection is lost before a produce is answered
"""

import errno
import os
import re
from collections.abc import Callable
from enum import StrEnum
from typing import NamedTuple

from rocksmq.broker.store import DataRefused
from rocksmq.protocol.errors import DiskFull, StorageFailed
from rocksmq.protocol.operations import OPS

DELAY_MS = 20  # of a delay that names none


class Action(StrEnum):
    """What a fault does."""

    KILL = "kill"  # SIGKILL
    RAISE = "raise"  # the error that a real fault causes at this place
    DELAY = "delay"  # the thread that is there stops for a while


Raises = dict[str, Callable[[], Exception]]


def _os_error(number: int, kind: type[OSError] = OSError) -> Callable[[], OSError]:
    return lambda: kind(number, os.strerror(number))


_DISK_FULL: Raises = {"disk-full": lambda: DiskFull("imitated: no space left; nothing was stored")}
_FAILED: Raises = {"storage-failed": lambda: StorageFailed("imitated: the disk failed")}
_REFUSED: Raises = {"data-refused": lambda: DataRefused("imitated: RocksDB cannot open its files")}
_IO: Raises = {"io-error": _os_error(errno.EIO)}
_NO_FILES: Raises = {"no-files": _os_error(errno.EMFILE)}
_LOST: Raises = {"lost": _os_error(errno.ECONNRESET, ConnectionResetError)}


class Point(NamedTuple):
    """A place in the broker. ``raises``: the errors that come up there, the first unless another is named."""

    where: str
    raises: Raises
    never_raises: str = ""  # why no error comes up there
    has_operations: bool = False  # may be narrowed to one operation


POINTS: dict[str, Point] = {
    # Starting
    "before-open": Point("the data directory was looked at; the database is not opened for writing yet", _REFUSED),
    "after-open": Point("the database has recovered its log; nothing was read yet", {}, "the opening has succeeded"),
    "in-recovery": Point("the state is being loaded: a kind of record is about to be read", _FAILED),
    # A group commit
    "before-write": Point("a group commit is about to be written", _DISK_FULL | _FAILED),
    "before-window": Point("the same, of a commit that saves an id window", _DISK_FULL | _FAILED),
    "before-create": Point("the same, of a commit that creates a channel", _DISK_FULL | _FAILED),
    "before-meta": Point("the same, of a commit with a group's position (created, moved or sought)", _DISK_FULL | _FAILED),
    "before-destroy": Point("the same, of a commit that deletes a range: a channel is destroyed", _DISK_FULL | _FAILED),
    # A full disk is no fault behind the write: it means that nothing was written, and memory is rolled back for it.
    "after-write": Point("a group commit was written, and is not synced", _FAILED),
    "in-window": Point("the same, of a commit that saves an id window", _FAILED),
    "in-create": Point("the same, of a commit that creates a channel", _FAILED),
    "in-meta": Point("the same, of a commit with a group's position", _FAILED),
    "in-destroy": Point("the same, of a commit that deletes a range", _FAILED),
    "during-sync": Point("the log is being synced; an error means that it was not", _FAILED),
    "after-sync": Point("the log was synced, and nobody was answered", _FAILED),
    # The durable mark
    "before-mark": Point("the durable mark is about to be written", _IO),
    "in-mark": Point("the durable mark was written, and is not synced", _IO),
    "after-mark": Point("the durable mark was synced", {}, "the write has succeeded"),
    # Reading and giving space back
    "in-read": Point("messages are read from the database, not from memory", _FAILED),
    "in-compact": Point("a destroyed channel's space is about to be given back", _FAILED),
    # Connections
    "on-accept": Point("a connection waits to be accepted", _NO_FILES),
    "on-hello": Point("HELLO was received; the client is not registered", _LOST),
    "on-request": Point("a request was received; nothing was done about it", _LOST, has_operations=True),
    "before-reply": Point("a reply is about to be sent; what it says is durable", _LOST, has_operations=True),
    "during-reply": Point("the first half of a reply's bytes was sent, and no more", _LOST, has_operations=True),
    # Stopping
    "on-close": Point("SIGTERM came: the drain begins", {}, "it only changes what is in memory"),
    "on-store-close": Point("all is written and answered; the database is about to be closed", {}, "its errors are swallowed"),
}
OPERATIONS = {op.name.lower().replace("_", "-") for op in OPS.values()}
_FAULT = re.compile(r"(?P<point>[a-z-]+)(/(?P<op>[a-z-]+))?=(?P<action>[a-z]+)(:(?P<argument>[a-z0-9-]+))?(@(?P<at>\d+|\*))?")


class Fault(NamedTuple):
    """One fault to come. ``at`` counts from 1; None: each time."""

    text: str
    point: str
    operation: str | None
    action: Action
    delay_s: float
    error: Callable[[], Exception] | None
    at: int | None

    @classmethod
    def parse(cls, text: str) -> "Fault":
        """From the notation above. Raises ValueError that says what is wrong."""
        match = _FAULT.fullmatch(text)
        if match is None:
            raise ValueError(f"{text!r} is not POINT[/OPERATION]=ACTION[:ARGUMENT][@N]")
        name, operation, action, argument, at = match.group("point", "op", "action", "argument", "at")
        point = POINTS.get(name)
        if point is None:
            raise ValueError(f"there is no fail point {name!r}: {', '.join(POINTS)}")
        if operation is not None and not (point.has_operations and operation in OPERATIONS):
            raise ValueError(f"{name!r} cannot be narrowed to {operation!r}")
        if action not in tuple(Action) or at == "0":
            raise ValueError(f"{text!r}: actions are {', '.join(Action)}, and counting begins with 1")
        return cls(
            text,
            name,
            operation,
            Action(action),
            _delay_s(text, argument) if action == Action.DELAY else 0.0,
            _error(name, point, argument) if action == Action.RAISE else None,
            None if at == "*" else int(at or 1),
        )


def _delay_s(text: str, argument: str | None) -> float:
    if argument is not None and not argument.isdecimal():
        raise ValueError(f"{text!r}: the argument of a delay is its milliseconds")
    return int(argument or DELAY_MS) / 1000


def _error(name: str, point: Point, argument: str | None) -> Callable[[], Exception]:
    if not point.raises:
        raise ValueError(f"no error comes up at {name!r}: {point.never_raises}")
    if argument is None:
        return next(iter(point.raises.values()))
    if argument not in point.raises:
        raise ValueError(f"{name!r} raises {', '.join(point.raises)}, not {argument!r}")
    return point.raises[argument]
