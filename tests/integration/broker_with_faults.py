"""A broker for a test, with faults of `tests.crash` built in."""

import sys
from collections.abc import Mapping
from pathlib import Path

from rocksmq.clients.testing import Broker
from tests.helpers.ledger import wait_until

ROOT = Path(__file__).parents[2]


class BrokerWithFaults(Broker):
    """``faults`` may be changed between lives."""

    def __init__(self, directory: Path, *faults: str, environment: Mapping[str, str] | None = None) -> None:
        super().__init__(directory, environment={"PYTHONPATH": str(ROOT), **(environment or {})}, http="127.0.0.1:0")
        self.faults = faults

    def command(self) -> list[str]:
        command = super().command()
        faults = [word for fault in self.faults for word in ("--fault", fault)]
        return [sys.executable, "-m", "tests.crash.faulty_broker", *faults, "--", *command[command.index("--data-dir") :]]

    def wait_for(self, fault: str) -> None:
        """Until it has struck."""
        wait_until(lambda: f"fault: {fault}" in self.log.read_text(), f"{fault} struck")
