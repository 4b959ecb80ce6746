"""`rocksmq backup`: a copy of a running broker's data, its examination, and a data directory made of it.

`create` asks the broker for a checkpoint (checkpoints.py) and copies from there; neither needs the other after that. `restore`
makes a data directory of its own: under a new instance id, with the positions in it wherever they were.
"""

import os
import secrets
import shutil
from collections.abc import Callable, Generator, Iterable
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from time import monotonic
from typing import Any, NamedTuple

from rocksmq.protocol.administration import BackupBegin, BackupBegun, BackupEnd
from rocksmq.protocol.errors import RocksMQError

from . import keys
from .backup_files import RESERVE_BYTES, BackupFailed, BackupMisused, Shorter, Tick
from .backup_manifest import BackupFile, Manifest
from .backup_source import copy_out, differences, manifest_of, unpack, unpacked_bytes
from .backup_target import Target
from .check import Item, Overview, Total, check
from .config import EMBEDDED
from .directory import FORMAT, lock, sync_directory, unlock, write_format
from .findings import Finding
from .live_links import TABLE
from .mark import MarkFile
from .meta_embedded import stored_binding, stored_groups
from .meta_shadow import MetaShadow
from .store import Delete, Family, Store, looking_at

RENEW_SECONDS = 10.0  # between two renewals of the lease
HOLDER = "rocksmq backup restore"  # what the lock says meanwhile
NEVER_MIND = {"lost+found"}  # what a new file system has

Call = Callable[[Any], Any]  # does an operation of the broker by its typed request
Progress = Callable[[int, int], None]  # gets how many bytes are done, of how many


class Lease:
    """The broker's checkpoint, while it is copied."""

    def __init__(self, call: Call) -> None:
        """Let the broker make it. Raises RocksMQError."""
        self._call = call
        self._request_id = secrets.token_bytes(16)
        self.begun: BackupBegun = call(BackupBegin(self._request_id))
        self._due = monotonic() + RENEW_SECONDS

    def keep(self) -> None:
        """Renew it when that is due. Raises BackupFailed, RocksMQError."""
        if monotonic() >= self._due:
            begun: BackupBegun = self._call(BackupBegin(self._request_id))
            if begun.path != self.begun.path:
                raise _taken_away()
            self._due = monotonic() + RENEW_SECONDS

    def end(self) -> None:
        """The broker may remove it. If that cannot be said, it does so by itself when the lease is over."""
        with suppress(RocksMQError):
            self._call(BackupEnd(self._request_id))


def _taken_away() -> BackupFailed:
    return BackupFailed(
        "the broker has given up the checkpoint that was being copied: it was started anew, its disk became full, or this"
        " command was stopped for a minute; the broker's log says which. Give the command again"
    )


class Created(NamedTuple):
    """A backup that is finished."""

    manifest: Manifest
    copied_bytes: int
    linked_bytes: int


def create(lease: Lease, target: Target, progress: Progress) -> Created:
    """Copy the checkpoint to ``target``. Raises BackupFailed, DataRefused, RocksMQError, OSError."""
    path = Path(lease.begun.path)
    manifest = _looked_at(path, lease.begun)
    target.begin(manifest, path)
    tick = _ticking(manifest.byte_count, progress, lease.keep)
    try:
        files = tuple(target.add(path / file.name.removeprefix("db/"), file, tick) for file in manifest.files)
    except FileNotFoundError as error:
        if path not in Path(str(error.filename)).parents:
            raise
        raise _taken_away() from error
    except Shorter as error:
        raise BackupFailed(f"a file of the checkpoint became shorter: {error}") from error
    manifest = manifest._replace(files=files)
    target.finish(manifest)
    return Created(manifest, target.copied_bytes, target.linked_bytes)


def _ticking(total: int, progress: Progress, also: Callable[[], None] = lambda: None) -> Tick:
    done = 0

    def tick(more: int) -> None:
        nonlocal done
        done += more
        progress(done, total)
        also()

    return tick


def _looked_at(checkpoint: Path, begun: BackupBegun) -> Manifest:
    """The manifest of a backup of ``checkpoint``, still without digests. Raises BackupFailed, DataRefused, OSError."""
    try:
        is_here = (checkpoint / "CURRENT").is_file()
    except PermissionError:
        is_here = False
    if not is_here:
        raise BackupFailed(
            f"the broker made a checkpoint in {checkpoint}, which cannot be seen from here: run this command on the broker's"
            " machine, in its container if it has one, as its user"
        )
    with looking_at(checkpoint) as store:
        if store is None:
            raise BackupFailed(f"the checkpoint in {checkpoint} holds no database")
        number = _commit_number(store)
        if number < begun.mark:
            raise BackupFailed(f"the checkpoint ends at group commit {number}, before {begun.mark}, which was written: a bug")
        if store.log_gap is not None:
            raise BackupFailed(f"the checkpoint lacks what was written: {store.log_gap}: a bug")
        bound = stored_binding(store)
        has_positions = bound.store == EMBEDDED or MetaShadow(store).commit is not None
        tables = {table.name for table in store.tables()}
    names = [name for name in sorted(os.listdir(checkpoint)) if not name.endswith(TABLE) or name in tables]
    files = tuple(BackupFile(f"db/{name}", (checkpoint / name).stat().st_size, "0" * 64) for name in names)
    created = datetime.now(UTC).isoformat(timespec="seconds")
    return Manifest(FORMAT, begun.instance, created, begun.mark, number, bound.store, has_positions, files)


def _commit_number(store: Store) -> int:
    stored = store.get(Family.META, keys.COMMIT_NUMBER)
    return 0 if stored is None else keys.from_u64(stored)


# -- verify --------------------------------------------------------------------------


def verify(backup: Path, progress: Progress, say: Callable[[str], None]) -> Generator[Item]:
    """Compare a backup's files with its manifest, then check all that is in them, as `check` does of a data directory.

    A tar is unpacked for that: ``say`` gets where. Raises BackupMisused, BackupFailed, DataRefused, OSError.
    """
    if backup.is_dir():
        manifest = manifest_of(backup)
        yield from _verified(manifest, backup, backup, differences(manifest, backup, _ticking(manifest.byte_count, progress)))
        return
    size = unpacked_bytes(backup)
    with TemporaryDirectory(prefix=".rocksmq-", dir=_roomy(backup, size)) as name:
        say(f"unpacking {size:,} bytes into {name}")
        manifest = unpack(backup, Path(name), _ticking(size, progress))
        yield from _verified(manifest, Path(name), backup, ())


def _roomy(backup: Path, size: int) -> Path:
    """Beside the backup, or where temporary files go. Raises BackupFailed."""
    places = (backup.resolve().parent, Path(gettempdir()))
    for place in places:
        if os.access(place, os.W_OK) and shutil.disk_usage(place).free >= size + RESERVE_BYTES:
            return place
    raise BackupFailed(
        f"{size >> 20} MiB are needed to unpack it, and neither {places[0]} nor {places[1]} has them: TMPDIR names another"
    )


def _verified(manifest: Manifest, files: Path, shown: Path, found: Iterable[Finding]) -> Generator[Item]:
    """``files`` is where they lie, ``shown`` what they are called."""
    problems = 0
    for finding in found:
        problems += finding.is_problem
        yield finding
    with TemporaryDirectory(prefix="rocksmq-") as name:
        view = Path(name)
        write_format(view, manifest.instance)
        MarkFile.create(view / "mark", manifest.commit_number).close()
        (view / "db").symlink_to((files / "db").resolve())
        for item in check(view):
            yield _named(item, {name: str(shown), str(files): str(shown)}, problems)


def _named(item: Item, names: dict[str, str], problems: int) -> Item:
    if isinstance(item, Overview):
        return item._replace(path=Path(next(iter(names.values()))))
    if isinstance(item, Finding):
        text = item.text
        for there, name in names.items():
            text = text.replace(there, name)
        return item._replace(text=text)
    return item._replace(problems=item.problems + problems) if isinstance(item, Total) else item


# -- restore -------------------------------------------------------------------------


class Restored(NamedTuple):
    """A data directory that was made. ``positions_from``: the store elsewhere that kept the positions, None: it was none."""

    instance: str
    commit_number: int
    groups: int
    positions_from: str | None
    has_positions: bool
    manifest: Manifest


def restore(backup: Path, directory: Path, progress: Progress) -> Restored:
    """Make the data directory ``directory``, which is absent or empty, of a backup.

    Until it is finished no broker starts on it. Raises BackupMisused, BackupFailed, DirectoryInUse, DataRefused, DiskFull,
    OSError; then nothing is left in it.
    """
    with _new_directory(directory) as fd:
        if backup.is_dir():
            total = manifest_of(backup).byte_count
            manifest = copy_out(backup, directory, _ticking(total, progress))
        else:
            manifest = unpack(backup, directory, _ticking(unpacked_bytes(backup), progress))
        restored = _made_its_own(directory, manifest)
        os.ftruncate(fd, 0)
        write_format(directory, restored.instance)  # last: without it the directory is refused
        sync_directory(directory)
    return restored


@contextmanager
def _new_directory(directory: Path) -> Generator[int]:
    """The locked lock of ``directory``. If the block fails, it leaves that as it was."""
    is_new = not os.path.lexists(directory)
    if not is_new:
        _check_empty(directory, NEVER_MIND)
    if not directory.parent.is_dir():
        raise BackupMisused(f"{directory.parent} is no directory")
    directory.mkdir(mode=0o700, exist_ok=True)
    sync_directory(directory.parent)
    fd = lock(directory / "lock", HOLDER)
    try:
        _check_empty(directory, {*NEVER_MIND, "lock"})  # others may have begun meanwhile, and ended
        try:
            yield fd
        except BaseException:
            for entry in os.scandir(directory):
                if entry.name not in NEVER_MIND:
                    shutil.rmtree(entry.path) if entry.is_dir(follow_symlinks=False) else os.unlink(entry.path)
            if is_new:
                directory.rmdir()
            raise
    finally:
        unlock(fd)


def _check_empty(directory: Path, but: set[str]) -> None:
    if not directory.is_dir() or set(os.listdir(directory)) - but:
        raise BackupMisused(f"{directory} is not empty: a backup is restored into a directory that is empty or absent")


def _made_its_own(directory: Path, manifest: Manifest) -> Restored:
    """Bind the data to nothing outside of it; the mark is what is there."""
    with closing(Store(directory / "db")) as store:
        number = _commit_number(store)
        if number < manifest.commit_number:
            raise BackupFailed(
                f"the backup goes up to group commit {manifest.commit_number}, and {number} is all that can be read of it:"
                " it is damaged"
            )
        if store.log_gap is not None:
            raise BackupFailed(f"the backup lacks what was written: {store.log_gap}")
        bound = stored_binding(store)
        has_positions = bound.store == EMBEDDED or MetaShadow(store).commit is not None
        groups = sum(1 for _ in stored_groups(store))
        store.write([Delete(Family.META, keys.META_BINDING), Delete(Family.META, keys.META_SHADOW)])
        store.sync()
    MarkFile.create(directory / "mark", number).close()
    positions_from = None if bound.store == EMBEDDED else bound.store
    return Restored(secrets.token_hex(16), number, groups, positions_from, has_positions, manifest)
