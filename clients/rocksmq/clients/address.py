"""Where the broker is: the URL of the client, `rocksmq://[token@]host[:port]`, or `rocksmqs://` with TLS."""

import os
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

from rocksmq.protocol.errors import InvalidRequest

PORT = 7660
DEFAULT_URL = f"rocksmq://127.0.0.1:{PORT}"
URL_VARIABLE = "ROCKSMQ_URL"


@dataclass(frozen=True, slots=True)
class Address:
    """A broker's address; the token is never shown."""

    host: str
    port: int
    token: str | None = field(repr=False)
    is_tls: bool = False

    def __str__(self) -> str:
        return f"{'rocksmqs' if self.is_tls else 'rocksmq'}://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"

    @classmethod
    def parse(cls, url: str | None) -> "Address":
        """From ``url``, else the environment's ROCKSMQ_URL, else the default. Raises InvalidRequest."""
        text = os.environ.get(URL_VARIABLE, DEFAULT_URL) if url is None else url
        wanted = "rocksmq://[token@]host[:port], for example rocksmq://127.0.0.1:7660"
        if "://" not in text:
            raise InvalidRequest(f"the URL is not of the form {wanted}: put rocksmq:// before the host")
        try:
            parts = urlsplit(text)
            port = parts.port
        except ValueError:
            raise InvalidRequest(f"the URL is not of the form {wanted}: its host or port cannot be read") from None
        if parts.scheme not in ("rocksmq", "rocksmqs"):
            raise InvalidRequest(f"the URL is not of the form {wanted}: its scheme is neither rocksmq nor rocksmqs")
        if not parts.hostname:
            raise InvalidRequest(f"the URL is not of the form {wanted}: it names no host")
        if parts.path not in ("", "/") or parts.query or parts.fragment or parts.password is not None:
            raise InvalidRequest(f"the URL is not of the form {wanted}: nothing may follow the port, and no password")
        token = unquote(parts.username) if parts.username else None
        return cls(parts.hostname, PORT if port is None else port, token, parts.scheme == "rocksmqs")
