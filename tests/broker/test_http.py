"""What each path answers. The listener below is `tests/metrics`' business."""

import json
from pathlib import Path

import pytest
from prometheus_client import Metric
from prometheus_client.openmetrics.parser import (  # its argument is not typed
    text_string_to_metric_families as parse_openmetrics,  # pyright: ignore[reportUnknownVariableType]
)
from prometheus_client.parser import text_string_to_metric_families as parse

from rocksmq.broker.engine import RocksMQ
from rocksmq.broker.health import Health
from rocksmq.broker.http import routes
from rocksmq.metrics.exposition import prefers_openmetrics
from rocksmq.metrics.http import Request, Response

from .support import in_trio

PROMETHEUS_2 = (
    "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
    "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)
PROMETHEUS_3 = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,application/openmetrics-text;version=0.0.1;q=0.5,"
    "text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)
PREFERS_TEXT = "text/plain;version=0.0.4;q=0.9,application/openmetrics-text;version=1.0.0;q=0.8"


def body(response: Response) -> bytes:
    return response.body if isinstance(response.body, bytes) else b"".join(response.body)


class Place:
    """The paths of one broker."""

    def __init__(self, mq: RocksMQ) -> None:
        self.routes = routes(mq.core.telemetry, Health(mq.core))

    def ask(self, path: str, accept: str = "", **query: list[str]) -> Response:
        return self.routes[path](Request(path, query, accept))

    def text(self, path: str, accept: str = "", **query: list[str]) -> str:
        response = self.ask(path, accept, **query)
        assert response.status == 200
        return body(response).decode()


def channels_in(text: str) -> set[str]:
    samples = (sample for family in parse(text) for sample in family.samples)
    return {sample.labels["channel"] for sample in samples if sample.labels.get("channel")}


@in_trio
async def test_given_channels_when_metrics_are_asked_for_then_both_formats_say_the_same(tmp_path: Path) -> None:
    async with RocksMQ(tmp_path) as mq:
        await mq.create_channel("orders")
        await mq.produce("orders", [b"x"] * 3)
        place = Place(mq)
        plain, openmetrics = place.ask("/metrics"), place.ask("/metrics", PROMETHEUS_3)
        assert plain.content_type == "text/plain; version=0.0.4; charset=utf-8"
        assert openmetrics.content_type == "application/openmetrics-text; version=1.0.0; charset=utf-8"
        families: list[Metric] = list(parse(body(plain).decode()))
        families += parse_openmetrics(body(openmetrics).decode())  # type: ignore[no-untyped-call]
        found = [s.value for family in families for s in family.samples if s.name == "rocksmq_channel_messages"]
        assert found == [3, 3]


@in_trio
async def test_given_channels_when_details_are_asked_for_then_of_all_or_of_those_named(tmp_path: Path) -> None:
    async with RocksMQ(tmp_path) as mq:
        for name in ("a", "b", "c"):
            await mq.create_channel(name)
        place = Place(mq)
        assert channels_in(place.text("/metrics/detailed")) == {"a", "b", "c"}
        assert channels_in(place.text("/metrics/detailed", channel=["c"])) == {"c"}
        assert channels_in(place.text("/metrics/detailed", channel=["a", "c"])) == {"a", "c"}


@pytest.mark.parametrize("name", ["unknown", "", "no/name", "\x1b[31m", "x" * 8_000])
@in_trio
async def test_given_no_such_channel_when_its_details_are_asked_for_then_404_names_it_harmlessly(
    tmp_path: Path, name: str
) -> None:
    async with RocksMQ(tmp_path) as mq:
        await mq.create_channel("a")
        response = Place(mq).ask("/metrics/detailed", channel=["a", name])
        text = body(response).decode()
        assert response.status == 404
        assert len(text) < 500
        assert text.rstrip("\n").isprintable()


@in_trio
async def test_given_a_broker_when_asked_whether_it_lives_then_it_says_so_even_when_it_is_not_ready(tmp_path: Path) -> None:
    async with RocksMQ(tmp_path) as mq:
        place = Place(mq)
        for _ in range(2):
            assert place.ask("/livez") == Response(200, "application/json", b'{"alive": true}\n')
            await mq.drain()


@in_trio
async def test_given_checks_when_asked_whether_it_is_ready_then_status_and_reasons_agree(tmp_path: Path) -> None:
    async with RocksMQ(tmp_path) as mq:
        place = Place(mq)
        response = place.ask("/readyz")
        passing = [{"check": name, "ok": True, "reason": ""} for name in ("store", "disk", "meta", "draining", "clock")]
        assert (response.status, response.content_type) == (200, "application/json")
        assert json.loads(body(response)) == {"ready": True, "checks": passing}
        # When
        await mq.drain()
        # Then
        response = place.ask("/readyz")
        told = json.loads(body(response))
        assert (response.status, told["ready"]) == (503, False)
        assert told["checks"][:3] == passing[:3]
        assert told["checks"][3]["reason"].startswith("the broker is stopping")
        # And
        for excluded, status in ((["meta"], 503), (["draining"], 200), (["disk", "draining", "disk"], 200)):
            response = place.ask("/readyz", exclude=excluded)
            assert response.status == status
            assert json.loads(body(response)) == {"ready": status == 200, "checks": told["checks"]}
        response = place.ask("/readyz", exclude=["draining", "etcd"])
        assert (response.status, body(response)) == (400, b"the checks are store, disk, meta, draining, clock\n")


@in_trio
async def test_given_the_root_when_asked_then_every_path_is_listed(tmp_path: Path) -> None:
    async with RocksMQ(tmp_path) as mq:
        place = Place(mq)
        lines = place.text("/").splitlines()
        assert [line.split()[0] for line in lines[1:]] == [path for path in place.routes if path != "/"]


@pytest.mark.parametrize(
    ("accept", "is_preferred"),
    [
        (PROMETHEUS_2, True),
        (PROMETHEUS_3, True),
        ("application/openmetrics-text", True),
        ('Application/OpenMetrics-Text ; Version = "1.0.0" ; Q = 0.5 , text/plain; q=0.5', True),
        (PREFERS_TEXT, False),
        ("application/openmetrics-text;version=0.0.1", False),
        ("application/openmetrics-text;q=0", False),
        ("application/openmetrics-text;q=much", False),
        ("application/openmetrics-text;q=nan", False),
        ("application/openmetrics-texts", False),
        ("text/plain", False),
        ("*/*", False),
        ("", False),
        (",;,=;q", False),
        ("," * 1_000 + "application/openmetrics-text", False),
    ],
)
def test_given_an_accept_header_when_read_then_openmetrics_is_chosen_if_asked_for(accept: str, is_preferred: bool) -> None:
    assert prefers_openmetrics(accept) is is_preferred
