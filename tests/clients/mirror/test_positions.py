"""Positions of more channels than go into a request."""

from types import SimpleNamespace
from typing import Any, cast

from rocksmq.clients.mirror.groups import Groups, Progress
from rocksmq.clients.mirror.lane import Lane
from rocksmq.clients.mirror.positions import COMMIT_SECONDS, Positions
from rocksmq.clients.mirror.reading import CHANNELS_MAX


def test_given_more_busy_channels_than_go_into_a_request_when_committed_then_each_has_its_turn() -> None:
    count = CHANNELS_MAX + 100
    committed = dict.fromkeys(range(count), 0)

    def begin_commit(places: list[Progress]) -> Any:
        assert len(places) <= CHANNELS_MAX
        for place in places:
            committed[place.number] += 1
        return SimpleNamespace(call=SimpleNamespace(done=True, result=lambda: None))

    def nothing(*given: Any) -> None:
        """Of no interest."""

    def lane(number: int) -> Any:
        return SimpleNamespace(progress=lambda: Progress(number, 1, 1, b""), done=0, committed=nothing)

    positions = Positions(cast(Groups, SimpleNamespace(begin_commit=begin_commit)), nothing, 1.0)
    lanes = cast(list[Lane], [lane(number) for number in range(count)])
    for step in range(12):
        positions.commit(lanes, 2 * step * COMMIT_SECONDS)
    assert min(committed.values()) >= 10
