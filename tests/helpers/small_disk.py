"""A broker whose data directory is a small file system that only it sees: tests fill it, and free it, from outside."""

import os
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path
from typing import Literal, TypeAlias

import pytest

from rocksmq.clients.testing import Broker

MIB = 1 << 20
Kind: TypeAlias = Literal["tmpfs", "ext4"]
_MOUNTS: dict[Kind, str] = {
    "tmpfs": 'mount -t tmpfs -o size="$1" tmpfs "$0"',
    "ext4": 'truncate -s "$1" "$0.image" && mkfs.ext4 -q -m 0 "$0.image" && mount -o loop "$0.image" "$0"',
}
_UNSHARE: dict[Kind, str] = {"tmpfs": "-rm", "ext4": "-m"}  # a loop device takes a real root


@cache
def refusal(kind: Kind = "tmpfs") -> str | None:
    """Why no file system can be made here, or None."""
    unshare = shutil.which("unshare")
    if unshare is None:
        return "unshare is not installed: apt-get install util-linux"
    with tempfile.TemporaryDirectory() as name:
        place = Path(name) / "disk"
        place.mkdir()
        command = [unshare, _UNSHARE[kind], "sh", "-c", _MOUNTS[kind], str(place), str(16 * MIB)]
        tried = subprocess.run(command, capture_output=True, text=True, check=False)
    return f"no file system of its own may be mounted here: {tried.stderr.strip()}" if tried.returncode else None


needs_mount = pytest.mark.skipif(refusal() is not None, reason=refusal() or "")


class BrokerOnSmallDisk(Broker):
    """Its data directory, which must not exist, is a file system of ``disk_bytes``. It goes with the process."""

    def __init__(self, directory: Path, disk_bytes: int = 256 * MIB, kind: Kind = "tmpfs", http: str = "off") -> None:
        directory.mkdir(parents=True)
        super().__init__(directory, http=http)
        self.disk_bytes = disk_bytes
        self.kind: Kind = kind

    def command(self) -> list[str]:
        script = f'{_MOUNTS[self.kind]} && shift && exec "$@"'
        place = [str(self.directory), str(self.disk_bytes)]
        return ["unshare", _UNSHARE[self.kind], "sh", "-c", script, *place, *super().command()]

    @property
    def disk(self) -> Path:
        """The same directory, from outside."""
        return Path(f"/proc/{self.pid}/root{self.directory}")

    @property
    def free_bytes(self) -> int:
        """As the broker sees it."""
        found = os.statvfs(self.disk)
        return found.f_bavail * found.f_frsize

    def fill(self, *, but: int, name: str = "filler") -> None:
        """Take all of the disk but so many bytes by a foreign file, which grows if it is there."""
        fd = os.open(self.disk / name, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        try:
            left = self.free_bytes - but
            while left > 0:
                left -= os.write(fd, bytes(min(left, MIB)))
        except OSError:
            pass  # full
        finally:
            os.close(fd)

    def free(self, name: str = "filler") -> None:
        """Delete the foreign file."""
        (self.disk / name).unlink()
