import pytest

from rocksmq.clients.mirror.resume import Extent, Identity, Last, Refusal, Resume, decide

OURS = {"rocksmq.id": "50", "rocksmq.mirror": "eu#7@3"}


def found(last: Last | None, *, group: int = 10, begin: int = 1, end: int = 100) -> Resume | Refusal:
    return decide(last, "eu", Identity(7, 3), group, Extent(begin, end))


def test_given_an_empty_topic_when_decided_then_the_groups_position() -> None:
    assert found(None) == Resume(10)


@pytest.mark.parametrize("group", [0, 10, 51, 99])
def test_given_our_last_message_when_decided_then_behind_it_whatever_the_group_says(group: int) -> None:
    assert found(Last.of(OURS), group=group) == Resume(51)


@pytest.mark.parametrize(
    "properties",
    [
        {},
        {"rocksmq.id": "50"},
        {"rocksmq.mirror": "eu#7@3"},
        {"rocksmq.id": "x", "rocksmq.mirror": "eu#7@3"},
        {"rocksmq.id": "5", "rocksmq.mirror": "eu"},
    ],
)
def test_given_a_message_of_nobody_when_decided_then_refused(properties: dict[str, str]) -> None:
    decision = found(Last.of(properties))
    assert isinstance(decision, Refusal)
    assert "foreign" in decision.reason


def test_given_a_message_of_another_mirror_when_decided_then_refused_with_its_name() -> None:
    decision = found(Last.of(OURS | {"rocksmq.mirror": "us#7@3"}))
    assert isinstance(decision, Refusal)
    assert "'us'" in decision.reason


def test_given_a_mirror_with_a_hash_in_its_name_when_read_then_the_number_is_the_last_part() -> None:
    assert Last.of(OURS | {"rocksmq.mirror": "a#b#7@3"}) == Last(50, "a#b", Identity(7, 3))


def test_given_our_message_beyond_the_end_when_decided_then_refused_until_the_end_has_passed_it() -> None:
    decision = found(Last.of(OURS), end=49)
    assert isinstance(decision, Refusal)
    assert "older copy" in decision.reason
    assert found(Last.of(OURS), end=50) == Resume(51)


@pytest.mark.parametrize("other", ["eu#6@3", "eu#7@2"])
def test_given_a_channel_made_anew_when_its_predecessors_message_is_last_then_all_of_it(other: str) -> None:
    last = Last.of(OURS | {"rocksmq.mirror": other})
    assert found(last, group=1, begin=1, end=0) == Resume(1)
    assert found(last, group=51, begin=51, end=60) == Resume(51)


@pytest.mark.parametrize("other", ["eu#6@3", "eu#7@2"])
@pytest.mark.parametrize(("begin", "end"), [(50, 60), (1, 10), (1, 100)])
def test_given_another_brokers_message_when_this_channel_has_some_as_old_then_refused(other: str, begin: int, end: int) -> None:
    decision = found(Last.of(OURS | {"rocksmq.mirror": other}), begin=begin, end=end)
    assert isinstance(decision, Refusal)
    assert "another broker" in decision.reason
