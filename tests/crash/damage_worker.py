"""A process that tries damages: a case a line on stdin, what came of it a line on stdout. If RocksDB crashes, it does alone."""

import gc
import json
import logging
import sys
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

from rocksmq.broker.check import NoDataDirectory, check
from rocksmq.broker.findings import Finding
from rocksmq.broker.store import DataRefused, Family, Store
from rocksmq.protocol.errors import RocksMQError

from .damage_base import Content, content
from .damage_cases import Case, damaged_copy


class Outcome(NamedTuple):
    """``check``: its problems; ``refusal``: why a start was refused, None: it was not; ``failure``: why the broker stopped
    after it (exit code 5). What differs from what was stored, and what was answered with an error, both by name;
    ``compaction``: why a later compaction would stop the broker.
    """

    check: list[str]
    refusal: str | None
    failure: str | None
    differs: list[str]
    fails: list[str]
    compaction: str | None


def tried(base: Path, wanted: Content, case: Case) -> Outcome:
    """Check a damaged copy, start a broker on it, and read everything."""
    with tempfile.TemporaryDirectory(prefix="rocksmq-damage-", dir=base.parent) as parent:
        path = Path(parent) / "data"
        damaged_copy(base, path, case)
        problems = _problems(path)
        try:
            found = content(path)
        except (DataRefused, OSError) as error:
            return Outcome(problems, str(error).replace(parent, ""), None, [], [], None)
        except RocksMQError as error:
            return Outcome(problems, None, str(error).replace(parent, ""), [], [], None)
        differs, fails = _compared(wanted, found)
        if fails:
            gc.collect()  # errors of reading keep iterators, and those the database
        return Outcome(problems, None, None, differs, fails, _compaction(path))


def _problems(path: Path) -> list[str]:
    try:
        found = [item for item in check(path) if isinstance(item, Finding) and item.is_problem]
    except (NoDataDirectory, OSError) as error:
        return [str(error)]
    return [f"{item.subject}: {item.text}".replace(str(path), "") for item in found]


def _compared(wanted: Content, found: Content) -> tuple[list[str], list[str]]:
    differs: list[str] = []
    fails: list[str] = []
    pairs: list[tuple[str, Any, Any]] = []
    for name in sorted({*wanted["messages"], *found["messages"]}):
        pairs.append((f"channel {name}", wanted["messages"].get(name), found["messages"].get(name)))
    for name in sorted({*wanted["groups"], *found["groups"]}):
        pairs.append((f"group {name}", wanted["groups"].get(name), found["groups"].get(name)))
    pairs += [("a repeat", one, other) for one, other in zip(wanted["repeats"], found["repeats"], strict=True)]
    for name, one, other in pairs:
        if isinstance(other, str) and other.startswith("error"):
            fails.append(f"{name}: {other}")
        elif one != other:
            differs.append(name)
    return differs, fails


def _compaction(path: Path) -> str | None:
    try:
        with closing(Store(path / "db")) as store:
            for family in Family:
                store.compact(family, b"", b"\xff" * 20)
            return "a compaction fails" if store.background_errors() else None
    except (DataRefused, RocksMQError) as error:
        return str(error)


def main() -> None:
    logging.disable(logging.CRITICAL)
    bases: dict[str, tuple[Path, Content]] = {}
    for line in sys.stdin:
        request = json.loads(line)
        if "base" in request and "content" in request:
            bases[request["base"]] = Path(request["path"]), request["content"]
            continue
        case = Case(**request)
        sys.stdout.write(json.dumps(tried(*bases[case.base], case)._asdict()) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
