"""The examples run as a user runs them, also when they are killed and started over."""

import signal
import subprocess
import sys
from pathlib import Path

from rocksmq.clients import Client
from rocksmq.clients.testing import Broker

EXAMPLES = Path(__file__).parents[2] / "clients" / "examples"
PATIENCE_SECONDS = 60.0


def started(name: str, *arguments: str, cwd: Path) -> "subprocess.Popen[str]":
    command = [sys.executable, str(EXAMPLES / name), *arguments]
    return subprocess.Popen(command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def ran(name: str, *arguments: str, cwd: Path) -> str:
    """What the example printed; it ended well and said nothing else."""
    output, errors = started(name, *arguments, cwd=cwd).communicate(timeout=PATIENCE_SECONDS)
    assert errors == ""
    return output


def test_given_sums_in_sqlite_when_the_program_is_killed_and_started_over_then_each_payment_counts_once(
    broker: Broker, client: Client, tmp_path: Path
) -> None:
    client.create_channel("payments")
    for first in range(0, 50_000, 1_000):
        client.produce("payments", [b"%d" % n for n in range(first, first + 1_000)])
    for _ in range(3):
        killed = started("exactly_once.py", broker.url, cwd=tmp_path)
        while not (tmp_path / "payments.db").exists() and killed.poll() is None:
            pass
        killed.send_signal(signal.SIGKILL)
        killed.communicate()
    assert ran("exactly_once.py", broker.url, cwd=tmp_path) == f"total {sum(range(50_000))}\n"
    client.produce("payments", [b"1"])
    assert ran("exactly_once.py", broker.url, cwd=tmp_path) == f"total {sum(range(50_000)) + 1}\n"


def test_given_a_file_when_its_loader_is_killed_and_started_over_then_each_line_is_stored_once_and_in_order(
    broker: Broker, client: Client, tmp_path: Path
) -> None:
    lines = [b"line %d" % n for n in range(100_000)]
    (tmp_path / "lines.txt").write_bytes(b"\n".join(lines) + b"\n")
    client.create_channel("lines")
    for goal in (10_000, 30_000):
        killed = started("load_file.py", "lines.txt", broker.url, cwd=tmp_path)
        while client.describe_channel("lines").message_count < goal and killed.poll() is None:
            pass
        killed.send_signal(signal.SIGKILL)
        killed.communicate()
    output = ran("load_file.py", "lines.txt", broker.url, cwd=tmp_path)
    assert output.endswith(f"{len(lines)} lines are stored\n")
    assert "going on behind line" in output
    assert ran("load_file.py", "lines.txt", broker.url, cwd=tmp_path).startswith(f"going on behind line {len(lines)}\n")
    assert read(client, "lines") == lines


def test_given_a_worker_between_two_channels_when_it_is_killed_and_started_over_then_each_order_has_one_invoice(
    broker: Broker, client: Client, tmp_path: Path
) -> None:
    client.create_channel("orders")
    client.create_channel("invoices")
    for first in range(0, 20_000, 1_000):
        client.produce("orders", [b"%d" % n for n in range(first, first + 1_000)])
    for goal in (2_000, 9_000):
        killed = started("pipeline.py", broker.url, cwd=tmp_path)
        while client.describe_channel("invoices").message_count < goal and killed.poll() is None:
            pass
        killed.send_signal(signal.SIGKILL)
        killed.communicate()
    ran("pipeline.py", broker.url, cwd=tmp_path)
    assert read(client, "invoices") == [b"invoice for %d" % n for n in range(20_000)]


def read(client: Client, channel: str) -> list[bytes]:
    """All payloads of a channel."""
    found: list[bytes] = []
    position: int | str = "earliest"
    while batch := client.fetch(channel, position, 10_000):
        found += batch.payloads
        position = batch.next_position
    return found
