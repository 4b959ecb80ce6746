"""The window between callers and the sending thread: what is open, what was settled, and what callers are told."""

import pytest

from rocksmq.clients.window import Batch, Window, not_stored
from rocksmq.protocol.batch import encode_headers
from rocksmq.protocol.errors import (
    OUTCOME_UNKNOWN,
    ConnectionFailed,
    InternalError,
    MessageTooLarge,
    PermissionDenied,
    RocksMQError,
)
from rocksmq.protocol.messages import OutgoingMessage


def filled(window: Window, *payloads: bytes) -> Batch:
    """The open batch, with ``payloads`` appended."""
    window.open.items += payloads
    return window.open


def sealed(window: Window, *payloads: bytes) -> Batch:
    """A batch of ``payloads`` that is open no more."""
    batch = filled(window, *payloads)
    window.seal()
    return batch


def payloads_of(error: RocksMQError) -> list[bytes]:
    return [bytes(message.payload) for message in error.not_stored]


def test_given_a_new_window_then_one_empty_batch_is_open() -> None:
    window = Window()
    assert list(window.batches) == [window.open]
    assert (window.open.items, window.unflushed) == ([], 0)


def test_given_a_batch_that_is_sealed_then_another_is_open_behind_it() -> None:
    window = Window()
    with window.lock:
        first = sealed(window, b"a", b"b")
        second = filled(window, b"c")
    assert list(window.batches) == [first, second]
    assert window.open is second
    assert window.unflushed == 3


def test_given_batches_when_one_is_settled_then_it_is_gone_and_the_others_stay_in_order() -> None:
    window = Window()
    with window.lock:
        first, second = sealed(window, b"a"), sealed(window, b"b")
        window.settle(second)
    assert (first.is_settled, second.is_settled) == (False, True)
    assert list(window.batches) == [first, window.open]
    assert window.unflushed == 1


def test_given_the_open_batch_when_it_is_given_up_then_another_is_open() -> None:
    window = Window()
    with window.lock:
        batch = filled(window, b"a")
        window.give_up(batch, InternalError("a bug"))
    assert batch.is_settled
    assert list(window.batches) == [window.open]
    assert window.open is not batch
    assert window.unflushed == 0


def test_given_no_failure_then_nothing_is_raised() -> None:
    Window().raise_failure()


def test_given_a_batch_that_was_given_up_then_the_next_send_attends_and_it_is_told_once() -> None:
    window = Window()
    with window.lock:
        window.give_up(sealed(window, b"a", b"b"), MessageTooLarge("too large", retry_after=3))
        assert window.must_attend
        with pytest.raises(MessageTooLarge, match="2 messages are not stored: too large") as told:
            window.raise_failure()
        window.raise_failure()
    assert payloads_of(told.value) == [b"a", b"b"]
    assert told.value.retry_after == 3


def test_given_failures_of_several_kinds_then_each_kind_is_told_by_itself_and_the_first_kind_first() -> None:
    window = Window()
    with window.lock:
        for payload, error in (
            (b"a", PermissionDenied("no")),
            (b"b", ConnectionFailed("lost")),
            (b"c", PermissionDenied("no again")),
        ):
            window.give_up(sealed(window, payload), error)
        with pytest.raises(PermissionDenied, match=r"2 messages are not stored: no$") as denied:
            window.raise_failure()
        with pytest.raises(ConnectionFailed, match="1 message is of unknown outcome: lost") as lost:
            window.raise_failure()
        window.raise_failure()
    assert payloads_of(denied.value) == [b"a", b"c"]
    assert payloads_of(lost.value) == [b"b"]


def test_given_a_failure_when_it_is_told_then_the_error_is_a_new_one_for_each_caller() -> None:
    error = MessageTooLarge("too large")
    batch = Batch()
    assert not_stored(error, [batch]) is not error
    assert error.not_stored == ()


@pytest.mark.parametrize("kind", OUTCOME_UNKNOWN)
def test_given_an_error_of_unknown_outcome_then_the_message_says_so(kind: type[RocksMQError]) -> None:
    told = not_stored(kind("so it is"), [])
    assert type(told) is kind
    assert told.message == "0 messages are of unknown outcome: so it is"


def test_given_messages_with_headers_when_told_then_they_can_be_sent_again_as_they_were() -> None:
    batch = Batch()
    batch.items = [b"a", (b"b", encode_headers({"kind": b"test"}))]
    told = not_stored(MessageTooLarge("too large"), [batch])
    assert told.not_stored == (OutgoingMessage(b"a"), OutgoingMessage(b"b", {"kind": b"test"}))


def test_given_a_window_that_is_closed_then_nothing_is_taken_or_sent_and_the_next_send_attends() -> None:
    window = Window()
    window.close()  # as in a forked child, where nobody has the lock
    assert (window.is_closing, window.is_closed, window.must_attend) == (True, True, True)
