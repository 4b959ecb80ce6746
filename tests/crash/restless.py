"""An etcd that is killed and stopped again and again, beside what is done to the broker: positions in the crash harness.

Its moments are drawn from a seed; what they hit depends on time, for the broker's lives have lengths of their own.
"""

import threading
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from random import Random
from types import TracebackType
from typing import Self

from tests.helpers.etcd import Etcd
from tests.helpers.etcd_proxy import EtcdProxy

from .etcd_faults import kill

PREFIX = "crash"
LIFE_SECONDS = (0.05, 3.0)
AWAY_SECONDS = (0.0, 1.5)  # beyond what the broker waits for it at its start
LIMITS = "[limits]\nmeta_start_seconds = 0.5\nmeta_call_seconds = 0.5\n"  # of the broker, so that it gives up often


class RestlessEtcd:
    """A context manager. It is restless from `begin` until `calm`; `struck` counts what was done to it."""

    def __init__(self, directory: Path, seed: object) -> None:
        self.struck: Counter[str] = Counter()
        self._directory = directory
        self._random = Random(f"{seed}/etcd")
        self._stack = ExitStack()
        self._must_calm = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="restless etcd")

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._etcd = stack.enter_context(Etcd(self._directory))
            self._proxy = stack.enter_context(EtcdProxy(self._etcd.endpoint))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._end()
        self._stack.close()

    def broker_arguments(self) -> tuple[str, ...]:
        """Further ones of the broker."""
        file = self._directory / "broker.toml"
        file.write_text(LIMITS)
        return ("--config", str(file), "--meta", self._proxy.url(PREFIX))

    def begin(self) -> None:
        """Now it is not to be relied on."""
        self._thread.start()

    def calm(self) -> None:
        """Now it is. Raises what kept it from coming back."""
        self._end()
        if self._failure is not None:
            raise self._failure

    def _end(self) -> None:
        self._must_calm.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        try:
            while not self._must_calm.wait(self._random.uniform(*LIFE_SECONDS)):
                strike = self._random.choice((self._kill, self._kill, self._stop, self._hear_nothing))
                self.struck[strike.__name__.removeprefix("_").replace("_", " ")] += 1
                strike(self._random.uniform(*AWAY_SECONDS))
        except BaseException as error:
            self._failure = error

    def _kill(self, away_s: float) -> None:
        kill(self._etcd, self._proxy)
        self._must_calm.wait(away_s)
        self._etcd.start()

    def _stop(self, away_s: float) -> None:
        self._etcd.stop()
        self._must_calm.wait(away_s)
        self._etcd.cont()

    def _hear_nothing(self, away_s: float) -> None:
        """What is asked of it is done, and nobody hears of it."""
        self._proxy.lose_replies()
        self._must_calm.wait(away_s)
        self._proxy.cut()
        self._proxy.mend()
