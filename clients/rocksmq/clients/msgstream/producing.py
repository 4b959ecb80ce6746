"""The producing side of a message stream: which channel gets what, and what is told when some do not get it."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from rocksmq.protocol.errors import InvalidRequest, PackPartlyProduced
from rocksmq.protocol.names import checked_name

from .dispatch import UnmarshalDispatcher
from .repack import check_messages, routed
from .transport import Part, Transport
from .types import MsgPack, RepackFunc, TsMsg

Sent: TypeAlias = list[tuple[Part, list[TsMsg]]]
"""Parts of a pack with their messages."""


@dataclass(slots=True)
class RestPack(MsgPack):
    """What of a pack is not known to be stored. It is sent to the same channels under the same numbers, by the same stream.

    ``parts``: each with its messages; ``msgs``: all of these, where they were split as they were sent.
    """

    parts: Sent = field(default_factory=list[tuple[Part, list[TsMsg]]])


class Producing:
    """What `MsgStream` does with packs that go out."""

    dispatcher: UnmarshalDispatcher
    _transport: Transport
    _producing: list[str]  # channels
    _repack: RepackFunc | None
    _resending: threading.Lock

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
            return self._send_rest(pack)
        msgs = self._messages(pack)
        marshal = self.dispatcher.marshal
        parts: Sent = []
        for index, chosen in routed(msgs, len(self._producing), self._repack).items():
            if chosen:
                (part,) = self._transport.parts([marshal(msg) for msg in chosen], [self._producing[index]])
                parts.append((part, chosen))
        return self._send(parts)

    def broadcast(self, pack: MsgPack) -> dict[str, range]:
        """Send all messages to every channel; the ids by channel. Otherwise as `produce`."""
        self._check_open()
        if isinstance(pack, RestPack):
            return self._send_rest(pack)
        msgs = self._messages(pack)
        payloads = [self.dispatcher.marshal(msg) for msg in msgs]
        parts = self._transport.parts(payloads, self._producing) if payloads else ()
        return self._send([(part, msgs) for part in parts])

    def _messages(self, pack: MsgPack) -> list[TsMsg]:
        if not isinstance(pack, MsgPack):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InvalidRequest(f"a MsgPack is produced, not {type(pack).__name__}")
        if not isinstance(pack.begin_ts, int):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InvalidRequest("begin_ts of the pack is no integer: give its messages by name, MsgPack(msgs=[...])")
        try:
            msgs = list(pack.msgs)
        except TypeError:
            raise InvalidRequest("msgs of the pack is a list of messages") from None
        check_messages(msgs)
        if not self._producing:
            raise InvalidRequest("call as_producer(channels) first: the stream has no channels to produce to")
        return msgs

    def _send_rest(self, rest: RestPack) -> dict[str, range]:
        with self._resending:  # its parts keep their numbers, so only one thread at a time may send them
            return self._send(rest.parts)

    def _send(self, parts: Sent) -> dict[str, range]:
        self._transport.send([part for part, _ in parts if part.ids is None])
        ids = {part.channel: part.ids for part, _ in parts if part.ids is not None}
        missing = [(part, msgs) for part, msgs in parts if part.ids is None]
        if not missing:
            return ids
        msgs = list({id(msg): msg for _, some in missing for msg in some}.values())
        errors = {part.channel: part.error for part, _ in missing if part.error is not None}
        channel, error = next(iter(errors.items()))
        text = f"{len(missing)} of {len(parts)} parts of the pack are not known to be stored ({channel}: {error.message})"
        raise PackPartlyProduced(
            f"{text}; produce(error.rest) sends what is missing",
            ids=ids,
            errors=errors,
            rest=RestPack(msgs=msgs, parts=missing),
        )


def channel_names(channels: Sequence[str]) -> list[str]:
    """Each once, in order. Raises InvalidRequest."""
    if isinstance(channels, str):
        raise InvalidRequest(f"channels is a list of names: [{channels!r}]")
    names = [checked_name("channel", channel) for channel in dict.fromkeys(channels)]
    if not names:
        raise InvalidRequest("name one channel at least")
    return names
