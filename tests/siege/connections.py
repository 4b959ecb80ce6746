"""10,000 clients that are logged in and do nothing but answer pings; and what one of TLS takes."""

import ssl
from pathlib import Path
from typing import cast

import trio

from rocksmq.clients.testing import Broker
from rocksmq.protocol.codec import NO_CORRELATION
from rocksmq.protocol.operations import Empty
from tests.helpers.certificates import Certificates
from tests.helpers.raw import hello
from tests.helpers.raw_trio import RawTrio

from .honest import Honest, Pair
from .load import Counts, Load, Orders, raise_file_limit
from .memory import Memory
from .result import Check, Result
from .wire import connected, source_of

CONNECTIONS, SHORT_CONNECTIONS = 10_000, 500
TLS_CONNECTIONS, SHORT_TLS_CONNECTIONS = 500, 50
AT_ONCE = 50  # handshakes, of the 64 that one address may have
SECONDS, SHORT_SECONDS = 40.0, 2.0  # beside them: longer than a broker waits before it pings who is silent
ROUNDS, SHORT_ROUNDS = 2, 1
P99_RATIO_MAX = 2.0
ROOM = {"ROCKSMQ_LIMITS_CONNECTIONS_MAX": "12000"}


async def idle(orders: Orders, address: str, count: int, authority: Path | None) -> Counts:
    """``count`` connections that were greeted, by TLS if there is an ``authority``. Raises when one of them ends."""
    counts = {"pings": 0, "connections": 0}
    turns = trio.CapacityLimiter(AT_ONCE)
    context = None if authority is None else ssl.create_default_context(cafile=str(authority))
    greeted = trio.Event()

    async def one() -> None:
        async with turns:
            stream: trio.abc.Stream = await connected(address, source_of(0))
            if context is not None:
                stream = trio.SSLStream(stream, context, server_hostname="127.0.0.1", https_compatible=True)
            raw = RawTrio(cast(trio.SocketStream, stream))  # of which it asks what every stream can do
            await raw.call(hello())
        counts["connections"] += 1
        if counts["connections"] == count:
            greeted.set()
        async with stream:
            while True:
                if (await raw.receive())[0] == NO_CORRELATION:  # else it answers a ping of ours
                    counts["pings"] += 1
                    await raw.send(Empty())

    async with trio.open_nursery() as nursery:
        for _ in range(count):
            nursery.start_soon(one)
        await greeted.wait()
        orders.is_ready()
        await orders.ended()
        nursery.cancel_scope.cancel()
    return counts


def tls_bytes(place: Path, count: int) -> float:
    """What one connection of TLS takes in a broker."""
    certificates = Certificates.make(place / "certificates")
    tls = ("--tls-cert", str(certificates.server_certificate), "--tls-key", str(certificates.server_key))
    with Broker(place / "tls", *tls) as broker:
        before = Memory.of(broker.pid)
        with Load(idle, broker.address, count, certificates.authority):
            return (Memory.of(broker.pid).anon_bytes - before.anon_bytes) / count


def run(place: Path, *, is_short: bool) -> Result:
    """Alone and beside them, in turns."""
    raise_file_limit()
    count, tls_count = (SHORT_CONNECTIONS, SHORT_TLS_CONNECTIONS) if is_short else (CONNECTIONS, TLS_CONNECTIONS)
    seconds, rounds = (SHORT_SECONDS, SHORT_ROUNDS) if is_short else (SECONDS, ROUNDS)
    pair, pings, memories = Pair.new(), 0, list[float]()
    with Broker(place / "data", environment=ROOM) as broker, Honest(broker) as honest:
        for _ in range(rounds):
            pair.alone.extend(honest.seconds_of_sends(seconds))
            before = Memory.of(broker.pid).anon_bytes
            with Load(idle, broker.address, count, None) as load:
                pair.beside.extend(honest.seconds_of_sends(seconds))
                memories.append((Memory.of(broker.pid).anon_bytes - before) / count)
                pings += load.end()["pings"]
        missing = honest.missing()
    return Result(
        "connections",
        {"connections": count, "tls connections": tls_count, "seconds": seconds, "rounds": rounds},
        {"pings answered": pings, "sends": honest.sent},
        {
            "kB a connection": memories[0] / 1e3,
            "kB a connection of TLS": tls_bytes(place, tls_count) / 1e3,
            **pair.measured(),
        },
        (
            Check("p99 beside / alone", pair.ratio, P99_RATIO_MAX, is_timing=True),
            Check("messages missing", missing, 0),
        ),
    )
