"""Contract §4 with positions elsewhere, model-checked: nothing is handed out twice, nothing is skipped, and what was
acknowledged stands in the store, or is told it again when the store loses it.

Hypothesis writes a history: what readers do, which commits of the data fail, what becomes of each transaction, when it
arrives, when the broker is killed or a twin of it goes on beside its successor, and when the store goes back to an earlier
state. It is then played on one Trio loop, step by step, with the clock held between the steps.
"""

from typing import NamedTuple

import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from trio._core import _run  # pyright: ignore[reportPrivateUsage]
from trio.testing import MockClock

from .remote_world import FATES, World
from .simulated_remote import Fate
from .watched_groups import WatchedGroups

EXAMPLES = 180
picks = st.integers(0, 11)
ACTIONS = [*["consume"] * 8, *["produce"] * 3, *["close_reader", "stop", "seek", "commit_to", "group_anew", "channel_anew"]]
MISHAPS = [
    *["nothing", "release", "arrive"] * 3,
    *["pass_time"] * 4,
    *["away", "age", "lose_a_connection", "restart", *["go_back"] * 2],
]


class Round(NamedTuple):
    """Readers act, frames arrive, transactions are sent and data committed, and something happens."""

    actions: list[tuple[str, int, int]]
    frames: int
    fate: Fate
    commit: int  # 0: a full disk; above 3: no commit yet
    mishap: tuple[str, int, int]


small = st.integers(1, 6)
rounds = st.builds(
    Round,
    st.lists(st.tuples(st.sampled_from(ACTIONS), picks, small), max_size=4),
    st.integers(0, 6),
    st.sampled_from(FATES),
    st.integers(0, 5),
    st.tuples(st.sampled_from(MISHAPS), picks, small),
)


async def play(history: list[Round], clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        world = World(nursery, clock)
        try:
            await world.begin()
            for actions, frames, fate, commit, (mishap, pick, count) in history:
                for name, *numbers in actions:
                    getattr(world, name)(*numbers)
                world.take(frames)
                if fate is not Fate.ANSWERED:
                    world.broker.remote.fates.append(fate)
                if commit <= 3:
                    world.commit_data(is_full=commit == 0)
                await world.settle()
                world.check()
                getattr(world, mishap)(pick, count)
                await world.settle()
                world.check()
            await world.finish()
        finally:
            world.end()


def test_given_readers_when_anything_fails_between_broker_and_store_then_every_message_is_read_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("rocksmq.broker.core.Groups", WatchedGroups)
    monkeypatch.setattr(_run, "_ALLOW_DETERMINISTIC_SCHEDULING", True)

    @settings(
        derandomize=True,
        deadline=None,
        database=None,
        max_examples=EXAMPLES,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
        print_blob=False,
    )
    @given(st.lists(rounds, min_size=10, max_size=40))
    def check(history: list[Round]) -> None:
        _run._r.seed(1)  # pyright: ignore[reportPrivateUsage]
        clock = MockClock()
        trio.run(play, history, clock, clock=clock)

    check()
