"""CPU, memory and connections of processes on this machine, from /proc (Linux)."""

import os
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_ESTABLISHED = "01"
_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


@dataclass(slots=True)
class Usage:
    """What a stretch took, all in seconds; ``broker_cpu`` None when the broker's process is not known."""

    wall: float = 0.0
    client_cpu: float = 0.0
    broker_cpu: float | None = None


@contextmanager
def measured(broker_pid: int | None) -> Generator[Usage, None, None]:
    """Filled in when the block ends."""
    usage = Usage()
    broker_begin = None if broker_pid is None else cpu_seconds(broker_pid)
    cpu_begin, begin = time.process_time(), time.perf_counter()
    yield usage
    usage.wall = time.perf_counter() - begin
    usage.client_cpu = time.process_time() - cpu_begin
    if broker_pid is not None and broker_begin is not None:
        usage.broker_cpu = cpu_seconds(broker_pid) - broker_begin


def cpu_seconds(pid: int) -> float:
    """User and system time of all threads of a process so far. Raises OSError when there is none."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_SECOND


def peak_memory_bytes(pid: int) -> int:
    """The most memory that a process had resident so far (VmHWM). Raises OSError when there is none."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise ProcessLookupError(f"process {pid} has no memory: it has ended")


def connection_count(pid: int) -> int:
    """TCP connections that a process has established. Raises OSError when there is none."""
    established = {
        f"socket:[{fields[9]}]"
        for table in ("tcp", "tcp6")
        for fields in map(str.split, Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:])
        if fields[3] == _ESTABLISHED
    }
    return sum(_target(f"/proc/{pid}/fd/{descriptor}") in established for descriptor in os.listdir(f"/proc/{pid}/fd"))


def _target(link: str) -> str:
    """What a descriptor is of; nothing when it was closed meanwhile."""
    try:
        return os.readlink(link)
    except FileNotFoundError:
        return ""
