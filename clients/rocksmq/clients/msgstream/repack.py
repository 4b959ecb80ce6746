"""Which channel a message goes to: its hash key modulo the number of channels. Pure."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, cast

from rocksmq.protocol.errors import InvalidRequest

from .messages import ContentMsg, DeleteMsg, InsertMsg, RowsMsg
from .types import MsgPack, MsgType, RepackFunc, TsMsg


def routed(msgs: Sequence[TsMsg], channel_count: int, repack_func: RepackFunc | None = None) -> dict[int, list[TsMsg]]:
    """The messages for each channel, by its index, in the order of ``msgs``.

    ``repack_func`` decides, and is given for each message the index that every one of its hash keys stands for. Without one
    inserts are repacked by `insert_repack`, deletes by `delete_repack`, which go with no other type, and all others by
    `default_repack`. Raises InvalidRequest for what cannot be routed, and for what ``repack_func`` gave unless those are packs
    for some of the channels.
    """
    if not msgs:
        return {}
    check_messages(msgs)
    try:
        if repack_func is None:
            packs = _repack_of(msgs)(list(msgs), _indexes(msgs, channel_count))
            return {index: pack.msgs for index, pack in packs.items()}
        indexes: list[Sequence[int]] = [[key % channel_count for key in msg.hash_keys] for msg in msgs]
    except TypeError as error:
        raise InvalidRequest(f"a field of a message, or its hash_keys, was changed to what it cannot be: {error}") from None
    return _checked(repack_func(list(msgs), indexes), channel_count)


def _indexes(msgs: Sequence[TsMsg], channel_count: int) -> list[Sequence[int]]:
    """Of each message the index that every one of its hash keys stands for; those of one key share what says that."""
    single = [(index,) for index in range(channel_count)]
    return [
        single[keys[0] % channel_count] if len(keys := msg.hash_keys) == 1 else [key % channel_count for key in keys]
        for msg in msgs
    ]


def insert_repack(msgs: list[TsMsg], hash_keys: list[Sequence[int]]) -> dict[int, MsgPack]:
    """Of each insert its rows grouped by channel: one message a channel, of the original id, with what belongs to its rows.

    ``hash_keys``: of each message, the index of the channel for every row. Raises InvalidRequest for messages of another
    type, and for columns that are not equally long.
    """
    return _by_rows(InsertMsg, msgs, hash_keys)


def delete_repack(msgs: list[TsMsg], hash_keys: list[Sequence[int]]) -> dict[int, MsgPack]:
    """As `insert_repack`, for deletes."""
    return _by_rows(DeleteMsg, msgs, hash_keys)


def default_repack(msgs: list[TsMsg], hash_keys: list[Sequence[int]]) -> dict[int, MsgPack]:
    """Each message as a whole, to the channel of its one key. Raises InvalidRequest for one with none, or several."""
    packs: defaultdict[int, MsgPack] = defaultdict(MsgPack)
    for msg, indexes in _paired(msgs, hash_keys):
        if len(indexes) != 1:
            raise InvalidRequest(f"{msg!r} has {len(indexes)} hash_keys: without a repack function it needs exactly one")
        packs[indexes[0]].msgs.append(msg)
    return dict(packs)


def check_messages(msgs: Sequence[Any]) -> None:
    """Raises InvalidRequest for what is no message, and for hash keys of a type of the user's own that are no integers."""
    for msg in msgs:
        if isinstance(msg, ContentMsg):
            continue  # it was checked when it was made
        if not isinstance(msg, TsMsg):
            raise InvalidRequest(f"a {type(msg).__name__} is no message")
        keys: Any = msg.hash_keys
        if not isinstance(keys, (list, tuple)) or set(map(type, cast(Sequence[object], keys))) - {int}:
            raise InvalidRequest(f"hash_keys of {msg!r} are not a list of integers")


def _repack_of(msgs: Sequence[TsMsg]) -> RepackFunc:
    """The one for messages of these types."""
    kinds: set[type[TsMsg]] = {type(msg) for msg in msgs}
    types = {kind.type for kind in kinds}
    for msg_type, repack in ((MsgType.INSERT, insert_repack), (MsgType.DELETE, delete_repack)):
        if msg_type in types:
            if len(types) > 1:
                raise InvalidRequest(
                    f"messages of types {sorted(types)} in one pack: type {msg_type.value} goes with no"
                    " other: give each type a pack of its own, or set a repack function"
                )
            return repack
    return default_repack


def _by_rows(kind: type[RowsMsg], msgs: list[TsMsg], hash_keys: list[Sequence[int]]) -> dict[int, MsgPack]:
    packs: defaultdict[int, MsgPack] = defaultdict(MsgPack)
    for msg, indexes in _paired(msgs, hash_keys):
        if not isinstance(msg, kind):
            raise InvalidRequest(f"{msg!r} is no {kind.__name__}")
        if wrong := msg.uneven():
            raise InvalidRequest(wrong)
        if len(indexes) != len(msg.hash_keys):
            raise InvalidRequest(f"{msg!r} has {len(msg.hash_keys)} rows, but {len(indexes)} hash_keys were given for it")
        first = indexes[0]
        if len(indexes) == 1 or indexes.count(first) == len(indexes):
            packs[first].msgs.append(msg)
            continue
        rows: defaultdict[int, list[int]] = defaultdict(list)
        for row, index in enumerate(indexes):
            rows[index].append(row)
        for index, chosen in rows.items():
            packs[index].msgs.append(msg.rows_at(chosen))
    return dict(packs)


def _paired(msgs: list[TsMsg], hash_keys: list[Sequence[int]]) -> "zip[tuple[TsMsg, Sequence[int]]]":
    if len(msgs) != len(hash_keys):
        raise InvalidRequest(f"{len(msgs)} messages, but hash_keys of {len(hash_keys)}")
    return zip(msgs, hash_keys, strict=True)


def _checked(packs: Mapping[int, MsgPack], channel_count: int) -> dict[int, list[TsMsg]]:
    """What a repack function gave, if it can be sent."""
    if not isinstance(cast(object, packs), Mapping):
        raise InvalidRequest(f"the repack function gave {packs!r}, not a dict of packs by index of the channel")
    for index, pack in packs.items():
        if type(index) is not int or not 0 <= index < channel_count:
            raise InvalidRequest(f"the repack function gave a pack for channel {index!r}: there are 0 to {channel_count - 1}")
        if not isinstance(cast(object, pack), MsgPack):
            raise InvalidRequest(f"the repack function gave channel {index} {pack!r:.200}, not a MsgPack")
        check_messages(pack.msgs)
    return {index: list(pack.msgs) for index, pack in packs.items()}
