"""Every operation, asked for with every kind of token, on a channel that it is meant for and on another."""

import secrets
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import trio

from rocksmq.broker.auth import ALL, Authority, Patterns, Token, digest_of
from rocksmq.broker.limits import Limits
from rocksmq.protocol.administration import BackupBegin, BackupEnd, ConfirmClock, SetChannel, Status
from rocksmq.protocol.columns import pack_numbers
from rocksmq.protocol.errors import ErrorCode
from rocksmq.protocol.identity import Identity
from rocksmq.protocol.messages import pack_messages
from rocksmq.protocol.operations import (
    HELLO,
    OP_OF_REQUEST,
    OPS,
    PING,
    Commit,
    CommitMany,
    Consume,
    CreateChannel,
    CreateChannels,
    CreateGroup,
    DescribeChannel,
    DescribeChannels,
    DescribeGroup,
    DestroyChannel,
    DestroyChannels,
    DestroyGroup,
    Fetch,
    FetchMany,
    ListChannels,
    ListGroups,
    OpenProducer,
    Position,
    Produce,
    ReleaseConsumer,
    Seek,
    SeekMany,
    Subscribe,
    Unsubscribe,
)
from rocksmq.protocol.permissions import Permission, Scope
from tests.helpers.raw import hello
from tests.helpers.raw_trio import RawTrio, run, served

NOW = 1_700_000_000
MINE, OTHER = "mine.1", "other"
DENIED = ErrorCode.PERMISSION_DENIED
FEW = Patterns.of(["mine.*"])

# What each right is good for, on a channel; written down once more, by hand, for the table of operations to be held against.
PRODUCING = {"PRODUCE", "OPEN_PRODUCER"}
DESCRIBING = {"DESCRIBE_CHANNEL", "DESCRIBE_CHANNELS", "LIST_GROUPS", "DESCRIBE_GROUP"}
CONSUMING = {
    *("CREATE_GROUP", "DESTROY_GROUP", "CONSUME", "FETCH", "COMMIT", "SEEK", "RELEASE_CONSUMER"),
    *("SUBSCRIBE", "SEEK_MANY", "FETCH_MANY", "COMMIT_MANY", "UNSUBSCRIBE"),
}
ADMINISTERING = {"CREATE_CHANNEL", "DESTROY_CHANNEL", "SET_CHANNEL", "CREATE_CHANNELS", "DESTROY_CHANNELS"}
SEEING_ALL = {"STATUS"}
ADMINISTERING_ALL = {"CONFIRM_CLOCK", "BACKUP_BEGIN", "BACKUP_END"}
FREE = {"HELLO", "PING", "LIST_CHANNELS"}


class Role(NamedTuple):
    """A token, and the operations that it permits on the channels that it is meant for; ``everywhere``: and on the others."""

    token: Token
    may: set[str]
    everywhere: bool = False


def role(name: str, may: set[str], *, everywhere: bool = False, **granted: Patterns) -> Role:
    return Role(Token(name, digest_of(name), NOW, None, **granted), may, everywhere)


EVERYTHING = PRODUCING | DESCRIBING | CONSUMING | ADMINISTERING | SEEING_ALL | ADMINISTERING_ALL
ROLES = [
    role("nothing", set()),
    role("produce", PRODUCING | DESCRIBING, produce=FEW),
    role("consume", CONSUMING | DESCRIBING, consume=FEW),
    role("admin", ADMINISTERING | DESCRIBING, admin=FEW),
    role("few", PRODUCING | CONSUMING | ADMINISTERING | DESCRIBING, produce=FEW, consume=FEW, admin=FEW),
    role("produce-all", PRODUCING | DESCRIBING | SEEING_ALL, everywhere=True, produce=ALL),
    role("consume-all", CONSUMING | DESCRIBING | SEEING_ALL, everywhere=True, consume=ALL),
    role("admin-all", ADMINISTERING | ADMINISTERING_ALL | DESCRIBING | SEEING_ALL, everywhere=True, admin=ALL),
    role("all", EVERYTHING, everywhere=True, produce=ALL, consume=ALL, admin=ALL),
]


def requests(channel: str, number: int) -> list[Any]:
    """One of each operation that is about ``channel``; none does harm that another would notice, or it comes last."""
    this, request_id, group = pack_numbers([number]), secrets.token_bytes(16), "g"
    one, consumer = pack_numbers([1]), Identity.new(1 << 60).id
    lengths = bytes(4)
    return [
        CreateChannel(channel, None, None, None, request_id),
        SetChannel(channel, None),
        CreateGroup(channel, group, Position.EARLIEST, 0, request_id),
        ListGroups(channel, ""),
        DescribeChannel(channel),
        DescribeChannels([channel]),
        DescribeGroup(channel, group),
        Produce(channel, consumer, 0, *pack_messages([b"x"])),
        OpenProducer(channel, "p", consumer),
        Consume(channel, group, consumer, 0, 1, 1, 0),
        ReleaseConsumer(channel, group, consumer, 0, 0, 0),
        Fetch(channel, Position.EARLIEST, 0, 1, 1, 0),
        Commit(channel, group, 1, None, b""),
        Seek(channel, group, Position.EARLIEST, 0, request_id),
        Subscribe(group, this, Position.EARLIEST, 0, request_id),
        SeekMany(group, this, None, None, None, None, request_id),
        FetchMany(pack_numbers([number, 1]), 1, 1, 0),
        CommitMany(group, this, one, one, lengths, b""),
        Unsubscribe(group, this, one),
        DestroyGroup(channel, group, 1),
        CreateChannels([channel, "", ""], 2, request_id),
        DestroyChannel(channel, 1),
        DestroyChannels([channel], one),
        Status(channel),
        ConfirmClock(),
        BackupBegin(request_id),
        BackupEnd(request_id),
    ]


def names(asked: list[Any]) -> list[str]:
    return [OP_OF_REQUEST[type(request)].name for request in asked]


def test_given_the_table_of_operations_then_each_is_tried_here() -> None:
    assert {*names(requests("a", 1)), *FREE} == {op.name for op in OPS.values()}
    assert len(requests("a", 1)) + len(FREE) == len(OPS)


@pytest.mark.parametrize("op", OPS.values(), ids=lambda op: op.name)
def test_given_an_operation_then_its_scope_is_the_field_that_names_its_channels(op: Any) -> None:
    named = [scope for scope in (Scope.CHANNELS, Scope.CHANNEL, Scope.NUMBERS, Scope.STARTS) if scope in op.request._fields]
    if named and op.request is not Status:  # which tells of the whole broker, whichever channel it dwells on
        assert op.scope is named[0]
    else:
        assert op.scope in (Scope.NONE, Scope.LISTED, Scope.MADE, Scope.ALL)
    assert (op.permission is Permission.CONNECT) is (op.scope is Scope.NONE) is (op in (HELLO, PING))


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.token.name)
def test_given_a_token_when_each_operation_is_asked_for_then_it_is_denied_but_where_the_token_permits_it(
    role: Role, tmp_path: Path
) -> None:
    async def test() -> None:
        maker = ROLES[-1].token
        async with served(tmp_path, Limits(), Authority([role.token, *({maker} - {role.token})])) as (engine, _, port):
            async with RawTrio.connected(port, hello(token=maker.name)) as raw:
                for name in (MINE, OTHER):
                    await raw.call(CreateChannel(name, None, None, None, secrets.token_bytes(16)))
            numbers = {name: engine.core.channels.find(name).number for name in (MINE, OTHER)}
            async with RawTrio.connected(port, hello(token=role.token.name)) as raw:
                for channel in (MINE, OTHER):
                    permitted = role.may if channel == MINE or role.everywhere else set[str]()
                    for request in requests(channel, numbers[channel]):
                        op = OP_OF_REQUEST[type(request)]
                        items = await raw.call(request)
                        assert (items[1] == DENIED) is (op.name not in permitted), (op.name, channel, items)
                        if items[1] == DENIED:
                            assert role.token.name in items[2]
            left = {channel.name for channel in engine.core.channels}
            assert {MINE, OTHER} <= left  # the numbers by which they were to be destroyed are no channel's
            assert engine.core.channels.find(OTHER).groups == {} or role.everywhere

    run(test)


def test_given_tokens_when_channels_are_listed_then_each_sees_those_on_which_it_has_a_right(tmp_path: Path) -> None:
    one, none = (
        Token("one", digest_of("one"), NOW, None, produce=Patterns.of(["z*", "a3"])),
        Token("none", digest_of("none"), NOW, None),
    )
    everything = ROLES[-1].token
    channels = [f"a{number}" for number in range(10)] + [f"z{number}" for number in range(3)]

    async def listed(port: int, token: Token, prefix: str = "") -> list[str]:
        found, more, after = list[str](), True, ""
        async with RawTrio.connected(port, hello(token=token.name)) as raw:
            while more:
                page, more = (await raw.call(ListChannels(prefix, after)))[2:]
                assert page or not more  # or a client would not know where to go on
                assert len(page) <= 2
                found += page
                after = page[-1] if page else ""
        return found

    async def test() -> None:
        limits = Limits(page_names_max=2)
        async with served(tmp_path, limits, Authority([one, none, everything])) as (_, _, port):
            async with RawTrio.connected(port, hello(token="all")) as raw:
                for name in channels:
                    await raw.call(CreateChannel(name, None, None, None, secrets.token_bytes(16)))
            assert await listed(port, everything) == channels
            assert await listed(port, one) == ["a3", "z0", "z1", "z2"]
            assert await listed(port, one, "z") == ["z0", "z1", "z2"]
            assert await listed(port, none) == []

    run(test)


@pytest.mark.parametrize("secret", [None, "", "nobody", "MINE"])
def test_given_no_good_token_when_a_client_says_hello_then_it_is_told_so_no_sooner_than_a_tenth_of_a_second_and_put_out(
    secret: str | None, tmp_path: Path
) -> None:
    async def test() -> None:
        authority = Authority([Token("mine", digest_of("mine"), NOW, None)])
        async with served(tmp_path, Limits(), authority) as (_, server, port):
            async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
                raw = RawTrio(stream)
                began = trio.current_time()
                items = await raw.call(hello(token=secret))
                assert items[1] == ErrorCode.UNAUTHENTICATED
                assert items[2] == "the token is missing, unknown or expired: get one from whoever runs the broker"
                assert trio.current_time() - began >= 0.1
                await raw.closed()
            async with RawTrio.connected(port, hello(token="mine")):
                assert server.connection_count == 1

    run(test)


def test_given_a_connection_when_its_token_is_changed_or_expires_then_it_is_ended_and_no_other_is(
    tmp_path: Path,
) -> None:
    first, second = (Token(name, digest_of(name), NOW, None, produce=ALL) for name in ("first", "second"))

    async def test() -> None:
        authority = Authority([first, second])
        async with (
            served(tmp_path, Limits(), authority) as (_, _, port),
            RawTrio.connected(port, hello(token="first")) as revoked,
            RawTrio.connected(port, hello(token="second")) as kept,
        ):
            authority.replace([second])
            items = await revoked.receive()
            assert items[:2] == [0, ErrorCode.UNAUTHENTICATED]
            await revoked.closed()
            assert (await kept.call(ListChannels("", "")))[1] == 0
            authority.replace([second._replace(expires=NOW)])
            assert (await kept.receive())[:2] == [0, ErrorCode.UNAUTHENTICATED]
            await kept.closed()

    run(test)


def test_given_no_good_token_when_it_names_the_id_of_a_client_then_that_client_is_not_replaced(tmp_path: Path) -> None:
    client_id = secrets.token_bytes(16)

    async def test() -> None:
        authority = Authority([ROLES[-1].token])
        async with (
            served(tmp_path, Limits(), authority) as (_, _, port),
            RawTrio.connected(port, hello(client_id, token="all")) as mine,
        ):
            async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
                raw = RawTrio(stream)
                assert (await raw.call(hello(client_id, token="guess")))[1] == ErrorCode.UNAUTHENTICATED
            assert (await mine.call(ListChannels("", "")))[1] == 0

    run(test)
