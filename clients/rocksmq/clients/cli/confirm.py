"""The question before something is destroyed."""

import sys

import click


def confirm_destruction(what: str, yes: bool) -> None:
    """Return if ``yes`` was given or the person at the terminal agrees. Raises Abort, or UsageError without a terminal."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise click.UsageError(f"this would destroy {what} for good: give --yes, since there is no terminal to ask on")
    click.confirm(f"Destroy {what} for good?", abort=True, err=True)
