"""`repair` of groups: what they read next is what it was, or as near as can be."""

import pytest

from rocksmq.broker import keys
from rocksmq.broker.engine import RocksMQ
from rocksmq.broker.records import GroupState
from rocksmq.broker.store import Delete, Family, Put
from rocksmq.protocol.errors import OutOfSequence
from rocksmq.protocol.operations import Consume

from .check_support import (
    CONSUMER,
    Healthy,
    change,
    change_group,
    stored,
)
from .repair_support import goes_on, messages, repaired
from .support import in_trio

DATA, META = Family.DATA, Family.META


def test_given_a_position_beyond_the_end_when_mended_then_the_group_reads_what_comes(healthy: Healthy) -> None:
    before = change_group(healthy.path, "late", lambda state: state._replace(position=1 << 60))
    repaired(healthy.path, "group:orders:late")
    after = GroupState.decode(stored(healthy.path, META, keys.group_key("late", "orders", "state")))
    assert (after.position, after.offset) == (healthy.ids[-1] + 1, 61)
    assert after.generation > before.generation
    goes_on(healthy, messages(healthy))


@pytest.mark.parametrize("group", ["billing", "shipping", "late"])
def test_given_an_offset_that_does_not_match_when_mended_then_the_messages_count(healthy: Healthy, group: str) -> None:
    wrong = change_group(healthy.path, group, lambda state: state._replace(offset=state.offset + 1))
    repaired(healthy.path, f"group:orders:{group}")
    after = GroupState.decode(stored(healthy.path, META, keys.group_key(group, "orders", "state")))
    assert (after.position, after.offset) == (wrong.position, wrong.offset - 1)
    goes_on(healthy, messages(healthy))


def test_given_a_consumer_s_entry_that_cannot_be_when_mended_then_it_is_forgotten_for_good(healthy: Healthy) -> None:
    def changed(state: GroupState) -> GroupState:
        return state._replace(consumers={CONSUMER: state.consumers[CONSUMER]._replace(end=1 << 60, is_released=False)})

    change_group(healthy.path, "billing", changed)
    repaired(healthy.path, "group:orders:billing")

    @in_trio
    async def play() -> None:
        async with RocksMQ(healthy.path) as mq:
            with pytest.raises(OutOfSequence):
                await mq.call(Consume("orders", "billing", CONSUMER, 1, 6, 1 << 22, 0))

    play()


def test_given_what_was_given_back_when_the_group_is_mended_then_it_is_still_handed_out(healthy: Healthy) -> None:
    state = GroupState.decode(stored(healthy.path, META, keys.group_key("billing", "orders", "state")))
    (returned,) = [entry for entry in state.consumers.values() if entry.is_released]
    change_group(healthy.path, "billing", lambda state: state._replace(offset=state.offset + 1))
    repaired(healthy.path, "group:orders:billing")

    @in_trio
    async def play() -> None:
        async with RocksMQ(healthy.path) as mq:
            batch = await mq.consume("orders", "billing")
            assert (batch.ids[0], len(batch)) == (returned.begin, returned.message_count)

    play()


@pytest.mark.parametrize("group", ["billing", "shipping"])
def test_given_a_current_id_that_is_gone_when_mended_then_it_is_back(healthy: Healthy, group: str) -> None:
    change(healthy.path, Delete(META, keys.group_key(group, "orders", "current_id")))
    repaired(healthy.path, f"group:orders:{group}")
    goes_on(healthy, messages(healthy))


@pytest.mark.parametrize("value", [None, b"x"])
def test_given_a_state_that_is_lost_when_the_group_is_removed_then_it_can_be_made_anew(
    healthy: Healthy, value: bytes | None
) -> None:
    state = GroupState.decode(stored(healthy.path, META, keys.group_key("billing", "orders", "state")))
    key = keys.group_key("billing", "orders", "state")
    change(healthy.path, Delete(META, key) if value is None else Put(META, key, value))
    (did,) = repaired(healthy.path, "remove-group:orders:billing")
    assert str(state.position) in did.loses
    goes_on(healthy, messages(healthy))
