"""The engine with its positions in a real etcd against the model of the whole broker, with restarts and crashes."""

import shutil
import tempfile
from collections.abc import Mapping
from itertools import count
from pathlib import Path

import trio
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test  # pyright: ignore[reportUnknownVariableType]

from rocksmq.broker.engine import RocksMQ
from rocksmq.broker.fence import Attempt, Met
from rocksmq.broker.meta_etcd import EtcdRemote, Login
from rocksmq.broker.meta_url import MetaUrl
from rocksmq.broker.remote import RemoteFailed
from tests.helpers.etcd import Etcd
from tests.helpers.model import BrokerMachine, System
from tests.helpers.model_systems import EngineSystem

from .test_model import BOUNDED

_prefixes = count()


class MortalRemote(EtcdRemote):
    """Once dead it writes nothing, as after kill -9 of its broker."""

    is_dead = False

    def transact(self, attempt: Attempt, entries: Mapping[str, str | None], lease: int | None) -> Met:
        if self.is_dead:
            raise RemoteFailed("the broker is dead")
        return super().transact(attempt, entries, lease)


class EtcdEngineSystem(EngineSystem):
    """The engine of the model with its positions in etcd."""

    url: MetaUrl

    def crash(self) -> None:
        self._remote.is_dead = True
        super().crash()

    async def _serve(self) -> None:
        self._remote = MortalRemote(self.url, Login(), call_seconds=10)
        self._ending = trio.Event()
        self._token = trio.lowlevel.current_trio_token()
        async with RocksMQ(self._directory, remote=self._remote) as self._mq:
            self._ready.set()
            await self._ending.wait()


class EtcdMachine(BrokerMachine):
    """An engine and a prefix of its own."""

    etcd: Etcd

    def make(self) -> System:
        self.directory = Path(tempfile.mkdtemp(prefix="rocksmq-model-"))
        EtcdEngineSystem.url = MetaUrl.parse(self.etcd.url(f"model/{next(_prefixes)}"))
        return EtcdEngineSystem(self.directory / "data")

    def teardown(self) -> None:
        try:
            super().teardown()
        finally:
            shutil.rmtree(self.directory)


def test_given_positions_in_etcd_when_driven_by_any_rules_and_killed_then_the_engine_answers_as_the_model_does() -> None:
    with Etcd() as EtcdMachine.etcd:
        run_state_machine_as_test(EtcdMachine, settings=settings(BOUNDED, max_examples=20, stateful_step_count=50))
