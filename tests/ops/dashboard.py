"""The dashboard as pictures: `python -m tests.ops.dashboard [--seconds N]` writes metrics/dashboards/dashboard-*.png.

No Grafana is asked: a real Prometheus is, for the queries of every panel, at a real broker that has been at work for some
minutes, with etcd away for a moment, and Pulsar, to which it runs a mirror, for longer. What it answers is drawn where the
dashboard has it, and made a PNG by chromium.
"""

import re
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import click

from rocksmq.clients.testing import Broker
from tests.helpers.dashboard import DASHBOARD, Panel, filled, panels
from tests.helpers.etcd import Etcd
from tests.helpers.prometheus import Prometheus
from tests.helpers.pulsar import Pulsar
from tests.helpers.traffic import CHANNELS, Traffic

from .drawing import PAGE, TEXT, Box, Curve, drawn
from .stage import RULES
from .top import BYTES_MAX, CHROMIUM

PICTURES = {
    "dashboard-produce.png": ("Summary", "Produce"),
    "dashboard-consume.png": ("Consume",),
    "dashboard-storage.png": ("Storage",),
    "dashboard-mirror.png": ("Mirror",),
    "dashboard-others.png": ("Connections", "Dependencies", "Process"),
}
COLUMN_PIXELS, LINE_PIXELS, GAP_PIXELS, ROW_PIXELS = 60, 30, 4, 30
WINDOW = "15s"  # as $__rate_interval
SETTLED_SECONDS = 15  # from the start on, until rates are those of the load
POINTS = 180
AWAY_SECONDS = 4.0  # etcd stops for so long, in the middle
PULSAR_AWAY_SECONDS = 20.0  # likewise
SCRAPE_SECONDS = 1.0
_STYLE = f"body {{ margin: 0; background: {PAGE}; font-family: Inter, 'DejaVu Sans', sans-serif }}"


@click.command()
@click.option("--seconds", type=click.IntRange(min=20), default=180, help="Of load, all of which is drawn.")
def main(seconds: int) -> None:
    """Draw all panels under load."""
    with (
        tempfile.TemporaryDirectory(prefix="dashboard-") as name,
        Etcd() as etcd,
        Pulsar(Path(name) / "pulsar") as pulsar,
        _broker(Path(name) / "data", etcd, pulsar) as broker,
        Prometheus({"rocksmq": [broker.http]}, [RULES], SCRAPE_SECONDS) as prometheus,
        Traffic(broker),
    ):
        for stop, go_on, away in ((etcd.stop, etcd.cont, AWAY_SECONDS), (pulsar.freeze, pulsar.thaw, PULSAR_AWAY_SECONDS)):
            threading.Timer(seconds / 2, stop).start()
            threading.Timer(seconds / 2 + away, go_on).start()
        time.sleep(seconds)
        end = time.time()
        found = {
            panel.id: _curves(prometheus, panel, end - seconds + SETTLED_SECONDS, end) for panel in panels() if not panel.is_row
        }
        for file, rows in PICTURES.items():
            path = DASHBOARD.with_name(file)
            picture(_page(rows, found, end - seconds + SETTLED_SECONDS, end).replace(broker.http, "127.0.0.1:7661"), path)
            click.echo(f"{path}: {path.stat().st_size} bytes")


def _broker(directory: Path, etcd: Etcd, pulsar: Pulsar) -> Broker:
    """With a mirror of all that `Traffic` sends."""
    pulsar.start()
    mirror = {"ROCKSMQ_MIRROR_TO": pulsar.url, "ROCKSMQ_MIRROR_CHANNELS": ",".join(CHANNELS)}
    return Broker(directory, "--meta", etcd.url("rocksmq"), environment=mirror, http="127.0.0.1:0")


def _curves(prometheus: Prometheus, panel: Panel, begin: float, end: float) -> list[Curve]:
    """What each query of the panel answers, over all the time."""
    step = max(1.0, (end - begin) / POINTS)
    return [
        Curve(_legend(query.legend, line.labels), line.labels, line.points, number)
        for number, query in enumerate(panel.queries)
        for line in prometheus.query_range(filled(query.expression, WINDOW), begin, end, step)
    ]


def _legend(pattern: str, labels: Mapping[str, str]) -> str:
    return re.sub(r"\{\{(\w+)\}\}", lambda match: labels.get(match[1], ""), pattern).strip()


def _page(rows: Sequence[str], found: Mapping[int, list[Curve]], begin: float, end: float) -> str:
    """HTML with the panels of these rows, behind its size in a comment."""
    parts: list[str] = []
    below = 0.0
    for row, shown in _sections():
        if row.title not in rows:
            continue
        parts.append(_placed(8, below, f'<b style="color: {TEXT}; font-size: 15px">{row.title}</b>'))
        top = below + ROW_PIXELS - (row.y + row.height) * LINE_PIXELS
        for panel in shown:
            box = Box(panel.width * COLUMN_PIXELS - GAP_PIXELS, panel.height * LINE_PIXELS - GAP_PIXELS, begin, end)
            parts.append(_placed(panel.x * COLUMN_PIXELS, top + panel.y * LINE_PIXELS, drawn(panel, found[panel.id], box)))
            below = max(below, top + (panel.y + panel.height) * LINE_PIXELS)
    return f"<!-- {24 * COLUMN_PIXELS} {below:.0f} --><style>{_STYLE}</style>{''.join(parts)}"


def _sections() -> list[tuple[Panel, list[Panel]]]:
    """Each row with its panels."""
    found: list[tuple[Panel, list[Panel]]] = []
    for panel in panels():
        if panel.is_row:
            found.append((panel, []))
        else:
            found[-1][1].append(panel)
    return found


def _placed(x: float, y: float, content: str) -> str:
    return f'<div style="position: absolute; left: {x:.0f}px; top: {y:.0f}px">{content}</div>'


def picture(page: str, path: Path) -> None:
    size = ",".join(page.split()[1:3])
    with tempfile.TemporaryDirectory() as name:
        html = Path(name) / "page.html"
        html.write_text(f'<!doctype html><meta charset="utf-8">{page}')
        command = [*CHROMIUM, f"--user-data-dir={name}/profile", f"--window-size={size}", f"--screenshot={path}"]
        subprocess.run([*command, html.as_uri()], check=True, capture_output=True, timeout=120)
    assert path.stat().st_size <= BYTES_MAX, f"the picture is larger than {BYTES_MAX} bytes"


if __name__ == "__main__":
    main()
