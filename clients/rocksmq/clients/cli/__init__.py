"""The command line `rocksmq`; a command a module, `root` joins them.

Modules here import click and the standard library when they are loaded, and the client, rich
and the benchmarks only inside the functions that need them: so help and completion stay quick.
"""

from .root import main

__all__ = ["main"]
