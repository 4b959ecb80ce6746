"""The producing side of a message stream: which channel gets what, and what is told when some do not get it."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from rocksmq.protocol.errors import InvalidRequest, PackPartlyProduced
from rocksmq.protocol.names import checked_name

from .dispatch import UnmarshalDispatcher
from .repack import routed
from .transport import Part, Transport
from .types import MsgPack, RepackFunc, TsMsg


@dataclass(slots=True)
class RestPack(MsgPack):
    """What of a pack is not known to be stored; `MsgStream.produce` sends it to the same channels under the same numbers."""

    parts: list[Part] = field(default_factory=list[Part])


class Producing:
    """What `MsgStream` does with packs that go out."""

    dispatcher: UnmarshalDispatcher
    _transport: Transport
    _producing: list[str]  # channels
    _repack: RepackFunc | None

    def _check_open(self) -> None:
        """Raises ConnectionFailed for a stream that is closed."""
        raise NotImplementedError

    def as_producer(self, channels: Sequence[str]) -> None:
        """Produce to ``channels``, which exist; a message's hash key modulo their number chooses one.

        Repeated ones are ignored; called again it adds channels. Raises ChannelNotFound with all that do not exist,
        InvalidRequest.
        """
        self._check_open()
        wanted = channel_names(channels)
        self._transport.open_producers(wanted)
        self._producing += [channel for channel in wanted if channel not in self._producing]

    def set_repack_func(self, repack_func: RepackFunc | None) -> None:
        """Choose the channels of a pack's messages by ``repack_func``; None: by their types, as at first."""
        self._repack = repack_func

    def produce(self, pack: MsgPack) -> dict[str, range]:
        """Send each message to the channel of its hash key; the ids by channel. Durable when it returns.

        A channel's part is one atomic batch. Raises InvalidRequest before anything is sent; PackPartlyProduced when some of the
        parts are not, or not known to be, stored: then ``produce(error.rest)`` sends what is missing, and doubles nothing.
        """
        self._check_open()
        if isinstance(pack, RestPack):
            return self._send(pack.parts, pack)
        msgs = _messages(pack)
        if not self._producing:
            raise InvalidRequest("call as_producer(channels) first: the stream has no channels to produce to")
        marshal = self.dispatcher.marshal
        parts: list[Part] = []
        for index, chosen in routed(msgs, len(self._producing), self._repack).items():
            if chosen:
                parts += self._transport.parts([marshal(msg) for msg in chosen], [self._producing[index]])
        return self._send(parts, pack)

    def broadcast(self, pack: MsgPack) -> dict[str, range]:
        """Send all messages to every channel; the ids by channel. Otherwise as `produce`."""
        self._check_open()
        msgs = _messages(pack)
        if not self._producing:
            raise InvalidRequest("call as_producer(channels) first: the stream has no channels to produce to")
        payloads = [self.dispatcher.marshal(msg) for msg in msgs]
        return self._send(self._transport.parts(payloads, self._producing) if payloads else (), pack)

    def _send(self, parts: Sequence[Part], pack: MsgPack) -> dict[str, range]:
        self._transport.send([part for part in parts if part.ids is None])
        ids = {part.channel: part.ids for part in parts if part.ids is not None}
        errors = {part.channel: part.error for part in parts if part.ids is None and part.error is not None}
        if errors:
            rest = RestPack(pack.begin_ts, pack.end_ts, pack.msgs, parts=[part for part in parts if part.ids is None])
            channel, error = next(iter(errors.items()))
            text = f"{len(errors)} of {len(parts)} parts of the pack are not known to be stored ({channel}: {error.message})"
            raise PackPartlyProduced(f"{text}; produce(error.rest) sends what is missing", ids=ids, errors=errors, rest=rest)
        return ids


def _messages(pack: MsgPack) -> list[TsMsg]:
    if not isinstance(pack, MsgPack):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise InvalidRequest(f"a MsgPack is produced, not {type(pack).__name__}")
    return pack.msgs


def channel_names(channels: Sequence[str]) -> list[str]:
    """Each once, in order. Raises InvalidRequest."""
    if isinstance(channels, str):
        raise InvalidRequest(f"channels is a list of names: [{channels!r}]")
    names = [checked_name("channel", channel) for channel in dict.fromkeys(channels)]
    if not names:
        raise InvalidRequest("name one channel at least")
    return names
