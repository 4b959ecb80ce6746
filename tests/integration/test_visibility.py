"""What is shown is durable: a request beside one that is not yet written does not see its effect."""

import secrets

from rocksmq.clients.testing import Broker
from rocksmq.protocol.identity import Identity
from rocksmq.protocol.messages import pack_messages
from rocksmq.protocol.operations import (
    Consume,
    CreateChannel,
    CreateGroup,
    DescribeChannel,
    DescribeGroup,
    Fetch,
    Position,
    Produce,
    Seek,
)
from tests.helpers.raw import Raw, frame, request_items, response

CHANNEL, GROUP = "orders", "billing"


def prepared(raw: Raw) -> int:
    """A channel, a group and three messages; the first id."""
    raw.call(CreateChannel(CHANNEL, None, None, None, secrets.token_bytes(16)))
    raw.call(CreateGroup(CHANNEL, GROUP, Position.EARLIEST, 0, secrets.token_bytes(16)))
    batch = pack_messages([b"one", b"two", b"three"])
    first_id: int = raw.call(Produce(CHANNEL, Identity.new(raw.server.present_id).id, 0, *batch)).first_id
    return first_id


def order(raw: Raw, *requests: object) -> list[tuple[int, list[object]]]:
    """Send all at once; the replies as they come: index of the request, array."""
    raw.socket.sendall(b"".join(frame(request_items(1_000 + index, request)) for index, request in enumerate(requests)))
    replies = [raw.receive() for _ in requests]
    return [(items[0] - 1_000, items) for items in replies]


def test_given_a_consume_when_the_group_is_described_beside_it_then_no_position_is_shown_before_it_is_durable(
    broker: Broker,
) -> None:
    with Raw(broker.address) as raw:
        first_id = prepared(raw)
        consumer = Identity.new(raw.server.present_id).id
        replies = order(raw, Consume(CHANNEL, GROUP, consumer, 0, 2, 1 << 20, 0), DescribeGroup(CHANNEL, GROUP))
        described = next(response(DescribeGroup, items) for index, items in replies if index == 1)
        if described.position > first_id:
            assert replies[0][0] == 0, "a position was shown before the consume that moves it was durable"


def test_given_a_seek_when_the_group_is_described_beside_it_then_no_position_is_shown_before_it_is_durable(
    broker: Broker,
) -> None:
    with Raw(broker.address) as raw:
        first_id = prepared(raw)
        seek = Seek(CHANNEL, GROUP, Position.LATEST, 0, secrets.token_bytes(16))
        replies = order(raw, seek, DescribeGroup(CHANNEL, GROUP))
        described = next(response(DescribeGroup, items) for index, items in replies if index == 1)
        if described.position > first_id:
            assert replies[0][0] == 0, "a position was shown before the seek that moves it was durable"


def test_given_a_produce_when_the_channel_is_read_beside_it_then_nothing_is_shown_before_it_is_durable(
    broker: Broker,
) -> None:
    with Raw(broker.address) as raw:
        prepared(raw)
        produce = Produce(CHANNEL, Identity.new(raw.server.present_id).id, 0, *pack_messages([b"four"]))
        fetch = Fetch(CHANNEL, Position.EARLIEST, 0, 10, 1 << 20, 0)
        replies = order(raw, produce, DescribeChannel(CHANNEL), fetch)
        places = {index: place for place, (index, _) in enumerate(replies)}
        described = response(DescribeChannel, replies[places[1]][1])
        fetched = response(Fetch, replies[places[2]][1])
        assert described.message_count == 3 or places[1] > places[0]
        assert fetched.message_count == 3 or places[2] > places[0]


def test_given_a_channel_being_made_when_used_beside_it_then_nothing_is_answered_before_it_is_durable(
    broker: Broker,
) -> None:
    with Raw(broker.address) as raw:
        create = CreateChannel(CHANNEL, None, None, None, secrets.token_bytes(16))
        replies = order(raw, create, DescribeChannel(CHANNEL))
        assert [index for index, _ in replies] == [0, 1], "a channel was shown before its creation was durable"
