"""`rocksmq status`: what the broker says of itself, and what is wrong with it, in words."""

from time import monotonic, sleep, time
from typing import TYPE_CHECKING

import click

from .output import printable, show_line, show_properties
from .session import Session, pass_session

if TYPE_CHECKING:
    from ..client import Client
    from ..interval import Interval
    from .overview import Overview

LOOK_SECONDS = 0.1  # between two looks, to see whether a group that is far behind is read at all


@click.command()
@click.option("--limits", "with_limits", is_flag=True, help="Show the broker's limits too.")
@click.option("--confirm-clock", is_flag=True, help="Its clock is right: it may remove messages for their age again.")
@pass_session
@click.pass_context
def status(ctx: click.Context, session: Session, with_limits: bool, confirm_clock: bool) -> None:
    """Say how the broker is, and what to do about what is wrong.

    Exit code 0: it is ready; 1: it is not, or none answers. So it serves as a health check. What it finds beyond that, such
    as a group that nobody reads, leaves the exit code alone.

    \b
    Example:
      rocksmq --timeout 2 status
      rocksmq status --confirm-clock
    """
    from ..address import Address
    from .advice import notes, present
    from .overview import overview

    with session.client() as mq:
        if confirm_clock:
            mq.confirm_clock()
        server = mq.server
        ping_seconds = mq.ping()
        look = _look(mq)
    found = overview(look)
    wrong, known = present(look, time()), notes(look)
    record: dict[str, object] = {
        "url": str(Address.parse(session.url)),
        "version": server.version,
        "protocol": server.protocol,
        "durability": server.durability,
        "ping_seconds": round(ping_seconds, 6),
    }
    if session.as_json:
        told = found.as_json()
        state = {name: told[name] for name in _STATE}
        said = {"problems": found.problems, "findings": wrong, "notes": known}
        show_properties({**record, "is_ready": found.is_ready, **state, **said, "limits": server.limits}, as_json=True)
    else:
        show_properties({**record, **_in_words(found), **(server.limits if with_limits else {})}, as_json=False)
        _explain(found, wrong, known)
    if not found.is_ready:
        ctx.exit(1)


_STATE = ("up_since", "positions", "channels", "groups", "messages", "bytes", "disk_free_bytes", "disk_total_bytes")


def _look(mq: "Client") -> "Interval":
    from ..interval import Interval
    from .advice import groups_behind

    earlier, begin = mq.status(), monotonic()
    if not any(groups_behind(earlier)):
        return Interval(None, earlier, 0)
    sleep(LOOK_SECONDS)
    later = mq.status()
    return Interval(earlier, later, monotonic() - begin)


def _in_words(found: "Overview") -> dict[str, object]:
    from .figures import count, duration, moment, size
    from .overview import holdings

    up = "-" if found.up_since is None else f"{duration(time() - found.up_since)}, since {moment(found.up_since)}"
    return {
        "up": up,
        "positions": found.positions,
        "holds": holdings(found),
        "disk": f"{size(found.disk_free_bytes)} free of {size(found.disk_total_bytes)}",
        "connections": f"{count(found.connections)} of {count(found.connections_limit)}",
    }


def _explain(found: "Overview", wrong: list[str], known: list[str]) -> None:
    """Sections of sentences, a line each."""
    failing, other = ([], [*found.problems, *wrong]) if found.is_ready else (found.problems, wrong)
    sections = {
        "not ready:": failing,
        "to look at:" if found.is_ready else "and:": other,
        "good to know:": known,
    }
    if found.is_ready and not other:
        show_line("\nall is well")
    for title, sentences in sections.items():
        if sentences:
            show_line(f"\n{title}")
            for sentence in sentences:
                show_line(f"- {printable(sentence)}")
