"""The disk itself: what it keeps without power is what POSIX promises, or any of what it does not."""

import errno
from random import Random

import pytest

from .disk import PAGE_BYTES, Cut, Disk, File, Resize, Write

SEEDS = range(200)


def written(disk: Disk, path: str, content: bytes) -> File:
    """A new file, of which nothing is synced."""
    file = disk.create(path)
    file.change(Write(0, content))
    return file


def synced(disk: Disk, path: str, content: bytes) -> File:
    file = written(disk, path, content)
    file.sync()
    disk.root.sync()
    return file


def left(content: bytes, *changes: Write | Resize, how: Cut) -> set[bytes]:
    """What may be left of a synced file behind these changes."""
    found: set[bytes] = set()
    for seed in SEEDS:
        disk = Disk()
        file = synced(disk, "/a", content)
        for change in changes:
            file.change(change)
        disk.cut(how, Random(seed))
        found.add(bytes(disk.file("/a").live))
    return found


def test_given_synced_content_in_a_synced_directory_when_cut_then_it_is_there() -> None:
    for how in Cut:
        disk = Disk()
        synced(disk, "/a", b"kept")
        assert disk.cut(how, Random(0)) == 0
        assert bytes(disk.file("/a").live) == b"kept"


def test_given_a_synced_file_in_a_directory_that_is_not_when_cut_clean_then_it_is_gone() -> None:
    disk = Disk()
    written(disk, "/a", b"lost").sync()
    disk.cut(Cut.CLEAN, Random(0))
    with pytest.raises(FileNotFoundError):
        disk.node("/a")


def test_given_unsynced_writes_when_cut_clean_then_only_what_was_synced_is_left() -> None:
    assert left(b"kept", Write(2, b"lost"), Resize(1), how=Cut.CLEAN) == {b"kept"}


def test_given_unsynced_writes_when_torn_then_the_first_ones_are_left_and_a_part_of_the_next() -> None:
    assert left(b"", Write(0, b"ab"), Write(2, b"cd"), how=Cut.TORN) == {b"", b"a", b"ab", b"abc", b"abcd"}


def test_given_unsynced_writes_when_reordered_then_any_of_them_is_left_and_what_is_missing_is_zeros() -> None:
    assert left(b"", Write(0, b"ab"), Write(2, b"cd"), how=Cut.REORDERED) == {b"", b"ab", b"\0\0cd", b"abcd"}


def test_given_a_long_write_when_reordered_then_its_pages_are_kept_one_by_one() -> None:
    first, second = b"a" * (PAGE_BYTES - 1), b"b" * PAGE_BYTES
    holes = {b"", b"\0" + first, bytes(PAGE_BYTES) + second, b"\0" + first + second}
    assert left(b"", Write(1, first + second), how=Cut.REORDERED) == holes


def test_given_a_rename_when_cut_then_one_of_both_names_has_the_file() -> None:
    names: set[str] = set()
    for seed in SEEDS:
        disk = Disk()
        synced(disk, "/new", b"new")
        synced(disk, "/name", b"old")
        disk.rename("/new", "/name")
        assert list(disk.root.live) == ["name"]
        disk.cut(Cut.TORN, Random(seed))
        names.add(",".join(f"{name}={bytes(disk.file('/' + name).live).decode()}" for name in sorted(disk.root.live)))
    assert names == {"name=new", "name=old,new=new"}


def test_given_a_removed_file_when_cut_clean_then_it_is_there_again() -> None:
    disk = Disk()
    synced(disk, "/a", b"kept")
    disk.unlink("/a")
    disk.cut(Cut.CLEAN, Random(0))
    assert bytes(disk.file("/a").live) == b"kept"


def test_given_a_new_directory_when_only_it_is_synced_then_it_is_gone_with_all_below_it() -> None:
    disk = Disk()
    disk.mkdir("/d")
    written(disk, "/d/a", b"lost").sync()
    disk.directory("/d").sync()
    disk.cut(Cut.CLEAN, Random(0))
    assert not disk.root.live


def test_given_two_names_when_one_is_removed_then_the_other_has_the_content() -> None:
    disk = Disk()
    file = synced(disk, "/a", b"kept")
    disk.link("/b", "/a")
    assert file.links == 2
    disk.unlink("/a")
    assert (file.links, bytes(disk.file("/b").live)) == (1, b"kept")


def test_given_what_a_system_call_refuses_then_it_is_refused_as_there() -> None:
    disk = Disk()
    disk.mkdir("/d")
    synced(disk, "/d/a", b"")
    for call, expected in (
        (lambda: disk.create("/d/a"), errno.EEXIST),
        (lambda: disk.mkdir("/d"), errno.EEXIST),
        (lambda: disk.rmdir("/d"), errno.ENOTEMPTY),
        (lambda: disk.unlink("/d"), errno.EISDIR),
        (lambda: disk.unlink("/b"), errno.ENOENT),
        (lambda: disk.node("/d/a/b"), errno.ENOTDIR),
    ):
        with pytest.raises(OSError) as caught:  # noqa: PT011
            call()
        assert caught.value.errno == expected
