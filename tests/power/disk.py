"""A disk in memory that knows what would be left of it without power. Pure: no FUSE, no clock, no chance but what is given.

What a file has is durable by its fsync, what a directory has by the directory's own: POSIX promises no more, and most file
systems keep more than that. So a new file is gone, synced or not, unless its directory was synced too.

    live      what a process sees                 durable   what was synced
    pending   the changes since, in their order: of each, or of a part of it, `cut` may keep some

After a `cut` the live state is what the power left. Every call raises OSError as a system call would.
"""

import errno
from collections.abc import Callable, Iterator
from enum import StrEnum
from random import Random
from typing import NamedTuple

PAGE_BYTES = 4_096
ROOT_MODE, FILE_MODE = 0o755, 0o644


class Cut(StrEnum):
    """What is left of changes that were not synced."""

    CLEAN = "clean"  # nothing
    TORN = "torn"  # of each file and directory the first ones, and of the next write a part
    REORDERED = "reordered"  # any of them, also a later one without the earlier, each page of a write by itself


class Fault(NamedTuple):
    """What befalls calls of the name ``call``, as of FUSE, on paths that contain ``path``.

    They take ``seconds`` longer, fail with ``errno`` unless that is 0, and write only this ``share`` of their bytes.
    """

    call: str
    path: str
    errno: int = 0
    seconds: float = 0.0
    share: float = 1.0


class Write(NamedTuple):
    """Bytes of a file from ``offset`` on."""

    offset: int
    data: bytes

    def apply(self, content: bytearray) -> None:
        """A file that is shorter gets zeros before it."""
        if len(content) < self.offset:
            content.extend(bytes(self.offset - len(content)))
        content[self.offset : self.offset + len(self.data)] = self.data

    def part(self, size: int) -> "Write":
        """Its first bytes."""
        return Write(self.offset, self.data[:size])

    def pages(self) -> "Iterator[Write]":
        """It, by pages of the file."""
        begin = 0
        while begin < len(self.data):
            end = begin + PAGE_BYTES - (self.offset + begin) % PAGE_BYTES
            yield Write(self.offset + begin, self.data[begin:end])
            begin = end


class Resize(NamedTuple):
    """The file has ``size`` bytes from then on."""

    size: int

    def apply(self, content: bytearray) -> None:
        """Cut it, or fill it up with zeros."""
        del content[self.size :]
        content.extend(bytes(self.size - len(content)))


class File:
    """Content, with no name of its own."""

    def __init__(self, mode: int = FILE_MODE) -> None:
        self.mode = mode
        self.live = bytearray()
        self.durable = bytearray()
        self.pending: list[Write | Resize] = []
        self.links = 0  # names that it has

    def change(self, change: Write | Resize) -> None:
        """For the live state at once, for the durable one by `sync`."""
        change.apply(self.live)
        self.pending.append(change)

    def sync(self) -> None:
        """What it has now is durable."""
        for change in self.pending:
            change.apply(self.durable)
        self.pending.clear()

    def cut(self, how: Cut, random: Random) -> int:
        """The power is gone; how many changes are lost with it, as a whole or in part."""
        kept = list(_kept(self.pending, how, random))
        lost = len(self.pending) - sum(change in kept for change in self.pending)
        for change in kept:
            change.apply(self.durable)
        self.live = bytearray(self.durable)
        self.pending.clear()
        return lost


def _kept(pending: list[Write | Resize], how: Cut, random: Random) -> Iterator[Write | Resize]:
    if how is Cut.TORN and pending:
        count = random.randrange(len(pending) + 1)
        yield from pending[:count]
        if count < len(pending) and isinstance(torn := pending[count], Write):
            yield torn.part(random.randrange(len(torn.data) + 1))
    elif how is Cut.REORDERED:
        for change in pending:
            pages = change.pages() if isinstance(change, Write) else iter((change,))
            yield from (page for page in pages if random.random() < 0.5)


class Directory:
    """Names. A change is those that it sets, all at once; None: removed."""

    def __init__(self, mode: int = ROOT_MODE) -> None:
        self.mode = mode
        self.live: dict[str, File | Directory] = {}
        self.durable: dict[str, File | Directory] = {}
        self.pending: list[dict[str, File | Directory | None]] = []

    def change(self, names: "dict[str, File | Directory | None]") -> None:
        """For the live state at once, for the durable one by `sync`."""
        _apply(names, self.live)
        self.pending.append(names)

    def sync(self) -> None:
        """What it has now is durable."""
        for names in self.pending:
            _apply(names, self.durable)
        self.pending.clear()

    def cut(self, how: Cut, random: Random) -> int:
        """The power is gone; how many changes were not synced."""
        kept: list[dict[str, File | Directory | None]] = []
        if how is Cut.TORN:
            kept = self.pending[: random.randrange(len(self.pending) + 1)]
        elif how is Cut.REORDERED:
            kept = [names for names in self.pending if random.random() < 0.5]
        count = len(self.pending)
        for names in kept:
            _apply(names, self.durable)
        self.live = dict(self.durable)
        self.pending.clear()
        return count


def _apply(names: "dict[str, File | Directory | None]", to: "dict[str, File | Directory]") -> None:
    for name, node in names.items():
        if node is None:
            to.pop(name, None)
        else:
            to[name] = node


class Disk:
    """A tree of directories, by paths as a system call has them: absolute, and normal."""

    def __init__(self) -> None:
        self.root = Directory()

    # -- names -------------------------------------------------------------------

    def node(self, path: str) -> "File | Directory":
        """Raises FileNotFoundError, NotADirectoryError."""
        found: File | Directory = self.root
        for name in filter(None, path.split("/")):
            if not isinstance(found, Directory):
                raise NotADirectoryError(errno.ENOTDIR, path)
            if name not in found.live:
                raise FileNotFoundError(errno.ENOENT, path)
            found = found.live[name]
        return found

    def directory(self, path: str) -> Directory:
        """Raises FileNotFoundError, NotADirectoryError."""
        node = self.node(path)
        if not isinstance(node, Directory):
            raise NotADirectoryError(errno.ENOTDIR, path)
        return node

    def file(self, path: str) -> File:
        """Raises FileNotFoundError, IsADirectoryError."""
        node = self.node(path)
        if not isinstance(node, File):
            raise IsADirectoryError(errno.EISDIR, path)
        return node

    def create(self, path: str, mode: int = FILE_MODE) -> File:
        """A new empty file. Raises FileExistsError."""
        file = File(mode)
        self._add(path, file)
        return file

    def mkdir(self, path: str, mode: int = ROOT_MODE) -> None:
        """Raises FileExistsError."""
        self._add(path, Directory(mode))

    def link(self, path: str, target: str) -> None:
        """Another name, ``path``, for the file ``target``. Raises FileExistsError."""
        self._add(path, self.file(target))

    def _add(self, path: str, node: "File | Directory") -> None:
        parent, name = self._parent(path)
        if name in parent.live:
            raise FileExistsError(errno.EEXIST, path)
        parent.change({name: node})
        if isinstance(node, File):
            node.links += 1

    def unlink(self, path: str) -> None:
        """Raises FileNotFoundError, IsADirectoryError."""
        file = self.file(path)
        parent, name = self._parent(path)
        parent.change({name: None})
        file.links -= 1

    def rmdir(self, path: str) -> None:
        """Raises OSError (ENOTEMPTY)."""
        if self.directory(path).live:
            raise OSError(errno.ENOTEMPTY, path)
        parent, name = self._parent(path)
        parent.change({name: None})

    def rename(self, old: str, new: str) -> None:
        """In one directory it is one change; between two, one of each, and a power cut may keep either without the other."""
        node = self.node(old)
        (source, old_name), (target, new_name) = self._parent(old), self._parent(new)
        replaced = target.live.get(new_name)
        if replaced is node:
            return
        if isinstance(replaced, Directory) and replaced.live:
            raise OSError(errno.ENOTEMPTY, new)
        if isinstance(replaced, File):
            replaced.links -= 1
        if source is target:
            source.change({old_name: None, new_name: node})
        else:
            target.change({new_name: node})
            source.change({old_name: None})

    def _parent(self, path: str) -> tuple[Directory, str]:
        parent, _, name = path.rpartition("/")
        return self.directory(parent), name

    # -- power -------------------------------------------------------------------

    def sync(self) -> None:
        """Everything is durable, as after a clean unmount."""
        for node in self._nodes(lambda directory: directory.live):
            node.sync()

    def cut(self, how: Cut, random: Random) -> int:
        """The power is gone and back; how many changes were not synced."""
        # What was removed and not synced may be there again: what is below it has its own cut then.
        return sum(node.cut(how, random) for node in list(self._nodes(lambda directory: directory.live | directory.durable)))

    def _nodes(self, names: Callable[[Directory], "dict[str, File | Directory]"]) -> "Iterator[File | Directory]":
        seen: set[int] = set()
        waiting: list[File | Directory] = [self.root]
        while waiting:
            node = waiting.pop()
            if id(node) in seen:
                continue
            seen.add(id(node))
            yield node
            if isinstance(node, Directory):
                waiting += names(node).values()
