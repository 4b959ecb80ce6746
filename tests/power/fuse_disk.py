"""The disk of `disk`, mounted: `python -m tests.power.fuse_disk MOUNTPOINT`, a process of its own. Needs libfuse3 and root.

It obeys lines of JSON on standard input, and answers each with one on standard output:

    {"cut": "torn", "seed": "7660/3"}            the power is gone, and back; answers how many changes were not synced
    {"fault": {"call": "fsync", "path": "/db/", "errno": 5, "seconds": 0.0, "share": 1.0}}, or null for none

A fault strikes the calls of that name on paths that contain that text: it takes ``seconds`` longer, fails with ``errno``
unless that is 0, and writes only this share of the bytes. Ends with its standard input.
"""

import ctypes
import errno
import json
import os
import stat
import sys
import threading
import time
from itertools import count
from pathlib import Path
from random import Random
from typing import Any

import mfusepy

from .disk import Cut, Disk, Fault, File, Resize, Write

fuse: Any = mfusepy  # its types are not complete
BLOCK_BYTES = 4_096
MNT_DETACH = 2
BLOCKS = 1 << 20  # 4 GiB, all of them free


class Mounted(fuse.Operations):  # type: ignore[misc]
    """The calls of FUSE. They come from several threads; the disk is changed by one at a time."""

    use_ns = True

    def __init__(self) -> None:
        self._disk = Disk()
        self._lock = threading.RLock()
        self._fault: Fault | None = None
        self._open: dict[int, File] = {}
        self._numbers = count(1)

    # -- what is told to it ------------------------------------------------------

    def obey(self, order: dict[str, Any]) -> dict[str, Any]:
        """One order; its answer."""
        with self._lock:
            if "cut" in order:
                self._open.clear()
                return {"unsynced": self._disk.cut(Cut(order["cut"]), Random(order["seed"]))}
            self._fault = None if order["fault"] is None else Fault(**order["fault"])
            return {}

    def _reach(self, call: str, path: str) -> Fault | None:
        """Without the lock. The fault that strikes here and does not fail. Raises OSError for one that does."""
        fault = self._fault
        if fault is None or fault.call != call or fault.path not in path:
            return None
        time.sleep(fault.seconds)
        if fault.errno:
            raise OSError(fault.errno, path)
        return fault

    # -- calls -------------------------------------------------------------------

    def getattr(self, path: str, fh: int | None = None) -> dict[str, int]:
        self._reach("getattr", path)
        with self._lock:
            node = self._open.get(fh or 0) or self._disk.node(path)
        kind, links, size = (stat.S_IFREG, node.links, len(node.live)) if isinstance(node, File) else (stat.S_IFDIR, 2, 0)
        return {
            **{
                "st_mode": kind | node.mode,
                "st_nlink": links,
                "st_size": size,
                "st_blocks": -(-size // 512),
                "st_ino": id(node),
            },
            **{"st_uid": os.getuid(), "st_gid": os.getgid(), "st_blksize": BLOCK_BYTES},
        }

    def readdir(self, path: str, fh: int) -> list[str]:
        self._reach("readdir", path)
        with self._lock:
            return [".", "..", *self._disk.directory(path).live]

    def create(self, path: str, mode: int, fi: Any = None) -> int:
        self._reach("create", path)
        with self._lock:
            return self._opened(self._disk.create(path, stat.S_IMODE(mode)))

    def open(self, path: str, flags: int) -> int:
        self._reach("open", path)
        with self._lock:
            return self._opened(self._disk.file(path))

    def _opened(self, file: File) -> int:
        number = next(self._numbers)
        self._open[number] = file
        return number

    def release(self, path: str, fh: int) -> int:
        with self._lock:
            self._open.pop(fh, None)
        return 0

    def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
        self._reach("read", path)
        with self._lock:
            return bytes(self._file(fh).live[offset : offset + size])

    def write(self, path: str, data: bytes, offset: int, fh: int) -> int:
        fault = self._reach("write", path)
        if fault is not None:
            data = data[: max(1, int(len(data) * fault.share))]
        with self._lock:
            self._file(fh).change(Write(offset, data))
        return len(data)

    def _file(self, fh: int) -> File:
        """Raises OSError for one that was opened before the power was cut."""
        if fh not in self._open:
            raise OSError(errno.EIO, "opened before the power was cut")
        return self._open[fh]

    def truncate(self, path: str, length: int, fh: int | None = None) -> int:
        self._reach("truncate", path)
        with self._lock:
            self._disk.file(path).change(Resize(length))
        return 0

    def fsync(self, path: str, datasync: int, fh: int) -> int:
        self._reach("fsync", path)
        with self._lock:
            self._file(fh).sync()
        return 0

    def fsyncdir(self, path: str, datasync: int, fh: int) -> int:
        self._reach("fsync", path)
        with self._lock:
            self._disk.directory(path).sync()
        return 0

    def unlink(self, path: str) -> int:
        self._reach("unlink", path)
        with self._lock:
            self._disk.unlink(path)
        return 0

    def rename(self, old: str, new: str) -> int:
        self._reach("rename", old)
        with self._lock:
            self._disk.rename(old, new)
        return 0

    def link(self, target: str, source: str) -> int:
        self._reach("link", target)
        with self._lock:
            self._disk.link(target, source)
        return 0

    def mkdir(self, path: str, mode: int) -> int:
        self._reach("mkdir", path)
        with self._lock:
            self._disk.mkdir(path, stat.S_IMODE(mode))
        return 0

    def rmdir(self, path: str) -> int:
        self._reach("rmdir", path)
        with self._lock:
            self._disk.rmdir(path)
        return 0

    def chmod(self, path: str, mode: int) -> int:
        with self._lock:
            self._disk.node(path).mode = stat.S_IMODE(mode)
        return 0

    def chown(self, path: str, uid: int, gid: int) -> int:
        return 0

    def utimens(self, path: str, times: Any = None) -> int:
        return 0

    def flush(self, path: str, fh: int) -> int:
        return 0

    def statfs(self, path: str) -> dict[str, int]:
        return {"f_bsize": BLOCK_BYTES, "f_frsize": BLOCK_BYTES, "f_blocks": BLOCKS, "f_bfree": BLOCKS, "f_bavail": BLOCKS}


def _obey(mounted: Mounted, place: Path) -> None:
    """Every order; at the end of them nothing is left, whoever has files open."""
    for line in sys.stdin:
        sys.stdout.write(json.dumps(mounted.obey(json.loads(line))) + "\n")
        sys.stdout.flush()
    libc = ctypes.CDLL(None)
    libc.umount2(os.fsencode(place), MNT_DETACH)
    os._exit(0)


def main() -> None:
    """Ends with its standard input."""
    place, mounted = Path(sys.argv[1]), Mounted()
    threading.Thread(target=_obey, args=(mounted, place), daemon=True).start()
    # Nothing of what the kernel remembers may outlive a cut: names and sizes are asked for each time.
    options = {"attr_timeout": 0, "entry_timeout": 0, "negative_timeout": 0, "hard_remove": True}
    fuse.FUSE(mounted, str(place), foreground=True, **options)


if __name__ == "__main__":
    main()
