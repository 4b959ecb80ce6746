"""The real mirror with one of its safeguards taken out, so that `mirror` is seen to need it: `--mutant NAME` of that.

python -m tests.crash.mirror_mutants NAME --json mirror …     as `rocksmq`, broken
"""

import sys
from collections.abc import Callable

from rocksmq.clients.cli import main as rocksmq
from rocksmq.clients.mirror import course, lane
from rocksmq.clients.mirror.resume import Last, Resume


def _trust_the_group() -> None:
    """It goes on where the group's position is, whatever the topic holds."""

    def decide(last: Last | None, mirror: str, channel_number: int, group_position: int, end_id: int) -> Resume:
        return Resume(group_position)

    setattr(lane, "decide", decide)  # noqa: B010


def _flow_at_once() -> None:
    """Behind an opening it sends whole batches, though some of a producer before may still be stored."""
    opened = course.Course.opened

    def flowing(self: course.Course, position: int) -> None:
        opened(self, position)
        self.phase = course.Phase.FLOWING

    course.Course.opened = flowing  # type: ignore[method-assign]


MUTANTS: dict[str, Callable[[], None]] = {"trusts the group": _trust_the_group, "flows at once": _flow_at_once}


if __name__ == "__main__":
    MUTANTS[sys.argv.pop(1)]()
    rocksmq(prog_name="rocksmq")
