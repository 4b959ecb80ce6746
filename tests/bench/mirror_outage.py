"""What it does to who produces, and to the mirror, that Pulsar is away: `python -m tests.bench.mirror_outage`.

    python -m tests.bench.mirror_outage [--seconds N] [--how kill|freeze] [--batch N] [--pause S] [--dir DIR] [--json]

Two brokers on one disk, one of them mirrored, and one client of each with one `produce` after the other, each fsynced. They
take turns, and while it is the turn of the one without a mirror, the mirror's process is stopped: so it is compared with a
machine that has none. Told are the latencies before and while Pulsar is away, the mirror's memory, and how it catches up.
"""

import tempfile
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import quantiles
from typing import NamedTuple

import click

from rocksmq.clients import Client
from rocksmq.clients.cli.output import show_table
from rocksmq.clients.testing import Broker
from tests.crash.footprint import Footprint
from tests.crash.mirror_sides import MIRROR, MirrorSide, PulsarSide
from tests.helpers.pulsar import Pulsar, fetch

PROJECT = Path(__file__).parents[2]
CHANNEL, PAYLOAD = "orders.1", b"x" * 100
COLUMNS = (
    "Pulsar",
    "produces",
    "p50 us mirrored",
    "p50 us without",
    "p99 us mirrored",
    "p99 us without",
    "p99 ratio",
    "slowest ms",
)
TURN_SECONDS = {True: 1.5, False: 0.75}  # with the mirror, and without it
BEFORE_SECONDS = 30.0
CATCH_UP_SECONDS = 600.0
MIB = 1 << 20


class Phase(NamedTuple):
    """Seconds of each produce: with a mirror (True), and without."""

    mirrored: list[float]
    without: list[float]

    @property
    def ratio(self) -> float:
        """Of the p99s."""
        return p99(self.mirrored) / p99(self.without)


class Outage(NamedTuple):
    """One run."""

    before: Phase
    away: Phase
    rss_before: int
    rss_away: Sequence[int]  # once a turn
    backlog: int  # messages, when Pulsar was back
    ready_s: float  # from its start until it served
    caught_up_s: float  # from then until all was mirrored
    rss_after: int


def p99(seconds: Sequence[float]) -> float:
    """Of as many as there are."""
    return quantiles(seconds, n=100)[98]


class Producers:
    """A client of each broker, one of which is mirrored."""

    def __init__(self, mirrored: Client, without: Client, mirror: MirrorSide, batch: int, pause_s: float) -> None:
        self._clients = {True: mirrored, False: without}
        self._mirror = mirror
        self._batch = [PAYLOAD] * batch
        self._pause_s = pause_s
        self.rss: list[int] = []

    def run(self, seconds: float) -> Phase:
        """Turns for so long, at least one of each."""
        phase, end = Phase([], []), time.monotonic() + seconds
        while not phase.without or time.monotonic() < end:
            self._turn(phase.mirrored, True)
            self.rss.append(self.footprint())
            with self._stopped():
                self._turn(phase.without, False)
            self._mirror.check()
        return phase

    def footprint(self) -> int:
        """The mirror's memory now."""
        pid = self._mirror.pid
        assert pid is not None, "it runs"
        return Footprint.of(pid).rss_bytes

    def _turn(self, taken: list[float], is_mirrored: bool) -> None:
        mq, end = self._clients[is_mirrored], time.monotonic() + TURN_SECONDS[is_mirrored]
        while (begin := time.monotonic()) < end:
            mq.produce(CHANNEL, self._batch)
            taken.append(time.monotonic() - begin)
            time.sleep(self._pause_s)

    @contextmanager
    def _stopped(self) -> Generator[None]:
        self._mirror.freeze()
        yield
        self._mirror.thaw()


def measure(
    directory: Path,
    seconds: float,
    *,
    how: str = "kill",
    batch: int = 50,
    pause_s: float = 0.005,
    before_s: float = BEFORE_SECONDS,
    buffer_bytes: int = 64 * MIB,
    tell: Callable[[str], object] = click.echo,
) -> Outage:
    """Needs a Pulsar that was fetched. Raises AssertionError when something ends, or does not catch up."""
    with ExitStack() as stack:
        pulsar = PulsarSide(Pulsar(directory / "pulsar"))
        stack.callback(pulsar.close)
        pulsar.start()
        brokers = [stack.enter_context(Broker(directory / name)) for name in ("mirrored", "without")]
        clients = [stack.enter_context(broker.client()) for broker in brokers]
        for mq in clients:
            mq.create_channel(CHANNEL)
        clients[1].create_consumer_group(CHANNEL, f"mirror.{MIRROR}")
        pulsar.await_ready()
        arguments = ["--from", brokers[0].url, "--to", pulsar.url, "--channels", "orders.*", "--name", MIRROR]
        mirror = MirrorSide(directory, [*arguments, "--buffer-bytes", str(buffer_bytes)])
        stack.callback(mirror.close)
        mirror.start()
        mirror.await_ready()
        producers = Producers(clients[0], clients[1], mirror, batch, pause_s)
        producers.run(0.0)  # warm
        before = producers.run(before_s)
        await_mirrored(clients[0], mirror)
        rss_before = producers.footprint()
        tell(f"Pulsar is away: {how}")
        producers.rss.clear()
        if how == "freeze":
            pulsar.freeze()
        else:
            pulsar.kill()
        away = producers.run(seconds)
        rss_away = producers.rss.copy()
        backlog = lag(clients[0])
        begin = time.monotonic()
        if how == "freeze":
            pulsar.thaw()
        else:
            pulsar.start()
        pulsar.await_ready()
        ready_at = time.monotonic()
        tell(f"Pulsar is back; {backlog:,} messages wait")
        await_mirrored(clients[0], mirror)
        return Outage(
            before=before,
            away=away,
            rss_before=rss_before,
            rss_away=rss_away,
            backlog=backlog,
            ready_s=ready_at - begin,
            caught_up_s=time.monotonic() - ready_at,
            rss_after=producers.footprint(),
        )


def lag(mq: Client) -> int:
    """Messages that are not mirrored."""
    return mq.describe_consumer_group(CHANNEL, f"mirror.{MIRROR}").lag_messages


def await_mirrored(mq: Client, mirror: MirrorSide) -> None:
    """Until nothing waits. Raises AssertionError."""
    deadline = time.monotonic() + CATCH_UP_SECONDS
    while left := lag(mq):
        mirror.check()
        assert time.monotonic() < deadline, f"{left} messages are not mirrored after {CATCH_UP_SECONDS:g} s: {mirror.said()}"
        time.sleep(0.1)


def row(pulsar: str, phase: Phase) -> dict[str, object]:
    """By COLUMNS."""
    halves = [f"{quantiles(part, n=2)[0] * 1e6:.0f}" for part in phase]
    tails = [f"{p99(part) * 1e6:.0f}" for part in phase]
    slowest = " / ".join(f"{max(part) * 1e3:.1f}" for part in phase)
    counts = " + ".join(str(len(part)) for part in phase)
    return dict(zip(COLUMNS, (pulsar, counts, *halves, *tails, f"{phase.ratio:.2f}", slowest), strict=True))


def memory(found: Outage) -> str:
    """And how it caught up, to be read."""
    shown = found.rss_away[:: max(1, len(found.rss_away) // 10)]
    rate = found.backlog / max(found.caught_up_s, 0.1)
    return (
        f"mirror's memory: {found.rss_before / MIB:.0f} MiB before, then {' '.join(f'{rss / MIB:.0f}' for rss in shown)}, "
        f"{max(found.rss_away) / MIB:.0f} at most, {found.rss_after / MIB:.0f} when caught up; {found.backlog:,} messages "
        f"waited, Pulsar served after {found.ready_s:.1f} s, and {found.caught_up_s:.1f} s later all were there ({rate:,.0f}/s)"
    )


@click.command()
@click.option("--seconds", type=float, default=600.0, show_default=True, help="That Pulsar is away.")
@click.option("--how", type=click.Choice(("kill", "freeze")), default="kill", show_default=True)
@click.option("--batch", type=click.IntRange(min=1), default=50, show_default=True, help="Messages a produce, of 100 bytes.")
@click.option("--pause", type=float, default=0.005, show_default=True, help="Seconds between two produces.")
@click.option("--dir", "parent", type=click.Path(exists=True, file_okay=False), default=PROJECT, help="Where the data lie.")
@click.option("--json", "as_json", is_flag=True)
def main(seconds: float, how: str, batch: int, pause: float, parent: str, as_json: bool) -> None:
    """Take Pulsar away, and bring it back."""
    fetch()
    with tempfile.TemporaryDirectory(prefix=".mirror-outage-", dir=parent) as name:
        found = measure(Path(name), seconds, how=how, batch=batch, pause_s=pause, tell=lambda text: click.echo(text, err=True))
    show_table([row("there", found.before), row("away", found.away)], COLUMNS, as_json=as_json)
    click.echo(memory(found), err=as_json)


if __name__ == "__main__":
    main()
