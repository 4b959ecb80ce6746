"""What a process holds: memory, sockets and other open files, as Linux tells it."""

import os
from pathlib import Path
from typing import NamedTuple


class Footprint(NamedTuple):
    """Of one moment. ``files`` are all open ones but sockets and what lies in the data directory."""

    rss_bytes: int
    sockets: int
    files: int
    threads: int

    @classmethod
    def of(cls, pid: int, data_directory: Path | None = None) -> "Footprint":
        """Of the process ``pid``; its database opens and closes files in ``data_directory`` by itself."""
        status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        targets = _open_files(pid)
        sockets = sum(target.startswith("socket:") for target in targets)
        own = sum(data_directory is not None and target.startswith(str(data_directory)) for target in targets)
        return cls(int(status["VmRSS"].split()[0]) * 1024, sockets, len(targets) - sockets - own, int(status["Threads"]))

    def __str__(self) -> str:
        return f"{self.rss_bytes / 2**20:.0f} MiB, {self.sockets} sockets, {self.files} other files, {self.threads} threads"


def _open_files(pid: int) -> list[str]:
    targets: list[str] = []
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            targets.append(os.readlink(entry))
        except FileNotFoundError:
            continue  # closed meanwhile
    return targets


def connected_ports(pid: int) -> set[int]:
    """Ports of the other ends of the TCP connections that the process ``pid`` has."""
    own = {target.removeprefix("socket:[").removesuffix("]") for target in _open_files(pid) if target.startswith("socket:")}
    ports: set[int] = set()
    for table in ("tcp", "tcp6"):
        for row in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            cells = row.split()
            if cells[9] in own:
                ports.add(int(cells[2].rpartition(":")[2], 16))
    return ports
