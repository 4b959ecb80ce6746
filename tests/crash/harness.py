"""The crash harness: many workers, a bad link, a broker that is killed again and again; at the end everything is checked.

The workers live over all cycles and heal by the client alone. Whatever is wrong is raised as AssertionError.
"""

import signal
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from random import Random

import click

from rocksmq.clients import Client

from .audit import Audit, Report
from .cast import CHANNELS, GROUPS, WHOLE_CAST
from .course import CALM, Intensity
from .cycles import Cycle, Death
from .power import cut_power
from .process import FaultyBroker
from .proxy import Proxy
from .restless import RestlessEtcd
from .staff import KILLABLE, Member, Staff
from .worker import Part

LINK = Intensity(ending_share=0.7)
MEMTABLE_BYTES = 4 << 20  # so that logs change, and messages are read from tables


class Harness:
    """One run in ``directory``. ``mutant`` breaks the broker, to see that the checks find it.

    With ``has_etcd`` positions are kept there, and it is killed and stopped too, unless it is not ``is_etcd_restless``.
    """

    def __init__(
        self,
        directory: Path,
        seed: object,
        *,
        cast: Sequence[Part] = WHOLE_CAST,
        intensity: Intensity = LINK,
        mutant: str | None = None,
        has_etcd: bool = False,
        is_etcd_restless: bool = True,
        tell: Callable[[str], object] = click.echo,
    ) -> None:
        self._directory = directory
        self._seed = seed
        self._cast = cast
        self._intensity = intensity
        self._tell = tell
        self._random = Random(f"{seed}/power")
        self._is_etcd_restless = is_etcd_restless
        self._etcd = RestlessEtcd(directory / "etcd", seed) if has_etcd else None
        self.broker = FaultyBroker(directory / "data", mutant=mutant, power=True, memtable_bytes=MEMTABLE_BYTES)

    def run(self, cycles: Iterable[Cycle]) -> Report:
        """All of it. Raises AssertionError."""
        with ExitStack() as stack:
            if self._etcd is not None:
                self.broker.arguments = stack.enter_context(self._etcd).broker_arguments()
            broker = stack.enter_context(self.broker)
            self._started()
            with Client(broker.url) as mq:
                for channel in CHANNELS:
                    mq.create_channel(channel)
                for group, channel in GROUPS.items():
                    mq.create_consumer_group(channel, group)
            names = [part.name for part in self._cast]
            proxy = stack.enter_context(Proxy(broker.address, self._seed, self._intensity, names))
            staff = stack.enter_context(Staff([Member(part, proxy.url_of(part.name), self._directory) for part in self._cast]))
            staff.await_begun()
            broker.kill()
            if self._etcd is not None and self._is_etcd_restless:
                self._etcd.begin()
            count = 0
            for count, cycle in enumerate(cycles, 1):
                self._live(cycle, staff)
                self._tell(f"seed {self._seed}, cycle {count}: {cycle.death}, faults {', '.join(cycle.faults) or 'none'}")
            proxy.intensity = CALM
            if self._etcd is not None:
                self._etcd.calm()
            self._started()
            staff.drain()
            with Client(broker.url) as mq:
                report = Audit(mq, staff.members).run()
            code = broker.terminate()
            assert code == 0, f"the broker ended with {code}: {self._said()}"
            self._check_log()
            etcd = dict(self._etcd.struck) if self._etcd is not None else {}
            return report._replace(cycles=count, struck=broker.struck(), link=dict(proxy.stats), etcd=etcd)

    def _live(self, cycle: Cycle, staff: Staff) -> None:
        """One life of the broker, from start to end."""
        broker = self.broker
        if cycle.start_fault is not None:
            broker.faults = [f"{cycle.start_fault}=kill"]
            assert not broker.start()
            assert broker.wait() == -signal.SIGKILL, self._said()
            self._maybe_cut_power(cycle)
        if not self._started(cycle.faults):
            self._maybe_cut_power(cycle)
            return
        end = time.monotonic() + cycle.life_s
        if cycle.event is not None:
            self._wait(end - cycle.life_s * (1 - cycle.event.at), staff)
            self._replace(staff.members[cycle.event.worker % len(staff.members)], is_kill=cycle.event.is_kill)
        self._wait(end, staff)
        if cycle.death is Death.TERMINATE:
            code = broker.terminate()
            assert code == 0, f"the broker ended with {code}: {self._said()}"
        else:
            if not broker.is_running:
                code = broker.wait()
                assert code == -signal.SIGKILL, f"the broker ended by itself with {code}: {self._said()}"
            broker.kill()
            self._maybe_cut_power(cycle)

    def _started(self, faults: Sequence[str] = ()) -> bool:
        """Start the broker; False when a fault has killed it in its start. Raises AssertionError when it does not start."""
        broker = self.broker
        broker.faults = faults
        struck = len(broker.struck()) if broker.log.exists() else 0
        if broker.start():
            return True
        code = broker.wait()
        is_killed = any(fault.partition("=")[2].startswith("kill") for fault in broker.struck()[struck:])
        assert is_killed, f"the broker does not start, exit code {code}: {self._said()}"
        return False

    def _wait(self, end: float, staff: Staff) -> None:
        """Until then, or until a fault ends the broker."""
        while (left := end - time.monotonic()) > 0 and self.broker.is_running:
            time.sleep(min(left, 0.02))
            staff.check()

    def _maybe_cut_power(self, cycle: Cycle) -> None:
        if cycle.cuts_power:
            cut_power(self.broker.directory, self.broker.notes, self._random.choice((None, self._random)))

    @staticmethod
    def _replace(member: Member, *, is_kill: bool) -> None:
        if is_kill and member.part.role in KILLABLE:
            member.kill()
            member.start()
        else:
            member.order("stop")

    def _check_log(self) -> None:
        """The only errors in the broker's log are those that were imitated."""
        log = self.broker.log.read_text()
        assert log.count("Traceback") == log.count("the durable mark could not be written"), self._said()

    def _said(self) -> str:
        return self.broker.log.read_text()[-4_000:]
