"""A mirror's metrics over HTTP, from its own process: the families that a broker shows of a mirror that it runs.

Owns a thread with a Trio loop of its own, and the listening socket. What listens needs ``pip install 'rocksmq[broker]'``.
"""

import ipaddress
import json
import logging
import os
import socket
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from http import HTTPStatus
from typing import TYPE_CHECKING

from rocksmq.protocol.errors import InvalidRequest

from .report import Report

if TYPE_CHECKING:
    from rocksmq.metrics.http import Request, Response, Route

logger = logging.getLogger("rocksmq.mirror")

BACKLOG = 64
CLOSE_SECONDS = 5.0
LISTING = b"""rocksmq mirror
/metrics   for Prometheus
/livez     the mirror runs
"""


@contextmanager
def serve_metrics(address: str, report: Callable[[], Report], *, insecure: bool = False) -> Generator[str]:
    """Serve `/metrics` and `/livez` on ``address``, HOST:PORT, while the block runs; gives the address with its real port.

    ``report`` is called from the thread that serves, at each scrape. Raises InvalidRequest for an address that is none or that
    cannot be listened on, for one that other machines reach, unless ``insecure``, and when what serves is not installed.
    """
    try:
        import trio

        from rocksmq.metrics.http import HttpServer
    except ModuleNotFoundError as error:
        raise InvalidRequest(
            f"{error.name} is missing, which --http needs: install it with  pip install 'rocksmq[broker]'"
        ) from None
    listener = _listening(address, insecure=insecure)
    host, port = listener.getsockname()[:2]
    server = HttpServer(_routes(report))
    is_started = threading.Event()
    scope = trio.CancelScope()
    token: trio.lowlevel.TrioToken | None = None

    async def serve() -> None:
        nonlocal token
        token = trio.lowlevel.current_trio_token()
        is_started.set()
        with scope:
            await server.serve(listener)

    def run() -> None:
        try:
            trio.run(serve)
        except Exception:
            logger.exception("a bug: the metrics are not served any more")
        finally:
            is_started.set()

    thread = threading.Thread(target=run, name="metrics", daemon=True)
    thread.start()
    is_started.wait()
    try:
        yield f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    finally:
        if token is not None:
            with suppress(trio.RunFinishedError):
                token.run_sync_soon(scope.cancel)
        thread.join(CLOSE_SECONDS)


def _listening(address: str, *, insecure: bool) -> socket.socket:
    host, colon, port = address.rpartition(":")
    host = host.strip("[]")
    if not (host and colon and port.isascii() and port.isdigit() and int(port) < 1 << 16):
        raise InvalidRequest(f"--http {address!r} is not HOST:PORT, for example 127.0.0.1:7662")
    if not insecure and not _is_loopback(host):
        raise InvalidRequest(f"--http {address!r}: other machines reach it, without TLS and token: use 127.0.0.1")
    try:
        return socket.create_server(
            (host, int(port)), family=socket.AF_INET6 if ":" in host else socket.AF_INET, backlog=BACKLOG
        )
    except OSError as error:
        why = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror
        raise InvalidRequest(f"--http {address!r} cannot be listened on: {why}") from error


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _routes(report: Callable[[], Report]) -> "dict[str, Route]":
    from rocksmq.metrics import process
    from rocksmq.metrics.exposition import CONTENT_TYPE, OPENMETRICS_CONTENT_TYPE, expose, prefers_openmetrics
    from rocksmq.metrics.http import TEXT, Response
    from rocksmq.metrics.mirror import MirrorFigures

    figures = MirrorFigures(report().mirror)

    def metrics(request: "Request") -> "Response":
        figures.take(report().to_json())
        openmetrics = prefers_openmetrics(request.accept)
        families = [*figures.families(), *process.read()]
        content_type = OPENMETRICS_CONTENT_TYPE if openmetrics else CONTENT_TYPE
        return Response(HTTPStatus.OK, content_type, expose(families, openmetrics=openmetrics))

    def alive(request: "Request") -> "Response":
        return Response(HTTPStatus.OK, "application/json", json.dumps({"alive": True}).encode() + b"\n")

    return {"/": lambda request: Response(HTTPStatus.OK, TEXT, LISTING), "/metrics": metrics, "/livez": alive}
