"""Which channels there are."""

import fnmatch
import re
from collections.abc import Iterable, Sequence

from rocksmq.protocol.operations import ListChannels

from ..admin import channel_numbers
from ..deadline import Deadline
from ..link import Link


def channels_matching(link: Link, patterns: Sequence[str], timeout: float) -> dict[str, int]:
    """Names that match one of the patterns, with the channels' numbers. Raises ChannelNotFound if one goes meanwhile."""
    deadline, found = Deadline(timeout), set[str]()
    for pattern in patterns:
        matches = re.compile(fnmatch.translate(pattern)).fullmatch
        prefix, after, more = re.split(r"[*?\[]", pattern)[0], "", True
        while more:
            page = link.call(ListChannels(prefix, after), deadline)
            found.update(name for name in page.names if matches(name))
            after, more = page.names[-1] if page.names else "", page.more
    names = sorted(found)
    return dict(zip(names, channel_numbers(link, names, deadline), strict=True))


def unmatched(patterns: Sequence[str], names: Iterable[str]) -> list[str]:
    """Patterns that no name matches."""
    known = list(names)
    return [pattern for pattern in patterns if not any(map(re.compile(fnmatch.translate(pattern)).fullmatch, known))]
