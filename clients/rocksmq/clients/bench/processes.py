"""The other processes of a benchmark: each is a module that talks in lines."""

import os
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager

from rocksmq.clients.address import URL_VARIABLE
from rocksmq.protocol.errors import RocksMQError


class Other:
    """A started one. Used by one thread."""

    def __init__(self, process: "subprocess.Popen[str]", module: str) -> None:
        self._process = process
        self._module = module

    @property
    def pid(self) -> int:
        """The process's."""
        return self._process.pid

    def tell(self, line: str) -> None:
        """Let it read ``line``."""
        assert self._process.stdin is not None, "it is a pipe"
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()

    def line(self) -> str:
        """The next that it says. Raises RocksMQError when it ended without one; it has said why on stderr."""
        assert self._process.stdout is not None, "it is a pipe"
        if line := self._process.stdout.readline():
            return line
        raise RocksMQError(f"the process of {self._module} failed")


@contextmanager
def other(url: str | None, module: str, *arguments: str) -> Generator[Other, None, None]:
    """A process that runs ``module``. The block's end kills it; a Ctrl-C leaves it to that."""
    # The URL may hold a token, which must not stand on a command line.
    environment = {**os.environ, **({URL_VARIABLE: url} if url else {})}
    with subprocess.Popen(  # noqa: S603
        [sys.executable, "-m", module, *arguments],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            yield Other(process, module)
        finally:
            process.kill()
