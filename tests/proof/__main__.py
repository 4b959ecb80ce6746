"""The proof: `python -m tests.proof [NAME ...]`, all rows of `rows` without names. Writes `tests/PROOF.md`.

Each row is put there as soon as it is done, with its commit; those that were not run stay as they are. Ends with 1 when one
failed, which is told in the table too.
"""

import os
import platform
import re
import subprocess
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import click

from .rows import PYTHON, ROWS, Row

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "tests" / "PROOF.md"
HEAD = """# Proof

What `make proof` found, row by row; `make proof ROWS=power` runs one anew. Nothing here is written by hand. Each command
has a seed that is the same each time, and replays the same plan; its output says more.

"""
COLUMNS = "| row | what is done | command | what it printed | seconds | commit | machine |\n|---|---|---|---|---|---|---|\n"
FAILED = "**failed**"
OUTPUT_CHARACTERS = 20_000  # of the end of what one that failed printed
_ROW = re.compile(r"^\| (\S+) \|.*$", re.MULTILINE)


def rendered(lines: Mapping[str, str]) -> str:
    """The page with these rows of the table."""
    return HEAD + COLUMNS + "".join(lines[row.name] + "\n" for row in ROWS if row.name in lines)


def read(page: str) -> dict[str, str]:
    """The rows of a page."""
    return {match[1]: match[0] for match in _ROW.finditer(page) if match[1] in {row.name for row in ROWS}}


def told(row: Row, code: int | None, output: str) -> str:
    """What is told of a run; ``code`` None: it was killed, being late."""
    found = [match.replace("|", "/").strip() for match in row.finding.findall(output)]
    if code == 0 and found:
        return "<br>".join(found)
    why = f"not within {row.seconds:g} s" if code is None else f"exit code {code}"
    return "<br>".join((f"{FAILED}: {why}", *found))


def run(row: Row) -> tuple[str, float]:
    """What it printed that counts, and the seconds it took. All that one printed that failed is on stderr."""
    begin = time.monotonic()
    with subprocess.Popen(
        [PYTHON, *row.arguments], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, start_new_session=True
    ) as process:
        code: int | None
        try:
            output, _ = process.communicate(timeout=row.seconds)
            code = process.returncode
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
            output, code = process.communicate()[0], None
    if code != 0:
        click.echo(output[-OUTPUT_CHARACTERS:], err=True)
    return told(row, code, output), time.monotonic() - begin


def line(row: Row, said: str, seconds: float) -> str:
    """Its row of the table."""
    where = f"{os.cpu_count()} cores, Python {platform.python_version()}, Linux {platform.release().partition('-')[0]}"
    cells = (
        row.name,
        row.what,
        f"`{row.command}`",
        said,
        f"{seconds:.0f}",
        f"{_commit()}, {datetime.now(UTC):%Y-%m-%d}",
        where,
    )
    return "| " + " | ".join(cells) + " |"


def _commit() -> str:
    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()

    changed = git("status", "--porcelain", "--", ":!tests/PROOF.md")
    return git("rev-parse", "--short", "HEAD") + (" and changes" if changed else "")


@click.command()
@click.argument("names", nargs=-1, type=click.Choice([row.name for row in ROWS]))
def main(names: Sequence[str]) -> None:
    """Show it anew."""
    lines = read(PAGE.read_text()) if PAGE.exists() else {}
    chosen = [row for row in ROWS if not names or row.name in names]
    for row in chosen:
        click.echo(f"{row.name}: {row.command}")
        said, seconds = run(row)
        lines[row.name] = line(row, said, seconds)
        PAGE.write_text(rendered(lines))
        click.echo(f"  {seconds:.0f} s: " + said.replace("<br>", "\n  "))
    if any(FAILED in lines[row.name] for row in chosen):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
