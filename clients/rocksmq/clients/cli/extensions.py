"""Commands that other parts bring, which the client may not import: entry points of the group `rocksmq.commands`.

Each is a click command of its own; here stand only its name and its line in the help, so that nothing is loaded before
it is called. A command reads ``--json`` from the root's parameters, talks to the broker by `Session.calling` of the root's
object, and fails with a ClickException.
"""

from typing import Any, cast

import click

from .output import Failed

GROUP = "rocksmq.commands"
NEEDS_BROKER = {
    "backup": "Copy a running broker's data; verify and restore such copies.",
    "check": "Check everything in a stopped broker's data directory.",
    "meta": "Move group positions between the stores that keep them.",
    "token": "Make, list and revoke the tokens that a broker admits clients by.",
}


class Extension(click.Command):
    """Stands for a command until it is called."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """That of the command itself. Raises Failed when the part that brings it is not installed."""
        return self._loaded().make_context(info_name, args, parent, **extra)

    def _loaded(self) -> click.Command:
        from importlib.metadata import entry_points

        missing = f"rocksmq {self.name} needs the broker: pip install 'rocksmq[broker]'"
        for found in entry_points(group=GROUP, name=str(self.name)):
            try:
                return cast(click.Command, found.load())
            except ModuleNotFoundError as error:
                if (error.name or "").partition(".")[0] == "rocksmq":
                    raise
                raise Failed(missing) from error
        raise Failed(missing)


EXTENSIONS = tuple(Extension(name, short_help=text) for name, text in NEEDS_BROKER.items())
