"""Topics of Pulsar as the mirror uses them: one exclusive producer each, and the last message read.

Calls block up to the client's operation timeout; `Topic.send` does not. What comes back for it comes on a thread of Pulsar's
client, where an exception would end the process.
"""

import logging
from collections.abc import Callable, Generator, Iterable
from contextlib import closing, suppress
from typing import Any

from rocksmq.protocol.errors import InvalidRequest, RocksMQError

from ..pulsar.client import asked, failure, pulsar
from ..pulsar.places import Place, place_of
from .course import Chunk
from .envelope import ID, ID_TIME_BITS, MIRROR
from .resume import Last
from .whole import Compared, compared

logger = logging.getLogger("rocksmq.mirror")

NEVER_MS = 24 * 3_600_000
READ_MS = 10_000  # for a message that is known to be there
SILENT_MS = 1_000  # of a topic that is read from its beginning, and cannot tell where it ends
LOOKS = 3  # until Pulsar's word for the last message is doubted
_Builder = pulsar._pulsar.MessageBuilder  # see `Topic._send`
# Number of the chunk; None or what failed; where its last message is, None if it was stored before.
Done = Callable[[int, str | None, Place | None], None]


class Topic:
    """An open producer. ``last_sequence``: of what Pulsar's deduplication knows under its name, -1: nothing, or it is off."""

    def __init__(self, client: Any, name: str, producer_name: str, origin: str, done: Done) -> None:
        """Fences whoever produces there: in what it has on its way, and for what it sends from then on. Raises RocksMQError."""
        self._origin = origin
        self._done = done
        self._is_closed = False
        self._producer = asked(
            f"opening a producer on {name}",
            lambda: client.create_producer(
                name,
                producer_name=producer_name,
                access_mode=pulsar.ProducerAccessMode.ExclusiveWithFencing,
                send_timeout_millis=0,  # a time-out is ambiguous; the library's own resends are exact
                max_pending_messages=0,  # the mirror bounds them itself
                batching_enabled=True,  # and only `send` ends a batch
                batching_max_messages=0x7FFFFFFF,
                batching_max_allowed_size_in_bytes=0x7FFFFFFF,
                batching_max_publish_delay_ms=NEVER_MS,
            ),
        )
        self._send = self._producer._producer.send_async  # without checks of each argument, which take half of the time
        self.last_sequence: int = self._producer.last_sequence_id()

    @property
    def is_connected(self) -> bool:
        """As far as is known."""
        connected: bool = self._producer.is_connected()
        return connected

    def send(self, chunk: Chunk) -> None:
        """Send its messages as one entry; `Done` is called once, when Pulsar has answered for the last of them."""
        send, origin, last = self._send, self._origin, chunk.ids[-1]
        for message_id, payload, envelope in zip(chunk.ids, chunk.payloads, chunk.envelopes, strict=True):
            built = _Builder()
            built.content(payload)
            if envelope is None:
                built.property(ID, str(message_id))
                built.property(MIRROR, origin)
            else:
                built.properties(envelope.properties)
                if envelope.key is not None:
                    built.partition_key(envelope.key)
            built.sequence_id(message_id)
            built.event_timestamp(message_id >> ID_TIME_BITS)
            send(built.build(), self._answered(chunk.number) if message_id == last else None)
        self._producer._producer.flush_async(None)

    def _answered(self, number: int) -> Callable[[Any, Any], None]:
        def answered(result: Any, place: Any) -> None:
            with suppress(BaseException):
                failed = None if result == pulsar.Result.Ok else result.name
                self._done(number, failed, place_of(place) if failed is None else None)

        return answered

    def close(self) -> None:
        """What is on its way may be stored or not. Never raises."""
        if self._is_closed:
            return
        self._is_closed = True
        try:
            self._producer.close()
        except pulsar.PulsarException as error:
            logger.debug("closing a producer of %s: %s", self._origin, error)


def check_unpartitioned(client: Any, name: str) -> None:
    """Raises InvalidRequest for a partitioned topic: deduplication and the last message are of each partition alone."""
    partitions: list[str] = asked(f"looking up {name}", lambda: client.get_topic_partitions(name))
    if partitions != [name]:
        raise InvalidRequest(f"{name} has {len(partitions)} partitions: the mirror needs topics without partitions")


def send_failure(topic: str, name: str) -> RocksMQError:
    """The error for a callback's failure."""
    return failure(f"sending to {topic}", name)


def last_of(client: Any, name: str, *, is_bare: bool) -> Last | None:
    """The last message of a topic, None if it is empty. Raises RocksMQError.

    ``is_bare``: deduplication knows nothing there, so that it may be a Pulsar that cannot tell the end of an empty topic.
    """
    for _ in range(LOOKS):
        try:
            if (found := _first_from(client, name, pulsar.MessageId.latest)) is not None:
                return found
            # Between the two looks something may have landed; and pulsar-lite finds nothing by the first.
            if _first_from(client, name, pulsar.MessageId.earliest) is None:
                return None
        except pulsar.UnknownError as error:
            if not is_bare:
                raise failure(f"reading the last message of {name}", "UnknownError") from error
        except pulsar.PulsarException as error:
            raise failure(f"reading the last message of {name}", type(error).__name__) from error
    return asked(f"reading {name}", lambda: _last_of_all(client, name))


def compared_behind(client: Any, name: str, place: Place, position: int, sent: Iterable[tuple[int, int]]) -> Compared | None:
    """What a topic has behind ``place``, with what of ``sent`` from id ``position`` on; blocks. Raises RocksMQError.

    None: not known, for the message there, which is before ``position``, has been removed.
    """

    def compare() -> Compared | None:
        found = _ids_from(client, name, place)
        with closing(found):
            if next(found, position) >= position:
                return None
            return compared(sent, (one for one in found if one >= position))

    return asked(f"reading {name}", compare)


def _ids_from(client: Any, name: str, place: Place) -> Generator[int]:
    """Of the messages of mirrors. Raises PulsarException."""
    reader = client.create_reader(name, place.message_id, start_message_id_inclusive=True)
    try:
        while reader.has_message_available():
            found = Last.of(reader.read_next(READ_MS).properties())
            if found.message_id is not None:
                yield found.message_id
    finally:
        with suppress(pulsar.PulsarException):
            reader.close()


def _first_from(client: Any, name: str, start: Any) -> Last | None:
    """The first message from ``start`` on, None: there is none."""
    reader = client.create_reader(name, start, start_message_id_inclusive=True)
    try:
        return Last.of(reader.read_next(READ_MS).properties()) if reader.has_message_available() else None
    finally:
        with suppress(pulsar.PulsarException):
            reader.close()


def _last_of_all(client: Any, name: str) -> Last | None:
    """By reading all of a topic: for pulsar-lite, which knows neither its last message nor whether it is empty."""
    reader = client.create_reader(name, pulsar.MessageId.earliest)
    found: Last | None = None
    try:
        while True:
            try:
                found = Last.of(reader.read_next(SILENT_MS).properties())
            except pulsar.Timeout:
                return found
    finally:
        with suppress(pulsar.PulsarException):
            reader.close()
