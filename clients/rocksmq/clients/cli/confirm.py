"""The question before something is destroyed."""

import sys

import click


def confirm_destruction(what: str, yes: bool) -> None:
    """Return if ``yes`` was given or a person at the terminal says so. Raises Abort, or UsageError where nobody can be asked."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise click.UsageError(f"this would destroy {what} for good: give --yes, since there is no terminal to ask on")
    click.confirm(f"Destroy {what} for good?", abort=True, err=True)
