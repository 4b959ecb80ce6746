"""One run of `mirror`: producers write while broker, mirror and Pulsar are struck; at the end both sides are compared."""

import heapq
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import NamedTuple

import click

from rocksmq.clients import Client, RocksMQError
from tests.helpers.pulsar import Pulsar, PulsarLite

from .mirror_audit import Copy, check_first, check_same
from .mirror_load import KEY, BrokerLoad, Load, PulsarLoad
from .mirror_plan import Blow, Cycle, Kind, Side
from .mirror_read import read_channel, read_channel_by_label, read_topics
from .mirror_sides import MIRROR, REAL, BrokerSide, Life, LiteSide, MirrorSide, PulsarSide, TroubledSide

CHANNELS = tuple(f"orders.{number}" for number in range(4))
TOPIC_TEMPLATE = "persistent://public/default/{channel}"
SETTINGS = ("keepAliveIntervalSeconds=5",)  # so that Pulsar soon lets go of the name of a mirror that hangs
WITHOUT_DEDUPLICATION = ("brokerDeduplicationEnabled=false",)
TICK_SECONDS = 0.01
HEALED_SECONDS = 15.0  # that a settled cycle waits for the mirror, which backs off as it must
DONE_SECONDS = 300.0  # for all to be stored
STALL_SECONDS = 150.0  # without any progress of the mirror once nothing is struck any more
ENDED_BY_SIGTERM = 143


class Report(NamedTuple):
    """What a run has seen. ``doubles``: in Pulsar, where it may have them."""

    messages: int
    cycles: int
    struck: Counter[str]
    lives: Sequence[Life]
    fenced: int
    doubles: int
    caught_up_s: float
    seconds: float


class MirrorRun:
    """One run in ``directory``, which keeps all of it. ``server`` decides whether Pulsar itself is struck.

    ``mirror`` is the program of it, as arguments of Python.
    """

    def __init__(
        self,
        directory: Path,
        seed: object,
        server: Pulsar | PulsarLite,
        *,
        is_back: bool = False,
        has_deduplication: bool = True,
        mirror: Sequence[str] = REAL,
        tell: Callable[[str], object] = click.echo,
    ) -> None:
        self._seed = seed
        self._is_back = is_back
        self._has_deduplication = has_deduplication
        self._tell = tell
        self.broker = BrokerSide(directory)
        self.pulsar = PulsarSide(server) if isinstance(server, Pulsar) else LiteSide(server)
        self.topics = {channel: TOPIC_TEMPLATE.format(channel=channel) for channel in CHANNELS}
        source, target = (self.pulsar.url, self.broker.url) if is_back else (self.broker.url, self.pulsar.url)
        arguments = ["--from", source, "--to", target, "--name", MIRROR]
        if is_back:
            arguments += [part for channel in CHANNELS for part in ("--channels", channel)]
        else:
            arguments += ["--channels", "orders.*", "--key-header", KEY]
        self.mirror = MirrorSide(directory, arguments, mirror, is_either=is_back)
        self._sides: dict[Side, TroubledSide] = {
            Side.BROKER: self.broker,
            Side.MIRROR: self.mirror,
            Side.PULSAR: self.pulsar,
        }
        self._struck: Counter[str] = Counter()
        self._due: list[tuple[float, int, Callable[[], object]]] = []
        self._number = 0

    @property
    def sides(self) -> list[Side]:
        """Who may be struck."""
        return [side for side in Side if not isinstance(self._sides[side], LiteSide)]

    def run(self, messages: int, cycles: Sequence[Cycle]) -> Report:
        """All of it. Raises AssertionError."""
        begin = time.monotonic()
        with ExitStack() as stack:
            for side in (self.pulsar, self.broker):
                stack.callback(side.close)
                side.start()
            stack.callback(self.mirror.close)
            for side in (self.pulsar, self.broker):
                side.await_ready()
            with Client(self.broker.url) as mq:
                for channel in CHANNELS:
                    mq.create_channel(channel)
            load = stack.enter_context(self._load())
            self.mirror.start()
            if self._is_back and isinstance(self.pulsar, LiteSide):
                self._begin(load)
            count = messages // len(CHANNELS)
            for number, cycle in enumerate(cycles, 1):
                self._live(cycle, load, count * (number - 1) / len(cycles), count * number / len(cycles))
                self._tell(f"seed {self._seed}, cycle {number} of {len(cycles)}: {cycle}")
            while self._due:
                self._until(self._due[0][0], load)
            load.allow(count)
            load.end()
            self.broker.await_ready()
            self.pulsar.await_ready()
            load.await_end(DONE_SECONDS)
            caught_up_s = self._await_mirrored(load)
            self.mirror.await_fenced()
            code = self.mirror.terminate()
            doubles = self._audit(load)
            assert code == ENDED_BY_SIGTERM, f"all is mirrored, but the mirror ended with {code}: {self.mirror.said()}"
            return Report(
                messages=sum(map(len, load.copies.values())),
                cycles=len(cycles),
                struck=self._struck,
                lives=self.mirror.lives(),
                fenced=self.mirror.fenced_count,
                doubles=doubles,
                caught_up_s=caught_up_s,
                seconds=time.monotonic() - begin,
            )

    def _load(self) -> Load:
        if self._is_back:
            return PulsarLoad(self._seed, CHANNELS, self.topics, self.pulsar.url)
        return BrokerLoad(self._seed, CHANNELS, self.broker.url)

    # -- cycles ------------------------------------------------------------------

    def _begin(self, load: Load) -> None:
        """Have a message in each channel before anything is struck.

        Until then the mirror reads from its subscription, and pulsar-lite does not hand out again what it has sent to a
        consumer that was killed, as Pulsar does.
        """
        load.allow(1)
        deadline = time.monotonic() + STALL_SECONDS
        with Client(self.broker.url) as mq:
            while not all(mq.describe_channel(channel).message_count for channel in CHANNELS):
                self._check(load)
                assert time.monotonic() < deadline, f"nothing is mirrored before anything is struck: {self.mirror.said()}"
                time.sleep(TICK_SECONDS)

    def _live(self, cycle: Cycle, load: Load, first: float, last: float) -> None:
        """With it the load of each channel goes from ``first`` to ``last``."""
        if cycle.is_settled:
            self._settle(load)
        if cycle.is_flood:
            load.allow(last)
        begin = time.monotonic()
        for blow in cycle.blows:
            self._at(begin + cycle.life_s + blow.after_s, partial(self._strike, blow))
        end = begin + cycle.life_s + max(blow.after_s + blow.away_s + (blow.again_s or 0.0) for blow in cycle.blows)
        while (now := time.monotonic()) < end or self._due:
            load.allow(first + (last - first) * min(1.0, (now - begin) / (end - begin)))
            self._until(now + TICK_SECONDS, load)
        load.allow(last)

    def _settle(self, load: Load) -> None:
        """Broker and Pulsar serve, and the mirror runs, or has had time for that."""
        self.broker.await_ready()
        self.pulsar.await_ready()
        deadline = time.monotonic() + HEALED_SECONDS
        while not self.mirror.is_ready and time.monotonic() < deadline:
            self._until(time.monotonic() + 10 * TICK_SECONDS, load)

    def _strike(self, blow: Blow) -> None:
        side = self._sides[blow.side]
        later = time.monotonic() + blow.away_s
        if side.is_frozen:
            return  # it is struck already
        if blow.kind is Kind.TWIN:
            assert isinstance(side, MirrorSide), "of the others there is one"
            if (former := side.twin()) is not None:
                self._count(blow)
                self._at(later, partial(MirrorSide.release, former))
        elif blow.kind is Kind.STOP:
            if side.freeze():
                self._count(blow)
                self._at(later, side.thaw)
        elif side.kill():
            self._count(blow)
            self._at(later, partial(self._start, blow, side))

    def _start(self, blow: Blow, side: TroubledSide) -> None:
        side.start()
        if blow.again_s is not None:
            again = Blow(blow.side, Kind.KILL, 0.0, 0.0, None)
            self._at(time.monotonic() + blow.again_s, partial(self._strike, again))

    def _count(self, blow: Blow) -> None:
        self._struck[f"{blow.side} {blow.kind}"] += 1

    def _at(self, moment: float, do: Callable[[], object]) -> None:
        self._number += 1
        heapq.heappush(self._due, (moment, self._number, do))

    def _until(self, moment: float, load: Load) -> None:
        """Do what is due until then."""
        while True:
            now = time.monotonic()
            while self._due and self._due[0][0] <= now:
                heapq.heappop(self._due)[2]()
            self._check(load)
            if (left := moment - time.monotonic()) <= 0:
                return
            time.sleep(min(left, TICK_SECONDS))

    def _check(self, load: Load) -> None:
        load.check()
        for side in self._sides.values():
            side.check()

    # -- the end -----------------------------------------------------------------

    def _await_mirrored(self, load: Load) -> float:
        """Until the mirror has done everything; how long that took. Raises AssertionError when nothing moves any more."""
        begin = moved_at = time.monotonic()
        least: int | None = None
        with Client(self.broker.url, timeout=STALL_SECONDS) as mq:
            while left := self._left(mq, load):
                self._check(load)
                now = time.monotonic()
                if least is None or left < least:
                    least, moved_at = left, now
                if now - moved_at > STALL_SECONDS:
                    raise AssertionError(f"{left} messages are not mirrored: {self._difference(load)}: {self.mirror.said()}")
                time.sleep(20 * TICK_SECONDS)
        return time.monotonic() - begin

    def _left(self, mq: Client, load: Load) -> int:
        if self._is_back:
            return sum(max(0, len(load.copies[one]) - mq.describe_channel(one).message_count) for one in CHANNELS)
        try:
            return sum(mq.describe_consumer_group(one, f"mirror.{MIRROR}").lag_messages for one in CHANNELS)
        except RocksMQError:  # the mirror has not made it yet
            return sum(map(len, load.copies.values()))

    def _difference(self, load: Load) -> str:
        try:
            self._audit(load)
        except (AssertionError, RocksMQError) as error:
            return str(error)
        return "but both sides have the same"

    def _audit(self, load: Load) -> int:
        """Compare what was stored with what is on both sides; the number of doubles in Pulsar, if it may have them."""
        is_lite = isinstance(self.pulsar, LiteSide)
        topics = read_topics(self.pulsar.url, self.topics, by_label=self._is_back, is_lite=is_lite)
        with Client(self.broker.url) as mq:
            read = read_channel_by_label if self._is_back else read_channel
            channels = {channel: read(mq, channel) for channel in CHANNELS}
        doubles = 0
        for channel in CHANNELS:
            stored = load.copies[channel]
            if self._is_back:
                doubles += self._compare(f"the load's topic of {channel}, before any mirror,", stored, topics[channel])
                check_same(f"channel {channel}", topics[channel], channels[channel])
            else:
                check_same(f"channel {channel}, before any mirror,", stored, channels[channel])
                doubles += self._compare(f"the topic of {channel}", stored, topics[channel])
        return doubles

    def _compare(self, what: str, wanted: Copy, found: Copy) -> int:
        if not self._has_deduplication:
            return check_first(what, wanted, found)
        check_same(what, wanted, found)
        return 0


def line(report: Report) -> str:
    """The report, to be read."""
    struck = ", ".join(f"{kind} {count}" for kind, count in sorted(report.struck.items()))
    working = [life.messages for life in report.lives if life.messages]
    return "; ".join(
        (
            f"{report.messages:,} messages in {report.seconds:.0f} s",
            f"{sum(report.struck.values())} faults in {report.cycles} cycles ({struck or 'none'})",
            f"{len(report.lives)} lives of the mirror, {len(working)} of which mirrored {min(working, default=0):,} .. "
            f"{max(working, default=0):,} messages as far as they told, {report.fenced} fenced off",
            f"caught up {report.caught_up_s:.1f} s after the last was stored",
            f"lost 0, out of order 0, doubled {report.doubles:,}",
        )
    )


def faults_in(cycles: Iterable[Cycle]) -> int:
    """How many are planned."""
    return sum(blow.fault_count for cycle in cycles for blow in cycle.blows)
