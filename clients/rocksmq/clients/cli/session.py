"""What the options before a command say, and the client made of them."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from rocksmq.clients.client import Client


@dataclass(frozen=True, slots=True)
class Session:
    """``timeout`` in seconds is each call's. ``url`` may hold a token: it is never printed."""

    url: str | None
    as_json: bool
    timeout: float

    def client(self) -> "Client":
        """A connected client. Raises ConnectionFailed, Timeout, InvalidRequest for a bad URL."""
        from rocksmq.clients.client import Client

        return Client(self.url, timeout=self.timeout, client_name="rocksmq")


pass_session = click.make_pass_decorator(Session)
