"""A look of the trimmer that others come between: rules that are changed, channels that go, a store that cannot be read."""

from collections.abc import Generator
from types import SimpleNamespace, coroutine

import pytest

from rocksmq.broker import keys, trimmer
from rocksmq.broker.retention import RetentionSection
from rocksmq.broker.store import Family
from rocksmq.protocol.administration import SetChannel
from rocksmq.protocol.errors import DiskFull, StorageFailed
from rocksmq.protocol.operations import (
    DestroyChannel,
    Empty,
)

from .disk_support import fail
from .many_support import ManyBroker

COUNT = 40


@coroutine
def pause() -> Generator[None, None, None]:
    yield


class Looks:
    """A broker whose channel has COUNT messages in as many batches, of which one is to stay; `first_turn` begins a look."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        stand_in = SimpleNamespace(
            lowlevel=SimpleNamespace(checkpoint=pause),
            Event=lambda: SimpleNamespace(set=lambda: None),
            current_time=lambda: 0.0,
        )
        monkeypatch.setattr(trimmer, "trio", stand_in)
        self.broker = ManyBroker()
        (self.name,) = self.broker.channels(1)
        for number in range(COUNT):
            self.broker.produce(self.name, b"%d" % number)
        self.set_rules({"max_messages": 1})

    def set_rules(self, rules: dict[str, int]) -> None:
        assert self.broker.do(SetChannel(self.name, rules)) == Empty()

    @property
    def count(self) -> int:
        return self.broker.core.channels.find(self.name).visible.message_count

    def look(self) -> Generator[None, None, None]:
        return self.broker.core.retention._look().__await__()  # pyright: ignore[reportPrivateUsage]

    def first_turn(self) -> Generator[None, None, None]:
        look = self.look()
        next(look)
        return look

    def rest(self, look: Generator[None, None, None]) -> None:
        for _ in look:
            pass
        self.broker.commit()


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> Looks:
    return Looks(monkeypatch)


def test_given_rules_that_keep_all_when_set_in_the_midst_of_a_look_then_nothing_is_removed_any_more(looks: Looks) -> None:
    look = looks.first_turn()
    looks.set_rules({})
    looks.rest(look)
    assert looks.count == COUNT


def test_given_nobody_between_when_looked_then_what_is_too_much_is_removed(looks: Looks) -> None:
    looks.rest(looks.first_turn())
    assert looks.count == 1


def test_given_a_channel_that_is_destroyed_in_the_midst_of_a_look_when_that_goes_on_then_all_is_well(looks: Looks) -> None:
    look = looks.first_turn()
    number = looks.broker.numbers([looks.name])[0]
    assert looks.broker.do(DestroyChannel(looks.name, number)) == Empty()
    looks.rest(look)
    assert looks.broker.core.retention.removed_messages == 0


@pytest.mark.parametrize("what", ["holding", "first_ids"])
def test_given_a_channel_that_cannot_be_read_when_looked_then_it_is_told_once_and_others_have_their_turn(
    looks: Looks, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, what: str
) -> None:
    (other,) = looks.broker.channels(1)
    for _ in range(3):
        looks.broker.produce(other, b"x")
    looks.broker.do(SetChannel(other, {"max_messages": 2}))
    log = looks.broker.core.log
    read, damaged = getattr(log, what), looks.broker.numbers([looks.name])[0]

    def fail(number: int, *rest: object) -> object:
        if number == damaged:
            raise StorageFailed("a block is damaged")
        return read(number, *rest)

    monkeypatch.setattr(log, what, fail)
    for _ in range(3):
        looks.rest(looks.look())
    assert looks.count == COUNT
    assert looks.broker.core.channels.find(other).visible.message_count == 2
    assert caplog.messages == [f"nothing is removed from channel {looks.name}: a block is damaged"]


def test_given_many_channels_with_rules_of_their_own_when_looked_then_the_broker_s_cap_holds_too(looks: Looks) -> None:
    (large,) = looks.broker.channels(1)
    for _ in range(10):
        looks.broker.produce(large, bytes(1_000))
    for name in looks.broker.channels(trimmer.TRIMS_MAX + 1):
        looks.broker.do(SetChannel(name, {"max_messages": 1}))
        looks.broker.produce(name, b"x")
        looks.broker.produce(name, b"x")
    looks.broker.core.retention.section = RetentionSection(total_bytes_max=2_000)
    looks.rest(looks.look())
    assert looks.broker.core.channels.find(large).visible.message_count <= 2


def test_given_a_clock_that_steps_in_the_midst_of_a_look_when_that_goes_on_then_it_goes_by_the_time_before(
    looks: Looks, monkeypatch: pytest.MonkeyPatch
) -> None:
    (other,) = looks.broker.channels(1)
    looks.broker.do(SetChannel(other, {"max_age_ms": 60_000}))
    looks.broker.produce(other, b"x")
    monkeypatch.setattr(trimmer, "clock_ms", lambda: looks.broker.now_ms)
    look = looks.first_turn()
    looks.broker.now_ms += 3_600_000
    looks.rest(look)
    assert looks.broker.core.channels.find(other).visible.message_count == 1


def test_given_a_full_disk_when_the_clock_is_noted_then_it_is_by_the_next_look(looks: Looks) -> None:
    looks.set_rules({"max_age_ms": 60_000})
    looks.broker.store.on_write = fail(DiskFull("the disk is full"))
    looks.rest(looks.look())
    looks.broker.store.on_write = lambda: None
    assert looks.broker.store.get(Family.META, keys.CLOCK) is None
    looks.rest(looks.look())
    assert looks.broker.store.get(Family.META, keys.CLOCK) is not None


def test_given_empty_messages_at_the_cut_when_looked_then_they_stay_with_what_the_cap_keeps(looks: Looks) -> None:
    looks.set_rules({})
    (name,) = looks.broker.channels(1)
    for payloads in ([b"x" * 10], [b""] * 5, [b""] * 5, [b"x" * 10]):
        looks.broker.produce(name, *payloads)
    looks.broker.do(SetChannel(name, {"max_bytes": 10}))
    looks.rest(looks.look())
    assert looks.broker.core.channels.find(name).visible.message_count == 11
