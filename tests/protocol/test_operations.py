"""The table of operations (SPEC §3), and what its rows say of themselves."""

from rocksmq.protocol.operations import HELLO, OP_OF_REQUEST, OPS, PING, Empty, Produce
from rocksmq.protocol.wire import ID_BYTES

ZEROS = bytes(ID_BYTES)


def test_given_the_table_when_read_then_numbers_run_from_1_and_names_are_unique() -> None:
    assert list(OPS) == [op.number for op in OPS.values()] == list(range(1, len(OPS) + 1))
    assert len({op.name for op in OPS.values()}) == len(OPS)
    assert (HELLO.name, PING.name) == ("HELLO", "PING")


def test_given_a_request_type_when_looked_up_then_it_names_its_operation() -> None:
    assert {op.request for op in OPS.values()} - set(OP_OF_REQUEST) == {Empty}
    assert all(op.request is request for request, op in OP_OF_REQUEST.items())


def test_given_a_produce_when_asked_then_its_batch_holds_its_columns() -> None:
    request = Produce("orders", ZEROS, 0, 2, b"1", b"2", b"3", b"4")
    assert request.batch == (2, b"1", b"2", b"3", b"4")


def test_given_a_produce_without_a_named_producer_when_made_then_it_has_no_sequences() -> None:
    assert Produce("orders", ZEROS, 0, 1, b"", b"", None, None).sequences is None
