"""One target under libFuzzer, guided by what of the code an input reaches: `python -m tests.fuzz.worker TARGET ARGUMENTS`.

The arguments are libFuzzer's. A process of its own, since what is measured must be imported by Atheris.
"""

import sys
from typing import Any

import atheris

fuzzer: Any = atheris  # it has no types


def main() -> None:
    """Never returns: libFuzzer ends the process."""
    _, target, *arguments = sys.argv
    with fuzzer.instrument_imports(include=["rocksmq", "h11"]):
        from .targets import TARGETS
    fuzzer.Setup([sys.argv[0], *arguments], TARGETS[target])
    fuzzer.Fuzz()


if __name__ == "__main__":
    main()
