"""Strategies that the property tests of the protocol share.

Those for requests and replies derive from the annotations of the operations' fields, so a
new operation is tested as soon as it stands in OPS. Runs are derandomized: a test that
passed once passes always.
"""

from typing import Any, get_args, get_type_hints

import cbor2
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from rocksmq.protocol.batch import RecordBatch
from rocksmq.protocol.errors import ERRORS, ErrorCode, RocksMQError
from rocksmq.protocol.messages import Outgoing, OutgoingMessage, pack_messages
from rocksmq.protocol.operations import OPS, Operation
from rocksmq.protocol.wire import (
    MS_MAX,
    SEQUENCE_BYTES_MAX,
    U32,
    U64,
    Bytes,
    Column,
    Flag,
    GapRange,
    GapRanges,
    HeldSpace,
    Id,
    Limits,
    Milliseconds,
    OutcomeKind,
    Owner,
    Owners,
    PositionKind,
    SeekKind,
    SequenceNumber,
    SequenceRange,
    Text,
    Texts,
)

deterministic = settings(
    derandomize=True, database=None, deadline=None, max_examples=200, suppress_health_check=[HealthCheck.too_slow]
)

u32s = st.integers(0, 2**32 - 1)
u64s = st.integers(0, 2**64 - 1) | st.sampled_from([0, 23, 24, 255, 256, 2**32, 2**63, 2**64 - 1])
correlations = st.integers(1, 2**32 - 1)
texts = st.text(max_size=50)
names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}", fullmatch=True)
short_bytes = st.binary(max_size=64)
sequences: st.SearchStrategy[int | bytes] = u64s | st.binary(max_size=SEQUENCE_BYTES_MAX)
long_bytes = st.integers(1_000, 1_100).map(lambda size: bytes(range(256)) * 4 + bytes(size - 1_000))
columns = short_bytes | long_bytes
owners = st.lists(texts, min_size=3, max_size=3)
headers = st.dictionaries(texts, short_bytes, max_size=5)


def _view(payload: bytes) -> "memoryview[int]":
    return memoryview(payload)


outgoing: st.SearchStrategy[Outgoing] = st.one_of(
    short_bytes,
    short_bytes.map(bytearray),
    short_bytes.map(_view),
    st.builds(OutgoingMessage, short_bytes, st.none() | headers),
)
batches: st.SearchStrategy[RecordBatch] = st.lists(outgoing, min_size=1, max_size=20).map(pack_messages)

scalars = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**64), 2**64 - 1), st.text(max_size=20), st.binary(max_size=40), long_bytes
)
keys = st.text(max_size=20) | st.binary(max_size=20)


def _nested(depth: int) -> st.SearchStrategy[Any]:
    if depth == 0:
        return scalars
    inner = _nested(depth - 1)
    return scalars | st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=3)


allowed_arrays = st.lists(_nested(2), max_size=6)

_forbidden_scalars: st.SearchStrategy[Any] = st.one_of(
    st.floats(), st.just(cbor2.undefined), st.integers(2**64, 2**80), st.integers(0, 15).map(cbor2.CBORSimpleValue)
)


def _damaged(data: bytes, damage: list[tuple[int, int]]) -> bytes:
    changed = bytearray(data)
    for position, byte in damage:
        changed[position % len(changed)] = byte
    return bytes(changed)


nearly_cbor = st.one_of(
    st.binary(max_size=200),
    st.builds(
        _damaged,
        st.lists(_nested(3) | _forbidden_scalars, max_size=6).map(cbor2.dumps),
        st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), max_size=3),
    ),
)
"""Bytes that a decoder has to refuse or, now and then, to accept: noise, and damaged CBOR."""

_OF_WIRE_TYPE: list[tuple[Any, st.SearchStrategy[Any]]] = [
    (U32, u32s),
    (U64, u64s),
    (Text, texts),
    (Flag, st.booleans()),
    (Id, st.binary(min_size=16, max_size=16)),
    (Bytes, short_bytes),
    (Column, columns),
    (Texts, st.lists(texts, max_size=5)),
    (Limits, st.dictionaries(texts, st.integers(0, 2**64 - 1), max_size=5)),
    (Owner, owners),
    (Owners, st.lists(st.none() | owners, max_size=5)),
    (GapRange, st.tuples(u64s, u64s, st.none() | u64s).map(list)),
    (GapRanges, st.lists(st.tuples(u32s, u64s, u64s, st.none() | u64s).map(list), max_size=5)),
    (HeldSpace, st.tuples(texts, u64s, u64s).map(list)),
    (PositionKind, st.integers(0, 3)),
    (SeekKind, st.integers(0, 4)),
    (SequenceNumber, sequences),
    (SequenceRange, st.lists(sequences, min_size=2, max_size=2)),
    (OutcomeKind, st.integers(0, 3)),
    (Milliseconds, st.integers(0, MS_MAX)),
]


def _of_hint(hint: Any) -> st.SearchStrategy[Any]:
    for wire_type, strategy in _OF_WIRE_TYPE:
        if hint == wire_type:
            return strategy
    options = get_args(hint)
    chosen = _of_hint(options[0])
    return st.none() | chosen if type(None) in options else chosen


def values_of(shape: type[Any]) -> st.SearchStrategy[Any]:
    """Any value of a request's or reply's type."""
    hints = get_type_hints(shape, include_extras=True)
    return st.tuples(*map(_of_hint, hints.values())).map(lambda fields: shape(*fields))


def _with_value(shape_of: str) -> st.SearchStrategy[tuple[Operation, Any]]:
    return st.one_of([st.tuples(st.just(op), values_of(getattr(op, shape_of))) for op in OPS.values()])


requests = _with_value("request")
replies = _with_value("reply")


def _error(code: int, message: str, retry_after_ms: int | None, expected: int | None, present: int | None) -> RocksMQError:
    retry_after = None if retry_after_ms is None else retry_after_ms / 1000
    return ERRORS[code](message, retry_after=retry_after, expected_number=expected, present_id=present)


errors: st.SearchStrategy[RocksMQError] = st.builds(
    _error,
    st.sampled_from([code.value for code in ErrorCode if code < 100]),
    texts,
    st.none() | st.integers(0, 10**9),
    st.none() | u64s,
    st.none() | u64s,
)
