"""The command `rocksmq` itself: its options, its commands, and how a failure is told.

Owns the exit codes: 0 it worked, 1 it failed (one line on stderr), 2 wrong usage (click's own),
128 + the signal's number when it was interrupted.
"""

import os
import signal
import sys
from typing import NoReturn

import click

from rocksmq.protocol.errors import RocksMQError

from .bench import bench
from .channel import channel
from .consume import consume
from .extensions import EXTENSIONS
from .group import group
from .mirror import mirror
from .msgstream import msgstream
from .output import Failed
from .parameters import seconds
from .produce import produce
from .session import Session, check_url
from .status import status
from .tail import tail
from .top import top


class Commands(click.Group):
    """A group that turns what its commands raise into the exit codes of this module."""

    def invoke(self, ctx: click.Context) -> object:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except RocksMQError as error:
            raise Failed(error.message) from error
        except click.ClickException as error:
            if type(error) is click.ClickException:  # of a command that another part brings
                raise Failed(error.message) from error
            raise
        except BrokenPipeError:
            _end_quietly()
        except OSError as error:
            _forget_unwritten()
            raise Failed(f"{error.filename}: {error.strerror}" if error.filename else str(error)) from error
        except KeyboardInterrupt:
            raise click.exceptions.Exit(128 + signal.SIGINT) from None


def _end_quietly() -> NoReturn:
    """The reader of stdout, such as ``head``, has enough."""
    _forget_unwritten()
    raise click.exceptions.Exit(0)


def _forget_unwritten() -> None:
    """What a stdout that takes no more is still to get goes nowhere, or Python would fail on it once more when it ends."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@click.group(cls=Commands, context_settings={"max_content_width": 100})
@click.option(
    "--url",
    metavar="URL",
    help="The broker, rocksmq://host[:port], rocksmqs:// with TLS. [default: ROCKSMQ_URL, else rocksmq://127.0.0.1:7660]",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line, and nothing else.")
@click.option(
    "--timeout",
    type=seconds,
    default=10.0,
    show_default=True,
    metavar="SECONDS",
    help="How long to try before an operation has failed; inf: for ever.",
)
@click.version_option(package_name="rocksmq", prog_name="rocksmq", message="%(prog)s %(version)s")
@click.pass_context
def main(ctx: click.Context, url: str | None, as_json: bool, timeout: float | None) -> None:
    """Talk to a RocksMQ broker.

    The token for a broker that wants one is in ROCKSMQ_TOKEN, or in the file that ROCKSMQ_TOKEN_FILE names; for rocksmqs://,
    ROCKSMQ_CA names the file of who signed the broker's certificate.

    Exit code 0: it worked; 1: it failed, stderr says why; 2: wrong usage.

    \b
    Example:
      rocksmq channel create orders
      echo hello | rocksmq produce orders
      rocksmq consume orders --group billing
    """
    check_url(url)
    ctx.obj = Session(url, as_json, timeout)


for command in (channel, group, produce, consume, tail, msgstream, mirror, status, top, bench, *EXTENSIONS):
    main.add_command(command)
