"""The three processes of a run of `mirror`: broker, mirror, Pulsar. Each may be struck at any moment, also in its start.

None of `start`, `kill`, `freeze` and `thaw` waits until anything serves.
"""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from rocksmq.clients.mirror.report import Report, State
from rocksmq.protocol.errors import ProtocolError
from tests.helpers.etcd import free_port
from tests.helpers.pulsar import Pulsar, PulsarFailed, PulsarLite

_ROOT = Path(__file__).parents[2]
REAL = ("-m", "rocksmq.clients.cli", "--json", "mirror")  # the command of the mirror
READY_SECONDS, STOP_SECONDS = 180.0, 30.0
CONFLICT_EXIT = 1
LOG_CHARACTERS = 4_000
MIRROR = "proof"  # its name


class TroubledSide(ABC):
    """One process over all its lives."""

    name: str

    def __init__(self) -> None:
        self.is_frozen = False

    @abstractmethod
    def start(self) -> None:
        """The next life."""

    @abstractmethod
    def kill(self) -> bool:
        """kill -9; False when there is no process."""

    @abstractmethod
    def check(self) -> None:
        """Raises AssertionError for a process that ended by itself."""

    @property
    @abstractmethod
    def is_ready(self) -> bool:
        """Whether it serves."""

    @property
    @abstractmethod
    def pid(self) -> int | None:
        """Of the process, if there is one."""

    def freeze(self) -> bool:
        """It does nothing any more; False when there is no process."""
        pid = self.pid
        if pid is None:
            return False
        os.kill(pid, signal.SIGSTOP)
        self.is_frozen = True
        return True

    def thaw(self) -> None:
        """It goes on, if it lives still."""
        self.is_frozen = False
        if (pid := self.pid) is not None:
            os.kill(pid, signal.SIGCONT)

    @abstractmethod
    def close(self) -> None:
        """Leave nothing running."""

    def await_ready(self) -> None:
        """Until it serves. Raises AssertionError."""
        deadline = time.monotonic() + READY_SECONDS
        while not self.is_ready:
            self.check()
            assert time.monotonic() < deadline, f"the {self.name} does not serve after {READY_SECONDS:g} s"
            time.sleep(0.02)


class _Program(TroubledSide):
    """A process of ours, which says what it has to say in `log`."""

    def __init__(self, name: str, directory: Path) -> None:
        super().__init__()
        self.name = name
        self.log = directory / f"{name}.log"
        self._process: subprocess.Popen[bytes] | None = None

    @abstractmethod
    def _run(self) -> subprocess.Popen[bytes]: ...

    def start(self) -> None:
        assert self._process is None, "one life at a time"
        self._process = self._run()

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    def kill(self) -> bool:
        process, self._process = self._process, None
        self.is_frozen = False
        if process is None:
            return False
        process.kill()
        process.wait()
        return True

    def terminate(self) -> int:
        """SIGTERM; its exit code. Raises AssertionError when it does not end."""
        process, self._process = self._process, None
        assert process is not None, "it runs"
        process.send_signal(signal.SIGTERM)
        try:
            return process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise AssertionError(f"the {self.name} does not end {STOP_SECONDS:g} s after SIGTERM: {self.said()}") from None

    def check(self) -> None:
        if self._process is not None and (code := self._process.poll()) is not None:
            self._process = None
            raise AssertionError(f"the {self.name} ended by itself with {code}: {self.said()}")

    def close(self) -> None:
        self.kill()

    def said(self) -> str:
        """The end of its log."""
        return self.log.read_text(errors="replace")[-LOG_CHARACTERS:]


class BrokerSide(_Program):
    """A broker on a port that stays."""

    def __init__(self, directory: Path) -> None:
        super().__init__("broker", directory)
        self._data = directory / "data"
        self.port = free_port()

    @property
    def url(self) -> str:
        return f"rocksmq://127.0.0.1:{self.port}"

    def _run(self) -> subprocess.Popen[bytes]:
        own = ["--data-dir", str(self._data), "--listen", f"127.0.0.1:{self.port}", "--http", "off"]
        with self.log.open("ab") as log:
            return subprocess.Popen([sys.executable, "-m", "rocksmq.broker", *own], stdout=log, stderr=log, cwd=_ROOT)

    @property
    def is_ready(self) -> bool:
        with socket.socket() as probe:
            return self._process is not None and not self.is_frozen and probe.connect_ex(("127.0.0.1", self.port)) == 0


class Life(NamedTuple):
    """What one life of the mirror told of itself."""

    messages: int
    errors: int


class MirrorSide(_Program):
    """The mirror, as `rocksmq mirror` runs it. After `twin` there are two: the former is to end in a Conflict.

    With ``is_either`` it may be the other one: who opens a producer's name last has it.
    """

    def __init__(
        self, directory: Path, arguments: Sequence[str], program: Sequence[str] = REAL, *, is_either: bool = False
    ) -> None:
        super().__init__("mirror", directory)
        self._is_either = is_either
        self._may_both_end = False  # one of two was just fenced, and the other may be on another channel
        self._is_unsure = False  # since one was frozen before it had taken over whatever it mirrors, and may do so later
        self._lives: dict[int, int] = {}  # by process
        self._arguments = [*program, *arguments]
        self._directory = directory
        self._formers: list[subprocess.Popen[bytes]] = []
        self.life_count = 0
        self.fenced_count = 0

    def _run(self) -> subprocess.Popen[bytes]:
        output = self._output(self.life_count)
        self.life_count += 1
        with self.log.open("ab") as log, output.open("wb") as out:
            log.write(b"-- life %d\n" % (self.life_count - 1))
            log.flush()
            process = subprocess.Popen(
                [sys.executable, *self._arguments], stdin=subprocess.DEVNULL, stdout=out, stderr=log, cwd=_ROOT
            )
        self._lives[process.pid] = self.life_count - 1
        return process

    def _output(self, life: int) -> Path:
        return self._directory / f"mirror.{life}.out"

    def twin(self) -> subprocess.Popen[bytes] | None:
        """Freeze it and start another one; the former, which goes on with `release`. None when there is no process."""
        is_ready = self.is_ready
        if not self.freeze():
            return None
        self._is_unsure = self._is_unsure or not is_ready
        assert self._process is not None, "it was frozen"
        former, self._process = self._process, None
        self.is_frozen = False
        self._formers.append(former)
        self.start()
        return former

    @staticmethod
    def release(former: subprocess.Popen[bytes]) -> None:
        """It goes on as if nothing had happened."""
        if former.poll() is None:
            former.send_signal(signal.SIGCONT)

    def check(self) -> None:
        for former in self._formers.copy():
            if (code := former.poll()) is not None:
                self._formers.remove(former)
                self.fenced_count += 1
                self._may_both_end = self._is_either
                assert code == CONFLICT_EXIT, f"the former mirror ended with {code}, not in a Conflict: {self.said()}"
        may_be_this = self._formers and (self._is_either or self._is_unsure)
        if may_be_this and self._process is not None and self._process.poll() == CONFLICT_EXIT:
            self._process = self._formers.pop()
            self.fenced_count += 1
            self._may_both_end = self._is_either
        if self._may_both_end and self._process is not None and self._process.poll() == CONFLICT_EXIT:
            # Each has fenced the other, on channels of its own: then a supervisor starts one again.
            self._process, self._may_both_end = None, False
            self.fenced_count += 1
            self.start()
        super().check()

    def await_fenced(self) -> None:
        """Until all formers have ended. Raises AssertionError.

        Where either may end, none does while there is nothing to carry, and nothing is waited for.
        """
        if self._is_either:
            return
        deadline = time.monotonic() + READY_SECONDS
        while self._formers:
            self.check()
            assert time.monotonic() < deadline, f"a mirror goes on though another has taken over: {self.said()}"
            time.sleep(0.05)

    @property
    def is_ready(self) -> bool:
        """It said last that all its channels run."""
        if self._process is None or self.is_frozen:
            return False
        told = self.told()
        return bool(told) and all(one.state is State.RUNNING for one in told.values())

    def told(self) -> Report:
        """What the present life said last; no channels if nothing yet."""
        return self._told(self.life_count - 1 if self._process is None else self._lives[self._process.pid])

    def lives(self) -> list[Life]:
        """All of them, as far as they said anything."""
        told = [self._told(life) for life in range(self.life_count)]
        return [Life(one.sums.messages, one.sums.errors) for one in told]

    def _told(self, life: int) -> Report:
        """The last whole line of a life."""
        content = self._output(life).read_bytes()[-(1 << 16) :].rpartition(b"\n")[0].rpartition(b"\n")[2]
        try:
            return Report.of_json(content.decode(errors="replace"))
        except ProtocolError:
            return Report(MIRROR, [])

    def close(self) -> None:
        super().close()
        for former in self._formers:
            former.kill()
            former.wait()
        self._formers.clear()


class PulsarSide(TroubledSide):
    """A real Pulsar, started by a thread."""

    name = "Pulsar"

    def __init__(self, pulsar: Pulsar) -> None:
        super().__init__()
        self._pulsar = pulsar
        self._is_struck = False
        self._failure: BaseException | None = None
        self._starting: threading.Thread | None = None

    @property
    def url(self) -> str:
        return self._pulsar.url

    def start(self) -> None:
        assert self._starting is None, "one life at a time"
        self._is_struck = False
        self._starting = threading.Thread(target=self._start, name="starting Pulsar")
        self._starting.start()

    def _start(self) -> None:
        try:
            self._pulsar.start()
        except BaseException as error:
            if not (self._is_struck and isinstance(error, PulsarFailed)):
                self._failure = error

    @property
    def pid(self) -> int | None:
        try:
            return self._pulsar.pid
        except AssertionError:  # it has none: what a crash left is being removed, or it was never started
            return None

    def kill(self) -> bool:
        self.is_frozen = False
        starting, pid = self._starting, self.pid
        if starting is None:
            return False
        if starting.is_alive():
            if pid is None:
                return False
            self._is_struck = True
            os.kill(pid, signal.SIGKILL)
        starting.join()
        self._starting = None
        self.check()
        self._pulsar.kill()
        return True

    def check(self) -> None:
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise AssertionError(f"Pulsar did not start: {failure}") from failure

    @property
    def is_ready(self) -> bool:
        return self._starting is not None and not self._starting.is_alive() and not self.is_frozen and self.pid is not None

    def close(self) -> None:
        if self._starting is not None and self._starting.is_alive() and self.pid is not None:
            self.kill()
        elif self._starting is not None:
            self._starting.join()
        self._pulsar.kill()


class LiteSide(TroubledSide):
    """pulsar-lite, which keeps nothing over a kill, and so is not struck."""

    name = "pulsar-lite"

    def __init__(self, server: PulsarLite) -> None:
        super().__init__()
        self._server = server

    @property
    def url(self) -> str:
        return self._server.url

    def start(self) -> None:
        self._server.start()

    def kill(self) -> bool:
        raise AssertionError("it would forget everything")

    @property
    def pid(self) -> int | None:
        return None

    def check(self) -> None:
        """It is not watched."""

    @property
    def is_ready(self) -> bool:
        return True

    def close(self) -> None:
        self._server.kill()
