"""A backup that is damaged, by bits, by files, by versions: `verify` names it, and `restore` makes nothing of it."""

import io
import json
import os
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest
import zstandard
from click.testing import CliRunner, Result

from rocksmq.broker import backup, backup_files, keys
from rocksmq.broker.backup_manifest import KIND, NAME, BackupFile, Manifest
from rocksmq.broker.backup_source import unpack
from rocksmq.broker.directory import FORMAT
from rocksmq.broker.store import Delete, Family, Store
from rocksmq.clients.cli import main
from rocksmq.clients.testing import Broker

TAR = "copy.tar.zst"


@pytest.fixture(scope="module")
def backups(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the backups `copy` and `copy.tar.zst`."""
    path = tmp_path_factory.mktemp("backups")
    with Broker(path / "data") as broker, broker.client() as mq:
        mq.create_channel("orders")
        mq.produce("orders", [b"%d" % number for number in range(1_000)])
        broker.restart()
        mq.produce("orders", [b"%d" % number for number in range(1_000)])
        for name in ("copy", TAR):
            assert run("--url", broker.url, "backup", "create", path / name).exit_code == 0
    return path


@pytest.fixture
def copy(backups: Path, tmp_path: Path) -> Path:
    """A backup in a directory, to be damaged."""
    return shutil.copytree(backups / "copy", tmp_path / "copy")


@pytest.fixture
def tar(backups: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(backups / TAR, tmp_path / TAR))


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments], prog_name="rocksmq")


def problems_of(backup: Path) -> list[tuple[str, str]]:
    """What `verify` finds: subjects and texts; it ends with 1, and counts them."""
    result = run("--json", "backup", "verify", backup)
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    found = [(line["subject"], line["text"]) for line in lines if line["kind"] == "problem"]
    assert result.exit_code == (1 if found else 0), result.output
    assert lines[-1]["problems"] == len(found)
    return found


def refused(backup: Path, code: int = 1) -> str:
    """What `restore` says; nothing is left of it."""
    target = backup.with_name("restored")
    result = run("backup", "restore", backup, target)
    assert (result.exit_code, result.stdout) == (code, ""), result.output
    assert not target.exists()
    target.mkdir()
    assert run("backup", "restore", backup, target).exit_code == code
    assert list(target.iterdir()) == []
    target.rmdir()
    return result.stderr


def flip(file: Path, at: int) -> None:
    content = bytearray(file.read_bytes())
    content[at] ^= 1
    file.chmod(0o600)
    file.unlink()
    file.write_bytes(content)


def files_of(backup: Path) -> list[Path]:
    return sorted((backup / "db").iterdir())


def test_given_whole_backups_when_verified_then_there_is_no_problem(backups: Path) -> None:
    assert problems_of(backups / "copy") == problems_of(backups / TAR) == []
    assert not list(backups.glob(".rocksmq-*"))


def test_given_one_bit_in_any_file_when_verified_and_restored_then_that_file_is_named(copy: Path) -> None:
    suffixes: set[str] = set()
    for file in files_of(copy):
        if not file.stat().st_size:
            continue
        suffixes.add(file.suffix)
        flip(file, file.stat().st_size // 2)
        assert (f"db/{file.name}", "it is damaged: its SHA-256 is another one") in problems_of(copy)
        assert f"{file} is damaged" in refused(copy)
        flip(file, file.stat().st_size // 2)
    assert suffixes == {".log", ".sst", ""}
    assert problems_of(copy) == []


def test_given_a_file_that_is_missing_or_cut_or_too_much_when_verified_and_restored_then_it_is_named(copy: Path) -> None:
    (table,) = [file for file in files_of(copy) if file.suffix == ".sst"][:1]
    content = table.read_bytes()
    table.unlink()
    assert problems_of(copy)[0] == (f"db/{table.name}", "it is missing")
    assert f"{table} is missing" in refused(copy)
    table.write_bytes(content[:-1])
    assert problems_of(copy)[0] == (f"db/{table.name}", f"it has {len(content) - 1:,} bytes, not {len(content):,}")
    assert "its last 1 bytes are missing" in refused(copy)
    table.write_bytes(content)
    (copy / "db" / "000999.sst").write_bytes(b"mine")
    assert problems_of(copy) == [("db/000999.sst", "it does not belong to the backup")]


def test_given_no_manifest_when_verified_and_restored_then_it_is_no_backup(copy: Path) -> None:
    (copy / NAME).unlink()
    assert "has no backup.json" in refused(copy, 2)
    assert run("backup", "verify", copy).exit_code == 2


def changed(change: Callable[[Manifest], Manifest]) -> Callable[[bytes], bytes]:
    return lambda data: change(Manifest.decode(data)).encode()


def replaced(old: bytes, new: bytes) -> Callable[[bytes], bytes]:
    return lambda data: data.replace(old, new)


def cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


def with_path(manifest: Manifest) -> Manifest:
    return manifest._replace(files=(manifest.files[0]._replace(name="db/../../x"),))


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (replaced(b"{", b""), "backup.json is damaged"),
        (cut, "backup.json is damaged"),
        (replaced(b'"mark": ', b'"mark": 1'), "it is not as it was written"),
        (replaced(b'"version": 1', b'"version": 2'), "version 2, and this rocksmq reads 1"),
        (replaced(KIND.encode(), b"tomatoes"), "no manifest of a backup"),
        (changed(lambda manifest: manifest._replace(format=FORMAT + 1)), "written by a newer rocksmqd"),
        (changed(lambda manifest: manifest._replace(files=manifest.files * 2)), "it is not as it was written"),
        (changed(with_path), "it is not as it was written"),
        (changed(lambda manifest: manifest._replace(instance=cast(str, 7))), "it is not as it was written"),
    ],
)
def test_given_a_manifest_that_is_none_when_verified_and_restored_then_it_is_refused(
    copy: Path, damage: Callable[[bytes], bytes], says: str
) -> None:
    (copy / NAME).write_bytes(damage((copy / NAME).read_bytes()))
    result = run("backup", "verify", copy)
    assert (result.exit_code, result.stdout) == (1, "")
    assert says in result.stderr
    assert says in refused(copy)


def test_given_a_number_beyond_the_data_when_verified_and_restored_then_the_missing_commits_are_told(copy: Path) -> None:
    manifest = Manifest.decode((copy / NAME).read_bytes())
    (copy / NAME).write_bytes(manifest._replace(commit_number=manifest.commit_number + 9).encode())
    assert [subject for subject, _ in problems_of(copy)] == ["mark"]
    assert "is all that can be read of it" in refused(copy)


def digested(file: Path) -> BackupFile:
    size = file.stat().st_size
    return BackupFile(f"db/{file.name}", size, backup_files.digest_of(file, size, lambda more: None))


def test_given_data_that_contradict_each_other_when_verified_then_all_that_check_finds_is_told(copy: Path) -> None:
    """The files are as the manifest says: they were damaged before the backup."""
    store = Store(copy / "db")
    (key,) = [key for key, _ in store.scan(Family.META, keys.EXTENT, keys.prefix_end(keys.EXTENT))]
    store.write([Delete(Family.META, key)])
    store.close()
    manifest = Manifest.decode((copy / NAME).read_bytes())
    (copy / "db" / "rocksdict-config.json").unlink(missing_ok=True)
    files = tuple(digested(file) for file in files_of(copy) if file.name[0] in "0CM")
    for file in files_of(copy):
        if file.name[0] not in "0CM":
            file.unlink()
    (copy / NAME).write_bytes(manifest._replace(files=files).encode())
    found = problems_of(copy)
    assert found
    assert all(str(copy) in text or "/tmp" not in text for _, text in found)


# -- a tar ---------------------------------------------------------------------------------


def test_given_one_bit_anywhere_in_a_tar_when_verified_and_restored_then_it_is_refused_or_all_of_it_is_as_it_was(
    tar: Path,
) -> None:
    size = tar.stat().st_size
    whole = run("backup", "verify", tar).stdout
    restored = tar.with_name("restored")
    refusals = 0
    for at in range(0, size, max(1, size // 40)):
        flip(tar, at)
        result = run("backup", "verify", tar)
        assert run("backup", "restore", tar, restored).exit_code == result.exit_code, at
        assert restored.exists() == (result.exit_code == 0), at
        if result.exit_code == 0:  # of the bits that zstd fills up with, or that say whether there is a checksum
            assert result.stdout == whole, at
            assert run("check", restored).exit_code == 0, at
            shutil.rmtree(restored)
        else:
            assert result.stdout == "", at
            refusals += 1
        flip(tar, at)
    assert refusals > 30
    assert problems_of(tar) == []


def test_given_a_tar_that_is_cut_off_when_restored_then_it_is_refused(tar: Path) -> None:
    content = tar.read_bytes()
    for size in (len(content) // 2, len(content) - 100, 100):
        tar.write_bytes(content[:size])
        assert "cut off" in refused(tar)
    tar.write_bytes(b"")
    assert "is no backup" in refused(tar, 2)
    tar.write_bytes(zstandard.ZstdCompressor(write_content_size=False).compress(b"something else"))
    assert "is no backup" in refused(tar, 2)
    tar.write_bytes(zstandard.compress(b"something else" * 1_000))
    refused(tar)


def test_given_a_tar_with_a_sparse_file_when_unpacked_then_it_is_refused_and_takes_no_room(tar: Path) -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as made:
        member = tarfile.TarInfo("db/000001.sst")
        sparse = b"1\n419430400\n0\n".ljust(512, b"\0")
        member.size = len(sparse)
        member.pax_headers = {
            "GNU.sparse.major": "1",
            "GNU.sparse.minor": "0",
            "GNU.sparse.name": "db/000001.sst",
            "GNU.sparse.realsize": "419430400",
        }
        made.addfile(member, io.BytesIO(sparse))
    tar.write_bytes(zstandard.compress(packed.getvalue()))
    assert "does not belong" in refused(tar)


def test_given_an_unpacked_tar_when_verified_then_it_is_a_backup_in_a_directory(tar: Path, tmp_path: Path) -> None:
    (tmp_path / "unpacked").mkdir()
    backup_of = unpack(tar, tmp_path / "unpacked", lambda more: None)
    (tmp_path / "unpacked" / NAME).write_bytes(backup_of.encode())
    assert problems_of(tmp_path / "unpacked") == []


def test_given_no_room_beside_a_tar_when_verified_then_another_place_is_taken_or_it_says_so(
    tar: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    access = os.access
    other = tmp_path / "other"
    other.mkdir()
    monkeypatch.setattr(backup, "gettempdir", lambda: str(other))

    def elsewhere(path: Path, mode: int) -> bool:
        return path != tar.parent and access(path, mode)

    monkeypatch.setattr(os, "access", elsewhere)
    result = run("backup", "verify", tar)
    assert result.exit_code == 0
    assert f"into {other}/" in result.stderr
    monkeypatch.setattr(backup, "RESERVE_BYTES", 1 << 60)
    result = run("backup", "verify", tar)
    assert (result.exit_code, result.stdout) == (1, "")
    assert "TMPDIR names another" in result.stderr


@pytest.mark.parametrize("name", ["copy", TAR])
def test_given_a_disk_without_room_when_restored_then_it_is_refused_and_nothing_is_left(
    backups: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(backup_files, "RESERVE_BYTES", 1 << 60)
    result = run("backup", "restore", backups / name, tmp_path / "restored")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "do not fit onto the disk" in result.stderr
    assert not (tmp_path / "restored").exists()


@pytest.mark.parametrize("name", ["copy", TAR])
def test_given_a_restore_that_was_cut_short_when_a_broker_starts_then_it_refuses(
    backups: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    class Killed(BaseException):
        pass

    def kill(*arguments: object) -> None:
        shutil.copytree(tmp_path / "restored", tmp_path / "killed")
        raise Killed

    monkeypatch.setattr(backup, "write_format", kill)
    with pytest.raises(Killed):
        backup.restore(backups / name, tmp_path / "restored", lambda done, total: None)
    assert not (tmp_path / "restored").exists()
    with pytest.raises(RuntimeError, match="it is not a whole RocksMQ data directory"):
        Broker(tmp_path / "killed").start()
