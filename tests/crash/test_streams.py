"""Message streams under kills, shortened: nothing is lost, doubled or in another pack. And the audit that says so bites.

`python -m tests.crash.streams` runs 50 cycles. TEST_SEED replays another seed's plan.
"""

import json
import os
import re
import secrets
from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path
from random import Random

import pytest

from rocksmq.clients.msgstream import MsgPosition

from .points import Fault
from .streams import ETCD_CHANNELS, line
from .streams_audit import audit
from .streams_book import Book, read_book
from .streams_content import Item
from .streams_cycles import DEADLY, HARMLESS, Blow, Cycle, Death
from .streams_evidence import Ending, Evidence, ReaderLife, SentPart
from .streams_pack import Entry, Logs, Pack, Read, packs_of
from .streams_run import StreamsRun

SEED = os.environ.get("TEST_SEED", "7660")
CYCLES = 2
CHANNELS = ("a", "b", "c")
SENDER, TICKER = "writer-0.0.book", "ticker-0.0.book"


@pytest.mark.slow
@pytest.mark.parametrize("seed", [SEED, ""], ids=["fixed", "random"])
def test_given_kills_of_everything_when_streams_are_read_then_each_message_is_in_its_pack_once(
    tmp_path: Path, seed: str
) -> None:
    seed = seed or secrets.token_hex(4)
    report = StreamsRun(tmp_path, seed, channel_count=4, writer_count=2).run(Cycle.of(seed, number) for number in range(CYCLES))
    print(f"seed {seed}: {line(report)}")  # noqa: T201
    assert report.cycles == CYCLES
    assert report.figures.packs > 0


@pytest.mark.slow
def test_given_kills_of_etcd_too_when_streams_are_read_then_each_message_is_in_its_pack_once(tmp_path: Path) -> None:
    run = StreamsRun(tmp_path, SEED, channel_count=ETCD_CHANNELS, writer_count=2, has_etcd=True)
    report = run.run(Cycle.of(SEED, number) for number in range(CYCLES))
    print(f"seed {SEED}: {line(report)}")  # noqa: T201
    assert report.figures.packs > 0


def test_given_a_seed_when_cycles_are_planned_then_they_are_the_same_and_of_every_kind() -> None:
    cycles = [Cycle.of(SEED, number) for number in range(2_000)]
    assert cycles == [Cycle.of(SEED, number) for number in range(2_000)]
    assert cycles != [Cycle.of("another", number) for number in range(2_000)]
    assert {cycle.death for cycle in cycles} == set(Death)
    assert {event.blow for cycle in cycles for event in cycle.events} == set(Blow)
    planned = {fault.split("@")[0] for cycle in cycles for fault in cycle.faults}
    assert planned == set(HARMLESS) | {f"{point}=kill" for point in DEADLY}
    for cycle in cycles:
        for fault in cycle.faults:
            Fault.parse(fault)


def test_given_a_book_whose_end_was_torn_off_when_it_is_gone_on_with_then_the_rest_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "book"
    book = Book(path)
    book.note("pack", [1, {"a": 2}])
    whole = path.read_bytes()
    book.note("pack", "torn")
    path.write_bytes(path.read_bytes()[:-3])
    assert [tuple(record) for record in read_book(path)] == [("pack", [1, {"a": 2}])]
    Book(path).note("moved")
    assert [record.kind for record in read_book(path)] == ["pack", "moved"]
    path.write_bytes(whole.replace(b"2", b"3") + whole)
    with pytest.raises(AssertionError, match="damaged"):
        list(read_book(path))


# -- the audit bites -------------------------------------------------------------------


def evidence() -> Evidence:
    """Of a run in which all went well: a writer, a ticker, and a reader of each kind."""
    random, places, ids = Random(SEED), count(1_000), count(1)
    logs: dict[str, list[Entry]] = {channel: [] for channel in CHANNELS}
    senders: dict[str, list[SentPart]] = {SENDER: [], TICKER: []}
    now = 0

    def store(sender: str, channel: str, items: list[Item]) -> None:
        first_id = next(places) * 100
        senders[sender].append(SentPart(channel, items, (first_id, len(items))))
        for place, item in enumerate(items, first_id):
            logs[channel].append(Entry(place, item.id, sender == TICKER, item.end_ts, item.digest))

    for _ in range(40):
        for channel in CHANNELS:
            stamps = [random.choice((now + 5, now + 9, now + 14, now - 3)) for _ in range(3)]
            store(SENDER, channel, [Item(next(ids), max(0, ts), f"content {ts}", ts > now) for ts in stamps])
        now += 10
        number = next(ids)
        for channel in CHANNELS:
            store(TICKER, channel, [Item(number, now, "tick", False)])
    for channel in CHANNELS:
        store(TICKER, channel, [Item(next(ids), now + 100, "tick", False)])
    packs = packs_of(logs)
    lives = [
        ReaderLife("ticks-0.0", noted(packs[:10]), Ending.EITHER),
        ReaderLife("ticks-0.1", [], Ending.EITHER),
        ReaderLife("ticks-0.2", noted(packs[9:20]), Ending.BEHIND),
        ReaderLife("ticks-0.3", noted(packs[20:30]), Ending.BEFORE),
        ReaderLife("ticks-0.4", noted(packs[29:]), Ending.BEHIND),
    ]
    plain = plain_packs(logs)
    plain_lives = [
        ReaderLife("plain-0.0", noted(plain[:10]), Ending.EITHER),
        ReaderLife("plain-0.1", noted(plain[9:20]), Ending.BEHIND),
        ReaderLife("plain-0.2", noted(plain[20:]), Ending.BEHIND),
    ]
    return Evidence(
        logs, senders, {"exact": noted(packs)}, {"copy": noted(plain)}, {"ticks-0": lives}, {"plain-0": plain_lives}
    )


def noted(packs: Sequence[Pack]) -> list[Pack]:
    """As they come out of a book."""
    return [Pack.of_json(json.loads(json.dumps(pack.json()))) for pack in packs]


def plain_packs(logs: Logs) -> list[Pack]:
    """Packs of one to five messages of each channel."""
    random, standing, packs = Random(SEED), dict.fromkeys(logs, 0), list[Pack]()
    while any(standing[channel] < len(log) for channel, log in logs.items()):
        pack = Pack(0, 0, {}, {}, {})
        for channel, log in logs.items():
            begin, end = standing[channel], min(len(log), standing[channel] + random.randint(1, 5))
            if begin < end:
                pack.msgs[channel] = [Read(entry.place, entry.digest, False) for entry in log[begin:end]]
                pack.starts[channel] = MsgPosition(channel, str(log[begin].place))
                pack.ends[channel] = MsgPosition(channel, str(log[end - 1].place + 1))
            standing[channel] = end
        packs.append(pack)
    return packs


def parts_of(found: Evidence) -> Sequence[SentPart]:
    return found.senders[SENDER]


def log_of(found: Evidence) -> list[Entry]:
    log = found.logs["a"]
    assert isinstance(log, list)
    return log


def lose_stored(found: Evidence) -> None:
    del log_of(found)[1]


def lose_from_part_of_unknown_outcome(found: Evidence) -> None:
    parts_of(found)[0].stored = None
    del log_of(found)[1]


def double_stored(found: Evidence) -> None:
    log = log_of(found)
    log.append(log[1]._replace(place=log[-1].place + 1))


def swap_stored(found: Evidence) -> None:
    log = log_of(found)
    log[0], log[1] = log[1]._replace(place=log[0].place), log[0]._replace(place=log[1].place)


def swap_parts(found: Evidence) -> None:
    log, parts = log_of(found), parts_of(found)
    places = [entry.place for entry in log]
    log[:7] = [*log[4:7], log[3], *log[:3]]
    log[:] = [entry._replace(place=place) for entry, place in zip(log, places, strict=True)]
    for part in (parts[0], parts[3]):
        part.stored = None


def store_nobodys(found: Evidence) -> None:
    log = log_of(found)
    log.append(Entry(log[-1].place + 1, 1 << 40, False, 7, "whose?"))


def change_stored(found: Evidence) -> None:
    log_of(found)[2] = log_of(found)[2]._replace(digest="another")


def store_elsewhere(found: Evidence) -> None:
    parts_of(found)[0].stored = (7, 3)


def tick_too_soon(found: Evidence) -> None:
    log = log_of(found)
    index = next(at for at, entry in enumerate(log) if entry.is_tick)
    log[index] = log[index]._replace(end_ts=1_000)
    found.senders[TICKER][0].items[0] = found.senders[TICKER][0].items[0]._replace(end_ts=1_000)


def exact(found: Evidence) -> list[Pack]:
    return found.exact["exact"]


def lose_read(found: Evidence) -> None:
    del exact(found)[5].msgs["a"][0]


def double_read(found: Evidence) -> None:
    msgs = exact(found)[5].msgs["a"]
    msgs.append(msgs[0])


def swap_read(found: Evidence) -> None:
    exact(found)[5].msgs["a"].reverse()


def move_read(found: Evidence) -> None:
    packs = exact(found)
    packs[6].msgs["a"].insert(0, packs[5].msgs["a"].pop())


def turn_late(found: Evidence) -> None:
    msgs = exact(found)[5].msgs["a"]
    msgs[0] = msgs[0]._replace(is_late=not msgs[0].is_late)


def repeat_pack(found: Evidence) -> None:
    exact(found).insert(5, exact(found)[5])


def lose_pack(found: Evidence) -> None:
    del exact(found)[5]


def lose_last_pack(found: Evidence) -> None:
    del exact(found)[-1]


def move_position(found: Evidence) -> None:
    ends = exact(found)[5].ends
    ends["a"] = ends["a"]._replace(msg_id=str(int(ends["a"].msg_id) + 1))


def lives(found: Evidence) -> list[ReaderLife]:
    return found.subscribed["ticks-0"]


def repeat_two_packs(found: Evidence) -> None:
    lives(found)[2].packs.insert(0, lives(found)[0].packs[-2])


def repeat_pack_that_was_committed(found: Evidence) -> None:
    lives(found)[0].ending = Ending.BEHIND


def lose_pack_that_was_not_committed(found: Evidence) -> None:
    del lives(found)[4].packs[0]


def lose_pack_between_lives(found: Evidence) -> None:
    del lives(found)[2].packs[:2]


def change_repeated_pack(found: Evidence) -> None:
    del lives(found)[2].packs[0].msgs["b"][0]


def plain_lives(found: Evidence) -> list[ReaderLife]:
    return found.plain["plain-0"]


def repeat_on_one_channel(found: Evidence) -> None:
    first = plain_lives(found)[1].packs[0]
    for column in (first.msgs, first.starts, first.ends):
        del column["b"]


def repeat_two_plain_packs(found: Evidence) -> None:
    plain_lives(found)[1].packs.insert(0, plain_lives(found)[0].packs[-2])


def lose_plain(found: Evidence) -> None:
    del plain_lives(found)[2].packs[3].msgs["c"][0]


def double_in_copy(found: Evidence) -> None:
    found.copies["copy"].insert(5, found.copies["copy"][5])


def move_plain_position(found: Evidence) -> None:
    ends = found.copies["copy"][5].ends
    ends["a"] = ends["a"]._replace(msg_id=str(int(ends["a"].msg_id) - 1))


TAMPERED: dict[Callable[[Evidence], None], str] = {
    lose_stored: "^lost: message",
    lose_from_part_of_unknown_outcome: "^lost: message .* unknown to be stored",
    double_stored: "^doubled: message",
    swap_stored: "torn or swapped",
    swap_parts: "out of order",
    store_nobodys: "1 were never sent",
    change_stored: "not what was sent",
    store_elsewhere: "as was told",
    tick_too_soon: "is behind tick 1000",
    lose_read: "exact: pack .* lost",
    double_read: "exact: pack .* doubled",
    swap_read: "exact: pack .* another order",
    move_read: "exact: pack .* lost",
    turn_late: "exact: pack .* changed",
    repeat_pack: "it is repeated",
    lose_pack: "something between is lost",
    lose_last_pack: "exact: lost",
    move_position: "exact: pack .* ends at",
    repeat_two_packs: "ticks-0.2: it begins with .* repeated",
    repeat_pack_that_was_committed: "ticks-0.2: it begins with .* repeated",
    lose_pack_that_was_not_committed: "ticks-0.4: it begins with .* lost",
    lose_pack_between_lives: "ticks-0.2: it begins with .* lost",
    change_repeated_pack: "ticks-0.2: pack .* lost",
    repeat_on_one_channel: "plain-0.1: .* begins at none",
    repeat_two_plain_packs: "plain-0.1: .* begins at none",
    lose_plain: "plain-0.2: .* lost",
    double_in_copy: "copy: .* does not follow",
    move_plain_position: "is not behind",
}


def test_given_evidence_of_a_run_that_went_well_when_audited_then_its_figures_are_told() -> None:
    figures = audit(evidence())
    assert figures.messages == 40 * 3 * 3
    assert figures.ticks == 41 * 3
    assert figures.packs == 41
    assert figures.late > 0
    assert figures.repeated == 3
    assert figures.lives == 8
    assert figures.unknown == 0


def test_given_parts_of_unknown_outcome_when_audited_then_they_may_be_stored_or_not() -> None:
    found = evidence()
    parts_of(found)[0].stored = None
    found.senders["writer-1.0.book"] = [SentPart("a", [Item(1 << 40, 5, "never arrived", True)])]
    figures = audit(found)
    assert (figures.unknown, figures.unknown_stored) == (2, 1)


@pytest.mark.parametrize("tamper", TAMPERED, ids=lambda tamper: tamper.__name__)
def test_given_evidence_that_was_tampered_with_when_audited_then_it_says_what_is_wrong(
    tamper: Callable[[Evidence], None],
) -> None:
    found = evidence()
    tamper(found)
    with pytest.raises(AssertionError) as caught:
        audit(found)
    assert re.search(TAMPERED[tamper], str(caught.value)), str(caught.value)
