"""What a mirror is told to do, in either direction, checked once. Imports nothing of Pulsar's client."""

import re
from dataclasses import dataclass, field
from typing import Literal, Self, get_args

from rocksmq.protocol.errors import InvalidRequest
from rocksmq.protocol.names import NAME_BYTES_MAX, checked_name

from ..pulsar import SCHEMES, TOPIC_TEMPLATE

NAME = "pulsar"
MESSAGE_BYTES_MAX = 5 << 20  # of a broker of Pulsar: its maxMessageSize
MESSAGE_BYTES_LEAST = 256 << 10
BUFFER_BYTES = 64 << 20  # on their way to the other side, of all channels together
BUFFER_BYTES_LEAST = 1 << 20
TIMEOUT_SECONDS = 10.0
TooLarge = Literal["stop", "skip"]
_ROCKSMQ = "rocksmq://"
_TEMPLATE = re.compile(r"persistent://[^/{}\s]+/[^/{}\s]+/[^/{}\s]*\{channel\}[^/{}\s]*")
_PATTERN = re.compile(r"[A-Za-z0-9._*?\[\]!-]{1,200}")


@dataclass(frozen=True, slots=True, kw_only=True)
class MirrorOptions:
    """From ``source`` to ``target``, one of them a broker of RocksMQ, the other Pulsar: the URLs tell the direction.

    ``channels``: names or patterns (`*`, `?`, `[…]`) of the channels of RocksMQ; on the way back plain names.
    """

    source: str
    target: str
    channels: tuple[str, ...]
    topic_template: str = TOPIC_TEMPLATE
    name: str = NAME  # of the mirror: in its group's name, and in its producers'
    requires_deduplication: bool = False
    too_large: TooLarge = "stop"  # for a message that the other side takes at no time
    message_bytes_max: int = MESSAGE_BYTES_MAX
    key_header: str | None = None  # its value, if it is text, is the partition key
    buffer_bytes: int = BUFFER_BYTES
    timeout: float = TIMEOUT_SECONDS  # seconds, of a call to either side
    token: str | None = field(default=None, repr=False)
    pulsar_token: str | None = field(default=None, repr=False)
    pulsar_ca: str | None = None  # a file in PEM, for pulsar+ssl://

    @property
    def is_forward(self) -> bool:
        """From RocksMQ to Pulsar."""
        return self.source.startswith(_ROCKSMQ)

    @property
    def group(self) -> str:
        """The consumer group of a mirror to Pulsar, on each of its channels."""
        return f"mirror.{self.name}"

    def topic(self, channel: str) -> str:
        """The topic of a channel."""
        return self.topic_template.format(channel=channel)

    def producer_name(self, channel: str) -> str:
        """Under which the mirror sends a channel; Pulsar's deduplication goes by it."""
        return f"rocksmq.mirror.{self.name}.{channel}"

    def checked(self) -> Self:
        """Itself. Raises InvalidRequest, naming what is not allowed."""
        self._check_addresses()
        self._check_names()
        if self.too_large not in get_args(TooLarge):
            raise InvalidRequest(f"too_large {self.too_large!r} is not allowed: 'stop' or 'skip'")
        for name, value, least in (
            ("message_bytes_max", self.message_bytes_max, MESSAGE_BYTES_LEAST),
            ("buffer_bytes", self.buffer_bytes, BUFFER_BYTES_LEAST),
        ):
            if type(value) is not int or value < least:
                raise InvalidRequest(f"{name} {value!r} is not allowed: bytes, {least} at least")
        if not isinstance(self.timeout, (int, float)) or not 0 < self.timeout <= 3_600:  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InvalidRequest(f"timeout {self.timeout!r} is not allowed: seconds above 0, 3600 at most")
        return self

    def _check_addresses(self) -> None:
        if any(url.startswith(SCHEMES) and "@" in url for url in (self.source, self.target)):  # a secret: not repeated
            raise InvalidRequest("an address of Pulsar with an '@' is not allowed: its token is given apart")
        sides = (self.source, self.target) if self.is_forward else (self.target, self.source)
        if not (sides[0].startswith(_ROCKSMQ) and sides[1].startswith(SCHEMES)):
            raise InvalidRequest(
                f"a mirror from {self.source!r} to {self.target!r} is not allowed: one side is rocksmq://host:port, "
                "the other pulsar://host:port or pulsar+ssl://host:port"
            )
        if not _TEMPLATE.fullmatch(self.topic_template):
            raise InvalidRequest(
                f"topic_template {self.topic_template!r} is not allowed: persistent://tenant/namespace/name, "
                "with {channel} once in the name, and no other braces"
            )

    def _check_names(self) -> None:
        checked_name("mirror", self.name)
        if len(self.group) > NAME_BYTES_MAX:
            raise InvalidRequest(f"mirror name {self.name!r} is too long: {NAME_BYTES_MAX - len('mirror.')} characters at most")
        if not self.channels:
            raise InvalidRequest("no channels are named: give a name or a pattern, for example 'orders.*'")
        for channel in self.channels:
            if not self.is_forward:
                checked_name("channel", channel)
            elif not _PATTERN.fullmatch(channel):
                raise InvalidRequest(f"channel pattern {channel!r:.60} is not allowed: as names are, with * ? [ ] besides")
        if self.key_header is not None and not self.key_header:
            raise InvalidRequest("key_header '' is not allowed: the name of a header")
