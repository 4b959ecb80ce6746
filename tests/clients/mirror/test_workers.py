import threading
from collections.abc import Callable, Iterator
from functools import partial
from queue import Queue

import pytest

from rocksmq.clients.mirror import workers
from rocksmq.clients.mirror.course import Room
from rocksmq.clients.mirror.lane import Lane
from rocksmq.clients.mirror.options import MirrorOptions
from rocksmq.clients.mirror.workers import HUNG_OPENERS, Result, Workers
from rocksmq.protocol.errors import InternalError, RocksMQError, Timeout
from tests.clients.support import PATIENCE, wait_until

OPTIONS = MirrorOptions(source="rocksmq://h", target="pulsar://h", channels=("a",))


def lane(name: str, hangs: int = 0) -> Lane:
    made = Lane(OPTIONS, name, 1, Room(1), lambda answer: None)
    made.hangs = hangs
    return made


class Loop:
    """As the mirror's: does what comes back."""

    def __init__(self) -> None:
        self.errors: list[RocksMQError] = []
        self._results: Queue[Result] = Queue()
        self.workers = Workers(self._results.put, self._failing)

    def _failing(self, lane: Lane, opening: int, error: RocksMQError) -> Result:
        return lambda: self.errors.append(error)

    def until(self, is_so: Callable[[], object]) -> None:
        while not is_so():
            self._results.get(timeout=PATIENCE)()


@pytest.fixture
def loop() -> Iterator[Loop]:
    made = Loop()
    yield made
    made.workers.close()


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """Whoever hangs, hangs until it is open."""
    made = threading.Event()
    yield made
    made.set()


def hang(loop: Loop, gate: threading.Event, count: int) -> list[Lane]:
    """So many lanes that have hung before, and do so now."""

    def job() -> None:
        gate.wait(PATIENCE)

    hung = [lane(f"hung{number}", hangs=1) for number in range(count)]
    for one in hung:
        loop.workers.do(one, job)
    return hung


def test_given_lanes_that_hang_again_when_others_have_work_then_it_is_done_at_once(
    gate: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "OPENERS", HUNG_OPENERS)
    loop = Loop()
    hung = hang(loop, gate, HUNG_OPENERS * 2)
    done: list[str] = []
    loop.workers.do(lane("good"), lambda: lambda: done.append("good"))
    loop.until(lambda: done)
    asked = threading.Event()
    loop.workers.ask(asked.set)
    assert asked.wait(PATIENCE)
    assert all(one.is_busy for one in hung)
    gate.set()
    loop.workers.close()


def test_given_lanes_that_have_hung_when_there_is_room_then_those_that_did_less_often_are_first(
    gate: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "HUNG_OPENERS", 1)
    loop, order = Loop(), list[int]()
    first = hang(loop, gate, 1)
    wait_until(lambda: not first[0].jobs)
    waiting = [lane(f"l{hangs}", hangs) for hangs in (5, 3, 1, 4, 2)]
    for one in waiting:
        loop.workers.do(one, partial(order.append, one.hangs))
    gate.set()
    loop.until(lambda: not any(one.is_busy for one in waiting))
    loop.workers.close()
    assert order == [1, 2, 3, 4, 5]


def test_given_a_lane_when_it_takes_long_then_that_is_noted_until_it_is_quick_again(
    loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = lane("a")

    def fail() -> None:
        raise Timeout("hangs")

    monkeypatch.setattr(workers, "HANG_SECONDS", 0.0)
    for job in (fail, lambda: None):
        loop.workers.do(one, job)
        loop.until(lambda: not one.is_busy)
    assert one.hangs == 2
    monkeypatch.setattr(workers, "HANG_SECONDS", PATIENCE)
    loop.workers.do(one, fail)
    loop.until(lambda: not one.is_busy)
    assert one.hangs == 2
    loop.workers.do(one, lambda: None)
    loop.until(lambda: not one.is_busy)
    assert one.hangs == 0


def test_given_jobs_of_one_lane_when_done_then_in_order_and_a_bug_is_told(loop: Loop) -> None:
    one, done = lane("a"), list[int]()
    for number in range(50):
        loop.workers.do(one, lambda number=number: done.append(number))  # type: ignore[misc]
    loop.workers.do(one, lambda: 1 // 0)  # type: ignore[arg-type, return-value]
    loop.until(lambda: not one.is_busy)
    assert done == list(range(50))
    assert isinstance(loop.errors[0], InternalError)
