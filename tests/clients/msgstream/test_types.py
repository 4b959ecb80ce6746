"""What streams carry (contract §7): the numbers of the types, positions as JSON, packs."""

import json

import pytest

from rocksmq.clients.msgstream.messages import InsertMsg, TimeTickMsg
from rocksmq.clients.msgstream.types import MsgPack, MsgPosition, MsgType, TsMsg
from rocksmq.protocol.errors import InvalidRequest


def test_given_the_types_when_listed_then_they_have_the_numbers_of_the_design() -> None:
    assert {kind.name: kind.value for kind in MsgType} == {
        "INSERT": 400,
        "DELETE": 401,
        "SEARCH": 500,
        "SEARCH_RESULT": 1000,
        "SEG_STATISTICS": 1100,
        "TIME_TICK": 1200,
        "TIME_SYNC": 1201,
    }


def test_given_a_position_when_written_as_json_and_read_then_it_is_the_same() -> None:
    position = MsgPosition("channel", "123", 1 << 63)
    assert MsgPosition(**json.loads(json.dumps(position._asdict()))) == position
    assert MsgPosition("channel") == ("channel", "", 0)


def test_given_a_message_when_it_was_not_read_then_it_has_no_position_and_is_not_late() -> None:
    msg = TimeTickMsg(5)
    assert (msg.position, msg.late) == (None, False)


def test_given_a_message_when_it_was_read_then_its_position_is_a_seek_to_itself() -> None:
    msg = TimeTickMsg(5)
    msg.read_at("channel", "77")
    assert msg.position == MsgPosition("channel", "77", 0)


def test_given_a_pack_when_some_messages_are_late_then_they_are_counted() -> None:
    pack = MsgPack(msgs=[TimeTickMsg(1), TimeTickMsg(2), TimeTickMsg(3)])
    assert pack.late_count == 0
    pack.msgs[0].late = pack.msgs[2].late = True
    assert pack.late_count == 2


def test_given_a_type_of_ones_own_when_it_has_no_codec_then_that_is_said() -> None:
    class Own(TsMsg):
        type = 7

    own = Own(1, 2, 3, [4])
    with pytest.raises(NotImplementedError, match="Own has no marshal"):
        own.marshal()
    with pytest.raises(NotImplementedError, match="Own has no unmarshal"):
        Own.unmarshal(b"")
    assert repr(own) == "Own(id=1, begin_ts=2, end_ts=3)"


@pytest.mark.parametrize("ts", [-1, 1 << 64, 1.0, "1", None, True])
def test_given_what_is_no_timestamp_when_set_then_it_is_refused_and_nothing_is_changed(ts: int) -> None:
    msg = InsertMsg(1, [5, 6], [1, 2], [b"", b""], [1, 2])
    with pytest.raises(InvalidRequest, match="ts"):
        msg.set_ts(ts)
    assert (msg.begin_ts, msg.end_ts, msg.timestamps) == (5, 6, [5, 6])
