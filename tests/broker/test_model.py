"""The whole broker against a dict, in process and over TCP, with restarts and crashes (tests/helpers/model.py)."""

import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test  # pyright: ignore[reportUnknownVariableType]

from tests.helpers.model import BrokerMachine, System
from tests.helpers.model_systems import ClientSystem, EngineSystem

BOUNDED = settings(
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
    print_blob=False,
)


class Machine(BrokerMachine):
    """A broker on a directory of its own."""

    system_class: type[EngineSystem] | type[ClientSystem]

    def make(self) -> System:
        self.directory = Path(tempfile.mkdtemp(prefix="rocksmq-model-"))
        return self.system_class(self.directory / "data")

    def teardown(self) -> None:
        try:
            super().teardown()
        finally:
            shutil.rmtree(self.directory)


class EngineMachine(Machine):
    system_class = EngineSystem


class ClientMachine(Machine):
    system_class = ClientSystem


@pytest.mark.slow
def test_given_the_engine_in_process_when_driven_by_any_rules_then_it_answers_as_the_model_does() -> None:
    run_state_machine_as_test(EngineMachine, settings=settings(BOUNDED, max_examples=60, stateful_step_count=50))


@pytest.mark.slow
def test_given_a_broker_over_tcp_when_driven_by_any_rules_and_killed_then_it_answers_as_the_model_does() -> None:
    run_state_machine_as_test(ClientMachine, settings=settings(BOUNDED, max_examples=8, stateful_step_count=50))
