"""A broker that counts nothing, for comparison: `python -m tests.bench.without_metrics` takes what `rocksmqd` takes."""

from typing import Any

from rocksmq.broker.__main__ import main
from rocksmq.broker.telemetry import Telemetry


def nothing(*arguments: Any, **named: Any) -> None:
    """Counts nothing."""


if __name__ == "__main__":
    Telemetry.answered = Telemetry.deliver = Telemetry.committed = nothing  # type: ignore[method-assign]
    Telemetry.produce = lambda self, channel, extent: extent.end_bytes - channel.visible.end_bytes  # type: ignore[method-assign]
    Telemetry.delivering = lambda self, reading, to, done, *, is_repeat: done  # type: ignore[method-assign]
    Telemetry.timed = lambda self, histogram, function: function  # type: ignore[method-assign]
    main(prog_name="rocksmqd")
