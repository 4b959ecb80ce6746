"""Hard links to the files of a running RocksDB: one state of it, as a kill -9 would have left it.

RocksDB's own checkpoint is not used: through rocksdict it holds the GIL while it flushes the memtables, syncs, and links each
table; nothing is served meanwhile, and the flush begins a new log behind one that was not synced. Instead of it
this relies on how RocksDB treats its files: a table never changes; a log is only appended to, and whole once there is a newer
one; neither is deleted before the manifest, which is only appended to as well, has a record of it. So what was linked while
the manifest did not grow is all that it needs; and what the newest log gets later only makes a longer prefix.
"""

import os
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

ATTEMPTS_MAX = 1_000  # a manifest grows some 20 times a second at most, an attempt takes milliseconds
COPIED_AT_ONCE = 1 << 20
TABLE, LOG = ".sst", ".log"


class NeverStill(Exception):
    """The manifest grew in each attempt."""


class _Manifest(NamedTuple):
    """The one that counts, and how long it is."""

    name: str
    size: int


def link_live_files(source: Path, target: Path) -> None:
    """Make ``target``, a directory, with all that the database in ``source`` has written so far. Raises OSError, NeverStill.

    It may be called in any thread, and holds no other up. There may be links to tables that do not belong to the database
    yet, or no longer.
    """
    target.mkdir(mode=0o700)
    linked: set[str] = set()
    for _ in range(ATTEMPTS_MAX):
        before = _manifest(source)
        while new := _link_new(source, target, linked):  # a file that appears during a look may be missed by it
            linked |= new
        if before is not None and _manifest(source) == before:
            _copy_beginning(source / before.name, target / before.name, before.size)
            (target / "CURRENT").write_text(f"{before.name}\n")
            return
    raise NeverStill(f"the database in {source} is never still")


def _manifest(source: Path) -> _Manifest | None:
    """None while another one is put in its place."""
    name = (source / "CURRENT").read_text().strip()
    try:
        return _Manifest(name, (source / name).stat().st_size)
    except FileNotFoundError:
        return None


def _link_new(source: Path, target: Path, linked: set[str]) -> set[str]:
    """Link the tables and logs that are not linked yet; their names."""
    new: set[str] = set()
    with os.scandir(source) as entries:
        for entry in entries:
            if entry.name.endswith((TABLE, LOG)) and entry.name not in linked:
                with suppress(FileNotFoundError):  # it is needed no longer; the manifest tells if that is new
                    os.link(entry.path, target / entry.name)
                    new.add(entry.name)
    return new


def _copy_beginning(source: Path, target: Path, size: int) -> None:
    with source.open("rb") as file, target.open("xb") as out:
        while size:
            piece = file.read(min(size, COPIED_AT_ONCE))
            if not piece:
                raise OSError(f"{source} became shorter")
            out.write(piece)
            size -= len(piece)
