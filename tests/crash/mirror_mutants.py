"""The real mirror without what makes it exact, so that `mirror` is seen to find that out: `--mutant NAME` of that.

python -m tests.crash.mirror_mutants NAME --json mirror …     as `rocksmq`, broken
"""

import sys
from collections.abc import Callable

from rocksmq.clients.cli import main as rocksmq
from rocksmq.clients.mirror import course, lane
from rocksmq.clients.mirror.resume import Extent, Identity, Last, Resume


def _trust_deduplication() -> None:
    """It goes on at the group's position, at full speed, and leaves it to Pulsar to drop what is there already."""

    def decide(last: Last | None, mirror: str, channel: Identity, group_position: int, extent: Extent) -> Resume:
        return Resume(group_position)

    opened = course.Course.opened

    def flowing(self: course.Course, position: int, counted_to: int = 0) -> None:
        opened(self, position, counted_to)
        self.phase = course.Phase.FLOWING

    setattr(lane, "decide", decide)  # noqa: B010
    course.Course.opened = flowing  # type: ignore[method-assign]


MUTANTS: dict[str, Callable[[], None]] = {"trusts-deduplication": _trust_deduplication}


if __name__ == "__main__":
    MUTANTS[sys.argv.pop(1)]()
    rocksmq(prog_name="rocksmq")
