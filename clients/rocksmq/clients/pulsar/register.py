"""Where a subscription stands on its channels, and who moves it: a register that is swapped as a whole, kept as a log. Pure.

Pulsar keeps neither our filters nor the places of several topics at once, and fences no reader. So each state of a
subscription is an entry of a topic of its own, with the place of the entry that it follows, the last that counted when it was
written; and **the first entry that follows an entry that counts does count, others that follow it are void**: whoever appended
a void one reads on, and tries again on what counts. So all readers of the log agree, however many write it, whenever what they
wrote arrives, and if it arrives twice.

Whoever opens the log begins where its last entry, void or not, says that it follows, for that one counted. Where that is gone,
he begins at what is left: an entry that another follows did count. So the last two that count are never removed.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

from rocksmq.protocol.errors import Conflict, GroupNotFound, ProtocolError, UnsupportedVersion

from .places import Place

VERSION = 1


class Standing(NamedTuple):
    """On one channel: ``place``, None: the beginning. ``generation``: given anew to whoever takes over, or seeks.

    ``seek_id``: of the seek that began the generation.
    """

    place: Place | None
    timestamp_filter: int
    generation: str
    seek_id: str = ""


State: TypeAlias = Mapping[str, Standing]
"""By channel."""


class Entry(NamedTuple):
    """``id``: no other entry has it. ``number``: how many count up to it, for whoever looks at the topic."""

    number: int
    id: str
    follows: Place | None
    state: State

    def encode(self) -> bytes:
        """As JSON."""
        state = {channel: [_columns(standing.place), *standing[1:]] for channel, standing in self.state.items()}
        told = [VERSION, self.number, self.id, _columns(self.follows), state]
        return json.dumps(told, separators=(",", ":")).encode()

    @classmethod
    def decode(cls, text: bytes) -> "Entry":
        """Raises ProtocolError for what is none, UnsupportedVersion for one of a newer RocksMQ."""
        try:
            version, *columns = json.loads(text)
            if version != VERSION:
                raise UnsupportedVersion(f"positions of version {version!r:.20} were written by a newer RocksMQ: install that")
            number, entry_id, follows, state = columns
            standings = {channel: Standing(_place(place), *rest) for channel, (place, *rest) in state.items()}
            return cls(number + 0, entry_id, _place(follows), standings)
        except (ValueError, TypeError, AttributeError) as error:
            raise ProtocolError(f"{text!r:.50} is no entry of positions: {error}") from None


def _columns(place: Place | None) -> list[int] | None:
    return None if place is None else list(place)


def _place(columns: Any) -> Place | None:
    return None if columns is None else Place(*columns)


class Register:
    """What counts of the log, as far as it was read; nothing before either an entry that counts was found, or `settle`."""

    def __init__(self) -> None:
        self.entry: Entry | None = None
        self.place: Place | None = None  # of that entry
        self._unproven: dict[Place, Entry] | None = {}  # None: what counts is known

    def read(self, place: Place, entry: Entry) -> None:
        """The next entry of the log."""
        if self._unproven is None:
            self._follow(place, entry)
            return
        self._unproven[place] = entry
        if entry.follows is not None and entry.follows in self._unproven:
            self._begin(entry.follows, self._unproven)

    def settle(self) -> None:
        """That was all there is: if none follows another, the first that follows nothing counts."""
        unproven = self._unproven or {}
        if self._unproven is not None and (first := [place for place, entry in unproven.items() if entry.follows is None]):
            self._begin(first[0], unproven)
        self._unproven = None

    def _begin(self, begin: Place, entries: Mapping[Place, Entry]) -> None:
        self._unproven = None
        self.entry, self.place = entries[begin], begin
        for place, entry in entries.items():
            self._follow(place, entry)

    def _follow(self, place: Place, entry: Entry) -> None:
        if entry.follows == self.place:
            self.entry, self.place = entry, place

    @property
    def state(self) -> State:
        """What the subscription is now."""
        return {} if self.entry is None else self.entry.state

    def following(self, state: State, new_id: str) -> Entry:
        """The entry to append. ``new_id``: one that there never was."""
        if self.entry is None:
            return Entry(1, new_id, None, state)
        return Entry(self.entry.number + 1, new_id, self.place, state)


# -- operations: from a state to the next ------------------------------------------


def subscribed(state: State, new: State) -> State:
    """With those of ``new`` that it lacks."""
    return {**new, **state}


def taken_over(state: State, channels: Sequence[str], generation: str) -> State:
    """In a new generation. Raises GroupNotFound."""
    return {**state, **{name: _found(state, name)._replace(generation=generation, seek_id="") for name in channels}}


def sought(
    state: State,
    wanted: Mapping[str, tuple[Place | None, int]],
    held: Mapping[str, str],
    seek_id: str,
    generation: str,
) -> State:
    """There, in a new generation; as it is when ``seek_id`` has done it. ``held``: generations by channel.

    Raises Conflict, GroupNotFound.
    """
    if all(_found(state, name).seek_id == seek_id for name in wanted):
        return state
    _check_held(state, wanted, held)
    return {**state, **{name: Standing(*at, generation, seek_id) for name, at in wanted.items()}}


def committed(state: State, wanted: Mapping[str, tuple[Place | None, int]], held: Mapping[str, str]) -> State:
    """Forward to there: where it stands behind that already, it stays. Raises Conflict, GroupNotFound."""
    _check_held(state, wanted, held)
    moved = {name: state[name]._replace(place=at[0], timestamp_filter=at[1]) for name, at in wanted.items()}
    return {**state, **{name: to for name, to in moved.items() if _is_forward(state[name].place, to.place)}}


def unsubscribed(state: State, channels: Sequence[str], held: Mapping[str, str]) -> State:
    """Without them. Raises Conflict."""
    there = [name for name in channels if name in state]
    _check_held(state, there, held)
    return {name: standing for name, standing in state.items() if name not in there}


def _is_forward(present: Place | None, place: Place | None) -> bool:
    return place is not None and (present is None or place >= present)


def _found(state: State, name: str) -> Standing:
    if name not in state:
        raise GroupNotFound(f"channel {name!r} has no such subscription: it was removed")
    return state[name]


def _check_held(state: State, names: Sequence[str] | Mapping[str, Any], held: Mapping[str, str]) -> None:
    for name in names:
        if _found(state, name).generation != held.get(name):
            raise Conflict(f"the subscription of {name!r} was taken over by another stream")
