"""A broker for a test, whose `[mirror]` runs a program that stands in for the mirror.

`python -m tests.helpers.broker_with_mirror DIRECTORY arguments...` is `rocksmqd` with that; the directory is `StandIn`'s.
"""

import os
import sys
from contextlib import suppress
from pathlib import Path
from signal import SIGKILL
from types import TracebackType

from rocksmq.broker import mirror_options
from rocksmq.broker.__main__ import main
from rocksmq.clients.testing import Broker

from .stand_in_mirror import StandIn, is_alive

ROOT = Path(__file__).parents[2]
OPTIONS = {"ROCKSMQ_MIRROR_TO": "pulsar://127.0.0.1:1", "ROCKSMQ_MIRROR_CHANNELS": "orders"}


class BrokerWithMirror(Broker):
    """``stand_in`` is what its mirrors do; no process of theirs outlives the block either."""

    def __init__(self, directory: Path, *arguments: str) -> None:
        super().__init__(directory, *arguments, environment={"PYTHONPATH": str(ROOT), **OPTIONS}, http="127.0.0.1:0")
        self.stand_in = StandIn(directory.with_name(directory.name + ".mirror"))

    def command(self) -> list[str]:
        command = super().command()
        own = command[command.index("--data-dir") :]
        return [sys.executable, "-m", "tests.helpers.broker_with_mirror", str(self.stand_in.directory), *own]

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        super().__exit__(kind, error, trace)
        for pid in self.stand_in.pids:
            if is_alive(pid):
                with suppress(ProcessLookupError):
                    os.kill(pid, SIGKILL)


if __name__ == "__main__":
    mirror_options.PROGRAM = tuple(StandIn.program_in(Path(sys.argv[1])))
    main(sys.argv[2:], prog_name="rocksmqd")
