"""What is served over HTTP: metrics and health. The paths and what they answer; how, is `rocksmq.metrics.http`'s business."""

import json
from collections.abc import Mapping, Sequence
from http import HTTPStatus

from rocksmq.metrics.exposition import CONTENT_TYPE, OPENMETRICS_CONTENT_TYPE, prefers_openmetrics
from rocksmq.metrics.http import TEXT, Request, Response, Route
from rocksmq.protocol.errors import ChannelNotFound, InvalidRequest

from .health import Health
from .telemetry import Telemetry

JSON = "application/json"
LISTING = b"""rocksmqd
/metrics             for Prometheus; sums when there are very many channels and groups
/metrics/detailed    every channel and group; ?channel=NAME, which may be repeated, for these only
/livez               the broker runs
/readyz              it can do its work, or why not; ?exclude=CHECK, which may be repeated, leaves one out of the verdict
"""


def routes(telemetry: Telemetry, health: Health) -> Mapping[str, Route]:
    """By path."""

    def metrics(request: Request) -> Response:
        return _exposition(telemetry, None, request)

    def detailed(request: Request) -> Response:
        try:
            return _exposition(telemetry, request.query.get("channel", ()), request)
        except (ChannelNotFound, InvalidRequest) as error:
            return Response(HTTPStatus.NOT_FOUND, TEXT, f"{error.message}\n".encode())

    def ready(request: Request) -> Response:
        excluded = request.query.get("exclude", [])
        if any(name not in health.names for name in excluded):
            return Response(HTTPStatus.BAD_REQUEST, TEXT, f"the checks are {', '.join(health.names)}\n".encode())
        checks = health.checks()
        is_ready = all(check.passes for check in checks if check.name not in excluded)
        found = [{"check": check.name, "ok": check.ok, "reason": check.reason} for check in checks]
        status = HTTPStatus.OK if is_ready else HTTPStatus.SERVICE_UNAVAILABLE
        return _json(status, {"ready": is_ready, "checks": found})

    return {
        "/": lambda request: Response(HTTPStatus.OK, TEXT, LISTING),
        "/metrics": metrics,
        "/metrics/detailed": detailed,
        "/livez": lambda request: _json(HTTPStatus.OK, {"alive": True}),
        "/readyz": ready,
    }


def _exposition(telemetry: Telemetry, channels: Sequence[str] | None, request: Request) -> Response:
    openmetrics = prefers_openmetrics(request.accept)
    content_type = OPENMETRICS_CONTENT_TYPE if openmetrics else CONTENT_TYPE
    return Response(HTTPStatus.OK, content_type, telemetry.exposition(channels, openmetrics=openmetrics))


def _json(status: HTTPStatus, content: object) -> Response:
    return Response(status, JSON, json.dumps(content).encode() + b"\n")
