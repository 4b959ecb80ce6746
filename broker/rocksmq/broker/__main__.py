"""The command `rocksmqd`."""

import faulthandler
import os
import sys
from pathlib import Path
from typing import Any

import click

HELP = """Run a RocksMQ broker until SIGTERM or Ctrl-C.

Each option may stand in the TOML file, in the environment (ROCKSMQ_DATA_DIR, ...) or here; the
later of these wins. Example: rocksmqd --data-dir /var/lib/rocksmq
"""
EPILOG = """\b
SIGTERM and SIGINT finish what is in flight and end; a second one ends at once.
SIGHUP reads the options again: log_level and log_format take effect, and what is in the files
of tokens and certificates.

\b
Exit codes:
    0  stopped by a signal
    1  a bug: its traceback is in the log
    2  bad options, or an address that cannot be listened on
    3  data refused: damaged, of a newer format, or less than was acknowledged
    4  data directory, or place of the positions, in use by another broker
    5  storage failed while running, or its disk was full at the start
    6  stopped, and cut off: what was in flight took too long (drain_seconds)
  130, 143  ended at once by a second SIGINT, SIGTERM
"""


@click.command(help=HELP, epilog=EPILOG, context_settings={"max_content_width": 110})
@click.option("--config", "file", type=click.Path(path_type=Path), help="TOML file with options.")
@click.option("--data-dir", help="Where the data are kept; made if missing.  [default: data]")
@click.option("--listen", metavar="HOST:PORT", help="Address to serve; port 0 picks a free one.  [default: 127.0.0.1:7660]")
@click.option("--http", metavar="HOST:PORT|off", help="Metrics and health; port 0 picks a free one.  [default: 127.0.0.1:7661]")
@click.option("--tls-cert", metavar="FILE", help="The broker's certificate for its clients, PEM: serve by TLS only.")
@click.option("--tls-key", metavar="FILE", help="The key of --tls-cert.")
@click.option("--tls-client-ca", metavar="FILE", help="Admit clients only that have a certificate which one in FILE signed.")
@click.option("--auth-file", metavar="FILE", help="Admit clients only that have a token in FILE (rocksmq token create).")
@click.option(
    "--durability", metavar="MODE", help="When a produce is acknowledged: fsync, interval:<ms>, os.  [default: fsync]"
)
@click.option(
    "--meta",
    metavar="embedded|URL",
    help="Where positions are kept: etcd://host:2379[,host...]/prefix, etcds:// with TLS.  [default: embedded]",
)
@click.option("--meta-ca", metavar="FILE", help="Who signed etcd's certificate.  [default: the system's]")
@click.option("--meta-cert", metavar="FILE", help="The broker's certificate for etcd.")
@click.option("--meta-key", metavar="FILE", help="The key of --meta-cert.")
@click.option("--meta-user", metavar="NAME", help="The broker's user in etcd.")
@click.option("--meta-password-file", metavar="FILE", help="Holds the password of --meta-user.")
@click.option("--log-level", metavar="LEVEL", help="debug, info, warning or error.  [default: info]")
@click.option("--log-format", metavar="FORMAT", help="console for people, json for collectors of logs.  [default: console]")
@click.option(
    "--insecure",
    is_flag=True,
    default=None,
    help="Allow addresses in --listen and --http that others reach without TLS and token.",
)
@click.option("--accept-loss", is_flag=True, help="Start although acknowledged data are missing; for this one start.")
@click.option("--print-config", is_flag=True, help="Print every option with its value and origin, and end.")
@click.option("--check-config", is_flag=True, help="Say whether the configuration is good, and end.")
@click.version_option(package_name="rocksmq", prog_name="rocksmqd")
def main(file: Path | None, accept_loss: bool, print_config: bool, check_config: bool, **flags: Any) -> None:
    try:
        from . import access, config, daemon
    except ModuleNotFoundError as error:
        raise click.ClickException(f"{error.name} is missing: install the broker with  pip install 'rocksmq[broker]'") from None
    given = {key: value for key, value in flags.items() if value is not None}
    try:
        found = config.load(file, os.environ, given)
        admitted = access.access_of(found)
    except config.BadConfiguration as error:
        click.echo(f"rocksmqd: {error}", err=True)
        sys.exit(daemon.EXIT_CONFIGURATION)
    if print_config or check_config:
        click.echo(config.shown(found) if print_config else "the configuration is good")
        return
    faulthandler.enable()  # says where it hung when a watchdog ends it with SIGABRT
    launch = daemon.Launch(found, admitted, lambda: config.load(file, os.environ, given), accept_loss, _say)
    sys.exit(daemon.run(launch))


def _say(line: str) -> None:
    try:
        click.echo(line)
    except OSError:  # whoever read it has gone, as `head -1` does, or it goes to a full disk
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    main(prog_name="rocksmqd")
