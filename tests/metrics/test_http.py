"""One request and its answer, without a socket: what is answered, what is refused, and how long anything may take."""

import logging
import time
from collections import Counter
from collections.abc import Iterator

import h11
import pytest
import trio
from trio.testing import lockstep_stream_pair, memory_stream_pair

from rocksmq.metrics.http import (
    LINES_MAX,
    LINGER_READS,
    LINGER_SECONDS,
    SLICE_BYTES,
    TEXT,
    Exchange,
    HttpLimits,
    Request,
    Response,
    Route,
)

from .http_support import LIMITS, LINES, ROUTES, Answer, Pieces, answer_of, answered, cut, exchanged, get, in_mock_time

TLS_CLIENT_HELLO = bytes.fromhex("16030100c8010000c40303") + bytes(194)
HTTP_2 = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes.fromhex("000000040000000000")
REFUSED: dict[str, tuple[int, bytes]] = {
    "another method": (405, get("/", method="DELETE")),
    "POST with a body": (405, get("/", "Content-Length: 3", method="POST") + b"abc"),
    "OPTIONS": (405, get("*", method="OPTIONS")),
    "CONNECT": (405, get("localhost:1", method="CONNECT")),
    "a method in small letters": (405, get("/", method="get")),
    "a body": (413, get("/", "Content-Length: 3") + b"abc"),
    "a body to come": (413, get("/", "Content-Length: 100000000")),
    "a chunked body": (413, get("/", "Transfer-Encoding: chunked") + b"0\r\n\r\n"),
    "a body that is waited for": (413, get("/", "Content-Length: 3", "Expect: 100-continue")),
    "two lengths": (400, get("/", "Content-Length: 0", "Content-Length: 1")),
    "a negative length": (400, get("/", "Content-Length: -1")),
    "another encoding": (501, get("/", "Transfer-Encoding: gzip")),
    "no such path": (404, get("/nothing")),
    "a path that goes up": (404, get("/../etc/passwd")),
    "another case": (404, get("/LINES")),
    "neither a path nor a URL": (400, get("lines")),
    "another scheme": (400, get("ftp://localhost/")),
    "a query that is not UTF-8": (400, get("/shown?channel=%ff")),
    "a query of very many fields": (400, get("/shown?" + "a&" * 2_000)),
    "no host": (400, b"GET / HTTP/1.1\r\n\r\n"),
    "two hosts": (400, get("/", "Host: other")),
    "HTTP/0.9": (400, b"GET /\r\n\r\n"),
    "HTTP/1.2": (505, get("/", version="1.2")),
    "HTTP/2": (505, HTTP_2),
    "TLS": (400, TLS_CLIENT_HELLO),
    "a NUL": (400, b"GET / HTTP/1.1\r\nHost: a\x00b\r\n\r\n"),
    "a lone CR": (400, b"GET / HTTP/1.1\r\nHost: a\rb\r\n\r\n"),
    "no colon": (400, get("/", "nonsense")),
    "a space before the colon": (400, get("/", "Accept : x")),
    "a continuation at once": (400, b"GET / HTTP/1.1\r\n Host: a\r\n\r\n"),
    "an empty line first": (400, b"\r\n" + get("/")),
    "only an empty line": (400, b"\r\n\r\n"),
    "one long line": (431, b"x" * 10_000),
    "a long path": (431, get("/" + "x" * 8_192)),
    "many lines": (431, get("/", *["a: b"] * LINES_MAX)),
}


# -- answers -----------------------------------------------------------------------------


@in_mock_time
async def test_given_a_path_when_asked_then_its_answer_comes_whole_and_the_connection_ends() -> None:
    client = await exchanged(get("/"))
    answer = answer_of(client.received)
    assert (answer.status, answer.body) == (200, b"hello\n")
    date = answer.headers.pop("date")
    assert date.endswith(" GMT")
    assert answer.headers == {
        "content-type": TEXT,
        "content-length": "6",
        "cache-control": "no-store",
        "x-content-type-options": "nosniff",
        "connection": "close",
    }
    assert client.has_eof


@in_mock_time
async def test_given_an_iterator_when_asked_then_all_of_it_comes() -> None:
    answer = await answered(get("/lines"))
    assert answer.body == b"".join(LINES)
    assert answer.headers["transfer-encoding"] == "chunked"


@in_mock_time
async def test_given_http_1_0_when_asked_then_the_end_of_the_connection_ends_the_answer() -> None:
    client = await exchanged(b"GET /lines HTTP/1.0\r\n\r\n")
    head, _, body = client.received.partition(b"\r\n\r\n")
    assert b"chunked" not in head.lower()
    assert body == b"".join(LINES)


@pytest.mark.parametrize("path", ["/", "/lines", "/endless", "/nothing"])
@in_mock_time
async def test_given_head_when_asked_then_only_the_headers_come(path: str) -> None:
    answer = await answered(get(path, method="HEAD"), method="HEAD")
    assert answer.body == b""
    assert answer.status == (404 if path == "/nothing" else 200)
    assert ("content-length" in answer.headers) != ("transfer-encoding" in answer.headers)


@pytest.mark.parametrize(
    ("request_bytes", "seen"),
    [
        (get("/shown"), Request("/shown", {}, "")),
        (get("/shown?"), Request("/shown", {}, "")),
        (get("/shown?channel=a&channel=b&x"), Request("/shown", {"channel": ["a", "b"], "x": [""]}, "")),
        (get("/shown?channel=%C3%A4+b%26"), Request("/shown", {"channel": ["ä b&"]}, "")),
        (get("/shown?a=b?c=/d"), Request("/shown", {"a": ["b?c=/d"]}, "")),
        (get("/shown", "Accept: text/plain", "Accept: */*"), Request("/shown", {}, "text/plain, */*")),
        (get("/shown", "ACCEPT:\ttext/plain "), Request("/shown", {}, "text/plain")),
        (get("http://elsewhere:80/shown?a=b"), Request("/shown", {"a": ["b"]}, "")),
        (get("/shown").replace(b"\r\n", b"\n"), Request("/shown", {}, "")),
        (get("/shown", "Content-Length: 0"), Request("/shown", {}, "")),
        (get("/shown", "Upgrade: websocket", "Connection: upgrade"), Request("/shown", {}, "")),
    ],
)
@in_mock_time
async def test_given_a_request_when_asked_then_the_route_sees_path_query_and_accept(
    request_bytes: bytes, seen: Request
) -> None:
    assert (await answered(request_bytes)).body.decode() == repr(seen)


@in_mock_time
async def test_given_a_second_request_behind_it_when_asked_then_only_the_first_is_answered() -> None:
    assert (await answered(get("/") + get("/lines"))).body == b"hello\n"


@in_mock_time
async def test_given_a_client_that_sends_without_end_when_answered_then_it_is_not_read_for_ever() -> None:
    client = Pieces([get("/"), *[bytes(1_000)] * 100])
    assert await Exchange(client, ROUTES, LIMITS, trio.Lock()).run()
    assert answer_of(client.received).status == 200
    assert len(client.left) == 100 - LINGER_READS


# -- refusals ----------------------------------------------------------------------------


@pytest.mark.parametrize("case", REFUSED)
@in_mock_time
async def test_given_what_is_not_served_when_it_comes_in_any_pieces_then_it_is_refused_in_words(case: str) -> None:
    status, data = REFUSED[case]
    for pieces in ([data], cut(data, range(len(data)))):
        answer = await answered(*pieces)
        assert (answer.status, answer.headers["content-type"]) == (status, TEXT)
        assert answer.body.startswith(b"%d " % status)
        assert answer.body.endswith(b"\n")
        assert len(answer.body) < 200
        assert ("allow" in answer.headers) == (status == 405)


@pytest.mark.parametrize("length", [LIMITS.request_bytes_max, LIMITS.request_bytes_max + 1])
@in_mock_time
async def test_given_a_long_request_when_it_comes_in_any_pieces_then_exactly_so_many_bytes_are_taken(length: int) -> None:
    padding = length - len(get("/", "X: "))
    data = get("/", "X: " + "x" * padding)
    assert len(data) == length
    for pieces in ([data], cut(data, range(0, length, 7))):
        answer = await answered(*pieces)
        assert answer.status == (200 if length == LIMITS.request_bytes_max else 431)
        assert (b"request_bytes_max" in answer.body) == (answer.status == 431)


@in_mock_time
async def test_given_many_lines_when_asked_then_exactly_so_many_are_taken() -> None:
    assert (await answered(get("/", *["a: b"] * (LINES_MAX - 3)))).status == 200
    assert (await answered(get("/", *["a: b"] * (LINES_MAX - 2)))).status == 431


@pytest.mark.parametrize("end", [b"\x00", b"\x0b", b"\x0c", b"\x7f", b"\r"])
@in_mock_time
async def test_given_spaces_before_what_cannot_be_when_it_comes_then_nobody_looks_for_long(end: bytes) -> None:
    data = b"GET / HTTP/1.1\r\nHost: x\r\na: " + b" " * 8_000 + end + b"\r\n\r\n"
    begin = time.process_time()
    for _ in range(10):
        assert (await answered(data)).status == 400
        assert (await answered(*cut(data, [len(data) - 4, len(data) - 3]))).status == 400
    assert time.process_time() - begin < 1, "h11 alone takes 0.26 s for each"


@pytest.mark.parametrize("data", [b"", b"G", b"GET / HTTP/1.1\r\nHost: x\r\n"])
@in_mock_time
async def test_given_a_client_that_leaves_when_its_request_is_not_whole_then_nothing_is_answered(data: bytes) -> None:
    assert (await exchanged(data)).received == b""


# -- bugs of routes ----------------------------------------------------------------------


@in_mock_time
async def test_given_a_route_with_a_bug_when_asked_then_it_is_logged_and_answered_without_detail(
    caplog: pytest.LogCaptureFixture,
) -> None:
    answer = await answered(get("/raising?secret=1"))
    assert answer.status == 500
    assert b"no answer" not in answer.body
    (record,) = caplog.records
    assert (record.levelno, record.getMessage()) == (logging.ERROR, "a bug: no answer for /raising")
    assert record.exc_info


@in_mock_time
async def test_given_a_body_that_breaks_off_when_asked_then_the_client_can_tell(caplog: pytest.LogCaptureFixture) -> None:
    client, server = memory_stream_pair()
    await client.send_all(get("/broken"))
    assert not await Exchange(server, ROUTES, HttpLimits(slice_seconds=0), trio.Lock()).run()
    await server.aclose()
    data = b"".join([piece async for piece in client])
    with pytest.raises(h11.RemoteProtocolError, match="incomplete"):
        answer_of(data)
    assert "half-way" in caplog.text


# -- time --------------------------------------------------------------------------------


async def served(
    client_sends: bytes = b"", limits: HttpLimits = LIMITS, pause: float | None = None
) -> tuple[Answer | None, float]:
    """What a client gets that sends so much, a byte each ``pause``, and stays; and when its connection was over."""
    client, server = memory_stream_pair()
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def send() -> None:
            for byte in client_sends:
                await client.send_all(bytes([byte]))
                if pause is not None:
                    await trio.sleep(pause)

        begin = trio.current_time()
        assert await Exchange(server, ROUTES, limits, trio.Lock()).run()
        over = trio.current_time() - begin
        await server.aclose()
        nursery.cancel_scope.cancel()
    data = b"".join([piece async for piece in client])
    return answer_of(data) if data else None, over


@in_mock_time
async def test_given_a_client_that_says_nothing_when_5_s_have_passed_then_it_is_over() -> None:
    answer, over = await served()
    assert answer is None
    assert over == pytest.approx(LIMITS.request_seconds, abs=0.1)


@pytest.mark.parametrize("pause", [None, 0.9])
@in_mock_time
async def test_given_half_a_request_when_5_s_have_passed_then_it_is_told_so(pause: float | None) -> None:
    answer, over = await served(b"GET / HTTP/1.1\r\n", pause=pause)
    assert answer is not None
    assert answer.status == 408
    assert b"request_seconds" in answer.body
    assert over == pytest.approx(LIMITS.request_seconds + LINGER_SECONDS, abs=0.1)


@in_mock_time
async def test_given_an_answer_when_the_client_stays_then_it_is_over_soon_all_the_same() -> None:
    answer, over = await served(get("/"))
    assert answer is not None
    assert answer.status == 200
    assert over == pytest.approx(LINGER_SECONDS, abs=0.1)


@pytest.mark.parametrize(
    ("pause", "ends"), [(1000.0, LIMITS.stalled_seconds), (9.0, LIMITS.response_seconds)], ids=["not at all", "slowly"]
)
@in_mock_time
async def test_given_a_client_that_hardly_reads_when_its_time_is_up_then_it_is_cut_off(pause: float, ends: float) -> None:
    client, server = lockstep_stream_pair()
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def read() -> None:
            await client.send_all(get("/endless"))
            while True:
                await trio.sleep(pause)
                await client.receive_some(10 * SLICE_BYTES)

        assert not await Exchange(server, ROUTES, LIMITS, trio.Lock()).run()
        assert trio.current_time() == pytest.approx(ends, abs=0.1)
        nursery.cancel_scope.cancel()


@in_mock_time
async def test_given_a_client_that_is_gone_when_its_answer_is_sent_then_that_is_no_bug(
    caplog: pytest.LogCaptureFixture,
) -> None:
    client, server = memory_stream_pair()
    await client.send_all(get("/endless"))
    await client.aclose()
    assert not await Exchange(server, ROUTES, LIMITS, trio.Lock()).run()
    assert not caplog.records


@pytest.mark.parametrize(("slice_seconds", "slices"), [(0.0, [1] * 40), (1e9, [14, 14, 6 + 6])])
@in_mock_time
async def test_given_two_long_answers_when_they_are_made_then_in_turns_and_the_loop_is_left_to_others_after_each(
    slice_seconds: float, slices: list[int]
) -> None:
    made: list[float] = []

    def chunks() -> Iterator[bytes]:
        for _ in range(20):
            made.append(trio.current_time())
            yield bytes(5_000)

    routes: dict[str, Route] = {"/": lambda request: Response(200, TEXT, chunks())}
    limits = HttpLimits(slice_seconds=slice_seconds)
    turn = trio.Lock()
    async with trio.open_nursery() as nursery:
        for _ in range(2):
            nursery.start_soon(Exchange(Pieces([get("/")]), routes, limits, turn).run)
    assert list(Counter(made).values()) == slices
    assert made[-1] - made[0] == pytest.approx((len(slices) - 1) * limits.rest_seconds)


@in_mock_time
async def test_given_a_client_that_does_not_read_when_another_asks_then_it_does_not_wait() -> None:
    client, server = lockstep_stream_pair()
    turn = trio.Lock()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Exchange(server, ROUTES, LIMITS, turn).run)
        await client.send_all(get("/endless"))
        await trio.sleep(1)
        other = Pieces([get("/lines")])
        begin = trio.current_time()
        assert await Exchange(other, ROUTES, LIMITS, turn).run()
        assert trio.current_time() - begin < 0.5
        assert answer_of(other.received).body == b"".join(LINES)
        nursery.cancel_scope.cancel()


@in_mock_time
async def test_given_chunks_that_are_empty_when_sent_then_they_do_not_end_the_answer() -> None:
    client, server = memory_stream_pair()
    await client.send_all(get("/"))
    await client.send_eof()
    routes: dict[str, Route] = {"/": lambda request: Response(200, TEXT, iter([b"", b"a", b"", b"", b"b", b""]))}
    assert await Exchange(server, routes, HttpLimits(slice_seconds=0), trio.Lock()).run()
    await server.aclose()
    assert answer_of(b"".join([piece async for piece in client])).body == b"ab"
