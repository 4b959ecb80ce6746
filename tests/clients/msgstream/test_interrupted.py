"""An interrupt at every call and every return inside of a stream's methods: where a signal handler may raise."""

import gc
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import pytest

from rocksmq.clients.msgstream import MsgPack, MsgStream
from tests.clients.msgstream.worlds import (
    PATIENCE,
    MemWorld,
    drained,
    insert,
    numbers,
    plain_reader,
    produce,
    reader,
    search,
    tick,
    writer,
)

# What strikes where a generator is closed is nobody's.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
POINTS_MAX = 20_000  # above what there are
OWN = "/rocksmq/clients/"


class Interrupted(BaseException):
    """What is raised."""


class InterruptAt:
    """Raises at the ``point``-th call or return in the library, of this thread; ``struck`` says whether there was one.

    Not at the return of consume itself: behind it no signal is looked at.
    """

    def __init__(self, point: int) -> None:
        self._left = point
        self.struck = False

    def __enter__(self) -> "InterruptAt":
        sys.setprofile(self._profile)
        return self

    def __exit__(self, *exception: object) -> None:
        sys.setprofile(None)

    def _profile(self, frame: FrameType, event: str, argument: Any) -> None:
        is_end = frame.f_code is MsgStream.consume.__code__ and event == "return"
        if OWN not in frame.f_code.co_filename or self.struck or is_end:
            return
        self._left -= 1
        if not self._left:
            self.struck = True
            raise Interrupted


@pytest.fixture(autouse=True)
def _no_collector() -> Iterator[None]:
    """What is raised in a callback of the collector is nobody's."""
    gc.disable()
    yield
    gc.enable()


def loaded() -> tuple[MemWorld, list[str]]:
    """Two channels with messages on time, straddling and late, and ticks."""
    world = MemWorld()
    channels = world.channels(2)
    with writer(world, channels) as out:
        produce(out, search(1, 5, key=0), search(2, 7, key=1))
        produce(out, insert(3, [8, 14], key=1))
        tick(out, 10)
        produce(out, search(4, 12, key=0), search(5, 9, key=1))
        tick(out, 20)
        tick(out, 30)
    return world, channels


def read_all(stream: MsgStream, consume: Callable[[], MsgPack | None]) -> list[MsgPack]:
    """All packs: by ``consume`` the first time, then as usual."""
    packs: list[MsgPack] = []
    try:
        while (pack := consume()) is not None:
            packs.append(pack)
    except Interrupted:
        while (pack := stream.consume(timeout=0.0)) is not None:
            packs.append(pack)
    return packs


@pytest.mark.parametrize("make", [plain_reader, reader])
def test_given_an_interrupt_anywhere_when_consuming_then_every_pack_comes_once(make: Any) -> None:
    world, channels = loaded()
    with make(world, channels, name="undisturbed") as stream:
        expected = [numbers(pack) for pack in drained(stream)]

    for point in range(1, POINTS_MAX):
        name = f"reader-{point}"
        with make(world, channels, name=name) as stream:
            interrupt = InterruptAt(point)

            def consume(stream: MsgStream = stream, interrupt: InterruptAt = interrupt) -> MsgPack | None:
                with interrupt:
                    return stream.consume(timeout=0.0)

            packs = read_all(stream, consume)
            assert [numbers(pack) for pack in packs] == expected, f"interrupted at {point}"
        with make(world, channels, name=name) as following:
            assert following.consume(timeout=0.0) is None
        if not interrupt.struck:
            return
    raise AssertionError("there were more points")


def test_given_an_interrupt_anywhere_when_sought_then_it_stands_before_or_behind_and_goes_on() -> None:
    world, channels = loaded()
    with reader(world, channels, name="undisturbed") as stream:
        packs = drained(stream)
    shape = [numbers(pack) for pack in packs]

    for point in range(1, POINTS_MAX):
        with reader(world, channels, name=f"reader-{point}") as stream:
            assert numbers(stream.consume(timeout=0.0)) == shape[0]
            interrupt = InterruptAt(point)
            try:
                with interrupt:
                    stream.seek(packs[1].end_positions)
            except Interrupted:
                pass
            found = [numbers(pack) for pack in drained(stream)]
            assert found in ([shape[2:]] if not interrupt.struck else [shape[1:], shape[2:]]), f"interrupted at {point}"
        if not interrupt.struck:
            return
    raise AssertionError("there were more points")


def test_given_an_interrupt_anywhere_when_closing_then_the_last_pack_comes_again_or_not_but_nothing_else() -> None:
    world, channels = loaded()
    with reader(world, channels, name="undisturbed") as stream:
        shape = [numbers(pack) for pack in drained(stream)]

    for point in range(1, POINTS_MAX):
        name = f"reader-{point}"
        stream = reader(world, channels, name=name)
        stream.consume(timeout=0.0)
        interrupt = InterruptAt(point)
        try:
            with interrupt:
                stream.close()
        except Interrupted:
            stream.close()
        with reader(world, channels, name=name) as following:
            found = [numbers(pack) for pack in drained(following)]
        assert found in ([shape[1:]] if not interrupt.struck else [shape, shape[1:]]), f"interrupted at {point}"
        if not interrupt.struck:
            return
    raise AssertionError("there were more points")


def test_given_a_pack_lost_on_its_way_to_one_thread_when_another_consumes_then_it_gets_the_next() -> None:
    world, channels = loaded()
    found: list[MsgPack | None] = []
    for point in range(1, POINTS_MAX):
        with reader(world, channels, name=f"reader-{point}") as stream:
            try:
                with InterruptAt(point):
                    stream.consume(timeout=0.0)
            except Interrupted:
                if stream._hand is None:  # pyright: ignore[reportPrivateUsage]
                    continue
            other = threading.Thread(target=lambda: found.extend(drained(stream)), daemon=True)
            other.start()
            other.join(PATIENCE)
            break
    assert [numbers(pack) for pack in found] == [[4, 3, 5], []]
