"""A machine that has only Python: the wheel, a new environment, and the unit started by hand with a socket that hears it."""

import json
import os
import re
import shlex
import signal
import socket
import struct
import subprocess
import sys
import urllib.request
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from zipfile import ZipFile

import pytest

from tests.deploy.support import DEPLOY, ROOT, said, service

PATIENCE_SECONDS = 60.0
WATCHDOG_US = 600_000
CREDENTIALS = struct.Struct("3i")  # pid, uid, gid of whoever sent a datagram
UNREACHABLE = re.compile(r"NewConnectionError|ConnectTimeout|ReadTimeout|ProxyError|NameResolutionError")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("wheel")
    said(sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", directory, ROOT)
    (built,) = directory.glob("*.whl")
    return built


def test_given_the_wheel_when_opened_then_it_has_all_of_the_package_and_nothing_else(wheel: Path) -> None:
    with ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        others = {name.partition(".dist-info/")[2] for name in archive.namelist()} - {""}
    parts = ("broker", "clients", "metrics", "protocol")
    files = [file.relative_to(ROOT / part) for part in parts for file in (ROOT / part).glob("rocksmq/**/*") if file.is_file()]
    caches = re.compile(r"(^|/)(__pycache__|\..*)/")
    assert {file.as_posix() for file in files if not caches.search(file.as_posix())} == names
    assert {f"rocksmq/{part}/py.typed" for part in parts} <= names
    assert "rocksmq/clients/msgstream/messages_pb2.py" in names
    assert not any(re.search(r"(^|/)(tests?|conftest|__pycache__)(/|\.|$)", name) for name in names)
    assert {"METADATA", "entry_points.txt", "licenses/LICENSE"} <= others


@pytest.fixture(scope="module")
def programs(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the commands of a new environment are, in which nothing but the wheel with its extras was installed."""
    made = tmp_path_factory.mktemp("machine") / "venv"
    said(sys.executable, "-m", "venv", made)
    install = (made / "bin" / "python", "-m", "pip", "install", "--quiet", "--retries", "1")
    pinned = ("--require-hashes", "--requirement", ROOT / "requirements" / "image.txt")
    done = subprocess.run(list(map(str, (*install, *pinned))), capture_output=True, text=True, check=False)
    if done.returncode and UNREACHABLE.search(done.stderr):
        pytest.skip("no package index can be reached from here")
    assert done.returncode == 0, done.stderr
    said(*install, "--no-index", f"{wheel}[all]")  # fails where a requirement is not among those pinned
    return made / "bin"


class Supervisor:
    """Hears what a process tells of itself by the protocol of sd_notify; as with NotifyAccess=main, only that process."""

    def __init__(self) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self.socket.settimeout(PATIENCE_SECONDS)
        self.socket.bind("")  # a name that the kernel picks
        self.environment = {
            "NOTIFY_SOCKET": "@" + self.socket.getsockname()[1:].decode(),
            "WATCHDOG_USEC": str(WATCHDOG_US),
        }

    def hear(self, pid: int) -> dict[str, str]:
        """The variables of the next datagram."""
        text, ancillary, _, _ = self.socket.recvmsg(4096, socket.CMSG_SPACE(CREDENTIALS.size))
        assert [CREDENTIALS.unpack(data)[0] for _, _, data in ancillary] == [pid]
        return dict(line.split("=", 1) for line in text.decode().splitlines())

    def wait_for(self, variable: str, pid: int) -> dict[str, str]:
        """The next datagram that sets ``variable`` to 1."""
        while (found := self.hear(pid)).get(variable) != "1":
            pass
        return found


@contextmanager
def started(programs: Path, directory: Path, supervisor: Supervisor) -> Generator[subprocess.Popen[bytes]]:
    """The unit's command with the unit's variables, in ``directory`` instead of / and on free ports; killed in the end."""
    unit = service(DEPLOY / "systemd" / "rocksmqd.service")
    (directory / "rocksmqd.toml").write_text((DEPLOY / "rocksmqd.toml").read_text())
    command = shlex.split(unit["ExecStart"].replace("/opt/rocksmq/bin", str(programs)).replace("/etc/rocksmq", str(directory)))
    name, _, value = unit["Environment"].partition("=")
    environment = {
        "PATH": os.defpath,
        name: value.replace("%S", str(directory)),
        "ROCKSMQ_LISTEN": "127.0.0.1:0",
        "ROCKSMQ_HTTP": "127.0.0.1:0",
        **supervisor.environment,
    }
    with (directory / "output").open("wb") as out:
        process = subprocess.Popen(command, cwd=directory, env=environment, stdout=out, stderr=subprocess.STDOUT)
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        supervisor.socket.close()


@pytest.mark.slow
def test_given_a_new_environment_when_the_unit_is_started_by_hand_then_it_is_ready_lives_serves_reloads_and_stops(
    programs: Path, tmp_path: Path
) -> None:
    supervisor = Supervisor()
    with started(programs, tmp_path, supervisor) as process:
        assert supervisor.wait_for("READY", process.pid)["STATUS"]
        output = (tmp_path / "output").read_text()
        address, http = (re.search(rf"{what} (?:http://)?(\S+:\d+)", output) for what in ("listening on", "health on"))
        assert address is not None, output
        assert http is not None, output

        for _ in range(3):
            supervisor.wait_for("WATCHDOG", process.pid)

        client = (programs / "rocksmq", "--url", f"rocksmq://{address[1]}")
        said(*client, "produce", "greetings", "--create", given="hello\n")
        assert said(*client, "consume", "greetings", "--group", "readers") == "hello\n"
        with urllib.request.urlopen(f"http://{http[1]}/readyz", timeout=PATIENCE_SECONDS) as answer:
            assert json.load(answer)["ready"] is True
        assert (tmp_path / "rocksmq" / "db").is_dir()

        process.send_signal(signal.SIGHUP)
        supervisor.wait_for("RELOADING", process.pid)
        supervisor.wait_for("READY", process.pid)

        process.terminate()
        supervisor.wait_for("STOPPING", process.pid)
        assert process.wait(PATIENCE_SECONDS) == 0, (tmp_path / "output").read_text()
