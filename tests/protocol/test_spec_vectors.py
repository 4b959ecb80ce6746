"""SPEC.md, rocksmq.cddl, the golden vectors and the code say the same."""

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import cbor2
import pycddl  # type: ignore[import-untyped]  # pyright: ignore[reportMissingTypeStubs]
import pytest

from rocksmq.protocol.batch import HEADER_BYTES_MAX, HEADERS_MAX
from rocksmq.protocol.cbor import DEPTH_MAX, ITEMS_MAX, REQUEST_TEXTS_BYTES_MAX, TEXT_BYTES_MAX
from rocksmq.protocol.codec import SUCCESS, decode_error, decode_reply, decode_request
from rocksmq.protocol.errors import ERRORS, ErrorCode, ProtocolError, RocksMQError
from rocksmq.protocol.names import NAME_BYTES_MAX
from rocksmq.protocol.operations import (
    METADATA_BYTES_MAX,
    OPS,
    POLL_MS_MAX,
    STATUS_LINES_MAX,
    STATUS_ROOM_BYTES,
    Operation,
    Position,
)
from rocksmq.protocol.permissions import Scope
from rocksmq.protocol.wire import ID_BYTES, SEQUENCE_BYTES_MAX
from tests.protocol.feeding import fed_three_ways
from tests.protocol.make_vectors import VECTORS, entry, fields_of, files, from_json
from tests.protocol.vector_cases import CASES, Case

cddl: Any = pycddl  # it has no types
SPEC = (VECTORS.parent / "SPEC.md").read_text()
CDDL = (VECTORS.parent / "rocksmq.cddl").read_text()
TRAVELLING = [code for code in ErrorCode if code < ErrorCode.CONNECTION_FAILED]
every_operation = pytest.mark.parametrize("op", OPS.values(), ids=lambda op: op.name)
every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.file}, {case.kind}: {case.name}")


def committed() -> list[dict[str, Any]]:
    return [found for file in sorted(VECTORS.glob("*.json")) for found in json.loads(file.read_text())]


COMMITTED = {(found["op"], found["kind"], found["name"]): found for found in committed()}
every_vector = pytest.mark.parametrize("vector", COMMITTED.values(), ids=lambda v: f"{v['op']}, {v['kind']}: {v['name']}")


def rule_of(vector: dict[str, Any]) -> str:
    """Name of the CDDL rule for a vector."""
    if vector["kind"] == "error":
        return "error"
    if vector["kind"] == "ping":
        return "broker-ping"
    return f"{vector['op'].lower().replace('_', '-')}-{vector['kind']}"


@cache
def schema_of(rule: str) -> Any:
    """The committed CDDL with ``rule`` as its root, which is the first rule."""
    return cddl.Schema(f"root = {rule}\n{CDDL}")


def section_of(op: Operation) -> str:
    """Text of the operation's section of SPEC.md."""
    found = re.search(rf"^### 3\.{op.number + 1} {op.name}\n(.*?)^##", SPEC, re.MULTILINE | re.DOTALL)
    assert found, f"SPEC.md has no section 3.{op.number + 1} {op.name}"
    return found[1]


def drawn(op: Operation, kind: str) -> list[str]:
    """The words of the frame that SPEC.md draws for an operation."""
    found = re.search(rf"^    {kind} +(?:\[(.*)\]|as in §3\.(\d+))$", section_of(op), re.MULTILINE)
    assert found, f"SPEC.md draws no {kind} of {op.name}"
    return found[1].split(", ") if found[1] else drawn(OPS[int(found[2]) - 1], kind)


# -- the vectors and the code ----------------------------------------------------


def test_given_the_committed_vectors_when_made_anew_then_they_are_the_same_files() -> None:
    assert {file.stem: json.loads(file.read_text()) for file in VECTORS.iterdir()} == files()


def test_given_the_vectors_when_listed_then_names_are_unique_within_operation_and_kind() -> None:
    assert len(COMMITTED) == len(committed()) == len(CASES)


@every_operation
def test_given_an_operation_when_looked_for_then_it_has_a_vector_of_each_kind(op: Operation) -> None:
    assert {kind for name, kind, _ in COMMITTED if name == op.name} >= {"request", "reply"}


@every_case
def test_given_a_typed_value_when_encoded_then_its_bytes_are_the_committed_ones(case: Case) -> None:
    found = COMMITTED[None if case.op is None else case.op.name, case.kind, case.name]
    assert case.frame.hex() == found["hex"]
    assert entry(case) == found


@every_case
def test_given_committed_bytes_when_fed_three_ways_and_decoded_then_they_are_the_typed_value(case: Case) -> None:
    frame = bytes.fromhex(COMMITTED[None if case.op is None else case.op.name, case.kind, case.name]["hex"])
    items = fed_three_ways(frame)
    if case.kind == "ping":
        assert items == [0, SUCCESS]
        return
    if case.kind == "error":
        decoded: Any = decode_error(items)
        with pytest.raises(RocksMQError, match=re.escape(decoded.message)):
            decode_reply(case.op or OPS[2], items)
    elif case.kind == "request":
        op, correlation, decoded = decode_request(items)
        assert (op, correlation) == (case.op, case.correlation)
    else:
        assert case.op is not None
        decoded = decode_reply(case.op, items)
    assert type(decoded) is type(case.value)
    assert fields_of(decoded) == fields_of(case.value)


@every_vector
def test_given_a_vector_when_read_by_plain_cbor2_then_its_items_are_its_meaning(vector: dict[str, Any]) -> None:
    frame = bytes.fromhex(vector["hex"])
    assert int.from_bytes(frame[:4], "big") == len(frame) - 4
    correlation, *fields = (from_json(value) for value in vector["meaning"].values())
    front = {
        "request": lambda: [op_of(vector).number, correlation],
        "reply": lambda: [correlation, 0],
        "ping": lambda: [correlation, 0],
        "error": lambda: [correlation],
    }[vector["kind"]]()
    assert cbor2.loads(frame[4:]) == [*front, *fields]


def op_of(vector: dict[str, Any]) -> Operation:
    return next(op for op in OPS.values() if op.name == vector["op"])


# -- the CDDL --------------------------------------------------------------------


@every_vector
def test_given_a_vector_when_validated_then_it_matches_its_cddl_rule(vector: dict[str, Any]) -> None:
    schema_of(rule_of(vector)).validate_cbor(bytes.fromhex(vector["hex"])[4:])


@every_vector
def test_given_a_vector_with_a_field_too_few_or_too_many_when_read_then_cddl_and_code_refuse_it(
    vector: dict[str, Any],
) -> None:
    items = cbor2.loads(bytes.fromhex(vector["hex"])[4:])
    for wrong in (items[:-1], [*items, 0]):
        assert_refused(vector, wrong)


@every_vector
def test_given_a_vector_with_a_field_of_another_type_when_read_then_cddl_and_code_refuse_it(vector: dict[str, Any]) -> None:
    items = cbor2.loads(bytes.fromhex(vector["hex"])[4:])
    for index in range(len(items)):
        assert_refused(vector, [*items[:index], 0.5, *items[index + 1 :]])


@pytest.mark.parametrize("op", [OPS[7], OPS[13], OPS[21]], ids=lambda op: op.name)
def test_given_kind_4_when_sent_to_an_operation_other_than_seek_then_cddl_and_code_refuse_it(op: Operation) -> None:
    vector = COMMITTED[op.name, "request", "from the latest"]
    items = cbor2.loads(bytes.fromhex(vector["hex"])[4:])
    index = 2 + op.request._fields.index("start_kind")
    assert_refused(vector, [*items[:index], Position.CURRENT.value, *items[index + 1 :]])


def assert_refused(vector: dict[str, Any], items: list[Any]) -> None:
    with pytest.raises(cddl.ValidationError):
        schema_of(rule_of(vector)).validate_cbor(cbor2.dumps(items))
    if vector["kind"] == "request":
        with pytest.raises(ProtocolError):
            decode_request(items)
    elif vector["kind"] == "reply" and items[:1] != [0.5]:  # a correlation id is looked up before a reply is decoded
        with pytest.raises(ProtocolError):
            decode_reply(op_of(vector), items)
    elif vector["kind"] == "error" and items[:1] != [0.5]:
        with pytest.raises(ProtocolError):
            raise decode_error(items)


@every_operation
def test_given_an_operation_when_looked_for_in_the_cddl_then_both_its_frames_are_there(op: Operation) -> None:
    name = op.name.lower().replace("_", "-")
    fields = {kind: [field.replace("_", "-") for field in getattr(op, kind)._fields] for kind in ("request", "reply")}
    begin = f"{name}-request = [{op.number}, correlation"
    assert begin in re.sub(r"\[\s+", "[", CDDL)
    for kind, expected in fields.items():
        rule = f"{name}-{kind}"
        assert re.search(rf"^(?:request|reply) =[^=]*\b{rule}\b", CDDL, re.MULTILINE)
        assert members_of(rule) == expected


def members_of(rule: str) -> list[str]:
    """Member names of an array rule, through rules that only name another."""
    found = re.search(rf"^{rule} = (?:\[([^]]*)\]|([a-z-]+))$", CDDL, re.MULTILINE)
    assert found, f"the CDDL has no rule {rule}"
    return members_of(found[2]) if found[2] else re.findall(r"([a-z-]+): ", found[1])


def test_given_the_cddl_when_read_then_no_rule_has_the_name_of_a_member() -> None:
    rules = set(re.findall(r"^([a-z0-9-]+) =", CDDL, re.MULTILINE))
    assert not rules & set(re.findall(r"([a-z-]+): ", CDDL))


@pytest.mark.parametrize("code", TRAVELLING, ids=lambda code: code.name)
def test_given_an_error_code_when_looked_for_in_the_cddl_then_its_number_is_there(code: ErrorCode) -> None:
    name = code.name.lower().replace("_", "-")
    assert f"\n{name} = {code.value}\n" in CDDL
    assert re.search(rf"^error-code =[^=]*\b{name}\b", CDDL, re.MULTILINE)


# -- SPEC.md ---------------------------------------------------------------------


ON = {
    Scope.NONE: "",
    Scope.CHANNEL: "`channel`",
    Scope.CHANNELS: "each of `channels`",
    Scope.NUMBERS: "each of `numbers`",
    Scope.STARTS: "each of `starts`",
    Scope.MADE: "each that it makes",
    Scope.LISTED: "each that is listed",
    Scope.ALL: "`*`",
}


@every_operation
def test_given_an_operation_when_looked_for_in_the_spec_then_its_row_says_number_section_and_permission(op: Operation) -> None:
    on = ON[op.scope]
    assert f"\n| {op.number} | {op.name} | §3.{op.number + 1} | {op.permission.value} |{f' {on}' if on else ''} |" in SPEC
    assert op.idempotent, "SPEC §3 says that every operation is"


@every_operation
def test_given_an_operation_when_looked_for_in_the_spec_then_its_frames_are_drawn_with_every_field(op: Operation) -> None:
    assert drawn(op, "request") == [str(op.number), "correlation", *op.request._fields]
    assert drawn(op, "reply") == ["correlation", "0", *op.reply._fields]


@every_operation
def test_given_an_operation_when_looked_for_in_the_spec_then_its_section_explains_each_request_field(op: Operation) -> None:
    explained = section_of(op)
    for name in op.request._fields:
        if not (op.name == "PRODUCE" and name in ("lengths", "payloads", "header_lengths")):  # drawn in §4.1
            assert re.search(rf"^\|[^|]*\b{name}\b[^|]*\|", explained, re.MULTILINE), name


@pytest.mark.parametrize("code", TRAVELLING, ids=lambda code: code.name)
def test_given_an_error_code_when_looked_for_in_the_spec_then_its_row_says_whether_to_retry(code: ErrorCode) -> None:
    retryable = "yes" if ERRORS[code].retryable else "no"
    assert f"\n| {code.value} | {code.name} | {retryable} | " in SPEC


def test_given_the_codes_that_never_travel_when_looked_for_in_the_spec_then_they_are_told_apart() -> None:
    assert "100 (CONNECTION_FAILED, retryable" in SPEC
    assert "101 (TIMEOUT" in SPEC.replace("\n", " ")


def test_given_the_codes_listed_in_the_spec_when_compared_then_there_is_none_that_the_code_does_not_know() -> None:
    rows = re.findall(r"^\| (\d+) \| ([A-Z_]+) \| (?:yes|no) \|", SPEC, re.MULTILINE)
    assert rows == [(str(code.value), code.name) for code in TRAVELLING]


@pytest.mark.parametrize(
    "said",
    [
        f"every key and value included | {ITEMS_MAX:,} |",
        f"the outermost array included | {DEPTH_MAX} |",
        f"bytes of one text string | {TEXT_BYTES_MAX:,} |",
        f"bytes of all text strings of a request together | {REQUEST_TEXTS_BYTES_MAX:,} |",
        f"`[A-Za-z0-9][A-Za-z0-9._-]{{0,{NAME_BYTES_MAX - 1}}}`",
        f"at most {METADATA_BYTES_MAX}, kept with the position",
        f"at most {HEADERS_MAX} entries",
        f"{HEADER_BYTES_MAX >> 10} KiB in all",
        f"| `poll_ms_max` | {POLL_MS_MAX:,} |",
        f"bytes({ID_BYTES})",
        f"each a u64, or bytes, at most {SEQUENCE_BYTES_MAX}",
        f"u32le, each at most {METADATA_BYTES_MAX}; they add up",
        f"at most {STATUS_LINES_MAX:,} lines, and leave {STATUS_ROOM_BYTES >> 10} KiB of a frame to the other fields",
    ],
)
def test_given_a_limit_of_the_code_when_looked_for_in_the_spec_then_it_is_the_same(said: str) -> None:
    assert said in SPEC.replace("\n", " ")


def test_given_sections_cited_in_the_code_when_looked_for_in_the_spec_then_they_exist() -> None:
    root = Path(__file__).parents[2]
    sources = [file for part in ("protocol", "broker", "clients") for file in (root / part).rglob("*.py")]
    cited = {number for file in sources for number in re.findall(r"SPEC §(\d+(?:\.\d+)*)", file.read_text())}
    cited |= set(re.findall(r"§(\d+(?:\.\d+)*)", SPEC + CDDL))
    sections = set(re.findall(r"^#+ (\d+(?:\.\d+)*) ", SPEC, re.MULTILINE))
    assert cited
    assert cited <= sections


def test_given_the_example_frame_of_the_spec_when_compared_then_it_is_a_vector() -> None:
    found = re.search(r"A PING with correlation id 1 is, whole:\n\n +([0-9a-f ]+)\n", SPEC)
    assert found
    assert found[1].replace(" ", "") == COMMITTED["PING", "request", "the smallest correlation id"]["hex"]


def bytes_drawn(number: str, column: str) -> str:
    """The bytes that a section of SPEC.md shows of a column, in hexadecimal."""
    section = re.search(rf"^### {number} .*?^##", SPEC, re.MULTILINE | re.DOTALL)
    assert section
    found = re.search(rf"^    {column} +([0-9a-f ]+?(?:\n {{8,}}[0-9a-f ]+?)?)(?:   .*)?$", section[0], re.MULTILINE)
    assert found, f"SPEC §{number} shows no {column}"
    return re.sub(r"\s", "", found[1])


@pytest.mark.parametrize(
    ("number", "op", "kind", "name"),
    [
        ("3.24", "FETCH_MANY", "request", "two channels"),
        ("3.24", "FETCH_MANY", "reply", "two messages of the second channel"),
        ("3.33", "COMMIT_MANY", "request", "two channels"),
    ],
)
def test_given_the_columns_that_the_spec_shows_when_compared_then_they_are_those_of_a_vector(
    number: str, op: str, kind: str, name: str
) -> None:
    meaning = COMMITTED[op, kind, name]["meaning"]
    shown = {"starts", "parts", "runs", "numbers", "metadata_lengths", "metadata"} & set(meaning)
    assert {column: bytes_drawn(number, column) for column in shown} == {column: meaning[column]["hex"] for column in shown}


def test_given_the_names_that_the_spec_shows_when_compared_then_they_are_those_of_a_vector() -> None:
    names = COMMITTED["CREATE_CHANNELS", "reply", "two names"]["meaning"]["names"]
    assert "    " + "\n    ".join(names) + "\n" in SPEC


def test_given_the_meaning_of_an_error_vector_when_compared_then_its_name_is_that_of_its_code() -> None:
    for code in TRAVELLING:
        meaning = COMMITTED[None, "error", f"code {code.name}"]["meaning"]
        assert meaning["code"] == code.value
        assert issubclass(ERRORS[meaning["code"]], RocksMQError)
