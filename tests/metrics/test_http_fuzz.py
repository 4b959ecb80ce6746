"""Any bytes, in any pieces, lead to an answer or to the end of the connection, and to nothing else."""

from http import HTTPStatus

import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from .http_support import LINES, answer_of, cut, exchanged, get

MALFORMED = {400, 413, 431, 501, 505}
METHODS = ["GET", "GET", "GET", "HEAD", "HEAD", "POST", "OPTIONS", "CONNECT", "PRI", "get", "G T", ""]
TARGETS = [
    "/shown",
    "/shown",
    "/",
    "/lines",
    "/nothing",
    "*",
    "//",
    "/?a=b",
    "/shown?a=%ff",
    "http://a/",
    "http:",
    "/" + "x" * 9_000,
    "\u00e4",
    "",
]
VERSIONS = ["HTTP/1.1", "HTTP/1.1", "HTTP/1.1", "HTTP/1.0", "HTTP/2.0", "HTTP/0.9", "HTTP/1.1 ", "http/1.1", ""]
HEADERS = [
    b"Host: localhost",
    b"Host:",
    b"Accept: text/plain;q=0.5, */*",
    b"Content-Length: 0",
    b"Content-Length: 7",
    b"Content-Length: x",
    b"Transfer-Encoding: chunked",
    b"Transfer-Encoding: gzip, chunked",
    b"Connection: close, keep-alive, upgrade",
    b"Upgrade: h2c",
    b"Expect: 100-continue",
    b" folded",
    b"a: " + b" " * 300,
    b"a:b\x00",
    b": empty",
    b"x" * 5_000,
]
ENDS = st.sampled_from([b"\r\n", b"\n", b"\r", b"\r\r\n"])


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """Nearly a request."""
    first = " ".join(draw(st.tuples(st.sampled_from(METHODS), st.sampled_from(TARGETS), st.sampled_from(VERSIONS))))
    headers = draw(st.lists(st.sampled_from(HEADERS) | st.binary(max_size=20), max_size=6))
    usual = draw(st.sampled_from([b"\r\n"] * 4 + [b"\n"]))
    data = first.encode()
    for line in [b"Host: localhost", *headers, b"", b""][draw(st.sampled_from([0, 0, 0, 1])) :]:
        data += (draw(ENDS) if draw(st.integers(0, 19)) == 0 else usual) + line
    return data + draw(st.sampled_from([b"", b"", b"tail", get("/lines"), b"\x00" * 100]))


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A request with a few bytes changed."""
    data = bytearray(get(draw(st.sampled_from(["/", "/shown?channel=a", "/lines"])), "Accept: */*"))
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, len(data) - 1))
        data[place : place + draw(st.integers(0, 2))] = draw(st.binary(max_size=2))
    return bytes(data)


ANYTHING = st.binary(max_size=300) | requests() | damaged()
CUTS = st.lists(st.integers(0, 10_000), max_size=20)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=ANYTHING, cuts=CUTS)
def test_given_any_bytes_when_they_come_in_any_pieces_then_one_answer_or_none_and_the_pieces_do_not_matter(
    data: bytes, cuts: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    async def both() -> tuple[bytes, bytes]:
        return (await exchanged(data)).received, (await exchanged(*cut(data, cuts))).received

    caplog.clear()
    whole, pieces = trio.run(both)
    statuses: list[int | None] = []
    for received in (whole, pieces):
        if not received:
            statuses.append(None)
            continue
        method = "HEAD" if data.startswith(b"HEAD ") and received.endswith(b"\r\n\r\n") else "GET"
        answer = answer_of(received, method)
        statuses.append(answer.status)
        if answer.status in MALFORMED and method == "GET":
            assert answer.body.startswith(b"%d %s: " % (answer.status, HTTPStatus(answer.status).phrase.encode()))
        elif answer.status == 200 and data.startswith(b"GET /lines "):
            assert answer.body == b"".join(LINES)
    before, after = statuses
    assert before == after or {before, after} <= {400, 431}, "which of two faults is met first may depend on them"
    assert not caplog.records
