"""What the options before a command say, and the client made of them."""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rocksmq.clients.client import Client
    from rocksmq.clients.link import Link

NAME = "rocksmq"  # by which the broker knows the command


def check_url(url: str | None) -> None:
    """Raises UsageError for one from the command line with a token in it."""
    if url is not None and "@" in url:
        raise click.UsageError("a token on the command line is seen by everybody on this machine: put it in ROCKSMQ_TOKEN")


@dataclass(frozen=True, slots=True)
class Session:
    """``timeout`` in seconds is each call's; None: it never ends."""

    url: str | None
    as_json: bool
    timeout: float | None

    def client(self) -> "Client":
        """A connected client. Raises ConnectionFailed, Timeout, InvalidRequest for a bad URL."""
        from rocksmq.clients.client import Client

        return Client(self.url, timeout=self.timeout, client_name=NAME)

    def link(self) -> "Link":
        """A connection, as `client` has one, for what its calls do not offer."""
        from rocksmq.clients.address import Address
        from rocksmq.clients.credentials import Credentials
        from rocksmq.clients.deadline import Deadline
        from rocksmq.clients.link import Link

        address = Address.parse(self.url)
        link = Link(address, Credentials.found(address), NAME)
        link.connected(Deadline(self.timeout))
        return link

    @contextmanager
    def calling(self) -> Generator[Callable[[Any], Any]]:
        """A connection that does operations by their typed requests, for commands that may not import the client.

        Raises ConnectionFailed, Timeout, InvalidRequest for a bad URL; what it gives, RocksMQError.
        """
        from rocksmq.clients.deadline import Deadline

        link = self.link()
        try:
            yield lambda request: link.call(request, Deadline(self.timeout))
        finally:
            link.close()


pass_session = click.make_pass_decorator(Session)
