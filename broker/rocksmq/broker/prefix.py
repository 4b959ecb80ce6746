"""What stands under the prefix in a store elsewhere: keys of the seeds, values that `etcdctl get` shows as text.

<prefix>/commit                         "<epoch> <number>", compared and set by every transaction (fence.py)
<prefix>/owner                          JSON, gone ten seconds after its broker: which instance runs, where
<prefix>/data                           JSON: the data directory that these positions belong to, and its last synced commit
<prefix>/<channel>/begin_id             decimal id of the first message kept      } at most a second old;
<prefix>/<channel>/end_id               decimal id of the last message            } information only
<prefix>/<group>/<channel>/current_id   decimal id of the next message to read    } always written
<prefix>/<group>/<channel>/state        JSON of records.GroupState                } together
"""

import json
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar

from .fence import CommitValue
from .keys import ID_MAX
from .records import VERSION, ConsumerEntry, GroupState, LastSeek
from .store import DataRefused

COMMIT, OWNER, DATA = "commit", "owner", "data"
BEGIN_ID, END_ID, CURRENT_ID, STATE = "begin_id", "end_id", "current_id", "state"
GroupKey = tuple[str, str]  # group and channel
Value = TypeVar("Value")


class Owner(NamedTuple):
    """The broker that writes under the prefix, as long as its lease lives."""

    instance: str
    epoch: int
    host: str
    pid: int

    def encode(self) -> str:
        return json.dumps(self._asdict())

    @classmethod
    def decode(cls, text: str) -> "Owner":
        return cls(**json.loads(text))


class DataMark(NamedTuple):
    """The data directory that the positions belong to, and how far it was synced when they were written."""

    instance: str
    commit_number: int

    def encode(self) -> str:
        return json.dumps(self._asdict())

    @classmethod
    def decode(cls, text: str) -> "DataMark":
        found = cls(**json.loads(text))
        if type(found.commit_number) is not int:
            raise ValueError("commit_number is no whole number")
        return found


class Found(NamedTuple):
    """Everything under a prefix, at one moment. Keys that are not ours are left alone."""

    commit: CommitValue | None
    owner: Owner | None
    data: DataMark | None
    groups: dict[GroupKey, GroupState]
    channels: set[str]  # whose ids are mirrored

    @classmethod
    def decode(cls, entries: Mapping[str, str], where: str) -> "Found":
        """From keys without the prefix. Raises DataRefused, which names ``where``, for a value that no broker wrote."""

        def value(key: str, parse: Callable[[str], Value]) -> Value:
            if key not in entries:
                raise DataRefused(f"{where}: the key {key} is missing: restore it with those beside it")
            try:
                return parse(entries[key])
            except (ValueError, TypeError, KeyError, AttributeError) as error:
                raise DataRefused(
                    f"{where}: the value of {key} is none that this broker can read ({_said(error)}): put back what"
                    " a broker wrote, or use the version that wrote it"
                ) from error

        groups: dict[GroupKey, GroupState] = {}
        channels: set[str] = set()
        for key in entries:
            match key.split("/"):
                case [group, channel, leaf] if leaf in (STATE, CURRENT_ID) and (group, channel) not in groups:
                    path = f"{group}/{channel}"
                    state, current_id = value(f"{path}/{STATE}", decode_state), value(f"{path}/{CURRENT_ID}", int)
                    if current_id != state.position:
                        raise DataRefused(
                            f"{where}: {path}/{CURRENT_ID} is {current_id}, and the state beside it says {state.position}:"
                            " put it back; positions are moved with `rocksmq group seek` only"
                        )
                    groups[group, channel] = state
                case [channel, leaf] if leaf in (BEGIN_ID, END_ID):
                    channels.add(channel)
                case _:
                    pass
        return cls(
            value(COMMIT, CommitValue.parse) if COMMIT in entries else None,
            value(OWNER, Owner.decode) if OWNER in entries else None,
            value(DATA, DataMark.decode) if DATA in entries else None,
            groups,
            channels,
        )


def _said(error: Exception) -> str:
    return f"it has no {error}" if isinstance(error, KeyError) else str(error)


def group_entries(key: GroupKey, state: GroupState | None) -> dict[str, str | None]:
    """The two keys of a group with their values; None deletes."""
    path = "/".join(key)
    if state is None:
        return {f"{path}/{CURRENT_ID}": None, f"{path}/{STATE}": None}
    return {f"{path}/{CURRENT_ID}": str(state.position), f"{path}/{STATE}": encode_state(state)}


def channel_entries(channel: str, ids: tuple[int, int] | None) -> dict[str, str | None]:
    """The two keys of a channel with its first and last id; None deletes."""
    begin_id, end_id = (None, None) if ids is None else map(str, ids)
    return {f"{channel}/{BEGIN_ID}": begin_id, f"{channel}/{END_ID}": end_id}


def encode_state(state: GroupState) -> str:
    """A group's state as one line of JSON. Bytes are in hexadecimal; ids exceed 2**53."""
    fields: dict[str, Any] = {"version": VERSION, **state._asdict()}
    fields["request_id"] = state.request_id.hex()
    fields["metadata"] = state.metadata.hex()
    if state.last_seek is not None:
        fields["last_seek"] = {**state.last_seek._asdict(), "request_id": state.last_seek.request_id.hex()}
    fields["consumers"] = {consumer.hex(): entry._asdict() for consumer, entry in state.consumers.items()}
    return json.dumps(fields)


def decode_state(text: str) -> GroupState:
    """The state of `encode_state`. Raises ValueError, TypeError, KeyError, AttributeError."""
    fields: dict[str, Any] = json.loads(text)
    if (version := fields.pop("version")) != VERSION:
        raise ValueError(f"a group's state has version {version}; this broker reads {VERSION}")
    fields["request_id"] = bytes.fromhex(fields["request_id"])
    fields["metadata"] = bytes.fromhex(fields["metadata"])
    if (seek := fields["last_seek"]) is not None:
        seek["request_id"] = bytes.fromhex(seek["request_id"])
        fields["last_seek"] = LastSeek(**seek)
    fields["consumers"] = {bytes.fromhex(id_): ConsumerEntry(**entry) for id_, entry in fields["consumers"].items()}
    state = GroupState(**fields)
    seek = () if state.last_seek is None else state.last_seek[1:]
    entries = list(state.consumers.values())
    if not all(type(entry.is_released) is bool for entry in entries):
        raise ValueError("a consumer's entry does not say whether it is released")
    of_entries = [number for entry in entries for number in (*entry[:6], *entry[7:])]
    numbers = [*state[:2], *state[3:6], state.forgotten, *seek, *of_entries]
    if not all(type(number) is int and 0 <= number <= ID_MAX for number in numbers):
        raise ValueError("a number of a group's state is none of 64 bits")
    return state
