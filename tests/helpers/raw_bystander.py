"""A client that goes about its work while others misbehave: it must notice nothing."""

import re
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

from rocksmq.clients import Client
from rocksmq.clients.testing import Broker
from rocksmq.protocol.errors import RocksMQError

from .ledger import wait_until

ROUNDS = 5
_TECHNICAL = re.compile(r"Traceback|\b[A-Za-z]+(?:Error|Exception|Interrupt)\b|object at 0x|rocksmq\.|\.py\b")


class Bystander:
    """A thread that produces and consumes on a channel of its own, and checks all it gets. A context manager."""

    def __init__(self, broker: Broker, *, batch: int = 10) -> None:
        self.rounds = 0
        self._batch = batch  # messages in each of its produces
        self._log: Path = broker.log
        self._mq: Client = broker.client()
        self._mq.create_channel("bystander")
        self._mq.create_consumer_group("bystander", "readers")
        self._failure: BaseException | None = None
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="bystander")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stopping = True
        self._thread.join()
        self._mq.close()

    def check(self) -> None:
        """It goes on, got all it sent, and the broker met no bug."""
        goal = self.rounds + ROUNDS
        wait_until(lambda: self.rounds >= goal or self._failure is not None, "the bystander goes on")
        if self._failure is not None:
            raise self._failure
        log = self._log.read_text()
        assert "Traceback" not in log, log[-2_000:]

    def _run(self) -> None:
        try:
            while not self._stopping:
                payloads = [b"%d/%d" % (self.rounds, number) for number in range(self._batch)]
                ids = self._mq.produce("bystander", payloads)
                batch = self._mq.consume("bystander", "readers", timeout=10)
                assert list(batch.ids) == list(ids)
                assert batch.payloads == payloads
                self.rounds += 1
        except BaseException as error:
            self._failure = error


def check_text(error: RocksMQError, *fragments: str) -> None:
    """The message of ``error`` is for its reader, and holds ``fragments``."""
    assert error.message, f"{error!r} says nothing"
    assert not _TECHNICAL.search(error.message), f"not for users: {error.message}"
    for fragment in fragments:
        assert fragment in error.message, f"{fragment!r} is not in {error.message!r}"


def resident_bytes(pid: int) -> int:
    """Memory of a process that is in RAM."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise AssertionError(f"process {pid} has no memory")
