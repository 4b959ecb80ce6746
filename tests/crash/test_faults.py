"""Every fail point is really reached, and each of its actions does there what the table says."""

import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from rocksmq.broker.daemon import EXIT_DATA_REFUSED, EXIT_OK, EXIT_STORAGE_FAILED
from rocksmq.protocol.errors import DiskFull, RocksMQError, StorageFailed
from rocksmq.protocol.operations import ListChannels
from tests.helpers.raw import Raw

from . import scenario
from .points import POINTS, Action, Fault
from .process import FaultyBroker

ENDED = (OSError, EOFError, RocksMQError)  # how the load comes to an end
RAISING = [(name, error) for name, point in POINTS.items() for error in point.raises]
# What an error does to the broker, where it does not go on: a start that is refused, storage that is not trusted any more.
EXIT_CODES = {"data-refused": EXIT_DATA_REFUSED, "storage-failed": EXIT_STORAGE_FAILED}
# Where the same error means something else: the state cannot be loaded; a failed read or compaction harms nobody else.
EXIT_CODES_AT = {"in-recovery": EXIT_DATA_REFUSED, "in-read": EXIT_OK, "in-compact": EXIT_OK}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory that was closed cleanly."""
    directory = tmp_path_factory.mktemp("prepared") / "data"
    trio.run(scenario.prepare, directory)
    return directory


@pytest.fixture
def broker(prepared: Path, tmp_path: Path) -> Iterator[FaultyBroker]:
    """Not started yet, on a copy of `prepared`."""
    shutil.copytree(prepared, tmp_path / "data")
    with FaultyBroker(tmp_path / "data") as process:
        yield process


def life(broker: FaultyBroker, *, ends_by_itself: bool = False) -> tuple[int, BaseException | None]:
    """One life with the load, up to SIGTERM unless it ends before; its exit code, and what the load ended with."""
    error: BaseException | None = None
    if broker.start():
        try:
            scenario.run(broker.address)
        except ENDED as caught:
            error = caught
        return broker.wait() if ends_by_itself else broker.terminate(), error
    return broker.wait(), error


def is_healthy(broker: FaultyBroker) -> None:
    """Without faults it starts, and everything goes through: also what was done in part before."""
    broker.faults = ()
    assert broker.start(), broker.log.read_text()[-2_000:]
    with Raw(broker.address) as raw:
        assert scenario.OLD in raw.call(ListChannels("", "")).names
    assert broker.terminate() == EXIT_OK


@pytest.mark.parametrize("point", POINTS)
def test_given_kill_at_a_point_when_it_is_reached_then_sigkill_and_the_next_start_is_good(
    broker: FaultyBroker, point: str
) -> None:
    broker.faults = [f"{point}=kill"]
    code, _ = life(broker)
    assert code == -signal.SIGKILL, broker.log.read_text()[-2_000:]
    assert broker.struck() == broker.faults
    is_healthy(broker)


@pytest.mark.parametrize(("point", "error"), RAISING)
def test_given_an_error_at_a_point_when_it_is_reached_then_the_broker_does_what_it_promises(
    broker: FaultyBroker, point: str, error: str
) -> None:
    broker.faults = [f"{point}=raise:{error}"]
    expected = EXIT_CODES_AT.get(point, EXIT_CODES.get(error, EXIT_OK))
    code, ended = life(broker, ends_by_itself=expected != EXIT_OK)
    log = broker.log.read_text()
    assert broker.struck() == broker.faults, log[-2_000:]
    assert code == expected, log[-2_000:]
    if error == "disk-full":
        assert isinstance(ended, DiskFull)
    elif error == "lost":
        assert isinstance(ended, (OSError, EOFError))
    elif point == "in-read":
        assert isinstance(ended, StorageFailed)
    elif code == EXIT_OK:
        assert ended is None, "a client notices nothing"


def test_given_a_delay_at_every_point_when_all_are_reached_then_nothing_else_changes(broker: FaultyBroker) -> None:
    broker.faults = [f"{point}=delay:1@*" for point in POINTS]
    code, error = life(broker)
    assert (code, error) == (EXIT_OK, None), broker.log.read_text()[-2_000:]
    assert sorted(broker.struck()) == sorted(broker.faults)


def test_given_a_point_of_one_operation_and_a_count_when_running_then_the_others_go_through(broker: FaultyBroker) -> None:
    broker.faults = ["before-reply/consume=kill", "before-write=raise:storage-failed@100"]
    assert broker.start()
    with pytest.raises(ENDED):
        scenario.run(broker.address)
    assert broker.wait() == -signal.SIGKILL
    assert broker.struck() == broker.faults[:1]


def test_given_half_a_reply_when_killed_then_the_client_got_no_more(broker: FaultyBroker) -> None:
    broker.faults = ["during-reply/fetch=kill"]
    assert broker.start()
    with pytest.raises((EOFError, ConnectionError)):
        scenario.run(broker.address)
    assert broker.wait() == -signal.SIGKILL


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("before-write", "is not POINT"),
        ("nowhere=kill", "there is no fail point 'nowhere'"),
        ("before-write/produce=kill", "cannot be narrowed"),
        ("before-reply/nonsense=kill", "cannot be narrowed"),
        ("before-write=explode", "actions are kill, raise, delay"),
        ("before-write=kill@0", "counting begins with 1"),
        ("before-write=delay:long", "milliseconds"),
        ("after-write=raise:disk-full", "raises storage-failed, not 'disk-full'"),
        ("after-mark=raise", "the write has succeeded"),
    ],
)
def test_given_a_fault_that_makes_no_sense_when_parsed_then_it_is_refused(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Fault.parse(text)


def test_given_the_table_then_each_point_says_why_it_never_raises() -> None:
    assert all(bool(point.raises) != bool(point.never_raises) for point in POINTS.values())
    fault = Fault.parse("during-reply/produce=delay:7@*")
    assert (fault.point, fault.operation, fault.action, fault.delay_s, fault.at) == (
        "during-reply",
        "produce",
        Action.DELAY,
        0.007,
        None,
    )
