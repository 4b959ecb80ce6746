"""The ways in which etcd can be away from a broker, each done for real: the rows of `outages`."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self, cast

import grpc

from tests.helpers.etcd import Etcd
from tests.helpers.etcd_client import etcd_client
from tests.helpers.etcd_cluster import EtcdCluster
from tests.helpers.etcd_proxy import EtcdProxy

from .footprint import connected_ports

PREFIX = "outages"
QUOTA_BYTES = 64 << 20
FILLER = "filler/"
FILLER_BYTES = 1 << 20
USER, PASSWORD = "broker", "secret"


class Outage(ABC):
    """One etcd and what happens to it; a context manager that has it running. May strike and be over again and again."""

    is_noticed: ClassVar[bool] = True  # consume answers MetaUnavailable meanwhile

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.arguments: Sequence[str] = ()  # further ones of the broker
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._open(stack)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stack.close()

    @property
    @abstractmethod
    def url(self) -> str:
        """What the broker takes for its positions' place."""

    @abstractmethod
    def strike(self, broker_pid: int) -> None:
        """Etcd is away from that broker when it returns."""

    @abstractmethod
    def heal(self) -> None:
        """Etcd is back when it returns."""

    @abstractmethod
    def _open(self, stack: ExitStack) -> None: ...


class _OfOne(Outage):
    """With one etcd."""

    quota_backend_bytes: ClassVar[int | None] = None
    password: ClassVar[str | None] = None

    def _open(self, stack: ExitStack) -> None:
        self.etcd = stack.enter_context(
            Etcd(self.directory, quota_backend_bytes=self.quota_backend_bytes, password=self.password)
        )

    @property
    def url(self) -> str:
        return self.etcd.url(PREFIX)


class Stopped(_OfOne):
    """SIGSTOP: its connections stay, and nothing is said."""

    def strike(self, broker_pid: int) -> None:
        self.etcd.stop()

    def heal(self) -> None:
        self.etcd.cont()


class _BehindProxy(_OfOne):
    """With one etcd, and a network between."""

    def _open(self, stack: ExitStack) -> None:
        super()._open(stack)
        self.proxy = stack.enter_context(EtcdProxy(self.etcd.endpoint))

    @property
    def url(self) -> str:
        return self.proxy.url(PREFIX)


class Killed(_BehindProxy):
    """kill -9, and started on its data."""

    def strike(self, broker_pid: int) -> None:
        kill(self.etcd, self.proxy)

    def heal(self) -> None:
        self.etcd.start()


class CutOff(_BehindProxy):
    """The network drops all packets."""

    def strike(self, broker_pid: int) -> None:
        self.proxy.black_hole()

    def heal(self) -> None:
        self.proxy.mend()


class RepliesLost(CutOff):
    """The network drops what etcd answers: transactions are applied, and nobody hears of it."""

    def strike(self, broker_pid: int) -> None:
        self.proxy.lose_replies()


class Full(_OfOne):
    """Its quota is used up: it refuses to write until room is made and the alarm disarmed."""

    quota_backend_bytes = QUOTA_BYTES

    def strike(self, broker_pid: int) -> None:
        with etcd_client(self.etcd.endpoint) as client:
            try:
                for number in range(2 * QUOTA_BYTES // FILLER_BYTES):
                    client.put(f"{FILLER}{number}", b"x" * FILLER_BYTES)
            except grpc.RpcError as error:
                if cast(grpc.Call, error).code() is grpc.StatusCode.RESOURCE_EXHAUSTED:
                    return
                raise
        raise AssertionError("etcd does not become full")

    def heal(self) -> None:
        with etcd_client(self.etcd.endpoint) as client:
            client.compact(client.delete_prefix(FILLER).header.revision, physical=True)
        self.etcd.ctl("defrag")
        self.etcd.ctl("alarm", "disarm")


class Forbidden(_OfOne):
    """The broker's user loses its role."""

    password = "root's"

    def _open(self, stack: ExitStack) -> None:
        super()._open(stack)
        self.etcd.ctl("role", "add", USER)
        self.etcd.ctl("role", "grant-permission", USER, "readwrite", f"{PREFIX}/", "--prefix")
        self.etcd.ctl("user", "add", f"{USER}:{PASSWORD}")
        self.heal()
        file = self.directory / "password"
        file.write_text(PASSWORD)
        self.arguments = ("--meta-user", USER, "--meta-password-file", str(file))

    def strike(self, broker_pid: int) -> None:
        self.etcd.ctl("user", "revoke-role", USER, USER)

    def heal(self) -> None:
        self.etcd.ctl("user", "grant-role", USER, USER)


class MemberDown(Outage):
    """Of three the one is killed that the broker speaks to."""

    is_noticed = False

    def _open(self, stack: ExitStack) -> None:
        self.cluster = stack.enter_context(EtcdCluster(self.directory))
        self._down = self.cluster.members[0]

    @property
    def url(self) -> str:
        return self.cluster.url(PREFIX)

    def strike(self, broker_pid: int) -> None:
        ports = connected_ports(broker_pid)
        (self._down,) = [member for member in self.cluster.members if member.port in ports]
        self._stop()

    def heal(self) -> None:
        self._down.start()

    def _stop(self) -> None:
        self._down.kill()


class MemberStopped(MemberDown):
    """SIGSTOP of that one: it has to be waited for before another is asked."""

    def heal(self) -> None:
        self._down.cont()

    def _stop(self) -> None:
        self._down.stop()


def kill(etcd: Etcd, proxy: EtcdProxy) -> None:
    """kill -9 of an etcd that is alone, with clients behind ``proxy``, so that it keeps all that they were told it has.

    Before 3.5.5 one that is alone acknowledges a write before that is in its log (etcd issue 14370). So its clients hear
    no more of it, until one more write shows that those before it are there.
    """
    proxy.black_hole()
    etcd.ctl("put", "all before this", "are in the log")
    etcd.kill()
    proxy.cut()
    proxy.mend()


OUTAGES: dict[str, type[Outage]] = {
    "stopped": Stopped,
    "killed": Killed,
    "cut off": CutOff,
    "replies lost": RepliesLost,
    "full": Full,
    "auth revoked": Forbidden,
    "one of three down": MemberDown,
    "one of three stopped": MemberStopped,
}
