"""How the mirror's alerts are provoked: the broker's mirror is a program that reports what a test wants it to."""

import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import replace
from os import kill
from pathlib import Path
from signal import SIGKILL
from threading import Event, Thread

from rocksmq.clients.mirror.report import ChannelReport, State
from tests.helpers.broker_with_mirror import OPTIONS
from tests.helpers.stand_in_mirror import StandIn, a_report

from .provocations import provokes, watched
from .stage import Patient, Watch

WELL = replace(a_report("orders"), deduplication=True)
LAG_MESSAGES = 20_000
TELL_SECONDS = 0.2


@contextmanager
def mirrored(directory: Path) -> Generator[tuple[Watch, StandIn]]:
    """A broker with a mirror at work, under watch."""
    stand_in = StandIn(directory / "mirror")
    stand_in.tell([WELL])
    module = ("tests.helpers.broker_with_mirror", str(stand_in.directory))
    try:
        with watched(Patient(directory / "data", environment=OPTIONS, module=module)) as watch:
            watch.prometheus.wait_for("rocksmq_mirror_channel_up == 1")
            watch.begin()
            yield watch, stand_in
    finally:
        for pid in stand_in.pids:
            with suppress(ProcessLookupError):
                kill(pid, SIGKILL)


def told(directory: Path, alert: str, report: ChannelReport) -> Watch:
    """It reports that until the alert fires, and that all is well again until it is over."""
    with mirrored(directory) as (watch, stand_in):
        stand_in.tell([report])
        watch.fires(alert)
        stand_in.tell([WELL])
        watch.resolves(alert)
    return watch


@provokes("RocksMQMirrorDown", how="the mirror's program ends at once, whenever it is started; then it does not")
def down(directory: Path) -> Watch:
    with mirrored(directory) as (watch, stand_in):
        stand_in.write("do", "exit 3")
        watch.fires("RocksMQMirrorDown")
        stand_in.write("do", "")
        watch.resolves("RocksMQMirrorDown")
    return watch


@provokes("RocksMQMirrorWaiting", how="a mirror (one that stands in) reports that a channel waits; then that it runs")
def waiting(directory: Path) -> Watch:
    return told(directory, "RocksMQMirrorWaiting", replace(WELL, state=State.WAITING))


@provokes("RocksMQMirrorChannelStopped", how="the same, that a channel has stopped; then that it runs")
def stopped(directory: Path) -> Watch:
    return told(directory, "RocksMQMirrorChannelStopped", replace(WELL, state=State.STOPPED))


@provokes("RocksMQMirrorLagGrowing", how="the same, of more and more messages to send; then of none")
def lag_growing(directory: Path) -> Watch:
    over = Event()
    with mirrored(directory) as (watch, stand_in):

        def grow() -> None:
            begin = time.monotonic()
            while not over.wait(TELL_SECONDS):
                stand_in.tell([replace(WELL, lag=LAG_MESSAGES + int(100 * (time.monotonic() - begin)))])

        growing = Thread(target=grow)
        growing.start()
        try:
            watch.fires("RocksMQMirrorLagGrowing")
        finally:
            over.set()
            growing.join()
        stand_in.tell([replace(WELL, lag=0)])
        watch.resolves("RocksMQMirrorLagGrowing")
    return watch


@provokes("RocksMQMirrorGap", how="the same, that messages were removed before it had sent them")
def gap(directory: Path) -> Watch:
    with mirrored(directory) as (watch, stand_in):
        stand_in.tell([replace(WELL, gaps=100)])
        watch.fires("RocksMQMirrorGap")
        watch.resolves("RocksMQMirrorGap")
    return watch


@provokes("RocksMQMirrorNotDeduplicated", how="the same, of a topic without deduplication; then with")
def not_deduplicated(directory: Path) -> Watch:
    return told(directory, "RocksMQMirrorNotDeduplicated", replace(WELL, deduplication=False))
