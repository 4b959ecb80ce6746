"""Every alert provoked for real, and how long each took: `python -m tests.ops.alerts [NAME...]`.

A real broker to which something is done, and a real Prometheus with the rules that are shipped, in a hurry: see `stage`. Prints
the table of `metrics/alerts/README.md`; with --write, puts it there. Exit code 1 if one did not fire.
"""

import re
import sys
import tempfile
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

import click

from tests.helpers.prometheus import PrometheusFailed

from .provocations import PROVOCATIONS, Provocation
from .stage import RULES, NotProvoked

for _module in ("provocations_disk", "provocations_mirror"):
    import_module(f"tests.ops.{_module}")  # it registers its own

README = RULES.with_name("README.md")
HEAD = "| alert | how it was provoked | fired after | over after |\n|---|---|---|---|\n"
TABLE = re.compile(re.escape(HEAD) + r"(\|.*\n)*")


@click.command()
@click.option("--write", is_flag=True, help="Put the table into the README of the alerts.")
@click.argument("names", nargs=-1)
def main(names: Sequence[str], write: bool) -> None:
    """Provoke those of NAMES, or all."""
    chosen = [found for found in PROVOCATIONS if not names or set(names) & set(found.alerts)]
    rows: list[str] = []
    failed: list[str] = []
    for provocation in sorted(chosen, key=lambda found: _order(found.alerts[0])):
        try:
            rows += _rows(provocation)
        except (NotProvoked, PrometheusFailed) as error:
            failed.append(provocation.alerts[0])
            rows.append(f"| {provocation.alerts[0]} | {provocation.how} | {error} | |\n")
        click.echo("".join(rows[-1:]), nl=False, err=True)
    table = HEAD + "".join(rows)
    if write:
        README.write_text(TABLE.sub(lambda _: table, README.read_text()))
    else:
        click.echo(table, nl=False)
    sys.exit(bool(failed))


def _order(alert: str) -> int:
    """Where the rules have it."""
    return RULES.read_text().index(f"alert: {alert}\n")


def _rows(provocation: Provocation) -> list[str]:
    with tempfile.TemporaryDirectory(prefix="alerts-") as name:
        watch = provocation.run(Path(name))
    return [
        f"| {alert} | {provocation.how} | {watch.fired[alert]:.1f} s | {_seconds(watch.resolved.get(alert))} |\n"
        for alert in provocation.alerts
    ]


def _seconds(found: float | None) -> str:
    return "" if found is None else f"{found:.1f} s"


if __name__ == "__main__":
    main()
