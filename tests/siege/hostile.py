"""A server that is no broker, or a wicked one, against our own blocking client.

Whatever it says, the call ends with an error of ours by its deadline, and the client's process has not grown by more than
the frames that it would take of a broker.
"""

import contextlib
import gc
import os
import secrets
import ssl
import struct
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import NamedTuple

from rocksmq.clients import Client, RocksMQError
from rocksmq.clients.connection import FRAME_BYTES_MAX
from tests.helpers.certificates import Certificates
from tests.helpers.fake_server import LIMITS, PING_FRAME, FakeServer, Peer

from .bombs import SHAPES
from .load import Load, Orders
from .memory import Memory, forget_peak
from .result import MIB, Check, Result

CALL_SECONDS, SHORT_CALL_SECONDS = 3.0, 0.5
LATE_SECONDS_MAX = 0.5  # past the deadline
PATIENCE_SECONDS = 120.0  # for all of them
DRIP_SECONDS = 0.01
# That the client may grow by: a frame, a copy of it, and its texts, of each byte of which Python may make four.
FRAMES_MAX = 6.5
PIECE = 1 << 20
UNBOUNDED = {**LIMITS, "frame_bytes_max": 1 << 60}
HTTP_ANSWER = b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/html\r\nContent-Length: 1000000000\r\n\r\n" + b"<html>" * 1_000


class Case(NamedTuple):
    """What a server does; ``frame_bytes`` that it says a frame may have."""

    answer: Callable[[Peer], None]
    frame_bytes: int = LIMITS["frame_bytes_max"]


class Outcome(NamedTuple):
    """What the client's call did. ``error`` is the name of its class; empty: it raised nothing."""

    error: str
    is_ours: bool
    seconds: float
    grown_bytes: int


def forever(peer: Peer, begin: bytes, piece: Callable[[], bytes], pause_s: float = 0.0) -> None:
    """``begin``, then piece by piece until the client goes."""
    peer.socket.sendall(begin)
    while True:
        peer.socket.sendall(piece())
        time.sleep(pause_s)


def silent(peer: Peer) -> None:
    """Read all, and say nothing."""
    while peer.socket.recv(PIECE):
        pass


def greeted(then: Callable[[Peer], None]) -> Callable[[Peer], None]:
    """Answer HELLO as a broker would, wait for the request, and do ``then``."""

    def answer(peer: Peer) -> None:
        peer.greet()
        peer.receive()
        then(peer)

    return answer


def huge(peer: Peer) -> None:
    """A frame of 4 GiB, all of which comes."""
    forever(peer, b"\xff\xff\xff\xff", lambda: bytes(PIECE))


def garbage(peer: Peer) -> None:
    forever(peer, b"", lambda: secrets.token_bytes(PIECE))


def http(peer: Peer) -> None:
    """A web server that refuses, at length."""
    forever(peer, HTTP_ANSWER, lambda: b"<p>" * 10_000)


def dripped_pings(peer: Peer) -> None:
    """Never a word about the request."""
    forever(peer, b"", lambda: PING_FRAME, DRIP_SECONDS)


def flood_of_pings(peer: Peer) -> None:
    """As fast as the client takes them."""
    forever(peer, b"", lambda: PING_FRAME * 10_000)


def dripped_reply(peer: Peer) -> None:
    """A reply whose bytes never end to come, one by one."""
    forever(peer, struct.pack(">I", PIECE), lambda: b"\x00", DRIP_SECONDS)


def exploding(shape: str) -> Callable[[Peer], None]:
    """A frame as large as allowed, and no larger than what it is made of."""

    def answer(peer: Peer) -> None:
        body = SHAPES[shape](LIMITS["frame_bytes_max"] - 16)
        peer.socket.sendall(struct.pack(">I", len(body)) + body)
        silent(peer)

    return answer


def without_bound(peer: Peer) -> None:
    """One that says frames may have any size, and sends one of more than any broker may allow."""
    peer.greet(UNBOUNDED)
    peer.receive()
    forever(peer, struct.pack(">I", FRAME_BYTES_MAX + 1), lambda: bytes(PIECE))


def https(certificates: Certificates) -> Callable[[Peer], None]:
    """A server of TLS, as a web server is."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificates.server_certificate, certificates.server_key)

    def answer(peer: Peer) -> None:
        with context.wrap_socket(peer.socket, server_side=True) as sock:
            sock.recv(PIECE)

    return answer


def cases(certificates: Certificates) -> dict[str, Case]:
    """All of them."""
    return {
        "never answers": Case(silent),
        "never answers a request": Case(greeted(silent)),
        "huge length": Case(huge),
        "huge length of a reply": Case(greeted(huge)),
        "garbage": Case(garbage),
        "garbage for a reply": Case(greeted(garbage)),
        "https": Case(https(certificates)),
        "http": Case(http),
        "drip of pings": Case(greeted(dripped_pings)),
        "flood of pings": Case(greeted(flood_of_pings)),
        "drip of a reply": Case(greeted(dripped_reply)),
        "no bound of frames": Case(without_bound, FRAME_BYTES_MAX),
        **{f"bomb: {shape}": Case(greeted(exploding(shape))) for shape in SHAPES},
    }


async def calls(orders: Orders, urls: dict[str, str], seconds: float) -> dict[str, Outcome]:
    """A call to each of the servers, in a process in which nothing else grows."""
    orders.is_ready()
    before = Memory.of(os.getpid())
    return {name: called(url, seconds, before) for name, url in urls.items()}


def called(url: str, seconds: float, before: Memory) -> Outcome:
    """The outcome of one call; memory is held against ``before``."""
    gc.collect()  # errors hold on to the frames of the call before
    forget_peak(os.getpid())
    begin = time.monotonic()
    raised: Exception | None = None
    try:
        with Client(url, timeout=seconds) as mq:
            begin = time.monotonic()  # the call has a deadline of its own
            mq.describe_channel("orders")
    except Exception as error:
        raised = error
    took = time.monotonic() - begin
    grown = Memory.of(os.getpid()).peak_bytes - before.resident_bytes
    return Outcome(type(raised).__name__ if raised else "", isinstance(raised, RocksMQError), took, grown)


@contextlib.contextmanager
def served(answers: dict[str, Case]) -> Generator[dict[str, str]]:
    """A server for each of them; their URLs."""
    with contextlib.ExitStack() as stack:
        yield {name: stack.enter_context(FakeServer(case.answer)).url for name, case in answers.items()}


def run(place: Path, *, is_short: bool) -> Result:
    """All of them, one after the other, from one client process."""
    seconds = SHORT_CALL_SECONDS if is_short else CALL_SECONDS
    answers = cases(Certificates.make(place / "certificates"))
    with served(answers) as urls, Load(calls, urls, seconds) as load:
        outcomes = load.told(PATIENCE_SECONDS)
    frames = {name: outcome.grown_bytes / answers[name].frame_bytes for name, outcome in outcomes.items()}
    worst = max(frames, key=lambda name: frames[name])
    latest = max(outcomes, key=lambda name: outcomes[name].seconds)
    errors = [outcome.error for outcome in outcomes.values()]
    return Result(
        "hostile",
        {"servers": len(answers), "deadline s": seconds},
        {error: errors.count(error) for error in sorted(set(errors))},
        {
            f"MiB grown, the most, by {worst}": outcomes[worst].grown_bytes / MIB,
            f"the latest s, {latest}": outcomes[latest].seconds,
        },
        (
            Check("calls without an error of ours", sum(not outcome.is_ours for outcome in outcomes.values()), 0),
            Check("frames grown at most", frames[worst], FRAMES_MAX),
            Check("s past the deadline", outcomes[latest].seconds - seconds, LATE_SECONDS_MAX, is_timing=True),
        ),
    )
