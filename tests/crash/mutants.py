"""Broken brokers, each with one promise taken out. What finds no fault with one of them shows nothing.

Two of them answer too early. The time until the write is then stretched, so that a kill at a random moment falls into it.
"""

import time
from collections.abc import Callable
from typing import Any

from rocksmq.broker import meta_transaction
from rocksmq.broker.answers import Answers
from rocksmq.broker.commit import Done
from rocksmq.broker.groups import Group
from rocksmq.broker.prefix import GroupKey
from rocksmq.broker.producers import ProducerCell, Producers, Verdict
from rocksmq.broker.records import GroupState
from rocksmq.broker.store import Store
from rocksmq.protocol.operations import Consume, Messages, Produced

from .faults import Method, wrap

TOO_EARLY_SECONDS = 0.005


def _no_dedup() -> None:
    """A batch that was stored before is stored again, and its producer goes on behind it."""

    def look_up(original: Method, table: Producers, channel_number: int, producer: bytes, *arguments: Any) -> Verdict:
        verdict: Verdict = original(table, channel_number, producer, *arguments)
        if verdict.repeated is None:
            return verdict
        before = tuple(entry for entry in verdict.cell.value if entry.number < verdict.repeated.number)
        return Verdict(ProducerCell(channel_number, producer, before), None)

    wrap(Producers, "look_up", look_up)


def _no_fsync() -> None:
    """Nothing is synced, and all is acknowledged as if it were."""

    def sync(original: Method, store: Store) -> None:
        del original, store

    wrap(Store, "sync", sync)


def _answer_too_early(method: str, reply_type: type[Any]) -> None:
    """Whoever is to be answered by ``method`` with such a reply is answered at once; the commit answers nobody."""

    def answer(original: Method, answers: Answers, *arguments: Any) -> None:
        place = next(place for place, argument in enumerate(arguments) if callable(argument))
        done: Done = arguments[place]
        reply = arguments[place + 1]
        if isinstance(reply, reply_type):
            done(reply)
            arguments = (*arguments[:place], _nobody, *arguments[place + 1 :])
        original(answers, *arguments)

    def write(original: Method, store: Store, *arguments: Any) -> None:
        time.sleep(TOO_EARLY_SECONDS)
        original(store, *arguments)

    wrap(Answers, method, answer)
    wrap(Store, "write", write)


def _nobody(reply: Any) -> None:
    """As ``done``, of one who was answered already."""
    del reply


def _early_ack() -> None:
    """A produce is answered before it is written."""
    _answer_too_early("in_commit", Produced)


def _position_after_reply() -> None:
    """A consume is answered before its position is written."""
    _answer_too_early("in_open", Messages)


def _no_consumer_entry() -> None:
    """A repeated consume gets the next messages."""

    def repeats(original: Method, group: Group, request: Consume) -> bool:
        del original, group, request
        return False

    wrap(Group, "repeats", repeats)


def _no_claim_in_etcd() -> None:
    """A consume is answered, and etcd gets nothing of it."""

    def entries(original: Method, key: GroupKey, state: GroupState | None) -> dict[str, str | None]:
        found: dict[str, str | None] = original(key, state)
        return {} if state is not None and state.consumers else found

    wrap(meta_transaction, "group_entries", entries)


def _no_consumer_in_etcd() -> None:
    """Etcd gets positions without what consumers were given."""

    def entries(original: Method, key: GroupKey, state: GroupState | None) -> dict[str, str | None]:
        found: dict[str, str | None] = original(key, None if state is None else state._replace(consumers={}))
        return found

    wrap(meta_transaction, "group_entries", entries)


MUTANTS: dict[str, Callable[[], None]] = {
    "no-dedup": _no_dedup,
    "no-fsync": _no_fsync,
    "early-ack": _early_ack,
    "position-after-reply": _position_after_reply,
    "no-consumer-entry": _no_consumer_entry,
    "no-claim-in-etcd": _no_claim_in_etcd,
    "no-consumer-in-etcd": _no_consumer_in_etcd,
}
