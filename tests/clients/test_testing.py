"""`rocksmq.clients.testing`: the broker for users' tests, and the fixtures as users' projects see them."""

import gc
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from urllib.request import urlopen

import pytest

from rocksmq.clients import testing
from rocksmq.clients.testing import Broker

GUIDE = (Path(__file__).parents[2] / "clients" / "testing.md").read_text()
NAMED_IN_CONFTEST = 'pytest_plugins = ["rocksmq.clients.testing"]\n'
NO_AUTOLOAD = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
PATIENCE_SECONDS = 60


def runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def python(*arguments: str, directory: Path, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Python in a user's project, as if from the user's shell."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=directory,
        env=inherited | (environment or {}),
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )


def project(directory: Path, **files: str) -> Path:
    """A user's project with these Python files, in which every warning is an error."""
    directory.mkdir()
    (directory / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\naddopts = --strict-markers --strict-config\n")
    for name, content in files.items():
        (directory / f"{name}.py").write_text(content)
    return directory


def without_the_extra(directory: Path) -> dict[str, str]:
    """An environment in which the broker's dependency trio seems not to be installed."""
    directory.mkdir()
    (directory / "trio.py").write_text("raise ModuleNotFoundError('No module named trio', name='trio')\n")
    return {"PYTHONPATH": str(directory)}


# The broker.


def test_given_no_directory_when_started_then_it_serves_and_its_files_go_with_it() -> None:
    broker = Broker()
    with broker:
        with broker.client() as mq:
            assert mq.create_channel("orders")
        pid, parent = broker.pid, broker.directory.parent
        assert broker.address.startswith("127.0.0.1:")
        assert broker.url == f"rocksmq://{broker.address}"
        assert broker.log.parent == parent
    assert not runs(pid)
    assert parent.exists(), "its log can be read behind the block"
    del broker
    gc.collect()
    assert not parent.exists()


def test_given_metrics_that_were_asked_for_when_restarted_then_they_are_where_they_were(tmp_path: Path) -> None:
    with Broker(tmp_path / "data", http="127.0.0.1:0") as broker:
        url = broker.http_url
        assert re.fullmatch(r"http://127\.0\.0\.1:[1-9]\d+", url)
        broker.restart()
        assert broker.http_url == url
        with urlopen(f"{url}/livez", timeout=10) as answer:
            assert answer.read() == b'{"alive": true}\n'


def test_given_metrics_that_nobody_asked_for_when_started_then_there_are_none() -> None:
    with Broker() as broker:
        assert broker.command()[-2:] == ["--http", "off"]
        with pytest.raises(RuntimeError, match="not asked for metrics"):
            print(broker.http_url)  # noqa: T201


def test_given_a_forked_child_when_it_ends_then_the_temporary_directory_stays(tmp_path: Path) -> None:
    script = (
        "import os, sys\nfrom rocksmq.clients.testing import Broker\nbroker = Broker()\nchild = os.fork()\n"
        "if child == 0:\n    sys.exit()\nos.waitpid(child, 0)\n"
        "print(broker.directory.parent.exists(), broker.directory.parent)\n"
    )
    result = python("-c", script, directory=tmp_path)
    existed, _, parent = result.stdout.strip().partition(" ")
    assert existed == "True", result.stderr
    assert not Path(parent).exists(), "it goes with the process that made it"


def test_given_a_relative_directory_when_the_working_directory_changes_then_it_is_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    broker = Broker("deep/er/data")
    monkeypatch.chdir("/")
    with broker:
        assert broker.directory == tmp_path / "deep" / "er" / "data"
        assert (broker.directory / "db").is_dir()
        assert broker.log == tmp_path / "deep" / "er" / "data.log"
        assert broker.log.exists()


def test_given_messages_when_restarted_then_data_and_port_stay_and_the_process_is_another(tmp_path: Path) -> None:
    with Broker(tmp_path / "data") as broker, broker.client() as mq:
        mq.create_channel("orders")
        mq.produce("orders", [b"one", b"two"])
        address, pid = broker.address, broker.pid
        broker.restart()
        assert (broker.address, runs(pid)) == (address, False)
        assert mq.fetch("orders", "earliest").payloads == [b"one", b"two"]


def test_given_messages_when_killed_and_started_then_they_are_there(tmp_path: Path) -> None:
    with Broker(tmp_path / "data") as broker, broker.client() as mq:
        mq.create_channel("orders")
        mq.produce("orders", [b"one"])
        address, pid = broker.address, broker.pid
        broker.kill()
        assert not runs(pid)
        broker.kill()  # nothing more to kill
        broker.start()
        assert broker.address == address
        assert mq.fetch("orders", "earliest").payloads == [b"one"]


def test_given_a_running_broker_when_terminated_then_exit_code_0_and_only_start_is_left_to_do(tmp_path: Path) -> None:
    with Broker(tmp_path / "data") as broker:
        assert broker.terminate() == 0
        for call in (broker.terminate, broker.wait, broker.restart, lambda: broker.pid):
            with pytest.raises(RuntimeError, match="does not run"):
                call()


def test_given_a_running_broker_when_started_then_an_error_says_so_and_it_runs_on(tmp_path: Path) -> None:
    with Broker(tmp_path / "data") as broker:
        with pytest.raises(RuntimeError, match=f"runs already, as process {broker.pid}"):
            broker.start()
        with broker.client() as mq:
            mq.ping()


def test_given_a_broker_that_was_killed_from_outside_when_restarted_then_that_is_told_and_it_can_be_started(
    tmp_path: Path,
) -> None:
    with Broker(tmp_path / "data") as broker:
        os.kill(broker.pid, signal.SIGKILL)
        with pytest.raises(RuntimeError, match="exit code -9"):
            broker.restart()
        broker.start()
        os.kill(broker.pid, signal.SIGKILL)
        os.waitid(os.P_PID, broker.pid, os.WEXITED | os.WNOWAIT)
        broker.start()
        with broker.client() as mq:
            mq.ping()


def test_given_a_block_that_fails_when_left_then_nothing_runs(tmp_path: Path) -> None:
    pid = 0
    with pytest.raises(ZeroDivisionError), Broker(tmp_path / "data") as broker:  # noqa: PT012
        pid = broker.pid
        print(1 / 0)  # noqa: T201
    assert pid
    assert not runs(pid)


def test_given_a_start_that_is_interrupted_when_it_raises_then_nothing_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []

    def interrupted(process: "subprocess.Popen[str]", _wanted: object) -> None:
        seen.append(process.pid)
        raise KeyboardInterrupt

    monkeypatch.setattr("rocksmq.clients.testing._ready", interrupted)
    with pytest.raises(KeyboardInterrupt):
        Broker(tmp_path / "data").start()
    assert not runs(seen[0])


class Deaf(Broker):
    """Says what it is told to, and ignores SIGTERM."""

    says = ""

    def command(self) -> list[str]:
        script = (
            f"import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint({self.says!r}, flush=True)\nsignal.pause()"
        )
        return [sys.executable, "-c", script]


def test_given_a_process_that_is_never_ready_when_started_then_it_is_killed_and_that_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(testing, "START_SECONDS", 0.2)
    with pytest.raises(RuntimeError, match=r"not ready within 0\.2 s, exit code -9: its log is empty"):
        Deaf(tmp_path / "data").start()


def test_given_a_process_that_does_not_end_when_terminated_then_it_is_killed_and_that_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(testing, "STOP_SECONDS", 0.2)
    broker = Deaf(tmp_path / "data")
    broker.says = "listening on 127.0.0.1:1"
    broker.start()
    pid = broker.pid
    with pytest.raises(RuntimeError, match=r"not ended after 0\.2 s"):
        broker.terminate()
    assert not runs(pid)


def test_given_a_bad_argument_when_started_then_the_error_holds_what_the_broker_said_now(tmp_path: Path) -> None:
    (tmp_path / "data.log").write_text("something of an earlier start\n")
    with pytest.raises(RuntimeError, match="did not start, exit code 2: ") as caught:
        Broker(tmp_path / "data", "--durability", "perhaps").start()
    assert "perhaps" in str(caught.value)
    assert "earlier" not in str(caught.value)


def test_given_a_directory_that_cannot_be_used_when_started_then_the_error_names_it(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    for directory in (file, file / "data", file / "deep" / "data"):
        with pytest.raises(RuntimeError, match=re.escape(str(file))):
            Broker(directory).start()


def test_given_options_in_the_environment_when_started_then_only_those_given_here_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROCKSMQ_FLAVOUR", "mint")
    with Broker(tmp_path / "data", environment={"ROCKSMQ_DURABILITY": "os"}) as broker:
        with broker.client() as mq:
            assert mq.server.durability == "os"
        broker.environment["ROCKSMQ_FLAVOUR"] = "mint"
        with pytest.raises(RuntimeError, match="ROCKSMQ_FLAVOUR"):
            broker.restart()


def test_given_the_extra_is_missing_when_started_then_the_error_says_what_to_install(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=re.escape("pip install 'rocksmq[broker]'")):
        Broker(tmp_path / "data", environment=without_the_extra(tmp_path / "missing")).start()


# The plugin, in a user's project.

TESTS = """
import os
from pathlib import Path

def test_one(rocksmq_broker, rocksmq_client, tmp_path):
    assert rocksmq_client.create_channel("orders")
    assert list(tmp_path.iterdir()) == []
    with Path("pids").open("a") as file:
        print(rocksmq_broker.pid, file=file)

def test_another_has_a_broker_of_its_own(rocksmq_client, rocksmq_broker):
    assert rocksmq_client.create_channel("orders")
    rocksmq_broker.kill()

def test_there_is_one_plugin(pytestconfig):
    plugins = [name for name, _ in pytestconfig.pluginmanager.list_name_plugin() if "rocksmq" in name]
    assert plugins == ["rocksmq.clients.testing"]
"""
LOADED_BY: dict[str, tuple[str, list[str], dict[str, str]]] = {
    "itself": ("", [], {}),
    "a conftest alone": (NAMED_IN_CONFTEST, [], NO_AUTOLOAD),
    "itself and a conftest": (NAMED_IN_CONFTEST, [], {}),
    "a conftest that imported it before": (f"from rocksmq.clients.testing import Broker\n{NAMED_IN_CONFTEST}", [], NO_AUTOLOAD),
    "the command line": ("", ["-p", "rocksmq.clients.testing"], NO_AUTOLOAD),
    "all of them": (NAMED_IN_CONFTEST, ["-p", "rocksmq.clients.testing"], {}),
}


@pytest.mark.parametrize("case", LOADED_BY)
def test_given_a_project_when_the_plugin_is_loaded_then_its_fixtures_work_without_a_warning(tmp_path: Path, case: str) -> None:
    conftest, arguments, environment = LOADED_BY[case]
    place = project(tmp_path / "project", conftest=conftest, test_orders=TESTS)
    result = python("-m", "pytest", *arguments, directory=place, environment=environment)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "3 passed" in result.stdout
    assert "warning" not in result.stdout
    assert not any(runs(int(pid)) for pid in (place / "pids").read_text().split())


def test_given_a_test_that_fails_when_it_ended_then_nothing_runs(tmp_path: Path) -> None:
    test = "def test_it(rocksmq_broker, rocksmq_client):\n    assert rocksmq_broker.pid == 0\n"
    result = python("-m", "pytest", directory=project(tmp_path / "project", test_it=test))
    assert result.returncode == pytest.ExitCode.TESTS_FAILED
    (pid,) = re.findall(r"^E +assert (\d+) == 0", result.stdout, re.MULTILINE)
    assert not runs(int(pid))


def test_given_the_extra_is_missing_when_a_test_asks_for_a_broker_then_it_is_told_what_to_install(tmp_path: Path) -> None:
    only_for_the_broker = f"import os\nos.environ.update({without_the_extra(tmp_path / 'missing')!r})\n"
    test = "def test_it(rocksmq_client):\n    pass\n"
    result = python("-m", "pytest", directory=project(tmp_path / "project", conftest=only_for_the_broker, test_it=test))
    assert "1 error" in result.stdout
    assert "pip install 'rocksmq[broker]'" in result.stdout


def test_given_the_clients_when_imported_then_pytest_is_not(tmp_path: Path) -> None:
    result = python(
        "-c", "import sys, rocksmq.clients, rocksmq.clients.cli; sys.exit('pytest' in sys.modules)", directory=tmp_path
    )
    assert result.returncode == 0, result.stderr


# The guide.


def examples() -> dict[str, str]:
    """Its examples by the file name that heads each."""
    return dict(re.findall(r"```python\n# (\w+)\.py\n(.*?)```", GUIDE, re.DOTALL))


def test_given_the_guide_when_its_examples_run_then_they_do_as_it_says(tmp_path: Path) -> None:
    found = examples()
    assert set(found) == {"test_orders", "conftest", "crash"}
    result = python("-m", "pytest", directory=project(tmp_path / "own", test_orders=found["test_orders"]))
    assert "2 passed" in result.stdout, result.stdout
    result = python("-W", "error", "-c", found["crash"], directory=tmp_path)
    assert result.returncode == 0, result.stderr


def test_given_the_guides_conftest_when_tests_run_then_they_share_one_broker(tmp_path: Path) -> None:
    tests = (
        "def test_one(rocksmq_client):\n    assert rocksmq_client.create_channel('orders')\n"
        "def test_two(rocksmq_client):\n    assert rocksmq_client.list_channels() == ['orders']\n"
    )
    place = project(tmp_path / "project", conftest=examples()["conftest"], test_shared=tests)
    result = python("-m", "pytest", directory=place)
    assert "2 passed" in result.stdout, result.stdout
