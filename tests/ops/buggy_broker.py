"""`rocksmqd` with a bug built in: asked to describe a channel named `bug`, it fails as no code of it should."""

import sys
from typing import Any

from rocksmq.broker.__main__ import main
from rocksmq.broker.core import Core
from tests.crash.faults import Method, wrap


def submit(original: Method, core: Core, request: Any, *arguments: Any) -> Any:
    if getattr(request, "channel", None) == "bug":
        raise KeyError("a bug that was built in")
    return original(core, request, *arguments)


if __name__ == "__main__":
    wrap(Core, "submit", submit)
    main(sys.argv[1:], prog_name="rocksmqd")
