"""Long polls: how consume and fetch wait, in pieces that the broker and the link allow."""

from collections.abc import Callable

from rocksmq.protocol.messages import Gap, MessageBatch
from rocksmq.protocol.operations import POLL_MS_MAX, Fetch, Position

from .deadline import Deadline
from .link import Link

MAX_BYTES = 4 << 20  # of a consume or fetch, when the caller names none


def poll(once: Callable[[Deadline, Deadline], MessageBatch], until: Deadline, timeout: float | None) -> MessageBatch:
    """Long polls of at most POLL_MS_MAX until something comes or ``until``; the last one's result.

    ``once`` gets the moment until which it waits for messages, and the deadline of all, ``timeout`` seconds after ``until``.
    """
    deadline = until.extended(timeout)
    while True:
        batch = once(until.at_most(POLL_MS_MAX / 1000), deadline)
        if batch or batch.gap is not None or until.is_over:
            return batch


def fetch(
    link: Link,
    channel: str,
    position: tuple[Position, int],
    count: int,
    size: int,
    wait: Deadline,
    deadline: Deadline,
    is_stopped: Callable[[], bool] | None = None,
) -> MessageBatch:
    """Messages from ``position`` on; resent until the deadline. Raises ChannelNotFound, InvalidRequest."""

    def send() -> MessageBatch:
        link.connected(deadline, is_stopped)  # before the wait is told, for that may take some of it
        request = Fetch(channel, *position, count, size, wait.milliseconds)
        return MessageBatch(link.begin(request, deadline, is_stopped).reply(deadline, is_stopped))

    return link.retried(send, deadline, is_stopped)


def gap_before(batch: MessageBatch, position: int, offset: int | None) -> Gap | None:
    """What was removed between ``position`` and the messages that were fetched from there on.

    ``offset``: how many messages were ever appended before ``position``. The broker does not know who reads, so it is counted
    here; None: not known either.
    """
    if offset is None or batch.next_offset is None:
        return batch.gap
    removed = batch.next_offset - len(batch) - offset
    return Gap(position, batch.ids[0] if batch else batch.next_position, removed) if removed > 0 else None
