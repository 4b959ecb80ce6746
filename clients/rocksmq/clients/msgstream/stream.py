"""Message streams: packs of messages to and from several channels, over any `Transport` (contract §7).

`MsgStream` is the plain stream; `TtMsgStream`, in `tt_stream`, replaces how it reads. The subscription moves to the end of a
pack only when the next one is asked for, so whoever dies with a pack in hand gets it again. What an interrupt tears in the
midst of reading is read anew, from the end of the last pack that was returned.
"""

import gc
import logging
import secrets
import threading
import warnings
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, NamedTuple, Self, TypeAlias

from rocksmq.protocol.errors import (
    OUTCOME_UNKNOWN,
    ConnectionFailed,
    GapFound,
    InvalidRequest,
    RocksMQError,
    Timeout,
)
from rocksmq.protocol.messages import Start, start_of
from rocksmq.protocol.names import checked_name

from ..deadline import Deadline, checked_timeout
from ..exits import EXIT_SECONDS
from ..forks import call_in_child
from ..turn import Turn
from .dispatch import UnmarshalDispatcher
from .producing import Producing, channel_names
from .transport import Place, Received, Transport
from .types import TIMESTAMP_MAX, MsgPack, MsgPosition, RepackFunc, StreamGap, TsMsg, integer

logger = logging.getLogger("rocksmq.client")

RECEIVE_MESSAGES_MAX = 10_000  # at a time
BUFFER_MESSAGES = 262_144
BUFFER_BYTES = 256 << 20
UNDECODABLE_TOLD = 10  # then each is only counted
OnGap: TypeAlias = Literal["log", "raise"] | Callable[[StreamGap], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamOptions:
    """How a stream behaves.

    ``buffer_size``: messages, and ``buffer_bytes``: bytes, that it holds at the most; a plain stream's packs are no larger.
    ``silence_timeout``: seconds after which a time-tick stream leaves out a channel of which nothing comes; None: never.
    ``on_gap``: what to do when retention removed messages unread: ``"log"``, ``"raise"`` GapFound, or a callable that gets the
    `StreamGap`.
    """

    buffer_size: int = BUFFER_MESSAGES
    buffer_bytes: int = BUFFER_BYTES
    silence_timeout: float | None = None
    on_gap: OnGap = "log"

    def __post_init__(self) -> None:
        for name, value in (("buffer_size", self.buffer_size), ("buffer_bytes", self.buffer_bytes)):
            if type(value) is not int or value < 1:
                raise InvalidRequest(f"{name} {value!r} is not allowed: 1 at least")
        checked_timeout(self.silence_timeout)
        if self.on_gap not in ("log", "raise") and not callable(self.on_gap):
            raise InvalidRequest(f'on_gap {self.on_gap!r} is not "log", "raise" or a callable')


class _Hand:
    """A pack on its way to the caller, whom an exception may keep from getting it.

    ``thread`` that is about to return it, 0: none is; ``untold``: gaps before it; ``is_dropped``: a seek has made it void.
    """

    def __init__(self, pack: MsgPack) -> None:
        self.thread = 0
        self.pack = pack
        self.untold = list(pack.gaps)
        self.is_dropped = False


class _Seeking(NamedTuple):
    """A seek of which it is not known whether it was done; repeated under its id, it is done once."""

    positions: Sequence[MsgPosition]
    request_id: bytes


class MsgStream(Producing):
    """A plain stream: a pack is what was available, in order per channel, ticks like any other message.

        with RmqMsgStreamFactory("rocksmq://127.0.0.1:7660").new_msg_stream() as stream:
            stream.as_producer(channels)
            stream.produce(MsgPack(msgs=[SearchMsg(id=1, timestamp=5, payload=b"...", hash_keys=[7])]))

    Made by a factory. A context manager. Threads may share it: any number produce, one at a time consumes, commits or seeks
    while the others wait for it. Every method may raise ConnectionFailed, Timeout, and each of RocksMQError that its
    docstring names.
    """

    _is_closed = True  # until all of it is there
    _reading: dict[str, Place]  # where to read on

    def __init__(self, transport: Transport, dispatcher: UnmarshalDispatcher, options: StreamOptions) -> None:
        """The stream owns the transport."""
        self.dispatcher = dispatcher
        self._transport = transport
        self._options = options
        self._repack: RepackFunc | None = None
        self._producing: list[str] = []
        self._resending = threading.Lock()
        self._consuming: dict[str, None] = {}
        self._subscription: str | None = None
        self._is_started = False
        self._turn = Turn()  # held by who reads or moves the subscription
        self._at: dict[str, MsgPosition] = {}  # of each channel, behind the last pack that was returned
        self._hand: _Hand | None = None
        self._uncommitted: list[MsgPosition] = []  # the end of the last pack that was returned
        self._seeking: _Seeking | None = None
        self._telling = 0  # the thread that tells of a gap
        self._is_torn = True  # what was read ahead is not there, or not whole
        self._undecodable = 0
        self._is_closed = False
        call_in_child(self._close_in_child)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._close(commits=error is None)

    def __del__(self) -> None:
        if not self._is_closed:
            self._is_closed = True
            self._transport.close()
            text = f"{self!r} was not closed: use it in a `with`, or call close()"
            warnings.warn(text, ResourceWarning, stacklevel=2, source=self)

    def __repr__(self) -> str:
        reads = f" of {self._subscription!r} on {len(self._consuming)} channels" if self._subscription is not None else ""
        return f"<{type(self).__name__}{reads}{', closed' if self._is_closed else ''}>"

    @property
    def undecodable_count(self) -> int:
        """Messages that were skipped because they could not be decoded; the log names the first of them."""
        return self._undecodable

    # -- consuming ---------------------------------------------------------------

    def as_consumer(self, channels: Sequence[str], sub_name: str, position: Start = "earliest") -> None:
        """Consume ``channels``, which exist, under the subscription ``sub_name``. Repeated ones are ignored.

        A subscription that exists goes on where it stands, a new one begins at ``position``: ``"earliest"``, ``"latest"``, an
        id, or an aware datetime. Called again it adds channels. Raises ChannelNotFound with all that do not exist,
        InvalidRequest, LimitExceeded.
        """
        self._check_open()
        checked_name("group", sub_name)
        start_of(position)
        wanted = [channel for channel in channel_names(channels) if channel not in self._consuming]
        if self._subscription not in (None, sub_name):
            raise InvalidRequest(f"the stream consumes as {self._subscription!r}: take another stream for {sub_name!r}")
        with self._exclusive():
            if self._is_started and self._consuming:
                self._check_held()
            if wanted:
                self._transport.subscribe([*self._consuming, *wanted], sub_name, position)
            if self._is_started and wanted:
                self._take_over(wanted)
            self._consuming |= dict.fromkeys(wanted)
            self._subscription = sub_name

    def start(self) -> None:
        """Begin to consume: whoever did so under this subscription is fenced, and gets Conflict when it moves it next.

        May be repeated: then it does nothing.
        """
        self._check_open()
        with self._exclusive():
            if not self._is_started and self._consuming:
                self._take_over(list(self._consuming))
            self._is_started = True

    def consume(self, timeout: float | None = None) -> MsgPack | None:
        """The next pack; None when there was none within ``timeout`` seconds (None: it waits for ever).

        With it the subscription moves to the end of the pack before, durably. After any exception, an interrupt too, the next
        call gives what this one would have given. Raises Conflict when another stream has taken the subscription over,
        ChannelNotFound, GroupNotFound, BufferFull, and GapFound with ``on_gap="raise"``.
        """
        until = Deadline(checked_timeout(timeout))
        self._check_started()
        if self._telling == threading.get_ident():
            raise InvalidRequest("on_gap cannot consume: it is told in the midst of that")
        while True:
            hand: _Hand | None = None
            try:
                if self._turn.take(until):
                    self._check_open()
                    hand = self._filled(until)
            finally:
                self._turn.pass_on()
            if hand is None:
                return None
            # Plain stores from here on, between which neither an interrupt nor another thread can strike.
            if not hand.is_dropped:
                if self._hand is hand:
                    self._uncommitted = hand.pack.end_positions
                    self._hand = None
                return hand.pack

    def commit(self) -> None:
        """Move the subscription to the end of the last pack now: it is not delivered again. Durable when it returns.

        All channels move, or none. Raises Conflict when another stream has taken the subscription over.
        """
        self._check_started()
        with self._exclusive():
            self._finish_seek()
            self._settle()
            self._commit()

    def seek(self, positions: MsgPosition | Sequence[MsgPosition]) -> None:
        """Go on from there, and move the subscription there, durably; nothing that was read before appears after it.

        A single position is taken too; channels that are not named stay where they are. Raises InvalidRequest for a channel
        that is not consumed, or that is named twice, or for a position that is none; Conflict. When it is not known whether it
        was done, after Timeout, ConnectionFailed or an interrupt, the next call finishes it.
        """
        wanted = [positions] if isinstance(positions, MsgPosition) else positions
        if not isinstance(wanted, (list, tuple)):
            raise InvalidRequest(
                f"a seek goes to a MsgPosition, or to a list of them such as pack.end_positions, not {wanted!r:.80}"
            )
        self._check_consuming()
        self._check_positions(wanted)
        with self._exclusive():
            if not self._is_started:
                self._take_over(list(self._consuming))
            self._finish_seek()  # of one before, which may have been done: the subscription is known by what it left
            self._settle()
            self._seeking = _Seeking(wanted, secrets.token_bytes(16))
            self._finish_seek()

    def unsubscribe(self) -> None:
        """Remove the subscription from all its channels; the stream consumes nothing any more.

        Raises Conflict when another stream has taken the subscription over since this one was started.
        """
        self._check_consuming()
        channels = list(self._consuming)
        with self._exclusive():
            if not self._is_started:
                assert self._subscription is not None, "it consumes"
                self._transport.subscribe(channels, self._subscription, "earliest")  # where it was removed meanwhile
                self._take_over(channels)
            self._transport.unsubscribe(channels)
            self._consuming, self._at, self._subscription = {}, {}, None
            self._uncommitted, self._hand, self._seeking, self._is_torn = [], None, None, True

    def close(self) -> None:
        """Commit the last pack, and end the connection; the subscription is kept. May be repeated.

        Calls that wait in other threads raise ConnectionFailed. Raises what `commit` raises, closed all the same: then the last
        pack comes again.
        """
        self._close(commits=True)

    def _close(self, *, commits: bool) -> None:
        if self._is_closed:
            return
        self._is_closed = True
        try:
            deadline = Deadline(EXIT_SECONDS)
            if commits:
                if not self._turn.take(deadline):  # whoever reads finds out soon
                    raise Timeout("another thread's call did not end in time: the last pack may come again")
                self._finish_seek()
                self._settle()
                self._commit(deadline)
        finally:
            self._turn.pass_on()
            self._transport.close()

    def _close_in_child(self) -> None:
        """In a forked child: the subscription is the parent's."""
        self._is_closed, self._turn = True, Turn()

    # -- reading -----------------------------------------------------------------

    def _filled(self, until: Deadline) -> "_Hand | None":
        """The next pack, or the one that never reached this thread; by the holder of the turn."""
        self._finish_seek()
        self._settle()
        if self._hand is not None:
            self._tell(self._hand)
            return self._hand
        self._commit()
        if self._is_torn:
            self._restart([self._at[channel] for channel in self._consuming])
            self._is_torn = False
        pack = self._next(until)
        if pack is None:
            return None
        hand = _Hand(pack)
        at = self._at | {position.channel_name: position for position in pack.end_positions}
        # Plain stores, between which no interrupt can strike.
        self._at = at
        self._hand = hand
        self._is_torn = False
        self._tell(hand)
        return hand

    def _restart(self, positions: Sequence[MsgPosition]) -> None:
        """Forget all that was read; read on from there."""
        self._reading = {p.channel_name: self._transport.decode(p.msg_id) for p in positions}

    def _next(self, until: Deadline) -> MsgPack | None:
        """The next pack, with `_is_torn` set before anything that it changes."""
        received = self._receive(tuple(self._reading.items()), until)
        self._is_torn = True
        pack = MsgPack()
        for part in received:
            msgs, _ = self._decoded(part)
            pack.msgs += msgs
            pack.start_positions.append(self._at[part.channel])
            pack.end_positions.append(MsgPosition(part.channel, self._transport.encode(part.next_place)))
            pack.gaps += [] if part.gap is None else [part.gap]
            del self._reading[part.channel]
            self._reading[part.channel] = part.next_place  # behind the others, that all have their turn
        if not received:
            return None
        pack.begin_ts = min((msg.begin_ts for msg in pack.msgs), default=0)
        pack.end_ts = max((msg.end_ts for msg in pack.msgs), default=0)
        return pack

    def _receive(self, wanted: Sequence[tuple[str, Place]], until: Deadline) -> Sequence[Received]:
        most = min(RECEIVE_MESSAGES_MAX, self._options.buffer_size)
        while True:
            received = self._transport.receive(wanted, most, self._options.buffer_bytes, until, lambda: self._is_closed)
            if received or until.is_over:
                return received

    def _decoded(self, received: Received) -> tuple[list[TsMsg], list[Place]]:
        """The messages, and the places of those that are any.

        Thousands of objects are made here, and all are kept: the cyclic collector would look through them again and again, find
        nothing, and take as long as the rest.
        """
        is_collecting = gc.isenabled()
        try:
            gc.disable()
            return self._read_all(received)
        finally:
            if is_collecting:
                gc.enable()

    def _read_all(self, received: Received) -> tuple[list[TsMsg], list[Place]]:
        msgs: list[TsMsg] = []
        places: list[Place] = []
        read, channel = self.dispatcher.read, received.channel
        for payload, place in zip(received.payloads, received.places, strict=True):
            try:
                msg = read(payload)
            except (ImportError, MemoryError):
                raise
            except Exception as error:  # a type of the user's may raise anything
                self._skip(channel, place, error)
                continue
            msg.read_at(channel, place)
            msgs.append(msg)
            places.append(place)
        return msgs, places

    def _skip(self, channel: str, place: Place, error: Exception) -> None:
        self._undecodable += 1
        if self._undecodable <= UNDECODABLE_TOLD:
            where = MsgPosition(channel, self._transport.encode(place))
            logger.warning("%r: the message at %s cannot be decoded, and is skipped: %s", self, where, error)

    def _tell(self, hand: _Hand) -> None:
        """Of each gap, once, and give it to this thread. What that raises leaves the pack to the next call.

        What ``on_gap`` calls of the stream is let in; so it may seek, which drops the pack.
        """
        hand.thread = 0
        self._telling = threading.get_ident()
        try:
            while hand.untold:
                gap = hand.untold.pop(0)
                text = (
                    f"{self!r}: retention removed unread messages of {gap.channel_name!r}, {gap.from_id} to before {gap.to_id}"
                )
                if callable(self._options.on_gap):
                    self._options.on_gap(gap)
                elif self._options.on_gap == "raise":
                    found = GapFound(text)
                    found.gap = gap
                    raise found
                else:
                    logger.warning("%s", text)
        finally:
            self._telling = 0
        hand.thread = threading.get_ident()

    # -- the subscription --------------------------------------------------------

    def _commit(self, deadline: Deadline | None = None) -> None:
        if self._uncommitted:
            self._transport.commit(self._uncommitted, deadline)
            self._uncommitted = []

    def _settle(self) -> None:
        """A pack in another thread's hand has reached it; one in this thread's own was lost on its way, and comes again."""
        if self._hand is not None and self._hand.thread not in (0, threading.get_ident()):
            self._uncommitted, self._hand = self._hand.pack.end_positions, None

    def _take_over(self, channels: Sequence[str]) -> None:
        """Of those channels, from whoever reads them under the subscription."""
        found = self._transport.take_over(channels)
        self._is_torn = True
        self._at = self._at | {position.channel_name: position for position in found}

    def _check_held(self) -> None:
        """Raises Conflict when another stream has taken the subscription over: a commit to the beginnings moves nothing."""
        self._transport.commit([MsgPosition(channel) for channel in self._consuming])

    def _finish_seek(self) -> None:
        """Do the seek that was asked for, unless it was done."""
        if self._seeking is None:
            return
        try:
            found = self._transport.seek(*self._seeking)
        except RocksMQError as error:
            if not error.retryable and not isinstance(error, OUTCOME_UNKNOWN):
                self._seeking = None
            raise
        hand = self._hand
        lost = [] if hand is None else hand.pack.start_positions
        at = self._at | {position.channel_name: position for position in (*lost, *found)}
        sought = {position.channel_name for position in found}
        uncommitted = [position for position in self._uncommitted if position.channel_name not in sought]
        # Plain stores, between which no interrupt can strike.
        self._at = at
        self._uncommitted = uncommitted
        self._hand = self._seeking = None
        self._is_torn = True
        if hand is not None:
            hand.is_dropped = True

    # -- checks ------------------------------------------------------------------

    @contextmanager
    def _exclusive(self) -> Generator[None]:
        if self._telling == threading.get_ident():
            self._check_open()
            yield
            return
        try:
            self._turn.take(Deadline(None))
            self._check_open()
            yield
        finally:
            self._turn.pass_on()

    def _check_open(self) -> None:
        if self._is_closed:
            raise ConnectionFailed("the stream is closed")

    def _check_consuming(self) -> None:
        self._check_open()
        if not self._consuming:
            raise InvalidRequest("call as_consumer(channels, sub_name) first: the stream consumes no channels")

    def _check_started(self) -> None:
        self._check_consuming()
        if not self._is_started:
            raise InvalidRequest("call start() first: the stream was not started")

    def _check_positions(self, positions: Sequence[MsgPosition]) -> None:
        named: set[str] = set()
        if not positions:
            raise InvalidRequest("name one position at least")
        for position in positions:
            if not isinstance(position, MsgPosition):  # pyright: ignore[reportUnnecessaryIsInstance]
                raise InvalidRequest(f"{position!r} is no MsgPosition: of JSON, make one with MsgPosition(**position)")
            if position.channel_name not in self._consuming or position.channel_name in named:
                why = "named twice" if position.channel_name in named else "not consumed by this stream"
                raise InvalidRequest(f"channel {position.channel_name!r} is {why}")
            named.add(position.channel_name)
            self._transport.decode(position.msg_id)
            integer("timestamp_filter", position.timestamp_filter, 0, TIMESTAMP_MAX)
