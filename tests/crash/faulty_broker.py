"""A real broker with faults built in: ``python -m tests.crash.faulty_broker [OPTIONS] -- <arguments of rocksmqd>``.

It is `rocksmqd` in every other respect: same arguments, same output, same exit codes. Each fault that strikes is
told on standard error, as ``fault: <as it was given>``.
"""

import argparse
import sys
from pathlib import Path

from rocksmq.broker import disk, store
from rocksmq.broker.__main__ import main as rocksmqd

from . import points_network, points_storage
from .faults import Faults
from .mutants import MUTANTS
from .points import POINTS, Fault
from .power import SyncNotes


def _fault(text: str) -> Fault:
    try:
        return Fault.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="faulty_broker",
        epilog="Points: " + "; ".join(f"{name}: {point.where}" for name, point in POINTS.items()),
    )
    parser.add_argument("--fault", action="append", type=_fault, default=[], metavar="POINT[/OP]=ACTION[:ARGUMENT][@N]")
    parser.add_argument("--mutant", choices=MUTANTS)
    parser.add_argument("--power", type=Path, metavar="FILE", help="note there what was synced, for cut_power")
    parser.add_argument("--memtable-bytes", type=int, metavar="BYTES", help="full so soon, so that logs change often")
    parser.add_argument("--stuck-seconds", type=float, metavar="SECONDS", help="how long the database may refuse to go on")
    parser.add_argument("arguments", nargs="*", metavar="-- ARGUMENTS OF ROCKSMQD")
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> None:
    """Wrap, from the inside out: real syncs are noted, mutants replace them, faults strike around both."""
    options = _options(arguments)
    if options.memtable_bytes is not None:
        store.MEMTABLE_BYTES = options.memtable_bytes
    if options.stuck_seconds is not None:
        disk.STUCK_SECONDS = options.stuck_seconds
    if options.power is not None:
        SyncNotes(options.power).install()
    if options.mutant is not None:
        MUTANTS[options.mutant]()
    faults = Faults(options.fault)
    points_storage.install(faults)
    points_network.install(faults)
    rocksmqd(options.arguments, prog_name="rocksmqd")


if __name__ == "__main__":
    main(sys.argv[1:])
