"""A picture of `rocksmq top` during load: `python -m tests.ops.top [FILE]`, by default metrics/dashboards/top.png.

A real broker, producers and readers of several channels, and the program on a terminal of a fixed size; its last screen is
drawn by rich as SVG, and made a PNG by chromium, which must be installed.
"""

import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import click
from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

from rocksmq.clients import Client
from rocksmq.clients.testing import Broker
from tests.clients.cli_support import PROGRAM
from tests.helpers.terminal import Terminal

WIDTH, HEIGHT = 120, 20
SECONDS = 20  # of load before the picture
BYTES_MAX = 300_000
PICTURE = Path(__file__).parents[2] / "metrics" / "dashboards" / "top.png"
CHROMIUM = (
    "chromium",
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--hide-scrollbars",
)
# Of each channel: messages a second, bytes of each; its groups, and how many messages each reads a second.
LOAD: dict[str, tuple[int, int, dict[str, int]]] = {
    "orders": (4_000, 300, {"billing": 5_000, "warehouse": 5_000}),
    "clicks": (20_000, 120, {"sessions": 25_000, "fraud": 17_000}),
    "invoices": (300, 2_000, {"archive": 0, "mail": 400}),
    "sensors.hall-1": (1_000, 60, {}),
    "sensors.hall-2": (700, 60, {"alarms": 800}),
    "audit": (40, 900, {"export": 0}),
    "mail.bounced": (20, 400, {"retry": 10}),
}


def main() -> None:
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else PICTURE
    stop = threading.Event()
    with Broker() as broker, ExitStack() as stack:
        for work in _prepared(broker):
            thread = threading.Thread(target=work, args=(stop,))
            thread.start()
            stack.callback(thread.join)
        stack.callback(stop.set)
        with Terminal([*PROGRAM, "--url", broker.url, "top", "-n", str(SECONDS)], WIDTH, HEIGHT) as terminal:
            code = terminal.end()
            if code:
                sys.exit(f"rocksmq top ended with {code}: {terminal.shown.decode()}")
            screen = terminal.frame
    draw(screen.replace(broker.address, "127.0.0.1:7660"), path)
    click.echo(f"{path}: {path.stat().st_size} bytes")


def _prepared(broker: Broker) -> list[Callable[[threading.Event], None]]:
    """What the threads of the load are to do."""
    works: list[Callable[[threading.Event], None]] = []
    with broker.client() as mq:
        for channel, (rate, size, groups) in LOAD.items():
            mq.create_channel(channel)
            works.append(partial(_produce, broker, channel, rate, size))
            for group, reads in groups.items():
                mq.create_consumer_group(channel, group)
                if reads:
                    works.append(partial(_read, broker, channel, group, reads))
    return works


def _paced(broker: Broker, rate: int, step: Callable[[Client, int], object], stop: threading.Event) -> None:
    """``step`` for so many messages, 20 times a second."""
    with broker.client() as mq:
        due = time.monotonic()
        while not stop.wait(max(0.0, due - time.monotonic())):
            step(mq, max(1, rate // 20))
            due += 0.05


def _produce(broker: Broker, channel: str, rate: int, size: int, stop: threading.Event) -> None:
    _paced(broker, rate, lambda mq, count: mq.produce(channel, [bytes(size)] * count), stop)


def _read(broker: Broker, channel: str, group: str, rate: int, stop: threading.Event) -> None:
    _paced(broker, rate, lambda mq, count: mq.consume(channel, group, count, timeout=0.05), stop)


def draw(screen: str, path: Path) -> None:
    """A screen with its colours, as PNG."""
    with tempfile.TemporaryDirectory() as name, (Path(name) / "nothing").open("w") as nothing:
        console = Console(record=True, width=WIDTH, file=nothing, force_terminal=True, color_system="truecolor")
        for line in screen.split("\r\n"):
            console.print(Text.from_ansi(line), no_wrap=True, crop=True)
        svg, png = Path(name) / "top.svg", Path(name) / "top.png"
        drawn = console.export_svg(title="rocksmq top", theme=MONOKAI)
        svg.write_text(drawn)
        _, _, width, height = map(float, drawn.partition('viewBox="')[2].partition('"')[0].split())
        command = [
            *CHROMIUM,
            f"--user-data-dir={name}/profile",
            f"--window-size={width:.0f},{height:.0f}",
            f"--screenshot={png}",
        ]
        subprocess.run([*command, svg.as_uri()], check=True, capture_output=True, timeout=120)
        assert png.stat().st_size <= BYTES_MAX, f"the picture is larger than {BYTES_MAX} bytes"
        shutil.copyfile(png, path)


if __name__ == "__main__":
    main()
