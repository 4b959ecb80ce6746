"""Options of the commands that talk to Pulsar, and the token that it wants."""

from pathlib import Path

import click

from ..pulsar import TOPIC_TEMPLATE
from .output import Failed

topic_template_option = click.option(
    "--topic-template", default=TOPIC_TEMPLATE, show_default=True, metavar="TEXT", help="The topic of a channel."
)
token_file_option = click.option(
    "--pulsar-token-file", type=click.Path(path_type=Path), metavar="FILE", help="Holds the token that Pulsar wants."
)
ca_option = click.option("--pulsar-ca", metavar="FILE", help="Certificates in PEM that vouch for Pulsar, for pulsar+ssl://.")


def maybe_token_in(file: Path | None) -> str | None:
    """None where there is no file. Raises Failed for one that holds none, OSError."""
    if file is None:
        return None
    try:
        token = file.read_text(encoding="utf-8").strip()
    except UnicodeDecodeError as error:
        raise Failed(f"{file}: no token, as it is not UTF-8 text") from error
    if not token:
        raise Failed(f"{file}: no token, as it is empty")
    return token
