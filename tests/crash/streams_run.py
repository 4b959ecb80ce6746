"""One run of `streams`: a broker, writers, a ticker and readers, which are all killed again and again; then the audit."""

import signal
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from random import Random
from typing import NamedTuple

import click

from rocksmq.clients import Client, OwnerDescription
from rocksmq.clients.msgstream import BufferFull, MsgPosition, RmqMsgStreamFactory, TtMsgStream

from .course import CALM, Intensity
from .process import FaultyBroker
from .proxy import Proxy
from .restless import RestlessEtcd
from .streams_audit import Figures, audit, check_same
from .streams_clock import Clock
from .streams_cycles import HANG_SECONDS, Blow, Cycle, Death
from .streams_evidence import Evidence, errors_in, life_in, put_out, read_logs, sent_in
from .streams_pack import Pack, packs_of
from .streams_staff import Member, Staff
from .streams_worker import Part

LINK = Intensity(ending_share=0.5)
MEMTABLE_BYTES = 4 << 20  # so that messages are read from tables, too
SUBSCRIBED = ("ticks", "plain")
READERS = ("ticks-exact", "plain-exact", *SUBSCRIBED)
FRESH_BUFFERS = (None, 300)  # of the readers that read all at the end
SOUGHT = 20  # packs that are sought at the end, at random
PATIENCE_SECONDS = 20.0


class Report(NamedTuple):
    """What a run has seen."""

    figures: Figures
    cycles: int
    kills: Counter[str]
    fenced: int
    errors: Counter[str]
    struck: Sequence[str]


class StreamsRun:
    """One run in ``directory``, which has all that was written down, and stays."""

    def __init__(
        self,
        directory: Path,
        seed: object,
        *,
        channel_count: int = 5,
        writer_count: int = 3,
        has_etcd: bool = False,
        tell: Callable[[str], object] = click.echo,
    ) -> None:
        self._directory = directory
        self._seed = str(seed)
        self._channel_count = channel_count
        self._tell = tell
        self._random = Random(f"{seed}/run")
        self._kills: Counter[str] = Counter()
        self._etcd = RestlessEtcd(directory / "etcd", seed) if has_etcd else None
        self._roles = [("writer", number) for number in range(writer_count)]
        self._roles += [("ticker", 0), *((role, 0) for role in READERS)]
        self.broker = FaultyBroker(directory / "data", memtable_bytes=MEMTABLE_BYTES)

    def run(self, cycles: Iterable[Cycle]) -> Report:
        """All of it. Raises AssertionError."""
        with ExitStack() as stack:
            if self._etcd is not None:
                self.broker.arguments = stack.enter_context(self._etcd).broker_arguments()
            broker, clock = stack.enter_context(self.broker), stack.enter_context(Clock())
            self._start([])
            with Client(broker.url) as mq:
                channels = mq.create_channels(OwnerDescription("crash"), self._channel_count)
            names = [f"{role}-{number}" for role, number in self._roles]
            proxy = stack.enter_context(Proxy(broker.address, self._seed, LINK, names))
            parts = [
                Part(role, number, 0, self._seed, proxy.url_of(name), clock.port, channels, str(self._directory))
                for name, (role, number) in zip(names, self._roles, strict=True)
            ]
            staff = stack.enter_context(Staff([Member(part) for part in parts]))
            staff.await_ready()
            if self._etcd is not None:
                self._etcd.begin()
            count = 0
            for count, cycle in enumerate(cycles, 1):
                self._live(cycle, staff)
                self._tell(f"seed {self._seed}, cycle {count}: {cycle.death}; faults {', '.join(cycle.faults) or 'none'}")
            proxy.intensity = CALM
            if self._etcd is not None:
                self._etcd.calm()
                self._kills |= {f"etcd {kind}": number for kind, number in self._etcd.struck.items()}
            if not broker.is_running:
                self._restart([])
            final = self._drain(staff, clock)
            evidence = self._evidence(staff, channels, final)
            figures = audit(evidence)
            self._check_seeks(channels, packs_of(evidence.logs))
            self._check_end()
            books = [part.book for member in staff.members for part in member.lives]
            errors = Counter(error for book in books for error in errors_in(book))
            return Report(
                figures, count, self._kills, sum(member.fenced_count for member in staff.members), errors, broker.struck()
            )

    # -- cycles ------------------------------------------------------------------

    def _live(self, cycle: Cycle, staff: Staff) -> None:
        if not self.broker.is_running:
            self._restart(cycle.faults)
        begin = time.monotonic()
        for event in cycle.events:
            if not self._wait(begin + event.at * cycle.life_s, staff):
                break
            members = staff.of(*SUBSCRIBED) if event.blow is Blow.TWIN else staff.members
            self._strike(event.blow, members[event.member % len(members)])
        self._wait(begin + cycle.life_s, staff)
        for member in {index % len(staff.members) for index in cycle.together}:
            if staff.members[member].kill(self._random.random() * cycle.away_s):
                self._kills[staff.members[member].part.role] += 1
        if cycle.death is Death.NONE and self.broker.is_running:
            return
        self._end_broker(cycle.death)
        end = time.monotonic() + cycle.away_s
        while (left := end - time.monotonic()) > 0:
            time.sleep(min(left, 0.02))
            staff.check()

    def _strike(self, blow: Blow, member: Member) -> None:
        if blow is Blow.TWIN:
            self._kills["twins"] += member.twin(self._random.choice((0.0, self._random.random() * HANG_SECONDS)))
        elif blow is Blow.STOP:
            self._kills[f"{member.part.role} stopped"] += member.stop()
        else:
            self._kills[member.part.role] += member.kill(self._random.choice((0.0, 0.3)))

    def _wait(self, end: float, staff: Staff) -> bool:
        """Until then, or until a fault ends the broker; whether it still runs."""
        while (left := end - time.monotonic()) > 0 and self.broker.is_running:
            time.sleep(min(left, 0.01))
            staff.check()
        return self.broker.is_running

    def _end_broker(self, death: Death) -> None:
        broker = self.broker
        if not broker.is_running:
            code = broker.wait()
            assert code == -signal.SIGKILL, f"the broker ended by itself with {code}: {self._said()}"
            self._kills["broker at a point"] += 1
        elif death is Death.TERMINATE:
            code = broker.terminate()
            assert code == 0, f"the broker ended with {code}: {self._said()}"
            self._kills["broker SIGTERM"] += 1
        else:
            broker.kill()
            self._kills["broker"] += 1

    def _start(self, faults: Sequence[str]) -> bool:
        """Whether it came so far; a fault may kill it before."""
        self.broker.faults = faults
        if self.broker.start():
            return True
        code = self.broker.wait()
        is_killed = code == -signal.SIGKILL and len(faults) > 0
        assert is_killed, f"the broker does not start, exit code {code}: {self._said()}"
        self._kills["broker in its start"] += 1
        return False

    def _restart(self, faults: Sequence[str]) -> None:
        if not self._start(faults):
            self._start([])

    # -- the end -----------------------------------------------------------------

    def _drain(self, staff: Staff, clock: Clock) -> int:
        """First the writers end, then the ticker with a last tick, then the readers at that. The last tick's timestamp."""
        staff.await_ready()
        staff.end(staff.of("writer"), "stop")
        final = clock.final()
        staff.end(staff.of("ticker", *READERS), f"drain {final}")
        return final

    def _evidence(self, staff: Staff, channels: Sequence[str], final: int) -> Evidence:
        with Client(self.broker.url) as mq:
            logs = read_logs(mq, channels)
        exact = {member.part.name: put_out(member.part.output) for member in staff.of("ticks-exact")}
        for buffer_size in FRESH_BUFFERS:
            exact[f"fresh, buffer {buffer_size}"] = self._fresh(channels, buffer_size, final)
        return Evidence(
            logs=logs,
            senders={part.book.name: sent_in(part.book) for m in staff.of("writer", "ticker") for part in m.lives},
            exact=exact,
            copies={member.part.name: put_out(member.part.output) for member in staff.of("plain-exact")},
            subscribed={m.part.name: [life_in(part.book) for part in m.lives] for m in staff.of("ticks")},
            plain={m.part.name: [life_in(part.book) for part in m.lives] for m in staff.of("plain")},
        )

    def _fresh(self, channels: Sequence[str], buffer_size: int | None, final: int) -> list[Pack]:
        """All packs, by a new subscription; where the buffer is too small for one, a larger one goes on behind the last."""
        packs: list[Pack] = []
        url, size, positions = self.broker.url, buffer_size, list[MsgPosition]()
        while not packs or packs[-1].end_ts < final:
            factory = RmqMsgStreamFactory(url) if size is None else RmqMsgStreamFactory(url, buffer_size=size)
            with factory.new_tt_msg_stream() as stream:
                stream.as_consumer(channels, f"fresh-{buffer_size}")
                stream.start()
                if positions:
                    stream.seek(positions)
                try:
                    while not packs or packs[-1].end_ts < final:
                        packs.append(self._next(stream))
                except BufferFull:
                    assert size is not None, "what waits is not much"
                    size *= 2
                positions = list(packs[-1].ends.values()) if packs else []
        return packs

    def _check_seeks(self, channels: Sequence[str], packs: Sequence[Pack]) -> None:
        """A seek to a pack's end goes on there, in this stream and in the next one of the subscription."""
        factory = RmqMsgStreamFactory(self.broker.url)
        for at in self._random.choices(range(len(packs)), k=SOUGHT):
            name, read = f"sought to the end of {packs[at]}", self._random.randint(0, 2)
            with factory.new_tt_msg_stream() as stream:
                stream.as_consumer(channels, "seeking")
                stream.seek(list(packs[at].ends.values()))
                stream.start()
                for right in packs[at + 1 : at + 1 + read]:
                    check_same(name, self._next(stream), right)
            with factory.new_tt_msg_stream() as stream:
                stream.as_consumer(channels, "seeking")
                stream.start()
                for right in packs[at + 1 + read : at + 3 + read]:
                    check_same(f"{name}, and opened again", self._next(stream), right)

    @staticmethod
    def _next(stream: TtMsgStream) -> Pack:
        pack = stream.consume(timeout=PATIENCE_SECONDS)
        assert pack is not None, f"{stream!r} has no further pack, and waits for {stream.stalled_channels}"
        return Pack.of(pack)

    def _check_end(self) -> None:
        code = self.broker.terminate()
        assert code == 0, f"the broker ended with {code}: {self._said()}"
        log = self.broker.log.read_text()
        assert log.count("Traceback") == log.count("the durable mark could not be written"), self._said()

    def _said(self) -> str:
        return self.broker.log.read_text()[-4_000:]
