"""Strategies for messages that the property tests of message streams share."""

from typing import Any

from hypothesis import strategies as st

from rocksmq.clients.msgstream import messages as m
from rocksmq.clients.msgstream.types import HASH_KEY_MAX, ID_MAX, ID_MIN, TIMESTAMP_MAX

ids = st.integers(ID_MIN, ID_MAX)
timestamps = st.integers(0, TIMESTAMP_MAX)
hash_keys = st.integers(0, HASH_KEY_MAX)
payloads = st.binary(max_size=40)
counts = st.integers(1, 6)


def _column(items: st.SearchStrategy[Any], count: int) -> st.SearchStrategy[list[Any]]:
    return st.lists(items, min_size=count, max_size=count)


inserts = counts.flatmap(
    lambda n: st.builds(m.InsertMsg, ids, _column(timestamps, n), _column(ids, n), _column(payloads, n), _column(hash_keys, n))
)
deletes = counts.flatmap(lambda n: st.builds(m.DeleteMsg, ids, _column(timestamps, n), _column(ids, n), _column(hash_keys, n)))
one_key = _column(hash_keys, 1)
with_payloads = st.sampled_from([m.SearchMsg, m.SearchResultMsg, m.SegStatisticsMsg]).flatmap(
    lambda kind: st.builds(kind, ids, timestamps, payloads, one_key)
)
times = st.sampled_from([m.TimeTickMsg, m.TimeSyncMsg]).flatmap(lambda kind: st.builds(kind, timestamps, ids, one_key))
instants = with_payloads | times
messages = inserts | deletes | instants
