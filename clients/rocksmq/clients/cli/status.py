"""`rocksmq status`: what the broker says of itself."""

import click

from .output import show_properties
from .session import Session, pass_session


@click.command()
@pass_session
def status(session: Session) -> None:
    """Show the broker's version, durability and limits.

    It also pings the broker; exit code 1 when none answers, so it serves as a health check.

    \b
    Example:
      rocksmq --timeout 2 status
    """
    from rocksmq.clients.address import Address

    with session.client() as mq:
        server = mq.server
        ping_seconds = mq.ping()
    record = {
        "url": str(Address.parse(session.url)),
        "version": server.version,
        "protocol": server.protocol,
        "durability": server.durability,
        "ping_seconds": round(ping_seconds, 6),
    }
    limits = server.limits
    show_properties({**record, "limits": limits} if session.as_json else {**record, **limits}, as_json=session.as_json)
