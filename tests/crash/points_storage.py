"""The fail points of storage: opening, group commits, the durable mark, reading, closing.

Reached in the loop's thread; those of the sync, the mark and compaction also in threads of their own.
"""

import os
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from rocksmq.broker import keys
from rocksmq.broker.core import Core
from rocksmq.broker.mark import MarkFile
from rocksmq.broker.store import Change, DeleteRange, Family, Put, Store

from .faults import Faults, Method, wrap
from .points import Action


def install(faults: Faults) -> None:
    """Wrap the storage of this process."""
    _install_in_start(faults)
    _install_in_commits(faults)
    _install_in_mark(faults)
    _install_in_closing(faults)


def _install_in_start(faults: Faults) -> None:
    def opened(original: Method, store: Store, *arguments: Any) -> None:
        faults.reach("before-open")
        original(store, *arguments)
        faults.reach("after-open")

    def scan(original: Method, store: Store, family: Family, *span: bytes, **options: Any) -> Iterator[tuple[bytes, bytes]]:
        faults.reach("in-recovery" if family is Family.META else "in-read")
        entries: Iterator[tuple[bytes, bytes]] = original(store, family, *span, **options)
        return entries

    wrap(Store, "__init__", opened)
    wrap(Store, "scan", scan)


def _install_in_commits(faults: Faults) -> None:
    def write(original: Method, store: Store, changes: list[Change]) -> None:
        kinds = tuple(_kinds(changes))
        faults.reach("before-write")
        for kind in kinds:
            faults.reach(f"before-{kind}")
        original(store, changes)
        faults.reach("after-write")
        for kind in kinds:
            faults.reach(f"in-{kind}")

    def sync(original: Method, store: Store) -> None:
        due = faults.due("during-sync")
        if any(fault.action is Action.KILL for fault in due):
            _while_running(lambda: original(store), lambda: faults.strike(due))
        faults.strike(due)
        original(store)
        faults.reach("after-sync")

    def compact(original: Method, store: Store, *arguments: Any) -> None:
        faults.reach("in-compact")
        original(store, *arguments)

    wrap(Store, "write", write)
    wrap(Store, "sync", sync)
    wrap(Store, "compact", compact)


def _kinds(changes: Iterable[Change]) -> Iterator[str]:
    """What a commit is about, as the points call it."""
    puts = {change.key for change in changes if isinstance(change, Put) and change.family is Family.META}
    if keys.IDS in puts:
        yield "window"
    if any(key.startswith(keys.SETTINGS) for key in puts):
        yield "create"
    if any(key.startswith(keys.GROUP) for key in puts):
        yield "meta"
    if any(isinstance(change, DeleteRange) for change in changes):
        yield "destroy"


def _while_running(work: Callable[[], None], strike: Callable[[], None]) -> None:
    """Let ``strike`` happen while ``work`` runs without the GIL, and at the latest before anything that comes after it."""
    begins = threading.Event()

    def wait() -> None:
        begins.wait()
        strike()

    striking = threading.Thread(target=wait)
    striking.start()
    begins.set()
    work()
    striking.join()


def _install_in_mark(faults: Faults) -> None:
    def write(original: Method, mark: MarkFile, number: int) -> None:
        faults.reach("before-mark")
        original(mark, number)
        faults.reach("after-mark")

    def fdatasync(original: Method, fd: int) -> None:
        faults.reach("in-mark")
        original(fd)

    wrap(MarkFile, "write", write)
    wrap(os, "fdatasync", fdatasync)  # of all that is written in Python, only the mark is synced so


def _install_in_closing(faults: Faults) -> None:
    def close_core(original: Method, core: Core) -> None:
        faults.reach("on-close")
        original(core)

    def close_store(original: Method, store: Store) -> None:
        faults.reach("on-store-close")
        original(store)

    wrap(Core, "close", close_core)
    wrap(Store, "close", close_store)
