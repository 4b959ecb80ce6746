"""What servers of the tests have in common: a block starts one, and leaves nothing running."""

from abc import ABC, abstractmethod
from types import TracebackType
from typing import Self


class Server(ABC):
    """A context manager, also of one that fails to start."""

    @abstractmethod
    def start(self) -> None:
        """Return when it serves."""

    @abstractmethod
    def close(self) -> None:
        """Kill it, and remove its files."""

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
