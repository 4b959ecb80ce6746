"""Pulsar for tests: a real one, from Maven Central, and the quick one that PyPI has.

    python -m tests.helpers.pulsar      fetches what the real one needs, once: 245 MB, unpacked below ~/.cache

Owns the processes, their ports and their files. Of the mirror and of streams it knows nothing. Where a part is missing, the
test is skipped, and told what to install.
"""

import fcntl
import hashlib
import http.client
import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import pytest

from .etcd import free_port

VERSION = "4.0.8"
SHA512 = (
    "65b769b10696cdfebf7fc5bcdc95dd663702e27051e616c1a13cb100e9127952"
    "5be35352171befe7b0011176330aab29bd0a6c8a0f2f0646641af46d2e33cbd6"
)
HOME = Path(os.environ.get("PULSAR_HOME") or Path.home() / ".cache" / f"rocksmq-pulsar-{VERSION}")
FILES = Path(__file__).parent.parent / "integration" / "pulsar"
FETCH_SECONDS = 900.0  # for 245 MB and what Maven itself needs: 300 KiB a second
START_SECONDS = 120.0
STOP_SECONDS = 30.0
CALL_SECONDS = 10.0
POLL_SECONDS = 0.1
LOG_CHARACTERS = 2_000  # of the log's end, in an error
NAMESPACE = "public/default"
_JVM = (
    *("-Xms256m", "-Xmx512m", "-XX:MaxDirectMemorySize=512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"),
    *("-XX:+ExitOnOutOfMemoryError", "--add-opens=java.base/java.nio=ALL-UNNAMED"),
    *("--add-opens=java.base/jdk.internal.misc=ALL-UNNAMED", "-Dio.netty.tryReflectionSetAccessible=true"),
    *("-Djava.net.preferIPv4Stack=true", "-Dlog4j2.is.webapp=false", "-Dlog4j.shutdownHookEnabled=false"),
    "-Dorg.apache.logging.log4j.level=WARN",
)
_ARCHIVE = HOME / "classes.jsa"  # of one start; later ones take half the time


class PulsarFailed(RuntimeError):
    """It did not serve, or refused a request; the message is what it said."""


class PulsarServer(Protocol):
    """What the tests need of either."""

    @property
    def url(self) -> str:
        """Where clients connect."""
        ...


@cache
def refusal() -> str | None:
    """Why there is no real Pulsar here, or None; fetches it."""
    missing = [name for name in ("java", "javac", "mvn") if shutil.which(name) is None]
    if missing:
        return f"no real Pulsar here ({', '.join(missing)} missing): apt-get install openjdk-17-jdk-headless maven"
    try:
        fetch()
    except (OSError, subprocess.CalledProcessError, PulsarFailed) as error:
        said = getattr(error, "stderr", b"") or b""
        return f"no real Pulsar here: {error} {said.decode(errors='replace')[-LOG_CHARACTERS:]}"
    return None


def require_pulsar() -> None:
    """Skip the test that calls this, where no real Pulsar can be started."""
    if reason := refusal():
        pytest.skip(reason)


def require_pulsar_lite() -> None:
    """Skip the test that calls this, where there is no pulsar-lite."""
    for package, name in (("pulsar-client", "pulsar"), ("pulsar-lite", "pulsar_lite")):
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"no pulsar-lite here: pip install {package}")


def fetch() -> None:
    """Have the real Pulsar below HOME; whoever comes second waits for the first. Raises what failed."""
    HOME.parent.mkdir(parents=True, exist_ok=True)
    with (HOME.parent / f"{HOME.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if _ARCHIVE.exists():
            return
        with tempfile.TemporaryDirectory(dir=HOME.parent) as directory:
            _unpack(Path(directory))
            with Pulsar(Path(directory) / "first", flags=[f"-XX:ArchiveClassesAtExit={directory}/classes.jsa"]) as first:
                first.start()
            (Path(directory) / "classes.jsa").replace(_ARCHIVE)


def _unpack(directory: Path) -> None:
    artifact = f"org.apache.pulsar:pulsar-server-distribution:{VERSION}:tar.gz:bin"
    command = ["mvn", "-q", "-B", "-ntp", "dependency:copy", f"-DoutputDirectory={directory}", f"-Dartifact={artifact}"]
    try:
        subprocess.run(command, check=True, capture_output=True, stdin=subprocess.DEVNULL, timeout=FETCH_SECONDS)
    except subprocess.TimeoutExpired as error:
        raise PulsarFailed(f"Maven has not fetched {artifact} within {FETCH_SECONDS:g} s: is its repository there?") from error
    (found,) = directory.glob("*.tar.gz")
    with found.open("rb") as file:
        if hashlib.file_digest(file, "sha512").hexdigest() != SHA512:
            raise PulsarFailed(f"{found.name} is not what it should be, by its SHA-512")
    (HOME / "lib").mkdir(parents=True, exist_ok=True)
    with tarfile.open(found) as archive:
        for member in archive:
            path = Path(member.name)
            if path.parent.name == "lib" and path.suffix == ".jar" and (content := archive.extractfile(member)) is not None:
                with (HOME / "lib" / path.name).open("wb") as jar:
                    shutil.copyfileobj(content, jar)
    classes = ["javac", "-cp", f"{HOME}/lib/*", "-d", str(HOME), str(FILES / "ForgetCrash.java")]
    subprocess.run(classes, check=True, capture_output=True)


class Pulsar:
    """A real Pulsar with its data in ``directory``, which outlive it. A context manager, that leaves no process behind.

    ``settings`` go over those of standalone.conf. Its ports stay the same from start to start.
    """

    def __init__(self, directory: Path, *, settings: Sequence[str] = (), flags: Sequence[str] = ()) -> None:
        self._directory = directory
        self._settings = settings
        self._flags = flags or [f"-XX:SharedArchiveFile={_ARCHIVE}"]
        self._port, self._web, self._bookie = free_port(), free_port(), free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self.headers = {"Content-Type": "application/json"}  # of what is asked of its admin API

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """Where clients connect."""
        return f"pulsar://127.0.0.1:{self._port}"

    @property
    def pid(self) -> int:
        """Of the process."""
        assert self._process is not None, "it runs"
        return self._process.pid

    def start(self) -> None:
        """Return when it takes and gives messages. Raises PulsarFailed."""
        assert self._process is None, "it runs"
        self._directory.mkdir(parents=True, exist_ok=True)
        conf = self._directory / "standalone.conf"
        ports = (f"brokerServicePort={self._port}", f"webServicePort={self._web}")
        conf.write_text("\n".join([(FILES / "standalone.conf").read_text(), *ports, *self._settings, ""]))
        metadata = self._directory / "metadata"
        with (self._directory / "log").open("ab") as log:
            if metadata.exists():
                forget = ["java", "-Xmx128m", "-XX:TieredStopAtLevel=1", "-cp", f"{HOME}/lib/*:{HOME}", "ForgetCrash"]
                subprocess.run([*forget, str(metadata)], stdout=log, stderr=log, check=True)
            command = ["java", *_JVM, *self._flags, "-cp", f"{HOME}/lib/*", "org.apache.pulsar.PulsarStandaloneStarter"]
            command += ["-c", str(conf), "--metadata-dir", str(metadata), "--bookkeeper-port", str(self._bookie)]
            command += ["--bookkeeper-dir", str(self._directory / "bookkeeper"), "--no-functions-worker", "--no-stream-storage"]
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        deadline = time.monotonic() + START_SECONDS
        while not self._is_ready():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise PulsarFailed(f"it does not serve: {self._said()}")
            time.sleep(POLL_SECONDS)

    def stop(self) -> None:
        """End it in order, if it runs."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """kill -9, if it runs."""
        self._end(signal.SIGKILL)

    def freeze(self) -> None:
        """It does nothing any more, and keeps its connections."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """It goes on."""
        os.kill(self.pid, signal.SIGCONT)

    def _end(self, number: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(signal.SIGCONT)
        process.send_signal(number)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _said(self) -> str:
        return (self._directory / "log").read_text(errors="replace")[-LOG_CHARACTERS:]

    # -- its admin API -----------------------------------------------------------

    def _is_ready(self) -> bool:
        try:  # the namespace is the last to be made; health sends a message and reads it
            self.ask("GET", f"namespaces/{NAMESPACE}")
            self.ask("GET", "brokers/health")
        except (OSError, http.client.HTTPException, PulsarFailed):
            return False
        return True

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """A request to /admin/v2/``path``; its JSON, None when there is none. Raises PulsarFailed for a status above 299."""
        with closing(http.client.HTTPConnection("127.0.0.1", self._web, timeout=CALL_SECONDS)) as connection:
            given = None if body is None else json.dumps(body)
            connection.request(method, f"/admin/v2/{path}", given, self.headers)
            answer = connection.getresponse()
            text = answer.read().decode(errors="replace")
        if answer.status > 299:
            raise PulsarFailed(f"{method} {path}: {answer.status} {text[:500]}")
        try:
            return json.loads(text) if text else None
        except ValueError:
            return text

    def create_topic(self, name: str) -> None:
        """One without partitions, in NAMESPACE."""
        self.ask("PUT", f"persistent/{NAMESPACE}/{name}")

    def delete_topic(self, name: str) -> None:
        """Also when somebody uses it."""
        self.ask("DELETE", f"persistent/{NAMESPACE}/{name}?force=true")

    def terminate_topic(self, name: str) -> None:
        """It takes no more messages."""
        self.ask("POST", f"persistent/{NAMESPACE}/{name}/terminate")

    def topics(self) -> list[str]:
        """The names of those in NAMESPACE."""
        return sorted(str(topic).rpartition("/")[2] for topic in self.ask("GET", f"persistent/{NAMESPACE}"))

    def subscriptions(self, name: str) -> list[str]:
        """Of a topic."""
        return sorted(self.ask("GET", f"persistent/{NAMESPACE}/{name}/subscriptions"))

    def backlog(self, name: str, subscription: str) -> int:
        """Messages that the subscription has not acknowledged."""
        found: int = self.ask("GET", f"persistent/{NAMESPACE}/{name}/stats")["subscriptions"][subscription]["msgBacklog"]
        return found


class PulsarLite:
    """PyPI's pulsar-lite: it speaks the protocol, and has neither deduplication nor durability. A context manager."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.kill()

    @property
    def url(self) -> str:
        """Where clients connect."""
        return f"pulsar://127.0.0.1:{self._port}"

    @property
    def pid(self) -> int:
        """Of the process."""
        assert self._process is not None, "it runs"
        return self._process.pid

    def start(self) -> None:
        """Return when it listens. Raises PulsarFailed."""
        spec = importlib.util.find_spec("pulsar_lite")
        assert spec is not None, "it was found before"
        assert spec.origin is not None, "it is a package with a file"
        program = Path(spec.origin).parent / "bin" / "pulsar-lite"
        self._directory.mkdir(parents=True, exist_ok=True)
        with (self._directory / "log").open("ab") as log:
            command = [str(program), "--addr", f"127.0.0.1:{self._port}", "--db-path", str(self._directory / "db")]
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self._directory)
        deadline = time.monotonic() + START_SECONDS
        while not self._listens():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise PulsarFailed(f"it does not listen: {(self._directory / 'log').read_text()[-LOG_CHARACTERS:]}")
            time.sleep(POLL_SECONDS)

    def kill(self) -> None:
        """kill -9, if it runs: nothing of it is to be kept."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self._port)) == 0


if __name__ == "__main__":
    fetch()
    print(HOME)  # noqa: T201
