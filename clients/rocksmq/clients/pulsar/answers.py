"""Answers of Pulsar's client: every call to it is begun, its answer is waited for here, so any wait can end in time.

The answers come on a thread of that client, where an exception would end the process, and which may hold locks of its own: they
are noted, and nothing else. Nobody calls that client while he holds `Answers.changed`.
"""

import random
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from rocksmq.protocol.errors import ConnectionFailed, RocksMQError

from ..deadline import SLICE_SECONDS, Deadline, Stopped, check_not
from .client import failure, pulsar

OK = "Ok"
OVERDUE = "Timeout"  # as Pulsar's client says itself
# Somebody else has what will be free again, or a broker that is not ready.
_AGAIN = frozenset(
    (
        *("BrokerMetadataError", "BrokerPersistenceError", "ConnectError", "ConsumerBusy", "Disconnected", "LookupError"),
        *("NotConnected", "ProducerBusy", "ReadError", "Retryable", "ServiceUnitNotReady", OVERDUE),
        *("TooManyLookupRequestException", "UnknownError"),
    )
)
BACK_OFF_SECONDS, BACK_OFF_SECONDS_MAX = 0.01, 1.0
Key = TypeVar("Key")


class Answer:
    """``result``: the name that Pulsar's client has for what came of it, empty until it has come; with `OK`, ``value``."""

    __slots__ = ("is_given_up", "result", "value")

    def __init__(self) -> None:
        self.result = ""
        self.value: Any = None
        self.is_given_up = False

    def error(self, what: str) -> RocksMQError:
        """That ``what`` failed, or was not answered."""
        return failure(what, self.result or OVERDUE)


class Answers:
    """All that are awaited of one client. Any thread."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.is_closed = False
        self._open: set[Answer] = set()
        self._closing: set[Answer] = set()

    def expected(self, answer: Answer) -> Callable[..., None]:
        """What Pulsar's client is to call with ``answer``."""

        def answered(result: Any, value: Any = None) -> None:
            try:
                with self.changed:
                    answer.value = value
                    answer.result = result.name
                    self._open.discard(answer)
                    is_given_up = answer.is_given_up
                    self.changed.notify_all()
                if is_given_up and hasattr(value, "close_async"):
                    self.close(value)
            except BaseException:  # noqa: S110  # it would end the process, and there is nobody to tell
                pass

        self._open.add(answer)
        return answered

    def ask(self, call: Callable[..., object], *arguments: Any) -> Answer:
        """Begin ``call``."""
        answer = Answer()
        try:
            call(*arguments, self.expected(answer))
        except pulsar.PulsarException as error:
            answer.result = type(error).__name__
            self._open.discard(answer)
        return answer

    def wait(self, answers: Iterable[Answer], deadline: Deadline, is_stopped: Stopped = None) -> bool:
        """Whether all of them have come by then. Raises ConnectionFailed when it is closed meanwhile."""
        waited = list(answers)
        with self.changed:
            while waited := [answer for answer in waited if not answer.result]:
                self.check(is_stopped)
                if deadline.is_over:
                    return False
                self.changed.wait(min(deadline.remaining, SLICE_SECONDS))
        return True

    def check(self, is_stopped: Stopped = None) -> None:
        """Raises ConnectionFailed when it was closed."""
        if self.is_closed:
            raise ConnectionFailed("the stream is closed")
        check_not(is_stopped)

    def all_of(self, begin: Mapping[Key, Callable[[], Answer]], deadline: Deadline, *, final: str = OK) -> dict[Key, Answer]:
        """The answers to all of them, again and again by then where that may help; what is overdue has failed.

        ``final``: a result where it does not. What is overdue, and comes still, is closed.
        """
        found: dict[Key, Answer] = {}
        pause = BACK_OFF_SECONDS
        while True:
            asked = {key: call() for key, call in begin.items() if key not in found}
            try:
                self.wait(asked.values(), deadline)
            finally:
                self.give_up(answer for answer in asked.values() if not answer.result)
            again = {key: answer for key, answer in asked.items() if answer.result in _AGAIN and answer.result != final}
            found |= {key: answer for key, answer in asked.items() if key not in again}
            if not again or deadline.remaining <= pause:
                return {key: (found | again)[key] for key in begin}
            time.sleep(random.uniform(pause / 2, pause))  # noqa: S311
            pause = min(2 * pause, BACK_OFF_SECONDS_MAX)

    def give_up(self, answers: Iterable[Answer]) -> None:
        """Close what comes of them."""
        for answer in answers:
            with self.changed:
                answer.is_given_up = True
                value = answer.value
            if value is not None and hasattr(value, "close_async"):
                self.close(value)

    def close(self, one: Any) -> Answer:
        """A reader, consumer or producer; nobody has to wait for it."""
        answer = self.ask(one.close_async)
        self._closing = {other for other in self._closing if not other.result} | {answer}
        return answer

    def all_closed(self, deadline: Deadline) -> bool:
        """Whether all of `close` are by then: Pulsar's client must not be closed at the same time."""
        with self.changed:
            return self.changed.wait_for(lambda: all(answer.result for answer in self._closing), deadline.remaining)

    def drained(self, deadline: Deadline) -> bool:
        """Whether by then no answer is awaited any more: none comes when the interpreter ends."""
        with self.changed:
            return self.changed.wait_for(lambda: not self._open, min(deadline.remaining, threading.TIMEOUT_MAX))
