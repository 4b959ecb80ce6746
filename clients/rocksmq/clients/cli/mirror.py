"""`rocksmq mirror`: channels to topics of Apache Pulsar and back, and how mirrors are doing."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from rocksmq.protocol.errors import InvalidRequest

from ..mirror.options import BUFFER_BYTES, MESSAGE_BYTES_MAX, NAME
from ..pulsar import SCHEMES
from .mirror_status import status
from .output import Failed
from .pulsar_options import ca_option, maybe_token_in, token_file_option, topic_template_option
from .session import Session, check_url, pass_session

if TYPE_CHECKING:
    from ..mirror.options import MirrorOptions
    from .mirroring import Mirror

Command = TypeVar("Command", bound=Callable[..., Any])
TIMEOUT_SECONDS_MAX = 3_600.0
_FORWARD_ONLY = {"requires_deduplication": "--require-deduplication", "key_header": "--key-header"}


_OPTIONS = (
    click.option("--from", "source", metavar="URL", help="Where messages come from. [default: the broker of --url]"),
    click.option(
        "--to",
        "target",
        metavar="URL",
        help="Where they go; one of the two is pulsar://host:port or pulsar+ssl://host:port. [default: the broker of --url]",
    ),
    click.option(
        "--channels",
        multiple=True,
        metavar="NAMES",
        help="Channels of RocksMQ, separated by commas; repeatable. To Pulsar also patterns such as 'orders.*' (* ? [ ]), "
        "which new channels may match later; from Pulsar names only, since it lists no topics.",
    ),
    topic_template_option,
    click.option(
        "--name",
        default=NAME,
        show_default=True,
        metavar="NAME",
        help="The mirror's: its group on each channel is mirror.NAME. Only one of a name may run.",
    ),
    click.option(
        "--require-deduplication",
        "requires_deduplication",
        is_flag=True,
        help="Do not mirror to a topic without deduplication, where a lost connection may double messages.",
    ),
    click.option(
        "--too-large",
        type=click.Choice(["stop", "skip"]),
        default="stop",
        show_default=True,
        help="What to do at a message that the other side does not take: stop its channel, or skip and count it.",
    ),
    click.option(
        "--message-bytes-max",
        type=int,
        default=MESSAGE_BYTES_MAX,
        show_default=True,
        metavar="N",
        help="The largest message that Pulsar takes: its maxMessageSize.",
    ),
    click.option("--key-header", metavar="NAME", help="The header whose value becomes the partition key. [default: no key]"),
    click.option(
        "--buffer-bytes",
        type=int,
        default=BUFFER_BYTES,
        show_default=True,
        metavar="N",
        help="Bytes on their way, of all channels together.",
    ),
    token_file_option,
    ca_option,
)


def _options(command: Command) -> Command:
    """What makes a mirror."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


@click.group(invoke_without_command=True)
@_options
@click.option("--http", metavar="HOST:PORT", help="Serve Prometheus metrics there. [default: none]")
@click.option("--insecure", is_flag=True, help="Allow an address of --http that other machines reach.")
@click.option("--verbose", is_flag=True, help="Show also what Pulsar's client logs.")
@click.option("--supervised", is_flag=True, hidden=True, help="Run by a broker: end with stdin.")
@pass_session
@click.pass_context
def mirror(
    ctx: click.Context,
    session: Session,
    /,
    channels: tuple[str, ...],
    http: str | None,
    insecure: bool,
    verbose: bool,
    supervised: bool,
    **given: Any,
) -> None:
    """Mirror channels to topics of Apache Pulsar, or topics back to channels, until it is interrupted.

    Each message arrives once and in order, through failures of either side and of the mirror; this needs
    deduplication in Pulsar (brokerDeduplicationEnabled), without which a failure may double some. It is a
    consumer group like any other, so its lag is seen as theirs, and retention honours it. On a terminal there is a progress
    bar, and a line for what changes; after --json an object each second. Needs pip install 'rocksmq[pulsar]'.

    \b
    Example:
      rocksmq mirror --to pulsar://pulsar.example:6650 --channels 'orders.*'
      rocksmq mirror --from pulsar://pulsar.example:6650 --channels orders.eu,orders.us
      rocksmq mirror status
    """
    if ctx.invoked_subcommand is not None:
        _refuse_options(ctx)
        return
    options = _checked(ctx, session, channels, given)
    from .mirroring import left_at_once, run, served

    made = _made(options)
    with left_at_once(), served(made, http, is_insecure=insecure):
        run(made, as_json=session.as_json, is_verbose=verbose, is_supervised=supervised)


mirror.add_command(status)


def _refuse_options(ctx: click.Context) -> None:
    for parameter in ctx.command.params:
        name = str(parameter.name)
        if ctx.get_parameter_source(name) not in (None, click.core.ParameterSource.DEFAULT):
            raise click.UsageError(f"{parameter.opts[0]} is for a mirror that runs: leave it out")


def _checked(ctx: click.Context, session: Session, channels: tuple[str, ...], given: dict[str, Any]) -> "MirrorOptions":
    """What is to be mirrored. Raises UsageError."""
    from ..mirror.options import MirrorOptions

    named = tuple(dict.fromkeys(name for part in channels for name in part.split(",") if name))
    if not named:
        raise click.UsageError("Missing option '--channels'.")
    source, target = given.pop("source"), given.pop("target")
    if source is None and target is None:
        raise click.UsageError("give --to pulsar://host:port, or --from pulsar://host:port for the way back")
    pulsar_token = maybe_token_in(given.pop("pulsar_token_file"))
    for url in (source, target):
        if url is not None and not url.startswith(SCHEMES):
            check_url(url)
    try:
        source, from_token = _side(source or session.url)
        target, to_token = _side(target or session.url)
        options = MirrorOptions(
            source=source,
            target=target,
            channels=named,
            token=from_token or to_token,
            pulsar_token=pulsar_token,
            timeout=TIMEOUT_SECONDS_MAX if session.timeout is None else min(session.timeout, TIMEOUT_SECONDS_MAX),
            **given,
        ).checked()
    except InvalidRequest as error:
        raise click.UsageError(error.message) from error
    for name, shown in _FORWARD_ONLY.items():
        if given[name] and not options.is_forward:
            raise click.UsageError(f"{shown} is for the way to Pulsar: leave it out")
    return options


def _side(url: str | None) -> tuple[str, str | None]:
    """An address without the token of RocksMQ that may be in it; and that."""
    from ..address import Address

    if url is not None and url.startswith(SCHEMES):
        return url, None
    address = Address.parse(url)
    return str(address), address.token


def _made(options: "MirrorOptions") -> "Mirror":
    """The one that runs. Raises Failed where Pulsar's client is missing."""
    try:
        if options.is_forward:
            from ..mirror.forward import ForwardMirror

            return ForwardMirror(options)
        from ..mirror.back import BackMirror

        return BackMirror(options)
    except ImportError as error:
        raise Failed(str(error)) from error
