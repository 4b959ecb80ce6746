"""A target under libFuzzer, in a process of its own: `worker`."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

from .seeds import CORPUS, seeds_of

ROOT = Path(__file__).parents[2]
PACKAGES = ("broker", "clients", "protocol", "metrics")
INPUT_BYTES_MAX = 384  # enough for every operation; what a scan takes goes with the length
INPUT_SECONDS_MAX = 5
MEMORY_MB_MAX = 1_024
_DONE = re.compile(r"Done (\d+) runs in (\d+) second")
_COVERED = re.compile(r"cov: (\d+) ft: (\d+)")


class Fuzzed(NamedTuple):
    """One target: executions, edges of the code that were reached if that is known, and what was found, if anything."""

    target: str
    executions: int
    covered: int
    seconds: float
    finding: str | None


def fuzz(target: str, runs: int, seed: int, directory: Path, *, keeps: bool = False) -> Fuzzed:
    """``runs`` executions; the corpus is left in ``directory``/``target``, an input that is a finding beside it."""
    corpus = directory / target
    corpus.mkdir()
    for number, data in enumerate(seeds_of(target)):
        (corpus / f"seed-{number}").write_bytes(data)
    arguments = [
        *(f"-runs={runs}", f"-seed={seed}", f"-max_len={INPUT_BYTES_MAX}", f"-timeout={INPUT_SECONDS_MAX}"),
        *(f"-rss_limit_mb={MEMORY_MB_MAX}", f"-artifact_prefix={directory}/{target}-", str(corpus)),
    ]
    begin = time.monotonic()
    log = directory / f"{target}.log"
    with log.open("wb") as output:
        code = _worker(target, arguments, output.fileno())
    said = log.read_text(errors="replace")
    done, covered = _DONE.search(said), _COVERED.findall(said)
    if keeps and code == 0:
        _keep(target, corpus)
    finding = None if code == 0 and done else f"{said[-2_000:]}\nthe input is in {directory}/{target}-*"
    executions = int(done[1]) if done else 0
    return Fuzzed(target, executions, int(covered[-1][0]) if covered else 0, time.monotonic() - begin, finding)


def _worker(target: str, arguments: list[str], output: int) -> int:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(str(ROOT / package) for package in PACKAGES)}
    command = [sys.executable, "-m", "tests.fuzz.worker", target, *arguments]
    return subprocess.run(command, stdout=output, stderr=output, cwd=ROOT, env=environment, check=False).returncode


def _keep(target: str, corpus: Path) -> None:
    """The fewest inputs that reach all that these do."""
    kept = CORPUS / target
    kept.mkdir(parents=True, exist_ok=True)
    _worker(target, ["-merge=1", f"-max_len={INPUT_BYTES_MAX}", str(kept), str(corpus)], subprocess.DEVNULL)
