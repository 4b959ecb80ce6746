"""`rocksmq backup` as it is given by hand: a running broker is copied, and another one starts on the copy."""

import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from click.testing import CliRunner, Result

from rocksmq.broker import backup, backup_files, backup_target
from rocksmq.broker.backup import Lease, create
from rocksmq.broker.backup_manifest import NAME, Manifest
from rocksmq.broker.backup_target import target_of
from rocksmq.broker.directory import read_format, sync_directory
from rocksmq.clients import Client
from rocksmq.clients.cli import main
from rocksmq.clients.testing import Broker
from rocksmq.protocol.administration import BackupBegin, BackupBegun
from tests.helpers.ledger import wait_until
from tests.helpers.terminal import Terminal

COUNT = 3_000
MEMORY = Path("/dev/shm")


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    """With tables (it was started twice), a log, and a group in the midst of its messages."""
    with Broker(tmp_path / "data") as process:
        with process.client() as mq:
            mq.create_channel("orders")
            mq.create_channel("empty")
            mq.create_consumer_group("orders", "billing")
            mq.produce("orders", [b"%d" % number for number in range(COUNT - 1_000)])
        process.restart()
        with process.client() as mq:
            mq.produce("orders", [b"%d" % number for number in range(COUNT - 1_000, COUNT)])
            mq.consume("orders", "billing", 100)
        yield process


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments], prog_name="rocksmq")


def succeeded(*arguments: object) -> Result:
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    return result


def failed(code: int, *arguments: object) -> str:
    """What stderr says; stdout is empty."""
    result = run(*arguments)
    assert (result.exit_code, result.stdout) == (code, ""), result.output
    return result.stderr


def created(broker: Broker, target: Path, *options: object) -> dict[str, Any]:
    """What the command says of the backup, as JSON."""
    found: dict[str, Any] = json.loads(succeeded("--url", broker.url, "--json", "backup", "create", target, *options).stdout)
    return found


def checkpoints(broker: Broker) -> list[str]:
    return [path.name for path in broker.directory.glob("checkpoint-*")]


def payloads_of(mq: Client, channel: str = "orders") -> list[bytes]:
    """All that it holds."""
    found: list[bytes] = []
    position: int | str = "earliest"
    while batch := mq.fetch(channel, position):
        found += batch.payloads
        position = batch.next_position
    return found


@pytest.mark.parametrize("name", ["copy", "copy.tar.zst"])
def test_given_a_running_broker_when_backed_up_and_restored_then_another_one_goes_on_from_there(
    broker: Broker, tmp_path: Path, name: str
) -> None:
    with broker.client() as mq:
        made = created(broker, tmp_path / name)
        assert checkpoints(broker) == []
        later = mq.produce("orders", [b"later"])
        total = json.loads(succeeded("--json", "backup", "verify", tmp_path / name).stdout.splitlines()[-1])
        assert (total["problems"], total["message_count"], total["channels"], total["groups"]) == (0, COUNT, 2, 1)
        told = json.loads(succeeded("--json", "backup", "restore", tmp_path / name, tmp_path / "restored").stdout)
        assert told["backup_of"] == made["instance"] == read_format(broker.directory)[1]
        assert told["instance"] == read_format(tmp_path / "restored")[1] != made["instance"]
        assert told["commit_number"] >= made["commit_number"]
        with Broker(tmp_path / "restored") as other, other.client() as theirs:
            assert payloads_of(theirs) == [b"%d" % number for number in range(COUNT)]
            assert theirs.describe_channel("empty").message_count == 0
            assert theirs.consume("orders", "billing", 1).payloads == [b"100"]
            assert theirs.produce("orders", [b"other"])[0] > later[0]
            assert other.terminate() == 0
        assert payloads_of(mq) == [*(b"%d" % number for number in range(COUNT)), b"later"]
    succeeded("check", tmp_path / "restored")


def test_given_the_same_file_system_when_backed_up_then_tables_are_linked_and_logs_are_copied(
    broker: Broker, tmp_path: Path
) -> None:
    made = created(broker, tmp_path / "copy")
    assert made["linked_bytes"] > 0
    assert made["linked_bytes"] + made["copied_bytes"] == made["bytes"]
    files = list((tmp_path / "copy" / "db").iterdir())
    assert {file.stat().st_nlink > 1 for file in files if file.suffix == ".sst"} == {True}
    assert {file.stat().st_nlink for file in files if file.suffix != ".sst"} == {1}
    assert {file.stat().st_mode & 0o077 for file in (tmp_path / "copy", tmp_path / "copy" / NAME, *files)} == {0}
    assert not list(tmp_path.glob("*.partial"))


@pytest.mark.skipif(not os.access(MEMORY, os.W_OK), reason="no other file system")
def test_given_another_file_system_when_backed_up_on_a_base_then_what_is_equal_is_linked_to_it(
    broker: Broker, tmp_path: Path
) -> None:
    with TemporaryDirectory(dir=MEMORY) as name:
        monday, tuesday = Path(name) / "monday", Path(name) / "tuesday"
        first = created(broker, monday)
        assert first["linked_bytes"] == 0
        second = created(broker, tuesday, "--base", monday)
        assert second["linked_bytes"] > 0
        linked = [file.name for file in (tuesday / "db").iterdir() if file.stat().st_nlink > 1]
        assert linked
        assert {Path(file).suffix for file in linked} == {".sst"}
        succeeded("backup", "verify", tuesday)
        damaged = monday / "db" / linked[0]
        damaged.unlink()
        damaged.write_bytes(b"short")
        assert created(broker, Path(name) / "wednesday", "--base", monday)["linked_bytes"] < second["linked_bytes"]
        succeeded("backup", "verify", Path(name) / "wednesday")


@pytest.mark.skipif(not os.access(MEMORY, os.W_OK), reason="no other file system")
def test_given_a_base_that_has_rotted_when_backed_up_on_it_then_the_damage_is_not_inherited(broker: Broker) -> None:
    with TemporaryDirectory(dir=MEMORY) as name:
        monday, tuesday = Path(name) / "monday", Path(name) / "tuesday"
        created(broker, monday)
        for table in (monday / "db").glob("*.sst"):
            content = bytearray(table.read_bytes())
            content[len(content) // 2] ^= 1
            table.chmod(0o600)
            table.write_bytes(content)
        assert created(broker, tuesday, "--base", monday)["linked_bytes"] == 0
        succeeded("backup", "verify", tuesday)


def test_given_a_file_system_without_links_when_backed_up_to_a_tar_then_it_is_there_and_overwrites_nothing(
    broker: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(source: Path, target: Path) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr("rocksmq.broker.backup_target.os.link", refuse)
    created(broker, tmp_path / "copy.tar.zst")
    succeeded("backup", "verify", tmp_path / "copy.tar.zst")
    manifest = Manifest(1, "i" * 32, "now", 1, 1, "embedded", True, ())
    with target_of(tmp_path / "x.tar.zst", None) as target:
        target.begin(manifest, tmp_path)
        (tmp_path / "x.tar.zst").write_text("mine")
        with pytest.raises(backup_files.BackupMisused, match="never overwrites"):
            target.finish(manifest)
    assert sorted(path.name for path in tmp_path.glob("*.tar.zst*")) == ["copy.tar.zst", "x.tar.zst"]
    assert (tmp_path / "x.tar.zst").read_text() == "mine"


@pytest.mark.skipif(not os.access(MEMORY, os.W_OK), reason="no other file system")
def test_given_a_base_with_another_content_under_a_name_when_backed_up_then_that_is_copied(
    broker: Broker, tmp_path: Path
) -> None:
    with TemporaryDirectory(dir=MEMORY) as name:
        created(broker, Path(name) / "monday")
        manifest = Manifest.decode((Path(name) / "monday" / NAME).read_bytes())
        others = tuple(file._replace(sha256="0" * 64) for file in manifest.files)
        (Path(name) / "monday" / NAME).write_bytes(manifest._replace(files=others).encode())
        assert created(broker, Path(name) / "tuesday", "--base", Path(name) / "monday")["linked_bytes"] == 0
        succeeded("backup", "verify", Path(name) / "tuesday")


def test_given_a_target_that_cannot_be_when_backed_up_then_nothing_is_touched_and_the_usage_is_told(
    broker: Broker, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "directory").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    (tmp_path / "half.partial").mkdir()
    before = sorted(tmp_path.iterdir())
    create = ("--url", broker.url, "backup", "create")
    for name in ("file", "directory", "link"):
        assert "never overwrites" in failed(2, *create, tmp_path / name)
    for here in (".", "/"):
        assert "never overwrites" in failed(2, *create, here)
    assert "half.partial is left of a backup that was cut short" in failed(2, *create, tmp_path / "half")
    assert "is no directory" in failed(2, *create, tmp_path / "absent" / "copy")
    assert "has no backup.json" in failed(2, *create, tmp_path / "copy", "--base", tmp_path / "directory")
    (tmp_path / "directory" / NAME).write_text("{}")
    assert "backup.json is damaged" in failed(1, *create, tmp_path / "copy", "--base", tmp_path / "directory")
    assert sorted(tmp_path.iterdir()) == before
    assert (tmp_path / "file").read_text() == "mine"
    assert checkpoints(broker) == []


def test_given_a_base_and_a_tar_when_backed_up_then_it_is_refused(broker: Broker, tmp_path: Path) -> None:
    created(broker, tmp_path / "monday")
    told = failed(2, "--url", broker.url, "backup", "create", tmp_path / "x.tar.zst", "--base", tmp_path / "monday")
    assert "--base needs a directory" in told


def test_given_no_broker_when_backed_up_then_nothing_is_left(tmp_path: Path) -> None:
    for name in ("copy", "copy.tar.zst"):
        failed(1, "--url", "rocksmq://127.0.0.1:1", "--timeout", "0.1", "backup", "create", tmp_path / name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["copy", "copy.tar.zst"])
def test_given_a_disk_that_becomes_full_while_copying_when_backed_up_then_nothing_is_left(
    broker: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    written = 0
    write = backup_files.SyncedFile.write

    def full(file: backup_files.SyncedFile, data: bytes) -> int:
        nonlocal written
        written += len(data)
        if written > 5_000:
            raise OSError(28, "No space left on device")
        return write(file, data)

    monkeypatch.setattr(backup_files.SyncedFile, "write", full)
    assert "No space left" in failed(1, "--url", broker.url, "backup", "create", tmp_path / name)
    assert not list(tmp_path.glob("copy*"))
    assert checkpoints(broker) == []


def test_given_a_disk_without_room_when_backed_up_then_it_does_not_begin_to_copy(
    broker: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backup_files, "RESERVE_BYTES", 1 << 60)
    assert "do not fit onto the disk" in failed(1, "--url", broker.url, "backup", "create", tmp_path / "copy")
    assert not list(tmp_path.glob("copy*"))


KILLED = """
import os, signal, sys
from rocksmq.broker import backup_target
add = backup_target.{kind}.add
def killed(self, source, file, tick):
    if file.name.startswith("db/MANIFEST"):
        os.kill(os.getpid(), signal.SIGKILL)
    return add(self, source, file, tick)
backup_target.{kind}.add = killed
from rocksmq.clients.cli import main
main(sys.argv[1:])
"""


@pytest.mark.parametrize(("name", "kind"), [("copy", "DirectoryTarget"), ("copy.tar.zst", "TarTarget")])
def test_given_a_command_that_was_killed_when_looked_at_then_its_target_is_no_backup_and_is_named(
    broker: Broker, tmp_path: Path, name: str, kind: str
) -> None:
    program = KILLED.format(kind=kind)
    code = subprocess.run(
        [sys.executable, "-c", program, "--url", broker.url, "backup", "create", str(tmp_path / name)], check=False
    ).returncode
    assert code == -signal.SIGKILL
    assert not (tmp_path / name).exists()
    assert len(checkpoints(broker)) == 1
    partial = tmp_path / f"{name}.partial"
    assert str(partial) in failed(2, "--url", broker.url, "backup", "create", tmp_path / name)
    assert "is no backup" in failed(2, "backup", "verify", partial)
    told = failed(1, "--url", broker.url, "--timeout", "0.1", "backup", "create", tmp_path / "other")
    assert "another backup is under way" in told
    broker.restart()
    wait_until(lambda: checkpoints(broker) == [], "the checkpoint is gone")
    created(broker, tmp_path / "other")


@pytest.mark.parametrize("is_renewed", [False, True])
def test_given_a_broker_that_is_killed_in_the_midst_when_backed_up_then_it_says_so_and_nothing_is_left(
    broker: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_renewed: bool
) -> None:
    add = backup_target.DirectoryTarget.add
    is_killed = False
    if is_renewed:
        monkeypatch.setattr(backup, "RENEW_SECONDS", 0)

    def killed(target: Any, source: Path, file: Any, tick: Callable[[int], None]) -> Any:
        nonlocal is_killed
        if file.name.startswith("db/MANIFEST") and not is_killed:
            is_killed = True
            content = source.read_bytes()
            broker.kill()
            broker.start()
            wait_until(lambda: not source.parent.exists(), "the checkpoint is gone")
            if is_renewed:  # it was open already
                source = tmp_path / "MANIFEST"
                source.write_bytes(content)
        return add(target, source, file, tick)

    monkeypatch.setattr(backup_target.DirectoryTarget, "add", killed)
    assert "it was started anew" in failed(1, "--url", broker.url, "backup", "create", tmp_path / "copy")
    assert not list(tmp_path.glob("copy*"))
    assert checkpoints(broker) == []
    created(broker, tmp_path / "copy")


def test_given_a_copy_that_takes_long_when_backed_up_then_the_lease_is_renewed(
    broker: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    renewals = 0
    monkeypatch.setattr(backup, "RENEW_SECONDS", 0)
    keep = Lease.keep

    def counted(lease: Lease) -> None:
        nonlocal renewals
        renewals += 1
        keep(lease)

    monkeypatch.setattr(Lease, "keep", counted)
    created(broker, tmp_path / "copy")
    assert renewals > 3


def test_given_a_checkpoint_out_of_sight_when_backed_up_then_it_says_where_to_run_the_command(tmp_path: Path) -> None:
    def call(request: object) -> object:
        return BackupBegun("/elsewhere/checkpoint-1", "", 0, 1) if isinstance(request, BackupBegin) else None

    with (
        pytest.raises(backup_files.BackupFailed, match="run this command on the broker's machine"),
        target_of(tmp_path / "copy", None) as target,
    ):
        create(Lease(call), target, lambda done, total: None)
    assert list(tmp_path.iterdir()) == []


def test_given_a_checkpoint_behind_its_mark_when_backed_up_then_it_is_refused(broker: Broker, tmp_path: Path) -> None:
    with broker.client() as mq:
        link = mq._link  # pyright: ignore[reportPrivateUsage]

        def call(request: object) -> object:
            found = link.call(request, mq._deadline())  # pyright: ignore[reportPrivateUsage]
            return found._replace(mark=found.mark + 1) if isinstance(found, BackupBegun) else found

        with pytest.raises(backup_files.BackupFailed, match="a bug"), target_of(tmp_path / "copy", None) as target:
            create(Lease(call), target, lambda done, total: None)
    assert not list(tmp_path.glob("copy*"))


def test_given_a_directory_that_is_not_empty_when_restored_into_then_it_is_left_alone(broker: Broker, tmp_path: Path) -> None:
    created(broker, tmp_path / "copy")
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "mine").write_text("mine")
    for target in (tmp_path / "taken", tmp_path / "taken" / "mine", broker.directory):
        assert "is not empty" in failed(2, "backup", "restore", tmp_path / "copy", target)
    assert "is no directory" in failed(2, "backup", "restore", tmp_path / "copy", tmp_path / "absent" / "data")
    assert [path.name for path in (tmp_path / "taken").iterdir()] == ["mine"]
    (tmp_path / "mounted" / "lost+found").mkdir(parents=True)
    succeeded("backup", "restore", tmp_path / "copy", tmp_path / "mounted")
    with Broker(tmp_path / "mounted") as other, other.client() as mq:
        assert mq.describe_channel("orders").message_count == COUNT


def test_given_a_directory_that_another_takes_meanwhile_when_restored_into_then_it_is_the_others(
    broker: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    created(broker, tmp_path / "copy")
    taken, ended = tmp_path / "taken", tmp_path / "ended"
    other = Broker(taken)

    def start(path: Path) -> None:
        sync_directory(path)
        other.start()

    def begin_and_end(path: Path) -> None:
        sync_directory(path)
        (ended / "format").write_text("mine")

    monkeypatch.setattr(backup, "sync_directory", start)
    try:
        told = failed(1, "backup", "restore", tmp_path / "copy", taken)
        assert f"in use by rocksmqd with pid {other.pid}" in told
        with other.client() as mq:
            mq.create_channel("mine")
    finally:
        other.kill()
    monkeypatch.setattr(backup, "sync_directory", begin_and_end)
    assert "is not empty" in failed(2, "backup", "restore", tmp_path / "copy", ended)
    assert (ended / "format").read_text() == "mine"


SHOWN = """
import sys
from rocksmq.broker import commands_bar
commands_bar.PROGRESS_SECONDS = 0
from rocksmq.clients.cli import main
main(sys.argv[1:])
"""


def test_given_a_terminal_when_backed_up_then_how_far_it_is_is_shown(broker: Broker, tmp_path: Path) -> None:
    command = [sys.executable, "-c", SHOWN, "--url", broker.url, "backup", "create", str(tmp_path / "copy")]
    with Terminal(command, 200, 20) as terminal:
        assert terminal.end() == 0
    assert b"of 0 MB" in terminal.shown
    assert b"copied" in terminal.shown
