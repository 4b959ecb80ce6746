"""The roles of `streams` that read: of the time-tick stream and of the plain one, each in two ways.

``ticks-exact``, ``plain-exact``: what was read goes to an output of all lives, together with the positions behind it, from
which the next life goes on. ``ticks``, ``plain``: by the subscription alone, a book a life. ``started``, then a ``pack`` each;
``moved``: the subscription is behind the last pack for sure; ``left``: it is not for sure; ``conflict``: another one has it.
"""

import time
from collections.abc import Callable

from rocksmq.clients import Conflict, RocksMQError
from rocksmq.clients.msgstream import BufferFull, MsgPack, MsgPosition, MsgStream, TimeTickMsg, TtMsgStream

from .streams_audit import check_same
from .streams_book import Book, read_book
from .streams_pack import Pack
from .streams_worker import Worker, is_passing

WORK_SECONDS = 0.1  # that a reader takes for one pack in three, at the most, before it asks for the next
WAIT_SECONDS = (0.0, 0.02, 0.5)  # for the next pack, one of them each time
BUFFERS = (3_000, None)  # messages, one of them a life
SMALL_BUFFERS = (50, 400, *BUFFERS)  # that may be too small for a pack; then a reader with positions takes a larger one


class FencedOff(Exception):
    """Another process reads under this subscription now."""


class _Left(Exception):
    """The `with` block is left as by any error of the program."""


class _Reader:
    """One life of a reader."""

    def __init__(self, worker: Worker, *, is_exact: bool) -> None:
        self._worker = worker
        self._book = Book(worker.part.output, syncs=True) if is_exact else worker.book
        self._is_exact = is_exact
        self._is_moved = True
        self._sought: Pack | None = None  # what is to come again
        self._reached: dict[str, int] = {}  # the highest tick that was read, by channel
        self._ends: dict[str, MsgPosition] = {}
        if is_exact:
            for record in read_book(worker.part.output):
                self._ends |= Pack.of_json(record.body).ends
                self._is_moved = False

    def read(self, stream: MsgStream) -> None:
        """Until told to end. Raises BufferFull; then another stream may go on, if positions are stored."""
        worker, random = self._worker, self._worker.random
        self._sought = None
        ends_badly = not self._is_exact and random.random() < 0.5
        try:
            with stream:
                self._start(stream)
                worker.book.note("started")
                while not self._is_over():
                    if self._read_pack(stream) and worker.must_stop and ends_badly:
                        raise _Left
                    if worker.must_stop and not ends_badly:
                        break
                self._close(stream)
        except _Left:
            worker.book.note("left")
        except Conflict as error:
            worker.book.note("conflict", str(error))
            raise FencedOff from error

    def _start(self, stream: MsgStream) -> None:
        worker, random = self._worker, self._worker.random
        name = worker.part.role
        if self._is_exact and random.random() < 0.5:
            name += f"-{worker.part.life}"  # positions hold under any subscription
        channels = worker.part.channels
        at_first = len(channels) if random.random() < 0.7 else random.randint(1, len(channels))
        worker.persist(lambda: stream.as_consumer(channels[:at_first], name))
        is_sought_first = self._is_exact and random.random() < 0.5
        if not is_sought_first:
            worker.persist(stream.start)
        worker.persist(lambda: stream.as_consumer(channels, name))  # adds what is missing
        if self._is_exact and self._ends:
            worker.persist(lambda: stream.seek(list(self._ends.values())))
        if is_sought_first:
            worker.persist(stream.start)

    def _is_over(self) -> bool:
        """Whether all was read, if it is to be read."""
        final = self._worker.final
        lowest = min((self._reached.get(channel, 0) for channel in self._worker.part.channels), default=0)
        return final is not None and lowest >= final

    def _read_pack(self, stream: MsgStream) -> bool:
        worker = self._worker
        try:
            pack = stream.consume(timeout=worker.random.choice(WAIT_SECONDS))
        except Conflict:
            raise
        except BufferFull as error:
            worker.book.note("error", ["BufferFull", str(error)])
            raise
        except RocksMQError as error:
            worker.failed(error)
            return False
        if pack is None:
            self._note_moved()
            return False
        noted = Pack.of(pack)
        if self._sought is not None:
            check_same("sought again", noted, self._sought)
            self._sought = None
            return True
        self._book.note("pack", noted.json())
        self._ends |= noted.ends
        self._is_moved = False
        for channel, reached in self._reached_by(pack, stream):
            self._reached[channel] = max(reached, self._reached.get(channel, 0))
        if worker.random.random() < 0.1:
            worker.persist(stream.commit)
            self._note_moved()
        if self._is_exact and worker.random.random() < 0.1:
            self._seek(stream, noted)
        if worker.random.random() < 0.3:
            time.sleep(worker.random.random() * WORK_SECONDS)
        return True

    def _seek(self, stream: MsgStream, pack: Pack) -> None:
        """To the end of the pack, or to its start: of a time-tick stream it then comes again as it was."""
        is_again = isinstance(stream, TtMsgStream) and self._worker.random.random() < 0.5
        positions = pack.starts if is_again else pack.ends
        self._worker.persist(lambda: stream.seek(list(positions.values())))
        self._sought = pack if is_again else None

    def _reached_by(self, pack: MsgPack, stream: MsgStream) -> list[tuple[str, int]]:
        if isinstance(stream, TtMsgStream):
            return [(channel, pack.end_ts) for channel in self._worker.part.channels]
        return [(msg.position.channel_name, msg.end_ts) for msg in pack.msgs if isinstance(msg, TimeTickMsg) and msg.position]

    def _close(self, stream: MsgStream) -> None:
        try:
            stream.close()
        except RocksMQError as error:
            if not is_passing(error):
                raise
            self._worker.book.note("error", [type(error).__name__, str(error)])
        else:
            self._note_moved()

    def _note_moved(self) -> None:
        if not self._is_moved and not self._is_exact:
            self._worker.book.note("moved")
        self._is_moved = True


def _role(*, has_ticks: bool, is_exact: bool) -> Callable[[Worker], None]:
    def play(worker: Worker) -> None:
        size = worker.random.choice(SMALL_BUFFERS if is_exact else BUFFERS)
        reader = _Reader(worker, is_exact=is_exact)
        while True:
            factory = worker.factory(size)
            stream: MsgStream = worker.persist(factory.new_tt_msg_stream if has_ticks else factory.new_msg_stream)
            try:
                reader.read(stream)
            except BufferFull:
                if not is_exact or size is None:
                    raise
                size *= 4
            else:
                return

    return play


READERS: dict[str, Callable[[Worker], None]] = {
    "ticks-exact": _role(has_ticks=True, is_exact=True),
    "ticks": _role(has_ticks=True, is_exact=False),
    "plain-exact": _role(has_ticks=False, is_exact=True),
    "plain": _role(has_ticks=False, is_exact=False),
}
