"""Three etcd of a test as one cluster."""

import json
import shutil
import tempfile
from pathlib import Path

from .certificates import Certificates
from .etcd import ATTEMPTS, Etcd, EtcdFailed, PortTaken, free_port
from .server import Server

NAMES = ("a", "b", "c")


class EtcdCluster(Server):
    """Three members, each an `Etcd` to kill, stop and start; a context manager. Two of them are enough to serve.

    ``certificates``, ``password`` and ``flags`` as of an Etcd.
    """

    def __init__(
        self,
        directory: Path | None = None,
        *flags: str,
        certificates: Certificates | None = None,
        password: str | None = None,
    ) -> None:
        self._is_temporary = directory is None
        self.directory = directory or Path(tempfile.mkdtemp(prefix="etcd-"))
        self._flags = flags
        self._certificates = certificates
        self._password = password
        self.members: list[Etcd] = []

    @property
    def endpoints(self) -> str:
        """HOST:PORT of all, with commas."""
        return ",".join(member.endpoint for member in self.members)

    def url(self, prefix: str) -> str:
        """What the broker takes for its positions' place."""
        return f"etcd://{self.endpoints}/{prefix.lstrip('/')}"

    def ctl(self, *arguments: str) -> str:
        """Run etcdctl, which may ask any member; what it wrote. Raises EtcdFailed."""
        return self.members[0].ctl(*arguments, endpoints=self.endpoints)

    def leader(self) -> Etcd:
        """The member that leads, as the others see it. Raises EtcdFailed when there is none just now."""
        for member in self.members:
            if not member.is_running:
                continue
            (told,) = json.loads(member.ctl("endpoint", "status", "--write-out", "json"))
            if told["Status"]["leader"] == told["Status"]["header"]["member_id"]:
                return member
        raise EtcdFailed("no member leads")

    def close(self) -> None:
        """kill -9 of all, and remove what is temporary."""
        for member in self.members:
            member.close()
        if self._is_temporary:
            shutil.rmtree(self.directory, ignore_errors=True)

    def start(self) -> None:
        """Return when all serve. Raises EtcdFailed."""
        for attempt in range(ATTEMPTS):
            peer_ports = {name: free_port() for name in NAMES}
            self.members = [
                Etcd(
                    self.directory / str(attempt) / name,
                    *self._flags,
                    certificates=self._certificates,
                    password=self._password,
                    member=name,
                    cluster=peer_ports,
                )
                for name in NAMES
            ]
            try:
                self._launch()
                return
            except PortTaken:
                if attempt == ATTEMPTS - 1:
                    raise
                for member in self.members:
                    member.kill()

    def _launch(self) -> None:
        for member in self.members:
            member.launch()
        for member in self.members:
            member.wait_ready()
        self.members[0].enable_auth()
        for member in self.members:
            member.has_auth = self.members[0].has_auth
