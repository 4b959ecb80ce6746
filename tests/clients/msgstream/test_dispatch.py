"""Dispatchers (contract §7): payloads to messages by their type, types of one's own, messages in memory."""

import os
import subprocess
import sys
from struct import Struct
from typing import Any, Self

import pytest
from hypothesis import given

from rocksmq.clients.msgstream.dispatch import (
    MemUDFactory,
    ProtoUDFactory,
    UnknownMsgType,
    UnmarshalDispatcher,
    UnmarshalDispatcherFactory,
)
from rocksmq.clients.msgstream.header import Header, Undecodable, pack_header
from rocksmq.clients.msgstream.messages import InsertMsg, SearchMsg, TimeTickMsg
from rocksmq.clients.msgstream.types import MsgType, TsMsg
from rocksmq.protocol.errors import InvalidRequest
from tests.protocol.strategies import deterministic

from .message_strategies import messages

FACTORIES: dict[str, UnmarshalDispatcherFactory] = {"bytes": ProtoUDFactory(), "memory": MemUDFactory()}
EVERY_FACTORY = pytest.mark.parametrize("factory", FACTORIES.values(), ids=FACTORIES)


class Reading(TsMsg):
    """A type of one's own, as a user would write it."""

    __slots__ = ("celsius",)
    type = 7001
    _BODY = Struct("<Bf")  # field 2, of 32 bits

    def __init__(self, id: int, ts: int, celsius: float, hash_keys: list[int]) -> None:  # noqa: A002
        super().__init__(id, ts, ts, hash_keys)
        self.celsius = celsius

    def marshal(self) -> bytes:
        return pack_header(self.type, self.id, self.begin_ts, self.end_ts) + self._BODY.pack(0x15, self.celsius)

    @classmethod
    def unmarshal(cls, payload: bytes) -> Self:
        return cls(1, 5, cls._BODY.unpack(payload[34:])[1], [0])


@EVERY_FACTORY
@deterministic
@given(msg=messages)
def test_given_any_message_when_marshalled_and_dispatched_by_its_header_then_it_is_the_same(
    factory: UnmarshalDispatcherFactory, msg: TsMsg
) -> None:
    dispatcher = factory.new_unmarshal_dispatcher()
    carried = dispatcher.marshal(msg)
    header = dispatcher.header_of(carried)
    assert header == Header(msg.type, msg.id, msg.begin_ts, msg.end_ts)
    assert dispatcher.unmarshal(carried, header.type) == msg


def test_given_a_message_in_bytes_when_dispatched_by_the_wrong_type_then_it_is_undecodable() -> None:
    dispatcher = ProtoUDFactory().new_unmarshal_dispatcher()
    with pytest.raises(Undecodable):
        dispatcher.unmarshal(TimeTickMsg(5).marshal(), MsgType.INSERT)


def test_given_an_unknown_type_when_dispatched_then_an_error_of_its_own_names_it_and_the_header_can_be_read() -> None:
    dispatcher = ProtoUDFactory().new_unmarshal_dispatcher()
    payload = pack_header(7001, 1, 2, 3)
    assert dispatcher.header_of(payload) == Header(7001, 1, 2, 3)
    with pytest.raises(UnknownMsgType, match="7001") as raised:
        dispatcher.unmarshal(payload, 7001)
    assert isinstance(raised.value, ValueError)


# Types of one's own


def test_given_a_type_of_ones_own_when_registered_then_it_is_read_by_its_function() -> None:
    factory = ProtoUDFactory([(Reading.type, Reading.unmarshal)])
    added = ProtoUDFactory().new_unmarshal_dispatcher()
    added.add_msg_template(Reading.type, Reading.unmarshal)
    by_mapping = ProtoUDFactory({Reading.type: Reading.unmarshal})
    for dispatcher in (factory.new_unmarshal_dispatcher(), added, by_mapping.new_unmarshal_dispatcher()):
        payload = dispatcher.marshal(Reading(1, 5, 21.5, [3]))
        read = dispatcher.unmarshal(payload, dispatcher.header_of(payload).type)
        assert isinstance(read, Reading)
        assert read.celsius == 21.5
        assert dispatcher.unmarshal(TimeTickMsg(5).marshal(), MsgType.TIME_TICK) == TimeTickMsg(5)


def test_given_a_dispatcher_when_a_type_is_added_then_others_of_the_factory_do_not_know_it() -> None:
    factory = ProtoUDFactory()
    factory.new_unmarshal_dispatcher().add_msg_template(Reading.type, Reading.unmarshal)
    with pytest.raises(UnknownMsgType):
        factory.new_unmarshal_dispatcher().unmarshal(Reading(1, 5, 0.0, [3]).marshal(), Reading.type)


def test_given_a_type_of_the_library_when_registered_anew_then_the_new_function_reads_it() -> None:
    class Insert(InsertMsg):
        __slots__ = ()

    dispatcher = ProtoUDFactory().new_unmarshal_dispatcher()
    dispatcher.add_msg_template(MsgType.INSERT, Insert.unmarshal)
    read = dispatcher.unmarshal(InsertMsg(1, [2], [3], [b"row"], [4]).marshal(), 400)
    assert type(read) is Insert
    assert (read.rows, read.row_ids, read.timestamps, read.hash_keys) == ([b"row"], [3], [2], [4])


@pytest.mark.parametrize("msg_type", [0, -1, 1 << 32, "400", None, 1.0, True])
def test_given_what_is_no_type_when_registered_then_it_is_refused(msg_type: Any) -> None:
    with pytest.raises(InvalidRequest, match="msg_type"):
        ProtoUDFactory().new_unmarshal_dispatcher().add_msg_template(msg_type, Reading.unmarshal)


def test_given_what_is_no_function_when_registered_then_it_is_refused() -> None:
    not_a_function: Any = "unmarshal"
    with pytest.raises(InvalidRequest, match="no function"):
        ProtoUDFactory().new_unmarshal_dispatcher().add_msg_template(7001, not_a_function)


@EVERY_FACTORY
@pytest.mark.parametrize("given_back", [None, TimeTickMsg(5), b"bytes"], ids=["nothing", "another type", "bytes"])
def test_given_a_function_that_gives_no_message_of_the_type_when_dispatched_then_it_is_undecodable(
    factory: UnmarshalDispatcherFactory, given_back: Any
) -> None:
    def read(payload: Any) -> Any:
        return given_back

    dispatcher = factory.new_unmarshal_dispatcher()
    dispatcher.add_msg_template(Reading.type, read)
    with pytest.raises(Undecodable, match="no message of type 7001"):
        dispatcher.unmarshal(dispatcher.marshal(Reading(1, 5, 0.0, [3])), Reading.type)


@pytest.mark.parametrize("head", [b"", pack_header(7002, 1, 5, 5), pack_header(7001, 1, 4, 5), pack_header(7001, 2, 5, 5)])
def test_given_a_type_of_ones_own_whose_payload_has_not_its_header_when_marshalled_then_it_is_refused(head: bytes) -> None:
    class Careless(Reading):
        __slots__ = ()

        def marshal(self) -> bytes:
            return head + b"\x15\x00\x00\x00\x00"

    with pytest.raises(InvalidRequest, match="Careless"):
        ProtoUDFactory().new_unmarshal_dispatcher().marshal(Careless(1, 5, 0.0, [3]))


# In memory


def memory() -> UnmarshalDispatcher:
    return MemUDFactory().new_unmarshal_dispatcher()


def test_given_a_message_in_memory_when_two_read_it_then_each_has_its_own_and_it_was_read_nowhere() -> None:
    dispatcher = memory()
    msg = InsertMsg(1, [2], [3], [b"row"], [4])
    msg.late = True
    msg.read_at("before", "1")
    carried = dispatcher.marshal(msg)
    assert carried is msg
    one, other = dispatcher.unmarshal(carried, MsgType.INSERT), dispatcher.unmarshal(carried, MsgType.INSERT)
    assert (one.late, one.position) == (False, None)
    one.late = True
    one.read_at("here", "2")
    one.set_ts(9)
    assert (other.late, other.position, other.begin_ts) == (False, None, 2)
    assert other == InsertMsg(1, [2], [3], [b"row"], [4])
    assert (msg.position is not None and msg.position.channel_name, msg.timestamps) == ("before", [2])


def test_given_a_type_of_ones_own_in_memory_when_dispatched_then_it_needs_no_codec_and_keeps_what_it_has() -> None:
    class Own(TsMsg):
        type = 7002

        def __init__(self, thing: object) -> None:
            super().__init__(1, 2, 3, [4])
            self.thing = thing

    thing = object()
    read = memory().unmarshal(Own(thing), Own.type)
    assert isinstance(read, Own)
    assert read.thing is thing


def test_given_a_function_for_a_type_in_memory_when_dispatched_then_it_reads() -> None:
    dispatcher = memory()
    dispatcher.add_msg_template(MsgType.SEARCH, lambda msg: SearchMsg(msg.id + 1, 2, b"", [3]))
    assert dispatcher.unmarshal(SearchMsg(1, 2, b"", [3]), MsgType.SEARCH).id == 2


def test_given_what_is_no_message_when_dispatched_in_memory_then_it_is_undecodable() -> None:
    for payload in (b"bytes", None):
        with pytest.raises(Undecodable):
            memory().header_of(payload)
        with pytest.raises(Undecodable):
            memory().unmarshal(payload, MsgType.INSERT)
    with pytest.raises(Undecodable):
        memory().unmarshal(TimeTickMsg(5), MsgType.INSERT)


WITHOUT_PROTOBUF = """
import sys
sys.modules["google.protobuf"] = None
from rocksmq.clients.msgstream.dispatch import MemUDFactory, ProtoUDFactory
from rocksmq.clients.msgstream.messages import TimeTickMsg
memory = MemUDFactory().new_unmarshal_dispatcher()
assert memory.unmarshal(memory.marshal(TimeTickMsg(5)), 1200) == TimeTickMsg(5)
factory = ProtoUDFactory()
try:
    factory.new_unmarshal_dispatcher()
except ImportError as error:
    print(error)
"""


def test_given_no_protobuf_when_streams_are_in_memory_then_it_is_not_missed_and_one_of_bytes_says_at_once_what_to_install() -> (
    None
):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_PROTOBUF], capture_output=True, text=True, timeout=60, check=True, env=environment
    )
    assert "pip install 'rocksmq[msgstream]'" in done.stdout


@pytest.mark.parametrize(("begin_ts", "end_ts"), [(0, None), (0, 1.5), (0, 1 << 64), (5, 4), (-1, 0)])
def test_given_a_function_that_makes_a_message_no_stream_can_order_when_read_then_it_is_undecodable(
    begin_ts: Any, end_ts: Any
) -> None:
    class Own(TsMsg):
        type = 7_000

    dispatcher = ProtoUDFactory({7_000: lambda payload: Own(1, begin_ts, end_ts, [0])}).new_unmarshal_dispatcher()
    with pytest.raises(Undecodable):
        dispatcher.read(pack_header(7_000, 1, 0, 0))
