"""A load in a process of its own, so that neither the broker nor the honest client shares an interpreter with it.

The child runs one Trio function, which says when it is at work, goes on until it is told to end, and returns its counts.
"""

import multiprocessing
import resource
from collections.abc import Awaitable, Callable
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

import trio

Counts = dict[str, int]
Told = TypeVar("Told")  # what the child has to tell at its end
READY_SECONDS = 180.0
END_SECONDS = 60.0


class Orders:
    """The child's side of what its parent tells it."""

    def __init__(self, pipe: "Connection[Any, None]") -> None:
        self._pipe = pipe

    def is_ready(self) -> None:
        """The load is at work: the parent may begin to measure."""
        self._pipe.send(None)

    async def ended(self) -> None:
        """Wait for the parent's word, or its death."""
        await trio.lowlevel.wait_readable(self._pipe.fileno())


class Load(Generic[Told]):
    """``work(orders, *arguments)`` in a child; a context manager that leaves no process behind."""

    def __init__(self, work: Callable[..., Awaitable[Told]], *arguments: Any) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, self._theirs = context.Pipe()
        self._process = context.Process(target=_run, args=(self._theirs, work, arguments), daemon=True)

    def __enter__(self) -> Self:
        """Returns once it is at work."""
        self._process.start()
        self._theirs.close()  # so that the end of that process is noticed
        try:
            self._heard(READY_SECONDS)
        except BaseException:
            self._kill()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._kill()

    def stop(self) -> None:
        """Tell it to end."""
        self._pipe.send(None)

    def end(self) -> Told:
        """Tell it to end; what it has to tell."""
        self.stop()
        return self.told(END_SECONDS)

    def told(self, seconds: float) -> Told:
        """What a load has to tell that ends by itself within ``seconds``."""
        told: Told = self._heard(seconds)
        self._process.join()
        return told

    def _heard(self, seconds: float) -> Any:
        if not self._pipe.poll(seconds):
            raise RuntimeError(f"the load said nothing for {seconds:g} s")
        return self._pipe.recv()

    def _kill(self) -> None:
        self._process.kill()
        self._process.join()
        self._pipe.close()


def raise_file_limit() -> None:
    """As many open files as this user may have; a broker started from here inherits it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _run(pipe: "Connection[Any, None]", work: Callable[..., Awaitable[Any]], arguments: tuple[Any, ...]) -> None:
    raise_file_limit()
    pipe.send(trio.run(work, Orders(pipe), *arguments))
