"""The chain of logs: any prefix of what was written is whole, and a log that lacks its end under later ones is told of."""

from hypothesis import given
from hypothesis import strategies as st

from rocksmq.broker.log_chain import END, KEPT, PREFIX, LogChain, Note

# A log is its writes. The second: whether RocksDB began it by itself, so that its first write noted the log before.
LOGS = st.lists(st.tuples(st.integers(1, 6), st.booleans()), min_size=1, max_size=2 * KEPT)


def written(logs: list[tuple[int, bool]], chain: LogChain | None = None) -> list[list[Note]]:
    """The notes in each log."""
    chain = chain or LogChain([])
    found: list[list[Note]] = []
    for count, is_surprise in logs:
        notes: list[Note] = []
        if not is_surprise:
            chain.begin_log()
        for index in range(count):
            notes.append(chain.note())
            chain.written()
            if is_surprise and index == 0:
                chain.begin_log()
        found.append(notes)
    return found


def recovered(logs: list[list[Note]]) -> dict[bytes, bytes]:
    """What stands in the database when these were read."""
    stored: dict[bytes, bytes] = {}
    for note in (note for log in logs for note in log):
        if note.clears:
            stored.clear()
        for key in note.outdated:
            stored.pop(key, None)
        stored[note.key] = note.value
    return stored


def gap(logs: list[list[Note]]) -> str | None:
    return LogChain(recovered(logs).items()).gap


@given(LOGS, st.data())
def test_given_any_prefix_when_read_then_nothing_is_missing_and_it_goes_on(
    logs: list[tuple[int, bool]], data: st.DataObject
) -> None:
    notes = written(logs)
    whole = data.draw(st.integers(0, len(notes) - 1))
    prefix = [*notes[:whole], notes[whole][: data.draw(st.integers(0, len(notes[whole])))]]
    chain = LogChain(recovered(prefix).items())
    assert chain.gap is None
    assert gap([*prefix, *written([(3, False), (2, True)], chain)]) is None


@given(LOGS, st.data())
def test_given_a_log_that_lacks_its_end_under_a_later_one_when_read_then_it_is_told(
    logs: list[tuple[int, bool]], data: st.DataObject
) -> None:
    # Given: one of the logs that may still be needed.
    notes = written([*logs, (data.draw(st.integers(1, 6)), data.draw(st.booleans()))])
    short = data.draw(st.integers(max(0, len(notes) - KEPT // 2), len(notes) - 2))
    kept = data.draw(st.integers(0, len(notes[short]) - 1))
    assert gap([*notes[:short], notes[short][:kept], *notes[short + 1 :]]) is not None


@given(LOGS)
def test_given_a_gap_that_is_accepted_when_written_on_then_it_is_told_no_more(logs: list[tuple[int, bool]]) -> None:
    notes = written([*logs, (2, False), (2, False)])
    left = [*notes[:-2], notes[-1]]
    chain = LogChain(recovered(left).items())
    assert chain.gap is not None
    more = written([(2, False), (1, True)], chain)
    assert chain.gap is None
    assert gap([*left, *more]) is None


def test_given_many_logs_when_written_then_few_keys_stay() -> None:
    stored = recovered(written([(3, False)] * 100))
    assert len(stored) == 2 * KEPT
    assert all(PREFIX < key < END for key in stored)


def test_given_notes_that_nobody_wrote_when_read_then_it_is_told() -> None:
    ((key, value),) = recovered(written([(1, False)])).items()
    for found in ([(key, value[:-1])], [(key + b"x", value)], [(key, b"\xff" * 16)]):
        assert LogChain(found).gap is not None


def test_given_what_is_missing_when_told_then_it_is_counted() -> None:
    notes = written([(4, False), (3, False), (2, False)])
    assert gap([notes[0][:1], *notes[1:]]) == (
        "one of the database's logs is missing, or its end: 3 writes are not there, and later ones are"
    )
    assert gap([notes[0], notes[2]]) == (
        "one of the database's logs is missing or empty, with what was written behind number 4"
    )
