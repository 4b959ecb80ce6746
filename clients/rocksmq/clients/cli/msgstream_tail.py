"""`rocksmq msgstream tail`: the packs of a stream as they come, without a subscription."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from rocksmq.protocol.errors import RocksMQError

from ..pulsar import SCHEMES
from .messages import LineWriter, tell_gap
from .output import Failed, printable
from .packs import pack_json, text_lines
from .parameters import POSITION_HELP, position
from .patience import Patience, patience_option
from .pulsar_options import ca_option, maybe_token_in, token_file_option, topic_template_option
from .session import Session, pass_session
from .stop import POLL_SECONDS, Stop

if TYPE_CHECKING:
    from rocksmq.clients.msgstream import MsgPack, StreamGap
    from rocksmq.clients.msgstream.looking import LookingStream
    from rocksmq.protocol.messages import Start

FORMATS = ("text", "json")
FORMAT_HELP = (
    "text: a line a pack and one a message, long values cut short; json: a pack a line, an object with all of its messages in "
    "msgs, and the positions that MsgStream.seek takes. [default: text; json after --json]"
)
NAMED_MAX = 3  # silent channels


@click.command()
@click.argument("channels", metavar="CHANNEL...", nargs=-1, required=True)
@click.option(
    "--tt/--plain",
    "is_tt",
    help="tt: packs between time ticks, as time-tick streams have them; plain: what is there. [default: plain]",
)
@click.option(
    "--from",
    "start",
    type=position,
    default="latest",
    show_default=True,
    metavar="POSITION",
    help=f"Where to start: {POSITION_HELP}.",
)
@click.option("--output", type=click.Choice(FORMATS), help=FORMAT_HELP)
@patience_option
@topic_template_option
@token_file_option
@ca_option
@pass_session
def tail(
    session: Session,
    channels: tuple[str, ...],
    is_tt: bool,
    start: "Start",
    output: str | None,
    patience: float | None,
    topic_template: str,
    pulsar_token_file: Path | None,
    pulsar_ca: str | None,
) -> None:
    """Watch the packs of a stream over each CHANNEL.

    It goes on after a restart of the broker. It only looks: no subscription is created, no position moves, nothing
    stays behind. Ctrl-C ends it. The first pack of --tt begins at 0, and holds what there is from POSITION on.
    Needs pip install 'rocksmq[msgstream]'.

    With --url pulsar://host:port it watches topics of Apache Pulsar, from earliest or latest on, and needs
    pip install 'rocksmq[msgstream,pulsar]'.

    \b
    Example:
      rocksmq msgstream tail $(cat channels) --tt
      rocksmq msgstream tail $(cat channels) --from -10m --output json | jq -c '.msgs[]'
      rocksmq --url pulsar://pulsar.example:6650 msgstream tail orders --from earliest
    """
    if session.as_json and output == "text":
        raise click.UsageError("--json and --output text exclude each other")
    if (pulsar_token_file or pulsar_ca) and not (session.url or "").startswith(SCHEMES):
        raise click.UsageError("--pulsar-token-file and --pulsar-ca go with --url pulsar://host:port")
    of_pulsar = {"token": maybe_token_in(pulsar_token_file), "ca": pulsar_ca, "topic_template": topic_template}
    watching = _Watching(as_json=session.as_json or output == "json", shows_empty=is_tt)
    with _opened(session, channels, start, is_tt, of_pulsar) as stream, Stop() as stop:
        waiting = Patience(patience)
        while not stop.is_wanted:
            try:
                pack = stream.consume(timeout=POLL_SECONDS)
            except RocksMQError as error:
                waiting.endure(error)
                continue
            waiting.renew()
            watching.show(stream, pack, stop)


def _opened(
    session: Session, channels: tuple[str, ...], start: "Start", is_tt: bool, of_pulsar: Mapping[str, str | None]
) -> "LookingStream":
    from rocksmq.clients.msgstream.looking import looking_stream

    try:
        return looking_stream(
            session.url, channels, start, is_tt=is_tt, timeout=session.timeout, of_pulsar=of_pulsar, on_gap=_tell_gap
        )
    except ImportError as error:
        raise Failed(str(error)) from error


def _tell_gap(gap: "StreamGap") -> None:
    tell_gap(gap.channel_name, gap.from_id, gap.message_count)


class _Watching:
    """Packs go to stdout; to stderr what a pack does not tell, each time that it has changed."""

    def __init__(self, *, as_json: bool, shows_empty: bool) -> None:
        self._writer = LineWriter()
        self._as_json = as_json
        self._shows_empty = shows_empty
        self._stalled: list[str] = []

    def show(self, stream: "LookingStream", pack: "MsgPack | None", stop: Stop) -> None:
        """What came of it: a pack, or None."""
        for channel, count in stream.skipped.items():
            what = "1 message" if count == 1 else f"{count} messages"
            click.echo(f"warning: {what} of {channel} cannot be decoded", err=True)
        stream.skipped.clear()
        if pack is None:
            self._tell_stalled(stream)
        elif pack.msgs or self._shows_empty:
            lines = [pack_json(pack)] if self._as_json else text_lines(pack)
            self._writer.write_lines([line.encode() for line in lines], stop)

    def _tell_stalled(self, stream: "LookingStream") -> None:
        """The channels whose ticks are missing for the next pack."""
        from rocksmq.clients.msgstream import TtMsgStream

        stalled = stream.stalled_channels if isinstance(stream, TtMsgStream) else []
        if stalled and stalled != self._stalled:
            more = f" and {len(stalled) - NAMED_MAX} more" if len(stalled) > NAMED_MAX else ""
            click.echo(printable(f"waiting for ticks of {', '.join(stalled[:NAMED_MAX])}{more}"), err=True)
        self._stalled = stalled
