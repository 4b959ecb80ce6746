"""A mirror that mirrors nothing: it stands in for `rocksmq mirror --supervised` in tests of who runs it.

`python -m tests.helpers.stand_in_mirror DIRECTORY [arguments of the broker]` notes its pid and arguments, tells what stands in
DIRECTORY/report each 50 ms, on standard error what stands in DIRECTORY/said, once, and does as DIRECTORY/do says: `exit N`,
`hush` (no more reports), `stay` (SIGTERM is ignored), `deaf` (stdin is not looked at).
"""

import json
import os
import signal
import sys
import time
from collections.abc import Iterable
from pathlib import Path

from rocksmq.clients.mirror.report import ChannelReport, Report, State

ROOT = Path(__file__).parents[2]
PERIOD_SECONDS = 0.05
NAME = "pulsar"


class StandIn:
    """What a test writes and reads of those that run with ``directory``."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.tell(())

    @property
    def program(self) -> list[str]:
        """Its command line, to which a broker appends."""
        return self.program_in(self.directory)

    @staticmethod
    def program_in(directory: Path) -> list[str]:
        """The same, of those that run with ``directory``."""
        return [sys.executable, "-m", "tests.helpers.stand_in_mirror", str(directory)]

    @property
    def environment(self) -> dict[str, str]:
        """For that."""
        return {**os.environ, "PYTHONPATH": str(ROOT)}

    def tell(self, channels: Iterable[ChannelReport]) -> None:
        """What those that run report from now on."""
        self.write("report", Report(NAME, channels).to_json())

    def write(self, name: str, text: str) -> None:
        """The file ``name``, at once."""
        new = self.directory / f".{name}"
        new.write_text(text)
        new.replace(self.directory / name)

    @property
    def pids(self) -> list[int]:
        """Of all that were started, in that order."""
        file = self.directory / "pids"
        return [int(line) for line in file.read_text().splitlines()] if file.exists() else []

    @property
    def arguments(self) -> list[str]:
        """Of the last that was started."""
        found: list[str] = json.loads((self.directory / "arguments").read_text())
        return found


def is_alive(pid: int) -> bool:
    """Whether that process runs; one that nobody has waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def a_report(channel: str = "orders", state: State = State.RUNNING, messages: int = 10) -> ChannelReport:
    """Of one channel."""
    topic = f"persistent://public/default/{channel}"
    return ChannelReport(channel=channel, topic=topic, state=state, messages=messages, bytes=100 * messages, lag=3)


def main(directory: Path, arguments: list[str]) -> None:
    files = StandInFiles(directory)
    with (directory / "pids").open("a") as pids:
        pids.write(f"{os.getpid()}\n")
    (directory / "arguments").write_text(json.dumps(arguments))
    signal.signal(signal.SIGTERM, signal.SIG_IGN if files.has("do", "stay") else signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM, signal.SIGINT})
    os.set_blocking(0, False)
    sys.stderr.write(files.text("said"))
    sys.stderr.flush()
    while True:
        wish = files.text("do")
        if wish.startswith("exit"):
            sys.exit(int(wish.split()[1]))
        if not files.has("do", "hush"):
            sys.stdout.write(f"{files.text('report')}\n")
            sys.stdout.flush()
        if not files.has("do", "deaf") and is_over():
            return
        time.sleep(PERIOD_SECONDS)


class StandInFiles:
    """The other side of `StandIn`."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def text(self, name: str) -> str:
        """What stands in the file ``name``, if there is one."""
        file = self._directory / name
        return file.read_text() if file.exists() else ""

    def has(self, name: str, word: str) -> bool:
        """Whether ``word`` is among it."""
        return word in self.text(name).split()


def is_over() -> bool:
    """Whether standard input has ended."""
    try:
        return os.read(0, 1) == b""
    except BlockingIOError:
        return False


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
