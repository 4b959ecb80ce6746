"""`rocksmq meta` and `rocksmq check` with a real etcd, as they are given by hand: what they print, and how they end."""

import json
import os
import re
import stat
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest
import trio
from click.testing import CliRunner, Result

from rocksmq.broker.engine import RocksMQ
from rocksmq.clients.cli import main
from rocksmq.clients.testing import Broker
from tests.helpers.etcd import USER, Etcd, free_port

PASSWORD = "never-shown"

_prefixes = count()


@pytest.fixture(scope="module")
def etcd() -> Iterator[Etcd]:
    with Etcd() as process:
        yield process


@pytest.fixture
def url(etcd: Etcd) -> str:
    return etcd.url(f"commands/{next(_prefixes)}")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Of a broker that was stopped, with one group in the midst of four messages."""

    async def load() -> None:
        async with RocksMQ(tmp_path / "data") as mq:
            await mq.create_channel("orders")
            await mq.create_consumer_group("orders", "billing")
            await mq.produce("orders", [b"a", b"b", b"c", b"d"])
            await mq.consume("orders", "billing", 2)

    before = os.umask(0o077)  # as rocksmqd does
    try:
        trio.run(load)
    finally:
        os.umask(before)
    return tmp_path / "data"


def run(*arguments: object, stdin: str | None = None) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments], stdin, prog_name="rocksmq")


def succeeded(*arguments: object, stdin: str | None = None) -> Result:
    result = run(*arguments, stdin=stdin)
    assert result.exit_code == 0, result.output
    return result


def failed(*arguments: object, stdin: str | None = None) -> str:
    """The one line on stderr, which follows exit code 1 and an empty stdout."""
    result = run(*arguments, stdin=stdin)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.count("\n") == 1
    return result.stderr


def moved(data: Path, source: str, target: str) -> None:
    exported = succeeded("meta", "export", "--data-dir", data, "--meta", source).stdout
    succeeded("meta", "import", "--data-dir", data, "--meta", target, "-", stdin=exported)


def test_given_clients_that_stay_when_positions_are_moved_there_and_back_then_each_message_is_read_once(
    tmp_path: Path, url: str
) -> None:
    payloads = [b"%d" % number for number in range(12)]
    read: list[bytes] = []
    with Broker(tmp_path / "data") as broker, broker.client(timeout=60.0) as mq:
        mq.create_channel("orders")
        mq.create_consumer_group("orders", "billing")
        mq.produce("orders", payloads)
        source = "embedded"
        for target in (url, "embedded", url):
            read += mq.consume("orders", "billing", 3).payloads
            broker.terminate()
            moved(broker.directory, source, target)
            succeeded("check", broker.directory, "--meta", target)
            broker.arguments, source = ("--meta", target), target
            broker.start()
        read += mq.consume("orders", "billing", 3).payloads
        assert mq.consume("orders", "billing").payloads == []
    assert read == payloads


def test_given_a_move_when_done_by_hand_then_stdout_is_the_file_and_the_rest_is_told(
    data: Path, url: str, tmp_path: Path
) -> None:
    result = succeeded("meta", "export", "--data-dir", data)
    assert [sorted(json.loads(line)) for line in result.stdout.splitlines()] == [
        ["commit_number", "epoch", "instance", "kind", "store", "version"],
        ["channel", "group", "state"],
        ["groups", "sha256"],
    ]
    assert result.stderr == "1 group of embedded\n"
    (tmp_path / "positions.jsonl").write_text(result.stdout)
    result = succeeded("meta", "import", "--data-dir", data, "--meta", url, tmp_path / "positions.jsonl")
    prefix = url.split("/", 3)[3]
    assert result.stdout.splitlines() == [
        f"1 group moved from embedded to etcd prefix {prefix}, read back and compared",
        f"from now on the broker is started with --meta {url}",
    ]
    assert result.stderr == ""


def test_given_json_when_imported_then_one_object_is_printed(data: Path, url: str) -> None:
    exported = succeeded("meta", "export", "--data-dir", data).stdout
    result = succeeded("--json", "meta", "import", "--data-dir", data, "--meta", url, "-", stdin=exported)
    assert json.loads(result.stdout)["groups"] == 1


def test_given_the_environment_when_moved_then_it_names_the_store_as_for_the_broker(
    data: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    exported = succeeded("meta", "export", "--data-dir", data).stdout
    monkeypatch.setenv("ROCKSMQ_META", url)
    monkeypatch.setenv("ROCKSMQ_DATA_DIR", str(data))
    succeeded("meta", "import", "-", stdin=exported)
    assert "1 group" in succeeded("check", data).stdout.splitlines()[1]


def test_given_what_does_not_fit_when_imported_then_it_is_refused_or_accepted_in_so_many_words(data: Path, url: str) -> None:
    exported = succeeded("meta", "export", "--data-dir", data).stdout
    assert "are kept in embedded already" in failed("meta", "import", "--data-dir", data, "-", stdin=exported)
    result = succeeded("meta", "import", "--data-dir", data, "--accept-loss", "-", stdin=exported)
    assert result.stderr.startswith("accepted: the positions are kept in embedded already")
    assert "was changed" in failed("meta", "import", "--data-dir", data, "--meta", url, "-", stdin=exported[:-2])
    assert "no file of" in failed("meta", "import", "--data-dir", data, "--meta", url, "-", stdin="")
    assert "--meta names their store" in failed("meta", "export", "--data-dir", data, "--meta", url)


def test_given_a_broker_that_runs_when_moved_then_one_line_says_so(data: Path, url: str) -> None:
    exported = succeeded("meta", "export", "--data-dir", data).stdout
    with Broker(data) as broker:
        for arguments in (("export",), ("import", "--meta", url, "-")):
            line = failed("meta", *arguments, "--data-dir", data, stdin=exported)
            assert line.startswith(f"error: the data directory {data} is in use by rocksmqd with pid {broker.pid} ")
            assert line.endswith(": stop it first\n")


@pytest.mark.parametrize(
    "arguments",
    [
        ["export", "--meta", "etcd:"],
        ["export", "--data-dir", "no such directory"],
        ["import", "no such file"],
        ["import", "--data-dir", "/", "-"],
        ["import"],
        [],
    ],
)
def test_given_a_wrong_usage_when_moved_then_the_exit_code_is_2(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run("meta", *arguments).exit_code == 2
    assert not list(tmp_path.iterdir())


def test_given_root_in_somebody_else_s_directory_when_imported_then_nothing_is_written(
    data: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    exported = succeeded("meta", "export", "--data-dir", data).stdout
    if os.geteuid() == 0:
        os.chown(data / "format", 1, -1)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    result = run("meta", "import", "--data-dir", data, "--meta", url, "-", stdin=exported)
    assert result.exit_code == 2
    assert "belongs to the user with id" in result.stderr


def test_given_any_umask_when_imported_then_what_is_written_is_nobody_else_s(data: Path, url: str) -> None:
    exported = succeeded("meta", "export", "--data-dir", data).stdout
    before = os.umask(0o022)
    try:
        succeeded("meta", "import", "--data-dir", data, "--meta", url, "-", stdin=exported)
        assert os.umask(0o022) == 0o022
    finally:
        os.umask(before)
    assert not [file for file in data.rglob("*") if file.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO)]


def test_given_etcd_away_when_moved_or_checked_then_it_is_told_and_nothing_is_lost(data: Path) -> None:
    url = f"etcd://127.0.0.1:{free_port()}/away"
    exported = succeeded("meta", "export", "--data-dir", data).stdout
    line = failed("meta", "import", "--data-dir", data, "--meta", url, "-", stdin=exported)
    assert line.startswith(f"error: {url}: it cannot be reached (")
    assert succeeded("meta", "export", "--data-dir", data).stdout == exported


def test_given_a_store_that_cannot_be_reached_when_checked_then_it_is_a_problem(data: Path, etcd: Etcd, url: str) -> None:
    moved(data, "embedded", url)
    note = succeeded("check", data).stdout.splitlines()[1]
    assert re.fullmatch(r"note  positions: they are kept in etcd prefix commands/\d+: not checked; --meta \S+ names it", note)
    away = url.replace(str(etcd.port), str(free_port()))
    result = run("check", data, "--meta", away)
    assert result.exit_code == 1
    assert re.search(r"PROBLEM  positions: etcd prefix \S+: it cannot be reached: they were not checked\n", result.stdout)
    assert "checked 1 channel, 0 groups, 4 messages" in result.stdout


def test_given_a_password_when_moved_and_checked_then_it_is_used_and_never_shown(data: Path, tmp_path: Path) -> None:
    right, wrong = tmp_path / "right", tmp_path / "wrong"
    right.write_text(f"{PASSWORD}\n")
    wrong.write_text(f"{PASSWORD}-not")
    exported = succeeded("meta", "export", "--data-dir", data).stdout
    with Etcd(tmp_path / "etcd", password=PASSWORD) as etcd:
        login = ["--data-dir", data, "--meta", etcd.url("p"), "--meta-user", USER, "--meta-password-file"]
        assert "it refuses" in failed("meta", "import", *login, wrong, "-", stdin=exported)
        shown = succeeded("meta", "import", *login, right, "-", stdin=exported).output
        shown += succeeded("meta", "export", *login, right).output
        shown += succeeded("check", data, *login[2:], right).output
        result = run("check", data, *login[2:], wrong)
        assert result.exit_code == 1
        assert PASSWORD not in shown + result.output
