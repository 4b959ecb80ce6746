"""Where deploy/ is, its files as data, and the programs that check them."""

import configparser
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any, cast

import pytest
import yaml

from rocksmq.broker.config import Config

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
DRAIN_SECONDS = Config().limits.drain_seconds
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def program(name: str, how_to_install: str) -> str:
    """The path of ``name``, beside this Python or in PATH; without it the test is skipped, and says how to have it."""
    found = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    if found is None:
        pytest.skip(f"no {name} here: {how_to_install}")
    return found


def said(*command: str | Path, given: str = "", code: int = 0) -> str:
    """Both outputs of ``command``, which ends with ``code``."""
    done = subprocess.run(list(map(str, command)), input=given, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def documents(text: str) -> list[dict[str, Any]]:
    """Those of a YAML text that are not empty."""
    return [cast(dict[str, Any], found) for found in yaml.safe_load_all(text) if found]


def service(unit: Path) -> dict[str, str]:
    """[Service] of a unit; of a key that stands there twice, the last."""
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(unit)
    return dict(parser["Service"])
