"""messages.proto: what is generated of it anew is what is committed, and the extra asks for a protobuf that takes that."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from rocksmq.clients.msgstream import messages_pb2 as pb
from rocksmq.clients.msgstream.messages import MESSAGE_CLASSES
from rocksmq.clients.msgstream.schema import body_class
from rocksmq.clients.msgstream.types import TsMsg

ROOT = Path(__file__).parents[3]
FOLDER = Path("rocksmq/clients/msgstream")


def test_given_the_schema_when_generated_anew_then_it_is_what_is_committed(tmp_path: Path) -> None:
    subprocess.run(
        [
            *(sys.executable, "-m", "grpc_tools.protoc", "--proto_path=."),
            *(f"--python_out={tmp_path}", f"--pyi_out={tmp_path}", str(FOLDER / "messages.proto")),
        ],
        cwd=ROOT / "clients",
        timeout=60,
        check=True,
    )
    for name in ("messages_pb2.py", "messages_pb2.pyi"):
        assert (tmp_path / FOLDER / name).read_bytes() == (ROOT / "clients" / FOLDER / name).read_bytes(), "run `make proto`"


def test_given_what_was_generated_when_it_needs_a_protobuf_then_the_extra_asks_for_that_and_the_two_majors_that_take_it() -> (
    None
):
    text = (ROOT / "clients" / FOLDER / "messages_pb2.py").read_text()
    found = re.search(r"^# Protobuf Python Version: (\d+)\.(\S+)$", text, re.MULTILINE)
    assert found is not None
    major, rest = found.groups()
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert extras["msgstream"] == [f"protobuf>={major}.{rest},<{int(major) + 2}"]


@pytest.mark.parametrize("kind", MESSAGE_CLASSES, ids=lambda kind: kind.__name__)
def test_given_a_class_when_looked_up_in_the_schema_then_its_message_has_its_name_and_its_type_beside_it(
    kind: type[TsMsg],
) -> None:
    assert body_class(kind.type) is getattr(pb, kind.__name__)
    text = (ROOT / "clients" / FOLDER / "messages.proto").read_text()
    assert re.search(rf"^// Type {int(kind.type)}\b[^{{}}]*\nmessage {kind.__name__} {{$", text, re.MULTILINE)
