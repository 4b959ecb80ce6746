"""Each figure of the store of positions, driven to a value that is known beforehand."""

from types import SimpleNamespace

import pytest
import trio
import trio.testing

from rocksmq.broker.meta_calls import RemoteCalls
from rocksmq.broker.remote import METHODS, RemoteFailed
from rocksmq.metrics.exposition import expose

from .remote_support import A_WHILE, BOUND, Asked, Broker, broker_of, consuming, running, with_messages
from .simulated_remote import Fate, SimulatedEtcd
from .support import in_mock_time, in_trio
from .test_telemetry import told_of


def shown(broker: Broker, name: str) -> float:
    """The one value of a metric."""
    (value,) = told_of(broker.core.telemetry.families())[name]
    return value


@in_mock_time
async def test_given_etcd_that_goes_away_when_asked_then_up_is_0_until_it_is_back() -> None:
    async with with_messages() as broker:
        assert shown(broker, "rocksmq_etcd_up") == 1
        for _ in range(2):
            broker.remote.is_away = True
            await trio.sleep(A_WHILE)
            assert shown(broker, "rocksmq_etcd_up") == 0
            broker.remote.is_away = False
            await trio.sleep(A_WHILE)
            assert shown(broker, "rocksmq_etcd_up") == 1


@in_mock_time
async def test_given_etcd_that_is_not_there_at_the_start_when_asked_then_up_is_0_until_it_is() -> None:
    before = broker_of(SimulatedEtcd())
    before.remote.is_away = True
    async with running(before) as broker:
        assert shown(broker, "rocksmq_etcd_up") == 0
        broker.remote.is_away = False
        await trio.sleep(A_WHILE)
        assert shown(broker, "rocksmq_etcd_up") == 1


@in_mock_time
async def test_given_a_transaction_that_is_not_settled_when_others_come_then_they_wait() -> None:
    async with with_messages() as broker:
        # Given
        assert shown(broker, "rocksmq_positions_waiting") == 0
        broker.remote.fates.append(Fate.HELD)
        first = Asked(broker, consuming(0))
        await trio.testing.wait_all_tasks_blocked()
        assert broker.remote.in_flight is not None
        assert shown(broker, "rocksmq_positions_waiting") == 0
        # When
        others = [Asked(broker, consuming(0, group="audit")), Asked(broker, consuming(1))]
        # Then
        assert shown(broker, "rocksmq_positions_waiting") == 2
        broker.remote.release(Fate.ANSWERED)
        await trio.sleep(BOUND)
        assert shown(broker, "rocksmq_positions_waiting") == 0
        assert [asked.reply for asked in (first, *others)] == [[b"a", b"b"], [b"a", b"b"], [b"c", b"d"]]


@in_trio
async def test_given_calls_of_etcd_when_answered_or_not_then_each_counts_by_its_result_and_its_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 100.0
    monkeypatch.setattr("rocksmq.broker.meta_calls.time", SimpleNamespace(perf_counter=lambda: now))

    def transact(seconds: float, is_answered: bool) -> str:
        nonlocal now
        now += seconds
        if not is_answered:
            raise RemoteFailed("no answer")
        return "applied"

    def read() -> None:
        raise AssertionError("never begun")

    call = RemoteCalls()
    # When
    assert await call(transact, 0.25, True) == "applied"
    assert await call(transact, 0.5, True) == "applied"
    with pytest.raises(RemoteFailed):
        await call(transact, 4.0, False)
    with trio.CancelScope() as scope:
        scope.cancel()
        await call(read)
    # Then
    text = b"".join(expose(call.families())).decode()
    for method in METHODS:
        for result in ("ok", "failed"):
            count = {("transact", "ok"): 2, ("transact", "failed"): 1}.get((method, result), 0)
            assert f'\nrocksmq_etcd_requests_total{{op="{method}",result="{result}"}} {count}\n' in text
    assert '\nrocksmq_etcd_request_duration_seconds_sum{op="transact"} 4.75\n' in text
    assert '\nrocksmq_etcd_request_duration_seconds_count{op="transact"} 3\n' in text
