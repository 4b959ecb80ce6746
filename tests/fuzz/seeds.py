"""What a fuzzer begins with: the golden vectors as each target reads them, and what earlier runs found worth keeping.

tests/fuzz/corpus/<target>/   one input a file, named by its SHA-1
"""

import json
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

from rocksmq.protocol.operations import OPS
from tests.protocol.make_vectors import VECTORS

from .targets import TARGETS

CORPUS = Path(__file__).parent / "corpus"
_BY_NAME = {op.name: place for place, (_, op) in enumerate(sorted(OPS.items()))}
_HTTP = (
    b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    b"HEAD /metrics?channel=a&channel=%62 HTTP/1.0\r\nAccept: text/plain;q=0.5\r\naccept: */*\r\n\r\n",
    b"GET http://host/metrics HTTP/1.1\r\nHost: [::1]:9\r\nContent-Length: 0\r\nConnection: keep-alive\r\n\r\nGET",
    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n0\r\n\r\n",
    b"GET / HTTP/2.0\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
)
_BATCHES = (
    b"\x02\x08\x05\xff\xff" + bytes((2, 0, 0, 0, 3, 0, 0, 0)) + b"hello",
    b"\x01\x04\x01\x04\x05" + bytes((1, 0, 0, 0)) + b"x" + bytes((5, 0, 0, 0)) + b"\xa1\x61k\x41v",
)


@cache
def _vectors() -> list[dict[str, Any]]:
    return [vector for file in sorted(VECTORS.glob("*.json")) for vector in json.loads(file.read_text())]


def _bodies(*kinds: str) -> Iterator[bytes]:
    return (bytes.fromhex(vector["hex"])[4:] for vector in _vectors() if vector["kind"] in kinds)


def _frames() -> Iterator[bytes]:
    whole = [bytes.fromhex(vector["hex"]) for vector in _vectors()]
    return (bytes((size, 1, 2, size)) + b"".join(whole[place : place + 3]) for place, size in enumerate(range(0, 250, 5)))


def _replies() -> Iterator[bytes]:
    for vector in _vectors():
        if vector["kind"] != "request":
            yield bytes((_BY_NAME.get(vector.get("op", ""), 0),)) + bytes.fromhex(vector["hex"])[4:]


_SEEDS: dict[str, Callable[[], Iterator[bytes]]] = {
    "frames": _frames,
    "cbor": lambda: _bodies("request", "reply", "error"),
    "request": lambda: _bodies("request"),
    "reply": _replies,
    "batch": lambda: iter(_BATCHES),
    "headers": lambda: iter((b"\xa1\x61k\x41v", b"\xa2\x61a\x40\x61b\x42xy", b"")),
    "hello": lambda: (bytes.fromhex(vector["hex"])[4:] for vector in _vectors() if vector.get("op") == "HELLO"),
    "http": lambda: iter(_HTTP),
}
assert _SEEDS.keys() == TARGETS.keys(), "every target has seeds"


def seeds_of(target: str) -> list[bytes]:
    """All of them."""
    return [*_SEEDS[target](), *(file.read_bytes() for file in sorted((CORPUS / target).glob("*")))]
