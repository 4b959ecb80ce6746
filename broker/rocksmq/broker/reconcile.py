"""Whether positions and data belong together: what a start refuses, and what it mends (contract §3, design §6).

Pure. Each check returns what is wrong as sentences with numbers; `checked` refuses them, or lets them pass and logs them
where the loss was accepted.
"""

import logging
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from .channels import Channels
from .config import EMBEDDED
from .durability import Mode
from .findings import counted
from .groups import Group
from .prefix import Found
from .records import Extent, MetaBinding
from .store import DataRefused

logger = logging.getLogger("rocksmq.broker")

SHOWN_MAX = 5


class PrefixInUse(Exception):
    """Another broker writes under the prefix."""


class Ahead(NamedTuple):
    """A group whose position lies beyond ``extent``, that of its channel: messages that it has passed are missing."""

    group: Group
    position: int
    extent: Extent
    is_refused: bool

    def __str__(self) -> str:
        group = self.group
        return (
            f"group {group.name!r} of channel {group.channel_name!r} is at {self.position},"
            f" and the channel ends at {self.extent.end_id}: messages that it has read are missing"
        )


def listed(problems: list[str]) -> str:
    """The first of them, and how many more there are."""
    more = f" (and {len(problems) - SHOWN_MAX} more)" if len(problems) > SHOWN_MAX else ""
    return f"{'; '.join(problems[:SHOWN_MAX])}{more}"


def checked(problems: list[str], *, accept_loss: bool) -> None:
    """Raises DataRefused that names the first of ``problems``, unless the loss is accepted."""
    if problems and not accept_loss:
        raise DataRefused(
            f"{listed(problems)}. Restore what belongs together, or start once with --accept-loss to go on with what is there"
        )
    for problem in problems:
        logger.warning("accepted: %s", problem)


def positions_ahead(groups: Iterable[Group], channels: Channels, recovered: Mapping[int, Extent]) -> list[Ahead]:
    """Those of ``groups`` whose position lies beyond what was ``recovered`` of their channels, by number.

    Where messages were fsynced before any position passed them, that is refused; in the other modes a power cut may have
    taken the end of a channel.
    """
    ahead: list[Ahead] = []
    for group in groups:
        channel = channels.find(group.channel_name)
        extent = recovered.get(channel.number)
        if extent is not None and group.state.position > extent.end_id + 1:
            ahead.append(Ahead(group, group.state.position, extent, channel.durability.mode is Mode.FSYNC))
    return ahead


def misbound(bound: MetaBinding, store: str, *, has_groups: bool) -> list[str]:
    """What is wrong when the positions of a data directory are sought in ``store``."""
    if bound.store == store:
        return []
    if not has_groups if bound.store == EMBEDDED else bound.applied_epoch == 0:
        return []  # nothing was ever kept there
    return [
        f"the positions of this data directory are kept in {bound.store}, not in {store}: move them with"
        " `rocksmq meta export` and `rocksmq meta import`"
    ]


def foreign(found: Found, where: str, bound: MetaBinding, instance: str, commit_number: int) -> list[str]:
    """What is wrong when the data directory ``instance``, which holds commits up to ``commit_number``, meets what was found."""
    epoch = 0 if found.commit is None else found.commit.epoch
    if found.data is not None and found.data.instance != instance:
        return [f"{where} belongs to the data directory of instance {found.data.instance}, and this one is {instance}"]
    problems: list[str] = []
    if epoch > bound.planned_epoch:
        problems.append(
            f"{where} was written by a later start than this data directory knows of (epoch {epoch}, and here"
            f" {bound.planned_epoch}): the directory is older than the positions, or a copy"
        )
    if epoch < bound.applied_epoch:
        is_gone = found.commit is None
        state = "nothing stands there" if is_gone else f"what stands there is older (epoch {epoch})"
        why = "it was deleted, or --meta names another place" if is_gone else "it was restored from a backup"
        problems.append(f"{where} has the positions of this data directory (epoch {bound.applied_epoch}), but {state}: {why}")
    if found.data is not None and found.data.commit_number > commit_number:
        problems.append(
            f"group commit {found.data.commit_number} was synced when positions were written last, and this data directory"
            f" ends at {commit_number}: {counted(found.data.commit_number - commit_number, 'commit')} missing"
        )
    return problems


def check_owner(found: Found, instance: str, prefix: str) -> None:
    """Raises PrefixInUse while a broker of another instance writes there."""
    owner = found.owner
    if owner is not None and owner.instance != instance:
        raise PrefixInUse(
            f"{prefix} is in use by instance {owner.instance} (pid {owner.pid} on {owner.host}), and this is {instance}:"
            " give each broker a prefix of its own"
        )
