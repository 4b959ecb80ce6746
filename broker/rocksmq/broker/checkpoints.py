"""Checkpoints for backups (SPEC §3.30): made, kept while somebody copies from them, removed whatever becomes of that.

A checkpoint keeps old files on the disk, so it lives by a lease that whoever copies renews: a command that was killed lets
go of it within `LEASE_SECONDS`. It goes at once when the disk becomes full. Owns DIR/checkpoint-<random>; one at a time.
"""

import logging
import secrets
import shutil
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import trio

from rocksmq.protocol.administration import BackupBegin, BackupBegun, BackupEnd
from rocksmq.protocol.errors import DiskFull, InternalError, Overloaded, RocksMQError, ShuttingDown
from rocksmq.protocol.operations import (
    Empty,
)

from .commit import Committer, Done
from .directory import CHECKPOINT, DataDirectory
from .disk import DiskGuard

logger = logging.getLogger("rocksmq.broker")

LEASE_SECONDS = 60.0  # a command renews it each ten seconds; a disk that hangs must not end it
LOOK_SECONDS = 1.0  # between two looks at the disk
RETRY_SECONDS = 1.0


class _Checkpoint:
    """One of them. Until it is made, ``reply`` is None and those who asked wait; ``is_over``: it is to be removed."""

    def __init__(self, request_id: bytes, path: Path) -> None:
        self.request_id = request_id
        self.path = path
        self.reply: BackupBegun | None = None
        self.is_over = False
        self.lease_end = 0.0
        self.ended = trio.Event()
        self.beginning: list[Done] = []
        self.ending: list[Done] = []

    def renew(self) -> None:
        self.lease_end = trio.current_time() + LEASE_SECONDS

    def end(self) -> None:
        self.is_over = True
        self.ended.set()

    def begun(self, reply: BackupBegun | RocksMQError) -> None:
        """Answer who asked for it."""
        waiting, self.beginning = self.beginning, []
        for done in waiting:
            done(type(reply)(reply.message) if isinstance(reply, RocksMQError) else reply)


class Checkpoints:
    """``spawn``, which starts a task, is set once by the owner. All in the loop's thread, but for the files."""

    spawn: Callable[[Callable[[], Awaitable[None]]], None]

    def __init__(self, directory: DataDirectory, committer: Committer, disk: DiskGuard) -> None:
        self.handlers: dict[type[Any], Callable[[Any, Done], None]] = {BackupBegin: self._begin, BackupEnd: self._end}
        self._directory = directory
        self._committer = committer
        self._disk = disk
        self._held: _Checkpoint | None = None
        self._thread = trio.CapacityLimiter(1)  # its own, lest it takes one from syncs
        self._left_over = list(directory.path.glob(f"{CHECKPOINT}*"))

    async def remove_left_over(self) -> None:
        """Remove what the broker before left behind: in a thread, as much data may go with it."""
        for path in self._left_over:
            await self._in_thread(_remove, path)

    def _begin(self, request: BackupBegin, done: Done) -> None:
        """As a handler of `Core`. Raises DiskFull, Overloaded."""
        held = self._held
        if held is not None and (held.is_over or held.request_id != request.request_id):
            raise Overloaded(
                f"another backup is under way: try again; one whose command was killed is given up after {LEASE_SECONDS:.0f} s",
                retry_after=RETRY_SECONDS,
            )
        if held is None:
            self._check_disk()
            held = self._held = _Checkpoint(request.request_id, self._directory.path / f"{CHECKPOINT}{secrets.token_hex(8)}")
            self.spawn(partial(self._live, held, self._committer.written_number))
        if held.reply is None:
            held.beginning.append(done)
        else:
            held.renew()
            done(held.reply)

    def _end(self, request: BackupEnd, done: Done) -> None:
        """As a handler of `Core`."""
        held = self._held
        if held is None or held.request_id != request.request_id:
            done(Empty())
        else:
            held.ending.append(done)
            held.end()

    def _check_disk(self) -> None:
        self._disk.look()
        if self._disk.is_full:
            raise DiskFull(
                f"the broker's disk has {self._disk.free_bytes >> 20} MiB free, less than the reserve, and a backup keeps what"
                " is deleted meanwhile: free space first"
            )

    async def _live(self, checkpoint: _Checkpoint, mark: int) -> None:
        """The life of one, as a task. ``mark``: the last commit that was written before it."""
        try:
            path = checkpoint.path.resolve()
            await self._in_thread(self._directory.store.checkpoint, path)
            checkpoint.reply = BackupBegun(str(path), self._directory.instance, mark, round(LEASE_SECONDS * 1000))
            checkpoint.renew()
            logger.info("a backup begins, at group commit %d or behind it, from %s", mark, path)
            checkpoint.begun(checkpoint.reply)
            await self._watch(checkpoint)
        except trio.Cancelled:
            checkpoint.begun(ShuttingDown("the broker is stopping: try again once it is back"))
            raise
        except RocksMQError as error:
            checkpoint.begun(error)
        except Exception:
            logger.exception("a bug: a checkpoint could not be made")
            checkpoint.begun(InternalError("the broker met a bug; its log has the details"))
        finally:
            checkpoint.end()
            with trio.CancelScope(shield=True):
                await self._in_thread(_remove, checkpoint.path)
            self._held = None
            for done in checkpoint.ending:
                done(Empty())

    async def _watch(self, checkpoint: _Checkpoint) -> None:
        """Until it is to be removed."""
        while not checkpoint.is_over:
            with trio.move_on_after(LOOK_SECONDS):
                await checkpoint.ended.wait()
                logger.info("a backup is over")
                return
            self._disk.look()
            if self._disk.is_full:
                logger.warning("a backup is given up: the disk is full, and it keeps what is deleted")
                return
            if trio.current_time() >= checkpoint.lease_end:
                logger.warning("a backup is given up: its command was not heard of for %.0f s", LEASE_SECONDS)
                return

    async def _in_thread(self, function: Callable[[Path], None], path: Path) -> None:
        await trio.to_thread.run_sync(function, path, limiter=self._thread)


def _remove(path: Path) -> None:
    try:
        with suppress(FileNotFoundError):
            shutil.rmtree(path)
    except OSError:
        logger.exception("the checkpoint %s could not be removed, and keeps deleted data: the next start tries again", path)
