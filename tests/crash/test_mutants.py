"""For each mutant, one direct demonstration that its promise is broken, and that the whole broker keeps it."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import trio

from rocksmq.protocol.identity import Identity
from rocksmq.protocol.messages import MessageBatch
from rocksmq.protocol.operations import Fetch, Position
from tests.helpers.raw import Raw

from .process import FaultyBroker
from .scenario import KEPT, OLD, consume, prepare, produce


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[FaultyBroker]:
    """Not started yet, on a directory with a channel of three messages."""
    trio.run(prepare, tmp_path / "data")
    with FaultyBroker(tmp_path / "data") as process:
        yield process


def stored(raw: Raw) -> list[bytes]:
    """What the channel holds."""
    return MessageBatch(raw.call(Fetch(OLD, Position.EARLIEST, 0, 100, 1 << 20, 0))).payloads


@pytest.mark.parametrize("mutant", [None, "no-dedup"])
def test_given_no_dedup_when_a_batch_is_repeated_then_it_is_stored_again(broker: FaultyBroker, mutant: str | None) -> None:
    broker.mutant = mutant
    broker.start()
    with Raw(broker.address) as raw:
        producer = Identity.new(raw.server.present_id)
        first = produce(raw, OLD, producer, [b"four"])
        second = produce(raw, OLD, producer, [b"four"])
        producer.number += 1
        produce(raw, OLD, producer, [b"five"])
        assert (first == second) == (mutant is None)
        assert stored(raw) == [*KEPT, *[b"four"] * (1 if mutant is None else 2), b"five"]


@pytest.mark.parametrize("mutant", [None, "early-ack"])
def test_given_early_ack_when_killed_before_the_write_then_what_was_acknowledged_is_lost(
    broker: FaultyBroker, mutant: str | None
) -> None:
    broker.mutant = mutant
    broker.faults = ["before-write=kill"]
    broker.start()
    acknowledged = False
    with Raw(broker.address) as raw, suppress(OSError, EOFError):
        produce(raw, OLD, Identity.new(raw.server.present_id), [b"four"])
        acknowledged = True
    broker.wait()
    broker.faults = ()
    broker.start()
    with Raw(broker.address) as raw:
        assert stored(raw) == KEPT
    assert acknowledged == (mutant is not None)


@pytest.mark.parametrize("mutant", [None, "position-after-reply"])
def test_given_position_after_reply_when_killed_in_between_then_the_same_messages_are_handed_out_again(
    broker: FaultyBroker, mutant: str | None
) -> None:
    broker.mutant = mutant
    broker.faults = ["before-meta=kill"]
    broker.start()
    handed: list[bytes] = []
    with Raw(broker.address) as raw, suppress(OSError, EOFError):
        handed += consume(raw, OLD, Identity.new(raw.server.present_id)).payloads
    broker.wait()
    broker.faults = ()
    broker.start()
    with Raw(broker.address) as raw:
        handed += consume(raw, OLD, Identity.new(raw.server.present_id)).payloads
    assert handed == (KEPT if mutant is None else KEPT * 2)


@pytest.mark.parametrize("mutant", [None, "no-consumer-entry"])
def test_given_no_consumer_entry_when_a_consume_is_repeated_then_it_gets_the_next_messages(
    broker: FaultyBroker, mutant: str | None
) -> None:
    broker.mutant = mutant
    broker.start()
    with Raw(broker.address) as raw:
        consumer = Identity.new(raw.server.present_id)
        assert consume(raw, OLD, consumer, 1).payloads == KEPT[:1]
        assert consume(raw, OLD, consumer, 1).payloads == (KEPT[:1] if mutant is None else KEPT[1:2])
