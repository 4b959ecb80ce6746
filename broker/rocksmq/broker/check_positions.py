"""Positions in a store elsewhere, for `check`: whether they belong to this data directory, in the words of a start.

It reads the store once, and neither writes nor takes a lease. Groups that belong here go into the inventory, which holds
them against the channels as it does those of the directory itself.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping

from .findings import Finding, note, problem
from .inventory import Inventory
from .meta_shadow import MetaShadow
from .prefix import COMMIT, DATA, Found
from .reconcile import PrefixInUse, check_owner, foreign, misbound
from .remote import LEASE_SECONDS, Remote, RemoteFailed
from .store import DataRefused

SUBJECT = "positions"


def read_positions(
    remote: Remote, inventory: Inventory, shadow: MetaShadow | None, instance: str | None, commit_number: int | None
) -> Iterator[Finding]:
    """What is wrong with ``remote`` as the store of the directory ``instance``; None: that could not be read.

    ``shadow`` is the directory's copy of what the store has acknowledged.
    """
    bound = inventory.binding
    kept = inventory.has_groups
    if bound is not None and (misplaced := misbound(bound, remote.name, has_groups=kept)):
        yield from (problem(SUBJECT, text) for text in misplaced)
        return
    try:
        entries = remote.read()
    except RemoteFailed as error:
        yield problem(SUBJECT, f"{remote.name}: {error}: they were not checked")
        return
    found = Found(None, None, None, {}, set())
    damaged: list[str] = []
    for path, part in _parts(entries).items():
        try:
            read = Found.decode(part, remote.name)
        except DataRefused as error:
            damaged.append(path)
            yield problem(SUBJECT, str(error))
        else:
            found = found._replace(
                commit=found.commit or read.commit, owner=found.owner or read.owner, data=found.data or read.data
            )
            found.groups.update(read.groups)
    if instance is not None:
        yield from _owner(found, instance, remote.name)
    numbers = inventory.numbers()
    attached = any(numbers.get(channel) == state.channel_number for (_, channel), state in found.groups.items())
    if bound is not None:
        problems = misbound(bound, remote.name, has_groups=kept or attached)
        if not problems and instance is not None and commit_number is not None and not {COMMIT, DATA} & set(damaged):
            problems = foreign(found, remote.name, bound.at(remote.name), instance, commit_number)
        yield from (problem(SUBJECT, text) for text in problems)
        if not problems and not damaged and shadow is not None and bound.store == remote.name and shadow.lacks(found.commit):
            lost = f"{remote.name} has lost what it had acknowledged: it was at {shadow.commit}, and is at {found.commit}"
            yield note(SUBJECT, f"{lost}; the next start writes that there again, from the copy in this directory")
            found = found._replace(groups=shadow.groups())
    if found.data is None or found.data.instance == instance:
        for (group, channel), state in found.groups.items():
            inventory.add_group(group, channel, state)


def _parts(entries: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """What decodes by itself: the keys of each group, and each of the others. So one that is damaged hides no other."""
    parts: defaultdict[str, dict[str, str]] = defaultdict(dict)
    for key, value in entries.items():
        parts[key.rpartition("/")[0] if key.count("/") == 2 else key][key] = value
    return parts


def _owner(found: Found, instance: str, where: str) -> Iterator[Finding]:
    try:
        check_owner(found, instance, where)
    except PrefixInUse as error:
        yield problem(SUBJECT, str(error))
        return
    if (owner := found.owner) is not None:
        yield note(
            SUBJECT,
            f"{where} is owned by this instance (pid {owner.pid} on {owner.host}): its broker was killed in the last"
            f" {LEASE_SECONDS} seconds, or one runs on a copy of this directory",
        )
