"""Groups that nobody reads, on clocks that the test moves: which are destroyed, which never."""

from collections.abc import Callable
from types import SimpleNamespace

import pytest
import trio

from rocksmq.broker import groups, idle_groups
from rocksmq.protocol.errors import MetaUnavailable
from rocksmq.protocol.operations import Commit, Consume, CreateGroup, Empty, Position, Seek

from .many_support import ManyBroker

IDLE_SECONDS = 60.0


class Idle:
    """A broker with a channel of three messages and two groups: "billing" reads, "audit" does not."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, idle_seconds: float = IDLE_SECONDS) -> None:
        self.now = 1_000.0
        clock = SimpleNamespace(monotonic=lambda: self.now)
        monkeypatch.setattr(groups, "time", clock)
        monkeypatch.setattr(idle_groups, "time", clock)
        self.broker = ManyBroker()
        self.broker.core.idle_groups._idle_seconds = idle_seconds  # pyright: ignore[reportPrivateUsage]
        (self.channel,) = self.broker.channels(1)
        for group in ("audit", "billing"):
            self.broker.do(CreateGroup(self.channel, group, Position.EARLIEST, 0, self.broker.unique()))
        self.end = self.broker.produce(self.channel, b"one", b"two", b"three")
        self.consumer, self.number = self.broker.unique(), 0

    def consume(self, group: str, n: int = 1) -> None:
        self.broker.do(Consume(self.channel, group, self.consumer, self.number, n, 1 << 20, 0))
        self.number += 1

    def pass_by(self, seconds: float) -> list[str]:
        """Wait so long and look; the groups that are left."""
        self.now += seconds
        trio.run(self.broker.core.idle_groups._look)  # pyright: ignore[reportPrivateUsage]  # as `run` does again and again
        self.broker.commit()
        return sorted(self.broker.core.channels.find(self.channel).groups)


@pytest.fixture
def idle(monkeypatch: pytest.MonkeyPatch) -> Idle:
    return Idle(monkeypatch)


def test_given_a_group_that_nobody_reads_when_the_time_is_over_then_it_is_destroyed_and_told(
    idle: Idle, caplog: pytest.LogCaptureFixture
) -> None:
    idle.consume("billing")
    assert idle.pass_by(IDLE_SECONDS - 1) == ["audit", "billing"]
    idle.consume("billing")
    assert idle.pass_by(1) == ["billing"]
    assert idle.broker.core.idle_groups.expired == 1
    assert caplog.messages == [
        f"group audit of channel {idle.channel} was destroyed: nobody read its 3 unread messages for 60 s (group_idle_seconds)"
    ]


def test_given_groups_that_are_committed_or_sought_when_the_time_is_over_then_they_stay(idle: Idle) -> None:
    idle.now += IDLE_SECONDS
    generation = idle.broker.core.channels.find(idle.channel).groups["audit"].state.generation
    assert idle.broker.do(Commit(idle.channel, "audit", idle.end - 2, generation, b"")) == Empty()
    idle.broker.do(Seek(idle.channel, "billing", Position.EARLIEST, 0, idle.broker.unique()))
    assert idle.pass_by(IDLE_SECONDS - 1) == ["audit", "billing"]
    assert idle.pass_by(1) == []


def test_given_a_group_that_has_read_all_when_nothing_comes_then_it_stays_and_has_its_time_once_something_does(
    idle: Idle,
) -> None:
    idle.consume("billing", 3)
    assert idle.pass_by(IDLE_SECONDS * 10) == ["billing"]
    idle.broker.produce(idle.channel, b"four")
    assert idle.pass_by(IDLE_SECONDS - 1) == ["billing"]
    assert idle.pass_by(1) == []


def test_given_a_broker_that_was_started_again_when_looked_at_then_the_time_begins_anew(idle: Idle) -> None:
    idle.now += IDLE_SECONDS
    idle.broker.start()
    idle.broker.core.idle_groups._idle_seconds = IDLE_SECONDS  # pyright: ignore[reportPrivateUsage]
    assert idle.pass_by(IDLE_SECONDS - 1) == ["audit", "billing"]
    assert idle.pass_by(1) == []


def test_given_groups_that_cannot_be_destroyed_now_when_looked_at_then_they_stay_until_they_can(
    idle: Idle, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    found = idle.broker.core.idle_groups
    submit = found._submit  # pyright: ignore[reportPrivateUsage]

    def refuse(request: object, done: Callable[[object], None]) -> None:
        done(MetaUnavailable("etcd is away"))

    monkeypatch.setattr(found, "_submit", refuse)
    assert idle.pass_by(IDLE_SECONDS) == ["audit", "billing"]
    assert [message for message in caplog.messages if "cannot be destroyed yet: etcd is away" in message] == caplog.messages
    monkeypatch.setattr(found, "_submit", submit)
    assert idle.pass_by(0) == []
    assert found.expired == 2


def test_given_no_such_time_when_run_then_it_ends_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    idle = Idle(monkeypatch, 0.0)
    trio.run(idle.broker.core.idle_groups.run)


def test_given_positions_that_cannot_be_moved_when_the_time_is_over_then_no_group_is_idle_for_that(
    idle: Idle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(idle.broker.core.meta, "problem", "etcd is away", raising=False)
    assert idle.pass_by(IDLE_SECONDS * 10) == ["audit", "billing"]
    monkeypatch.undo()
    assert len(idle.broker.core.channels.find(idle.channel).groups) == 2
