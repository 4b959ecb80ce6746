"""The guide is true: its blocks run in order and print what it says, and each name of its last table is where it says."""

import ast
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import rocksmq.clients.msgstream as package
from rocksmq.clients import Client, OwnerDescription
from rocksmq.clients.msgstream import InsertMsg, TimeTickMsg
from rocksmq.clients.testing import Broker
from tests.clients.cli_support import rocksmq

ROOT = Path(__file__).parents[3]
GUIDE = (ROOT / "clients" / "msgstream.md").read_text()
URL = "rocksmq://127.0.0.1:7660"
BLOCK = re.compile(r"^```python\n(.*?)^```\n(?:\n((?:    [^\n]+\n)+))?", re.DOTALL | re.MULTILINE)
TABLE = GUIDE[GUIDE.index("## The seeds' table") :]
ROWS = [
    [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
    for line in TABLE.splitlines()
    if line.startswith("|") and not re.match(r"\| in the|\|---", line)
]

# Every name that the Go of the two documents declares or uses, but for the language's own and one-letter receivers.
SEEDS = re.findall(
    r"\w+",
    """
AddMsgTemplate Address Alloc AllocOne AsConsumer AsProducer Base BeginTs Broadcast ChannelDescription ChannelDescriptions
ChannelID ChannelName ChannelNames Client Close Consume Consumer ConsumerMessage CreateChannel CreateChannelRequest
CreateChannelResponse CreateChannels CreateConsumerGroup CreatePulsarConsumers CreatePulsarProducers DB DescribeChannelRequest
DescribeChannelResponse DescribeChannels DescriptionText Descriptions DestoryChannelRequest DestoryChannels DestroyChannel
DestroyConsumerGroup EndPositions EndTs ID IDAllocator KSearchResult Marshal MarshalDispatcher MarshalFunc MemUDFactory
MessageID MsgID MsgPack MsgPosition MsgStream MsgStreamFactory MsgType Msgs NewMsgStream NewPulsarMsgStream
NewPulsarTtMsgStream NewRmqMsgStream NewRmqTtMsgStream NewRocksMQ NewTtMsgStream NewUnmarshalDispatcher NumChannels Owner
OwnerDescription Produce Producer ProducerMessage ProtoUDFactory PulsarMsgStream PulsarMsgStreamFactory PulsarTtMsgStream
RepackFunc ReqType RmqMsgStream RmqMsgStreamFactory RmqTtMsgStream RockMQ RocksMQ Role Seek SetRepackFunc SetTs Start
StartPositions Timestamp TimestampFilter Token TsMsg Type UniqueID Unmarshal UnmarshalDispatcher UnmarshalDispatcherFactory
UnmarshalFunc UpdateID addDefaultMsgTemplates begin_id bufferSize channelID channelName channel_name client commonpb
consumeMu consumers ctx current_id dispatcher end_id gorocksdb groupName group_name hashKeys idAllocator inputBuf kDelete
kInsert kSearch kSearchResult kSegStatistics kTimeSync kTimeTick kv mp msgID msgPacks msgType msgs msgstream numChannels
payload produceMu producers pulsar pulsarAddr repackFunc req rmq rockermq store subName subname tempMap topics unique_id
unmarshal unsolvedBuf
""",
)


def test_given_the_blocks_of_the_guide_when_run_in_order_then_they_print_what_it_says(
    broker: Broker, capsys: pytest.CaptureFixture[str]
) -> None:
    blocks = BLOCK.findall(GUIDE)
    assert len(blocks) == GUIDE.count("```python")
    assert sum(bool(printed) for _, printed in blocks) == 5
    namespace: dict[str, Any] = {}
    for number, (code, printed) in enumerate(blocks, start=1):
        exec(compile(code.replace(URL, broker.url), f"msgstream.md, block {number}", "exec"), namespace)
        expected = [line.removeprefix("    ") for line in printed.splitlines()]
        assert capsys.readouterr().out.splitlines() == expected, code


def test_given_the_function_that_produces_the_rest_when_a_channel_is_gone_then_it_ends(broker: Broker, client: Client) -> None:
    (code,) = [code for code, _ in BLOCK.findall(GUIDE) if "def produce(" in code]
    names = client.create_channels(OwnerDescription("tests"), 2)
    factory = package.RmqMsgStreamFactory(broker.url)
    with factory.new_msg_stream() as stream:
        stream.as_producer(names)
        namespace: dict[str, Any] = {}
        exec(code[: code.index("with factory")], namespace)
        client.destroy_channel(names[1])
        with pytest.raises(package.PackPartlyProduced):
            namespace["produce"](stream, package.MsgPack(msgs=[InsertMsg(1, [1, 2], [1, 2], [b"", b""], [0, 1])]))


def test_given_the_commands_of_the_guide_when_run_then_they_exist_and_take_these_options(
    broker: Broker, client: Client
) -> None:
    commands = re.findall(r"^    rocksmq (msgstream (\w+)) ?([^$>\n]*)", GUIDE, re.MULTILINE)
    assert [name for _, name, _ in commands] == ["create", "describe", "tail", "destroy"]
    arguments = ["msgstream", "create", "--role", "sensors", "--count", "4"]
    assert " ".join(arguments) in GUIDE
    created = rocksmq(broker.url, *arguments)
    channels = created.stdout.split()
    assert rocksmq(broker.url, "msgstream", "describe", *channels).exit_code == 0
    assert "--tt / --plain" in rocksmq(broker.url, "msgstream", "tail", "--help").stdout
    assert rocksmq(broker.url, "msgstream", "destroy", "--yes", *channels).exit_code == 0
    assert client.list_channels() == []
    assert rocksmq(broker.url, "bench", "msgstream", "--help").exit_code == 0


def test_given_the_limits_of_the_guide_when_looked_up_then_they_are_those(client: Client) -> None:
    from rocksmq.broker.meta_transaction import GROUPS_MAX
    from rocksmq.clients.msgstream.stream import BUFFER_BYTES, BUFFER_MESSAGES, RECEIVE_MESSAGES_MAX

    limits = client.server.limits
    (told,) = re.findall(r"^## Limits\n(.*?)^## ", GUIDE, re.DOTALL | re.MULTILINE)
    for number in (limits["request_channels_max"], limits["batch_messages_max"], RECEIVE_MESSAGES_MAX, BUFFER_MESSAGES):
        assert f" {number:,}" in told
    for text in (f"{GROUPS_MAX},", f"{BUFFER_BYTES >> 20} MiB", f"{limits['payload_bytes_max'] >> 20} MiB"):
        assert f" {text}" in told


def test_given_links_of_the_guide_when_followed_then_the_files_are_there() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", GUIDE)
    assert "examples/windows.py" in links
    assert [link for link in links if not (ROOT / "clients" / link).is_file()] == []


# -- the seeds' table --------------------------------------------------------------


@cache
def names_in(path: Path) -> set[str]:
    """The functions of a file of tests."""
    return {node.name for node in ast.parse(path.read_text()).body if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))}


def test_given_both_seeds_when_each_name_is_looked_for_then_the_table_has_it() -> None:
    first = "\n".join([TABLE[: TABLE.index("|")], *(row[0] for row in ROWS)])
    assert [name for name in SEEDS if not re.search(rf"(?<!\w){name}(?!\w)", first)] == []


def test_given_a_row_of_the_table_when_its_test_is_looked_for_then_it_is_there() -> None:
    assert len(ROWS) > 90
    for row in ROWS:
        named = re.fullmatch(r"`([\w/]+\.py)::(test_\w+)`", row[3])
        assert named, row
        assert named[2] in names_in(ROOT / "tests" / named[1]), row[3]


def test_given_a_row_of_the_table_when_its_module_is_looked_at_then_it_has_what_is_said_to_be_there() -> None:
    for seed, here, module, _ in ROWS:
        part, name = module.strip("`").split("/", 1)
        path = ROOT / part / "rocksmq" / part / name
        assert path.is_file(), module
        told = {word for span in re.findall(r"`([^`]+)`", here) for word in re.findall(r"[A-Za-z_]\w+", span)}
        text = path.read_text()
        assert not told or any(re.search(rf"\b{word}\b", text) for word in told), (seed, here)


def test_given_the_names_of_the_guide_when_looked_for_then_the_package_exports_them() -> None:
    named = {
        *("PulsarMsgStream", "PulsarTtMsgStream", "PulsarMsgStreamFactory", "msg_stream_factory"),
        *("MsgStream", "TtMsgStream", "RmqMsgStream", "RmqTtMsgStream", "MsgStreamFactory", "RmqMsgStreamFactory"),
        *("MemMsgStreamFactory", "MemBroker", "TsMsg", "MsgPack", "MsgPosition", "MsgType", "StreamGap", "RepackFunc"),
        *("UnmarshalFunc", "UnmarshalDispatcher", "UnmarshalDispatcherFactory", "ProtoUDFactory", "MemUDFactory"),
        *("PackPartlyProduced", "BufferFull", "pack_header", "header_of"),
    }
    assert named <= set(package.__all__)
    assert [name for name in named - {"header_of", "StreamGap"} if name not in GUIDE] == []
    for kind in (package.RmqMsgStream, package.RmqTtMsgStream):
        assert issubclass(kind, package.MsgStream)
    assert issubclass(package.RmqTtMsgStream, package.TtMsgStream)


def test_given_names_that_are_not_here_when_looked_for_then_there_are_none() -> None:
    assert not hasattr(OwnerDescription("role"), "token")
    assert TimeTickMsg(1).hash_keys == [0]
