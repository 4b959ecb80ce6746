"""Where a broker's positions are kept, for suites that hold for both stores: a data directory, and a real etcd or none."""

from collections.abc import Callable
from itertools import count
from pathlib import Path

from rocksmq.broker.durability import Durability
from rocksmq.broker.engine import RocksMQ
from rocksmq.broker.keys import GROUP, prefix_end
from rocksmq.broker.limits import Limits
from rocksmq.broker.meta_etcd import EtcdRemote, Login
from rocksmq.broker.meta_url import MetaUrl
from rocksmq.broker.remote import Remote
from rocksmq.broker.store import Family, Store
from tests.helpers.etcd import Etcd

from .disk_support import crashed

_prefixes = count()

PATIENT = Limits(meta_wait_seconds=60)  # a busy machine is no outage


class Place:
    """A data directory, and the store of its positions; each engine is a broker's life."""

    def __init__(
        self, directory: Path, remote: Callable[[], Remote | None], current_ids: Callable[[Path], dict[str, str]]
    ) -> None:
        self.directory = directory
        self._remote = remote
        self._current_ids = current_ids

    def engine(self, durability: str = "fsync", limits: Limits | None = None) -> RocksMQ:
        return RocksMQ(self.directory, durability=Durability.parse(durability), limits=limits or PATIENT, remote=self._remote())

    def crash(self) -> None:
        """Go on from what a kill -9 now would leave."""
        self.directory = crashed(self.directory)

    def current_ids(self) -> dict[str, str]:
        """What stands under group/channel/current_id, once no engine runs."""
        return self._current_ids(self.directory)


def _current_ids_in(directory: Path) -> dict[str, str]:
    store = Store(directory / "db")
    try:
        entries = list(store.scan(Family.META, GROUP, prefix_end(GROUP)))
    finally:
        store.close()
    return {key.removeprefix(GROUP).decode(): value.decode() for key, value in entries if key.endswith(b"/current_id")}


def embedded_place(directory: Path) -> Place:
    """Positions in the directory itself."""
    return Place(directory, lambda: None, _current_ids_in)


def etcd_place(directory: Path, etcd: Etcd) -> Place:
    """Positions under a prefix of their own."""
    url = etcd.url(f"rocksmq/{next(_prefixes)}")
    prefix = MetaUrl.parse(url).prefix + "/"

    def current_ids(directory: Path) -> dict[str, str]:
        lines = etcd.ctl("get", "--prefix", prefix).splitlines()
        pairs = zip(lines[::2], lines[1::2], strict=True)
        return {key.removeprefix(prefix): value for key, value in pairs if key.endswith("/current_id")}

    return Place(directory, lambda: EtcdRemote(MetaUrl.parse(url), Login(), call_seconds=10), current_ids)
