import pytest

from rocksmq.clients.mirror.silence import (
    GIVEN_UP_SECONDS,
    REFUSED_OPENINGS,
    REFUSED_SECONDS,
    SILENT_SECONDS,
    Alone,
    Silence,
)
from rocksmq.protocol.errors import MessageTooLarge, RocksMQError, Timeout

MESSAGE = Alone(7, 1, 60_000)


def look(
    silence: Silence,
    seconds: float,
    alone: Alone | None = MESSAGE,
    *,
    is_connected: bool = True,
    is_pulsar_there: bool = False,
) -> RocksMQError | None:
    return silence.look("t", seconds, alone, is_connected=is_connected, is_pulsar_there=is_pulsar_there)


def opened(silence: Silence, alone: Alone | None = MESSAGE) -> RocksMQError | None:
    """An opening in which the connection is lost, comes back, and nothing is answered."""
    silence.broken(is_answered=False)
    assert look(silence, 0.3, alone, is_connected=False) is None
    return look(silence, SILENT_SECONDS + 0.1, alone)


def test_given_a_message_alone_that_costs_each_connection_when_it_has_cost_enough_then_it_is_told_by_id_and_size() -> None:
    silence = Silence()
    for _ in range(REFUSED_OPENINGS - 1):
        assert isinstance(opened(silence), Timeout)
    told = opened(silence)
    assert isinstance(told, MessageTooLarge)
    assert "message 7 of 60000 bytes" in told.message
    silence.broken(is_answered=False)
    assert isinstance(look(silence, REFUSED_SECONDS + 0.1, is_connected=False), MessageTooLarge)


def test_given_connections_lost_when_the_message_is_answered_between_then_it_is_not_refused() -> None:
    silence = Silence()
    for _ in range(REFUSED_OPENINGS * 2):
        assert isinstance(opened(silence), Timeout)
        assert silence.is_suspect
        silence.broken(is_answered=True)
        assert not silence.is_suspect


def test_given_connections_lost_when_it_is_another_message_each_time_then_none_is_refused() -> None:
    silence = Silence()
    for number in range(REFUSED_OPENINGS * 2):
        assert isinstance(opened(silence, Alone(number, 1, 10)), Timeout)


@pytest.mark.parametrize("alone", [MESSAGE, None])
def test_given_a_connection_that_lasts_when_nothing_comes_then_pulsar_is_waited_for_and_nothing_suspected(
    alone: Alone | None,
) -> None:
    silence = Silence()
    for _ in range(REFUSED_OPENINGS * 2):
        silence.broken(is_answered=False)
        assert look(silence, GIVEN_UP_SECONDS - 1, alone) is None
        assert isinstance(look(silence, GIVEN_UP_SECONDS + 1, alone), Timeout)
    assert not silence.is_suspect


def test_given_many_on_the_way_when_the_connection_is_lost_then_only_a_pulsar_that_is_there_is_asked_at_once() -> None:
    silence = Silence()
    assert look(silence, SILENT_SECONDS + 1, None, is_connected=False) is None
    assert isinstance(look(silence, SILENT_SECONDS + 1, None, is_connected=False, is_pulsar_there=True), Timeout)
    assert not silence.is_suspect
