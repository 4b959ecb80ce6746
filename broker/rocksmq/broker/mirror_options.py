"""The table ``[mirror]`` of the options: what the broker's own mirror to Apache Pulsar is told, and the command line of that.

The mirror is a program of the clients, of which nothing is imported here. Its options are checked here as there, so that
a broker refuses at its start what the mirror would refuse then; a test holds both against each other.
"""

import os
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from rocksmq.protocol.errors import InvalidRequest
from rocksmq.protocol.names import NAME_BYTES_MAX, checked_name

from .limits import MIB

PROGRAM: tuple[str, ...] = (sys.executable, "-P", "-m", "rocksmq.clients.cli")
STOP, SKIP = "stop", "skip"
MESSAGE_BYTES_LEAST = 262_144
BUFFER_BYTES_LEAST = MIB
_URL = re.compile(r"pulsar(\+ssl)?://[^\s/@]+/?")
_TEMPLATE = re.compile(r"persistent://[^/{}\s]+/[^/{}\s]+/[^/{}\s]*\{channel\}[^/{}\s]*")
_PATTERN = re.compile(r"[A-Za-z0-9._*?\[\]!-]{1,200}")
_NAME_BYTES_MAX = NAME_BYTES_MAX - len("mirror.")
# What is listened on, and how the machine itself reaches it.
_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104
_OPTIONS_PREFIX = "ROCKSMQ_"


@dataclass(frozen=True, slots=True)
class MirrorSection:
    """As they stand in the file; the mirror is off while ``to`` is empty."""

    to: str = ""  # pulsar://host:6650
    channels: str = ""  # names and patterns, with commas between
    topic_template: str = "persistent://public/default/{channel}"
    name: str = "pulsar"
    require_deduplication: bool = False
    too_large: str = STOP
    message_bytes_max: int = 5 * MIB
    key_header: str = ""
    buffer_bytes: int = 64 * MIB
    pulsar_token_file: str = ""
    pulsar_ca: str = ""

    @property
    def is_on(self) -> bool:
        """Whether the broker runs a mirror."""
        return bool(self.to)

    @property
    def patterns(self) -> list[str]:
        """Those of `channels`."""
        return [pattern for part in self.channels.split(",") if (pattern := part.strip())]

    def problems(self) -> Iterator[tuple[str, str]]:
        """Each key whose value cannot be used, and why."""
        if self.is_on:
            if not _URL.fullmatch(self.to):
                yield "to", "not pulsar://HOST:PORT nor pulsar+ssl://HOST:PORT"
            if not self.patterns:
                yield "channels", "no channel is named: give a name or a pattern, for example orders.*"
        for pattern in self.patterns:
            if not _PATTERN.fullmatch(pattern):
                yield "channels", f"{pattern!r:.60} is no pattern of channels: as names are, with * ? [ ] besides"
        if not _TEMPLATE.fullmatch(self.topic_template):
            yield (
                "topic_template",
                "not persistent://TENANT/NAMESPACE/NAME, with {channel} once in NAME and no other braces",
            )
        try:
            checked_name("mirror", self.name)
        except InvalidRequest as error:
            yield "name", error.message.rpartition(": ")[2]
        if len(self.name) > _NAME_BYTES_MAX:
            yield "name", f"at most {_NAME_BYTES_MAX} characters"
        if self.too_large not in (STOP, SKIP):
            yield "too_large", f"not one of {STOP}, {SKIP}"
        for key, least in (("message_bytes_max", MESSAGE_BYTES_LEAST), ("buffer_bytes", BUFFER_BYTES_LEAST)):
            if getattr(self, key) < least:
                yield key, f"at least {least}"
        yield from self._problems_of_files()

    def _problems_of_files(self) -> Iterator[tuple[str, str]]:
        for key in ("pulsar_token_file", "pulsar_ca"):
            path = getattr(self, key)
            if not path:
                continue
            try:
                if not Path(path).read_text().strip():
                    yield key, "it is empty"
            except (OSError, ValueError) as error:
                yield key, f"cannot be read: {error.strerror if isinstance(error, OSError) else 'it is not text'}"
        if self.pulsar_ca and not self.to.startswith("pulsar+ssl://"):
            yield "pulsar_ca", "it is used with pulsar+ssl:// only"

    def require_client(self) -> None:
        """Raises OSError when a mirror is wanted and Pulsar's client is not installed."""
        if self.is_on and find_spec("pulsar") is None:
            raise OSError("pulsar-client is missing, which [mirror] needs: install it with  pip install 'rocksmq[pulsar]'")

    def command(self, host: str, port: int) -> list[str]:
        """What runs the mirror of a broker that listens there."""
        reached = _EVERYWHERE.get(host, host)
        source = f"rocksmq://[{reached}]:{port}" if ":" in reached else f"rocksmq://{reached}:{port}"
        told = {
            "--from": source,
            "--to": self.to,
            "--channels": ",".join(self.patterns),
            "--topic-template": self.topic_template,
            "--name": self.name,
            "--too-large": self.too_large,
            "--message-bytes-max": str(self.message_bytes_max),
            "--buffer-bytes": str(self.buffer_bytes),
            "--key-header": self.key_header,
            "--pulsar-token-file": self.pulsar_token_file,
            "--pulsar-ca": self.pulsar_ca,
        }
        options = [f"{option}={value}" for option, value in told.items() if value]
        if self.require_deduplication:
            options.append("--require-deduplication")
        return [*PROGRAM, "--json", "mirror", "--supervised", *options]


TOKEN_VARIABLE = "ROCKSMQ_TOKEN"  # noqa: S105 - where the client looks for its token


def environment_of_child(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """What the mirror inherits: all but the options of the broker, some of which are its own by name."""
    return {name: value for name, value in environment.items() if not name.startswith(_OPTIONS_PREFIX)}
