"""`python -m tests.siege`: what many, slow, broken and hostile ones do to a broker, one line a siege.

    python -m tests.siege [--short] [--json] [--dir DIR] [NAME ...]

Each lays siege to a broker process of its own, from processes of their own, all on the loopback. Exit code 1 says that a bound
was missed. Ratios are of an honest producer in the same run, alone and beside, in turns.
"""

import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import click

from . import bombs, churn, connections, hostile, overload, reader, slowloris
from .result import Siege

PROJECT = Path(__file__).parents[2]
SIEGES: dict[str, Siege] = {
    "connections": connections.run,
    "slowloris": slowloris.run,
    "churn": churn.run,
    "bombs": bombs.run,
    "hostile": hostile.run,
    "reader": reader.run,
    "overload": overload.run,
}


@click.command()
@click.argument("names", nargs=-1, type=click.Choice(list(SIEGES)))
@click.option("--short", "is_short", is_flag=True, help="Seconds instead of minutes, and fewer of all.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a siege.")
@click.option("--dir", "parent", type=click.Path(exists=True, file_okay=False, path_type=Path), default=PROJECT)
def main(names: Sequence[str], is_short: bool, as_json: bool, parent: Path) -> None:
    """Lay those sieges that are named, or all; data are kept in DIR meanwhile."""
    are_met = True
    for name in names or SIEGES:
        with tempfile.TemporaryDirectory(prefix=".siege-", dir=parent) as place:
            result = SIEGES[name](Path(place), is_short=is_short)
        click.echo(json.dumps(result.record()) if as_json else str(result))
        are_met = are_met and result.is_met
    sys.exit(0 if are_met else 1)


if __name__ == "__main__":
    main()
