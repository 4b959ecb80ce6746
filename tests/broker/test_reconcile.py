"""Whether positions and data belong together: each thing that may be wrong, its numbers, and what accepting it does."""

import logging

import pytest

from rocksmq.broker.channels import Channel
from rocksmq.broker.config import EMBEDDED
from rocksmq.broker.durability import Durability
from rocksmq.broker.fence import CommitValue
from rocksmq.broker.groups import Group
from rocksmq.broker.prefix import DataMark, Found, Owner
from rocksmq.broker.reconcile import PrefixInUse, check_owner, checked, foreign, misbound, positions_ahead
from rocksmq.broker.records import Extent, GroupState, MetaBinding
from rocksmq.broker.store import DataRefused

from .support import World

HERE, OTHER = "1f", "2f"
STORE = "etcd prefix p"


def found(commit: CommitValue | None = None, data: DataMark | None = None, owner: Owner | None = None) -> Found:
    return Found(commit, owner, data, {}, set())


# -- whose they are ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("epoch", "planned", "applied", "recovered", "problems"),
    [
        (None, 0, 0, 0, []),  # both new
        (1, 1, 1, 9, []),
        (7, 7, 7, 9, []),
        (6, 7, 6, 9, []),  # killed before its takeover arrived
        (7, 7, 6, 9, []),  # killed before it heard of it
        (None, 1, 0, 9, []),  # the first takeover never arrived
        (8, 7, 7, 9, [r"\(epoch 8, and here 7\): the directory is older"]),
        (1, 0, 0, 9, [r"etcd prefix p was written by a later start .* \(epoch 1, and here 0\): the directory is older"]),
        (6, 7, 7, 9, [r"\(epoch 7\), but what stands there is older \(epoch 6\): it was restored"]),
        (None, 7, 7, 9, [r"\(epoch 7\), but nothing stands there: it was deleted, or --meta names another place"]),
        (7, 7, 7, 4, ["group commit 5 was synced .* ends at 4: 1 commit.* missing"]),
        (8, 7, 7, 2, [r"\(epoch 8, and here 7\): the directory is older", "group commit 5 .* ends at 2: 3 commits.* missing"]),
    ],
)
def test_given_a_directory_and_a_prefix_when_they_meet_then_what_does_not_fit_is_told_with_numbers(
    epoch: int | None, planned: int, applied: int, recovered: int, problems: list[str]
) -> None:
    commit = None if epoch is None else CommitValue(epoch, 77)
    data = None if epoch is None else DataMark(HERE, 5)
    told = foreign(found(commit, data), STORE, MetaBinding(STORE, STORE, planned, applied), HERE, recovered)
    assert len(told) == len(problems)
    for problem, wanted in zip(told, problems, strict=True):
        with pytest.raises(DataRefused, match=wanted):
            checked([problem], accept_loss=False)


def test_given_the_positions_of_another_directory_when_met_then_both_instances_are_named_and_nothing_else() -> None:
    told = foreign(found(CommitValue(9, 1), DataMark(OTHER, 500)), STORE, MetaBinding(STORE, STORE, 0, 0), HERE, 0)
    assert told == [f"{STORE} belongs to the data directory of instance {OTHER}, and this one is {HERE}"]


def test_given_another_instance_that_runs_when_met_then_it_is_refused_by_name() -> None:
    with pytest.raises(PrefixInUse, match=r"etcd prefix p is in use by instance 2f \(pid 12 on there\), and this is 1f"):
        check_owner(found(owner=Owner(OTHER, 3, "there", 12)), HERE, STORE)
    check_owner(found(owner=Owner(HERE, 3, "there", 12)), HERE, STORE)
    check_owner(found(), HERE, STORE)


# -- where they are kept -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bound", "store", "has_groups", "is_wrong"),
    [
        (MetaBinding(EMBEDDED, STORE, 0, 0), EMBEDDED, True, False),
        (MetaBinding(EMBEDDED, STORE, 0, 0), STORE, False, False),
        (MetaBinding(EMBEDDED, STORE, 0, 0), STORE, True, True),
        (MetaBinding(STORE, STORE, 3, 3), STORE, True, False),
        (MetaBinding(STORE, STORE, 1, 0), EMBEDDED, False, False),  # the takeover never came about
        (MetaBinding(STORE, STORE, 1, 1), EMBEDDED, False, True),
        (MetaBinding(STORE, STORE, 1, 1), "etcd prefix q", False, True),
    ],
)
def test_given_a_directory_bound_to_a_store_when_started_with_it_or_another_then_only_what_was_kept_there_is_missed(
    bound: MetaBinding, store: str, has_groups: bool, is_wrong: bool
) -> None:
    told = misbound(bound, store, has_groups=has_groups)
    assert bool(told) == is_wrong
    if is_wrong:
        assert bound.store in told[0]
        assert store in told[0]
        assert "rocksmq meta export" in told[0]


# -- beyond the end ------------------------------------------------------------------------------------


def group_at(position: int, channel: Channel, name: str = "billing") -> Group:
    return Group(name, channel.name, GroupState(channel.number, 1, bytes(16), position, 0, 1, b"", None, {}, 0))


@pytest.mark.parametrize(("mode", "is_refused"), [("fsync", True), ("interval:100", False), ("os", False)])
def test_given_groups_when_one_lies_beyond_what_was_recovered_then_it_is_told_and_refused_where_that_cannot_be(
    world: World, mode: str, is_refused: bool
) -> None:
    channel = world.channel()
    ids = world.produce([b"a", b"b"])
    channel.durability = Durability.parse(mode)
    recovered = {channel.number: channel.visible}
    world.produce([b"c", b"d"])
    groups = [group_at(ids[0], channel), group_at(ids[-1] + 1, channel, "at the end"), group_at(ids[-1] + 2, channel, "lost")]
    (ahead,) = positions_ahead(groups, world.channels, recovered)
    assert ahead.group is groups[2]
    assert ahead.is_refused == is_refused
    assert ahead.extent == recovered[channel.number]
    assert str(ahead) == (
        f"group 'lost' of channel 'orders' is at {ids[-1] + 2}, and the channel ends at {ids[-1]}:"
        " messages that it has read are missing"
    )
    groups[2].value = groups[2].state._replace(position=1)
    assert f"is at {ids[-1] + 2}," in str(ahead), "as it was found"


def test_given_a_channel_made_after_the_start_when_its_groups_are_looked_at_then_none_is_ahead(world: World) -> None:
    channel = world.channel()
    assert positions_ahead([group_at(1 << 50, channel)], world.channels, {}) == []
    assert positions_ahead([group_at(1, channel)], world.channels, {channel.number: Extent(1, 0, 0, 0, 0, 0, 0)}) == []


# -- what becomes of it --------------------------------------------------------------------------------


def test_given_nothing_wrong_when_checked_then_it_passes_in_silence(caplog: pytest.LogCaptureFixture) -> None:
    checked([], accept_loss=False)
    checked([], accept_loss=True)
    assert not caplog.records


def test_given_problems_when_the_loss_is_accepted_then_each_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    problems = [f"problem {i}" for i in range(8)]
    with caplog.at_level(logging.WARNING):
        checked(problems, accept_loss=True)
    assert [record.getMessage() for record in caplog.records] == [f"accepted: {problem}" for problem in problems]


def test_given_many_problems_when_refused_then_some_are_named_and_the_others_counted_and_it_says_what_to_do() -> None:
    with pytest.raises(DataRefused) as refused:
        checked([f"problem {i}" for i in range(8)], accept_loss=False)
    text = str(refused.value)
    assert "problem 0; problem 1; problem 2; problem 3; problem 4 (and 3 more)" in text
    assert "problem 5" not in text
    assert "--accept-loss" in text
    with pytest.raises(DataRefused, match=r"^only\. Restore"):
        checked(["only"], accept_loss=False)
