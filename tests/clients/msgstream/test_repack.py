"""Which channel a message goes to (contract §7): every row exactly once, to the channel of its key, with what belongs to it."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rocksmq.clients.msgstream.messages import (
    DeleteMsg,
    InsertMsg,
    RowsMsg,
    SearchMsg,
    SegStatisticsMsg,
    TimeSyncMsg,
    TimeTickMsg,
)
from rocksmq.clients.msgstream.repack import default_repack, delete_repack, insert_repack, routed
from rocksmq.clients.msgstream.types import MsgPack, MsgType, TsMsg
from rocksmq.protocol.errors import InvalidRequest
from tests.protocol.strategies import deterministic

from .message_strategies import deletes, inserts, instants

channel_counts = st.integers(1, 5)


def rows_of(msg: TsMsg) -> list[tuple[Any, ...]]:
    """Each row with all that identifies it."""
    assert isinstance(msg, RowsMsg)
    columns = (msg.row_ids, msg.rows) if isinstance(msg, InsertMsg) else (getattr(msg, "primary_keys", []),)
    return [(msg.id, *row) for row in zip(msg.timestamps, msg.hash_keys, *columns, strict=True)]


def insert(keys: Sequence[int], msg_id: int = 1) -> InsertMsg:
    n = len(keys)
    return InsertMsg(msg_id, range(10, 10 + n), range(n), [b"%d" % i for i in range(n)], keys)


# Without a repack function


@deterministic
@given(st.one_of(st.lists(inserts, min_size=1, max_size=5), st.lists(deletes, min_size=1, max_size=5)), channel_counts)
def test_given_rows_when_routed_then_each_comes_once_to_its_channel_with_its_identity_in_order(
    msgs: list[Any], channel_count: int
) -> None:
    before = [rows_of(msg) for msg in msgs]
    routes = routed(msgs, channel_count)
    for index in range(channel_count):
        arrived = [row for msg in routes.get(index, []) for row in rows_of(msg)]
        assert arrived == [row for rows in before for row in rows if row[2] % channel_count == index]
    assert set(routes) <= set(range(channel_count))
    assert [rows_of(msg) for msg in msgs] == before
    for part in (msg for chosen in routes.values() for msg in chosen):
        stamps = [stamp for _, stamp, *_ in rows_of(part)]
        assert (part.begin_ts, part.end_ts) == (min(stamps), max(stamps))


@deterministic
@given(st.lists(inserts, min_size=1, max_size=5), channel_counts)
def test_given_an_insert_when_routed_then_it_is_one_message_for_each_channel_that_it_touches(
    msgs: list[InsertMsg], channel_count: int
) -> None:
    touched = Counter(index for msg in msgs for index in {key % channel_count for key in msg.hash_keys})
    assert {index: len(chosen) for index, chosen in routed(msgs, channel_count).items()} == touched


def test_given_an_insert_whose_rows_go_to_one_channel_when_routed_then_it_is_passed_on_as_it_is() -> None:
    msg = insert([1, 4, 7])
    assert routed([msg], 3)[1][0] is msg
    assert routed([msg], 1)[0][0] is msg


@deterministic
@given(st.lists(instants, min_size=1, max_size=8), channel_counts)
def test_given_messages_of_other_types_when_routed_then_each_goes_whole_to_the_channel_of_its_key(
    msgs: list[TsMsg], channel_count: int
) -> None:
    routes = routed(msgs, channel_count)
    for index in range(channel_count):
        expected = [msg for msg in msgs if msg.hash_keys[0] % channel_count == index]
        assert [id(msg) for msg in routes.get(index, [])] == [id(msg) for msg in expected]


def test_given_no_messages_when_routed_then_there_is_nothing_to_send_and_no_function_is_asked() -> None:
    assert routed([], 3) == {}
    assert routed([], 3, lambda msgs, keys: pytest.fail("asked")) == {}


@pytest.mark.parametrize(
    "msgs",
    [
        [insert([1]), TimeTickMsg(5)],
        [TimeTickMsg(5), insert([1])],
        [insert([1]), DeleteMsg(1, [2], [3], [4])],
        [SearchMsg(1, 2, b"", [3]), DeleteMsg(1, [2], [3], [4])],
    ],
)
def test_given_rows_with_messages_of_another_type_when_routed_then_they_are_refused(msgs: list[TsMsg]) -> None:
    with pytest.raises(InvalidRequest, match="in one pack"):
        routed(msgs, 2)


@pytest.mark.parametrize("keys", [[], [1, 2]])
def test_given_a_message_without_exactly_one_key_when_routed_then_it_is_refused(keys: list[int]) -> None:
    msgs = [TimeTickMsg(5), SegStatisticsMsg(1, 2, b"", keys)]
    with pytest.raises(InvalidRequest, match=f"{len(keys)} hash_keys"):
        routed(msgs, 2)


def test_given_columns_that_were_changed_when_routed_then_they_are_refused() -> None:
    for name in ("timestamps", "row_ids", "rows", "hash_keys"):
        msg = insert([1, 2, 3])
        getattr(msg, name).pop()
        with pytest.raises(InvalidRequest, match=name):
            routed([msg], 2)


@pytest.mark.parametrize("keys", [None, ["a"], [None], 5])
def test_given_a_type_of_ones_own_with_keys_that_are_none_when_routed_then_it_is_refused(keys: Any) -> None:
    class Own(TsMsg):
        type = 7001

    with pytest.raises(InvalidRequest, match="hash_keys"):
        routed([Own(1, 2, 3, keys)], 2)


def test_given_a_class_of_ones_own_for_inserts_when_routed_then_it_is_refused_without_a_function() -> None:
    class Own(TsMsg):
        type = MsgType.INSERT

    with pytest.raises(InvalidRequest, match="no InsertMsg"):
        routed([Own(1, 2, 3, [4])], 2)
    assert list(routed([Own(1, 2, 3, [4])], 2, default_repack)) == [0]


def test_given_what_is_no_message_when_routed_then_it_is_refused() -> None:
    nothing: Any = [TimeTickMsg(5), b"bytes"]
    with pytest.raises(InvalidRequest, match="bytes is no message"):
        routed(nothing, 2)


# With one


def test_given_a_repack_function_when_routed_then_it_gets_indexes_of_channels_and_decides() -> None:
    seen: list[list[Sequence[int]]] = []

    def under_each_key(msgs: list[TsMsg], hash_keys: list[Sequence[int]]) -> dict[int, MsgPack]:
        seen.append(hash_keys)
        packs: dict[int, MsgPack] = {}
        for msg, indexes in zip(msgs, hash_keys, strict=True):
            for index in indexes:
                packs.setdefault(index, MsgPack()).msgs.append(msg)
        return packs

    msgs = [SearchMsg(1, 2, b"", [1, 3, 4]), TimeTickMsg(5, hash_keys=[5]), insert([2, 2]), SearchMsg(2, 2, b"", [])]
    assert routed(msgs, 3, under_each_key) == {1: msgs[:1] * 2, 0: msgs[:1], 2: [msgs[1], msgs[2], msgs[2]]}
    assert seen == [[[1, 0, 1], [2], [2, 2], []]]


@pytest.mark.parametrize(
    ("repack", "msg"),
    [
        (insert_repack, insert([1, 2])),
        (delete_repack, DeleteMsg(1, [2], [3], [4])),
        (default_repack, TimeSyncMsg(5)),
    ],
)
def test_given_the_librarys_own_functions_when_set_then_they_do_what_is_done_without(repack: Any, msg: TsMsg) -> None:
    assert routed([msg], 2, repack) == routed([msg], 2)


def test_given_a_function_that_changes_its_lists_when_routed_then_the_pack_is_left_alone() -> None:
    def emptied(msgs: list[TsMsg], hash_keys: list[Sequence[int]]) -> dict[int, MsgPack]:
        msgs.clear()
        return {}

    mine: list[TsMsg] = [TimeTickMsg(5)]
    assert routed(mine, 2, emptied) == {}
    assert mine == [TimeTickMsg(5)]


@pytest.mark.parametrize(
    "given_back",
    [
        {2: MsgPack()},
        {-1: MsgPack()},
        {"0": MsgPack()},
        {True: MsgPack()},
        {0: [TimeTickMsg(5)]},
        {0: None},
        {0: MsgPack(msgs=[b"bytes"])},  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]
        [MsgPack()],
        None,
    ],
    ids=repr,
)
def test_given_what_no_channel_can_be_sent_when_a_function_gives_it_then_it_is_refused(given_back: Any) -> None:
    with pytest.raises(InvalidRequest, match=r"the repack function gave|bytes is no message"):
        routed([TimeTickMsg(5)], 2, lambda msgs, keys: given_back)


@pytest.mark.parametrize("repack", [insert_repack, delete_repack, default_repack])
def test_given_keys_that_are_not_of_the_messages_when_repacked_then_they_are_refused(repack: Any) -> None:
    msg = {insert_repack: insert([1, 2]), delete_repack: DeleteMsg(1, [2], [3], [4])}.get(repack, TimeTickMsg(5))
    not_of_it: list[list[list[int]]] = [[], [[0], [1]], [[0, 1, 2]], [[]]]
    for hash_keys in not_of_it:
        with pytest.raises(InvalidRequest, match="hash_keys"):
            repack([msg], hash_keys)


def test_given_a_message_of_the_users_own_with_keys_that_are_no_integers_when_routed_then_it_is_refused() -> None:
    class Own(TsMsg):
        type = 7_000

    with pytest.raises(InvalidRequest, match="integers"):
        routed([Own(1, 0, 0, [1.5])], 2)  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]
