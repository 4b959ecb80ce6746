"""The daemon from outside: its ready line, its exit codes, its signals."""

import os
import re
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from rocksmq.clients import Client, ConnectionFailed, RocksMQError, ShuttingDown
from rocksmq.clients.testing import Broker
from rocksmq.protocol.codec import SUCCESS
from rocksmq.protocol.identity import Identity
from rocksmq.protocol.operations import Consume, Empty
from tests.helpers.etcd import free_port
from tests.helpers.ledger import wait_until
from tests.helpers.raw import Raw
from tests.helpers.raw_bystander import Bystander

BAD_CONFIGURATION, DATA_REFUSED, IN_USE = 2, 3, 4
PATIENCE_SECONDS = 30


def ended(*arguments: str, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """A broker that ends by itself."""
    return subprocess.run(
        [sys.executable, "-m", "rocksmq.broker", "--listen", "127.0.0.1:0", "--http", "off", *arguments],
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        env={**os.environ, **(environment or {})},
        check=False,
    )


def refused(code: int, result: subprocess.CompletedProcess[str], *fragments: str) -> None:
    """It ended with ``code`` and a line that says why, without a traceback."""
    assert result.returncode == code, result.stderr
    assert "Traceback" not in result.stderr
    assert "listening" not in result.stdout
    for fragment in fragments:
        assert fragment in result.stderr, result.stderr


def test_given_a_running_broker_when_another_starts_on_its_directory_then_exit_4_names_the_holder(
    broker: Broker,
) -> None:
    refused(IN_USE, ended("--data-dir", str(broker.directory)), str(broker.pid), str(broker.directory))
    with Bystander(broker) as bystander:
        bystander.check()


def test_given_a_killed_broker_when_another_starts_on_its_directory_then_it_serves(broker: Broker) -> None:
    broker.kill()
    with Broker(broker.directory) as other, other.client() as mq:
        mq.ping()


@pytest.mark.parametrize(
    ("content", "fragments"),
    [
        ('{"format": 2, "instance": "x"}', ("format 2", "newer", "upgrade")),
        ('{"format": 0, "instance": "x"}', ("format 0",)),
        ("{", ("damaged",)),
        ("", ("damaged",)),
        ("[]", ("damaged",)),
        ('{"format": 1}', ("damaged",)),
    ],
)
def test_given_another_format_when_started_then_exit_3_and_nothing_is_touched(
    broker: Broker, content: str, fragments: tuple[str, ...]
) -> None:
    broker.kill()
    file = broker.directory / "format"
    file.write_text(content)
    before = sorted((path.name, path.stat().st_size) for path in (broker.directory / "db").iterdir())
    refused(DATA_REFUSED, ended("--data-dir", str(broker.directory)), *fragments)
    assert sorted((path.name, path.stat().st_size) for path in (broker.directory / "db").iterdir()) == before


def test_given_a_data_directory_without_its_format_file_when_started_then_exit_3(broker: Broker) -> None:
    broker.kill()
    (broker.directory / "format").unlink()
    refused(DATA_REFUSED, ended("--data-dir", str(broker.directory)), "format")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_given_work_in_flight_when_a_signal_comes_then_all_accepted_is_answered_and_stored_and_exit_0(
    broker: Broker, number: signal.Signals
) -> None:
    # Given: producers, and a long poll.
    acknowledged: list[range] = []
    errors: list[RocksMQError] = []
    with broker.client(timeout=2) as mq:
        mq.create_channel("orders")
        mq.create_consumer_group("orders", "billing")

        def work() -> None:
            try:
                while True:
                    acknowledged.append(mq.produce("orders", [b"x" * 1_000] * 10))
            except RocksMQError as error:
                errors.append(error)

        threads = [threading.Thread(target=work) for _ in range(3)]
        for thread in threads:
            thread.start()
        try:
            wait_until(lambda: len(acknowledged) > 50, "much was produced")
        finally:
            # When
            os.kill(broker.pid, number)
            code = broker.wait()
            for thread in threads:
                thread.join()
    # Then
    assert code == 0
    assert len(errors) == len(threads)
    assert all(isinstance(error, (ShuttingDown, ConnectionFailed)) for error in errors), errors
    assert "Traceback" not in broker.log.read_text()
    broker.start()
    with broker.client() as mq:
        found: set[int] = set()
        position: int | str = "earliest"
        while batch := mq.fetch("orders", position, 10_000):
            found.update(batch.ids)
            position = batch.next_position
        assert all(message_id in found for ids in acknowledged for message_id in ids)


def test_given_long_polls_when_sigterm_comes_then_they_are_answered_and_it_ends_at_once(broker: Broker) -> None:
    with broker.client() as mq, broker.client(timeout=1) as other, Raw(broker.address) as raw:
        mq.create_channel("orders")
        mq.create_consumer_group("orders", "billing")
        results: list[object] = []

        def wait() -> None:
            try:
                results.append(len(other.consume("orders", "billing", timeout=25)))
            except RocksMQError as error:
                results.append(error)

        thread = threading.Thread(target=wait)
        thread.start()
        correlation = raw.send(Consume("orders", "billing", Identity.new(raw.server.present_id).id, 0, 1, 1 << 20, 25_000))
        raw.call(Empty())  # the broker has the poll, which came before this
        assert broker.terminate() == 0
        other.close()  # else it would look for the broker until its poll is over
        thread.join()
        assert raw.receive()[:2] == [correlation, SUCCESS]
        assert raw.is_closed()
    assert len(results) == 1


def test_given_a_clean_stop_when_started_again_then_everything_is_as_before(broker: Broker) -> None:
    with broker.client() as mq:
        mq.create_channel("orders")
        mq.create_consumer_group("orders", "billing")
        ids = mq.produce("orders", [b"one", b"two", b"three"])
        mq.consume("orders", "billing", 1)
        before = mq.describe_channel("orders")
    assert broker.terminate() == 0
    broker.start()
    with broker.client() as mq:
        assert mq.describe_channel("orders") == before
        assert mq.describe_consumer_group("orders", "billing").position == ids[1]
        assert mq.produce("orders", [b"four"])[0] > ids[-1]


def stopped(*arguments: str, lines: int, program: tuple[str, ...] = ("-m", "rocksmq.broker")) -> tuple[list[str], str]:
    """A broker that is stopped once it has said so many lines: these, and its log."""
    command = [sys.executable, "-P", *program, "--listen", "127.0.0.1:0", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        said = [process.stdout.readline() for _ in range(lines)]
        process.terminate()
        more, log = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 0, log
    assert more == ""
    return said, log


def test_given_port_0_when_started_then_the_ready_line_names_the_port_the_mode_and_the_data(tmp_path: Path) -> None:
    arguments = ("--data-dir", str(tmp_path / "data"), "--durability", "os", "--http", "off")
    (ready, hint), _ = stopped(*arguments, lines=2)
    assert re.fullmatch(
        rf"listening on 127\.0\.0\.1:[1-9]\d+ \(rocksmqd \S+, durability os, data in {tmp_path}/data\)\n", ready
    ), ready
    assert hint.startswith("try: echo hello | ")


def test_given_metrics_on_port_0_when_started_then_the_second_line_says_where_they_are(tmp_path: Path) -> None:
    (ready, metrics, hint), _ = stopped("--data-dir", str(tmp_path / "data"), "--http", "127.0.0.1:0", lines=3)
    assert ready.startswith("listening on 127.0.0.1:")
    assert re.fullmatch(r"metrics and health on http://127\.0\.0\.1:[1-9]\d+\n", metrics), metrics
    assert hint.startswith("try: ")


def test_given_its_start_when_logged_then_version_data_mode_positions_and_unusual_limits_are_told(tmp_path: Path) -> None:
    file = tmp_path / "rocksmqd.toml"
    file.write_text("http = 'off'\ndurability = 'interval:5'\n[limits]\nchannels_max = 7\nconnections_max = 9\n")
    _, log = stopped("--data-dir", str(tmp_path / "data"), "--config", str(file), lines=2)
    first, *_ = log.splitlines()
    assert re.search(r" INFO rocksmq\.broker: rocksmqd \d\S* starts: data in ", first)
    assert first.endswith(
        f"{tmp_path}/data, durability interval:5, positions embedded, limits: channels_max 7, connections_max 9"
    )


def test_given_fewer_files_than_connections_want_when_started_then_it_takes_fewer_and_warns(tmp_path: Path) -> None:
    command = [sys.executable, "-P", "-m", "rocksmq.broker", "--listen", "127.0.0.1:0", "--http", "off"]
    command += ["--data-dir", str(tmp_path / "data")]
    limited = ["sh", "-c", 'ulimit -n 100; exec "$@"', "sh", *command]
    with subprocess.Popen(limited, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.terminate()
        _, log = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 0, log
    first, second, *_ = log.splitlines()
    assert first.endswith("limits: connections_max 80")
    assert "WARNING rocksmq.broker: connections_max is 80 instead of 4096: this process may open so few files" in second


def test_given_an_address_for_metrics_that_is_taken_when_started_then_exit_2_names_the_option(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        refused(
            BAD_CONFIGURATION,
            ended("--data-dir", str(tmp_path / "data"), "--http", address),
            f"cannot listen on {address}: Address already in use; --http HOST:PORT names another",
        )


WITH_ANOTHER_DEFAULT = """
import sys
from rocksmq.broker import config
config._DEFAULTS["http"] = {address!r}
from rocksmq.broker.__main__ import main
main(prog_name="rocksmqd")
"""


def test_given_the_default_address_for_metrics_is_taken_when_started_then_it_serves_without_and_warns(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        program = ("-c", WITH_ANOTHER_DEFAULT.format(address=address))
        (ready, hint), log = stopped("--data-dir", str(tmp_path / "data"), lines=2, program=program)
    assert ready.startswith("listening on ")
    assert hint.startswith("try: ")
    assert f" WARNING rocksmq.broker: there are no metrics and health over HTTP: cannot listen on {address}" in log


def test_given_a_host_that_does_not_exist_when_started_then_exit_2_says_so(tmp_path: Path) -> None:
    data = ("--data-dir", str(tmp_path / "data"))
    refused(
        BAD_CONFIGURATION, ended(*data, "--insecure", "--listen", "no-such-host.invalid:1"), "no-such-host.invalid:1: Name or"
    )


def test_given_nobody_who_reads_its_lines_when_started_then_it_serves_all_the_same(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    address = f"127.0.0.1:{free_port()}"
    command = [sys.executable, "-P", "-m", "rocksmq.broker", "--listen", address, "--http", "off"]
    command += ["--data-dir", str(tmp_path / "data")]
    with subprocess.Popen(command, stdout=writer, stderr=subprocess.PIPE, text=True) as process:
        os.close(writer)
        with Client(f"rocksmq://{address}", timeout=PATIENCE_SECONDS) as mq:
            mq.ping()
        process.terminate()
        _, log = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 0, log
    assert "Traceback" not in log


WITH_A_BUG = """
from rocksmq.broker import __main__, notify
async def tell(notifier, *lines):
    if lines[0] == "READY=1":
        {bug}
notify.Notifier.tell = tell
__main__.main(prog_name="rocksmqd")
"""


@pytest.mark.parametrize(
    ("bug", "told"), [("None()", "TypeError: 'NoneType' object"), ("open('/missing/file')", "FileNotFoundError: [Errno 2]")]
)
def test_given_a_bug_that_ends_it_when_it_ends_then_exit_1_and_the_log_has_its_traceback(
    tmp_path: Path, bug: str, told: str
) -> None:
    program = WITH_A_BUG.format(bug=bug)
    for log_format in ("console", "json"):
        arguments = ("--listen", "127.0.0.1:0", "--http", "off", "--log-format", log_format)
        result = subprocess.run(
            [sys.executable, "-P", "-c", program, *arguments, "--data-dir", str(tmp_path / "data")],
            capture_output=True,
            text=True,
            timeout=PATIENCE_SECONDS,
            check=False,
        )
        assert result.returncode == 1
        assert "a bug: the broker ended by it" in result.stderr
        assert told in result.stderr


BAD_FILES = {
    "an unknown key": ('flavour = "mint"', "flavour"),
    "an unknown limit": ("[limits]\nlegs_max = 4", "legs_max"),
    "the wrong type": ("durability = 5", "durability"),
    "text for a limit": ('[limits]\nchannels_max = "many"', "channels_max"),
    "a limit of 0": ("[limits]\nchannels_max = 0", "channels_max"),
    "no TOML": ("durability", "TOML"),
    "an unknown mode": ('durability = "sometimes"', "durability"),
    "a frame too small": ("[limits]\nframe_bytes_max = 1048576", "frame_bytes_max"),
    "a payload too large": ("[limits]\npayload_bytes_max = 134217728", "payload_bytes_max"),
    "a public address": ('listen = "0.0.0.0:7660"', "listen"),
    "no port": ('listen = "127.0.0.1"', "listen"),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_given_a_bad_configuration_file_when_started_then_exit_2_names_the_key_and_nothing_is_made(
    tmp_path: Path, case: str
) -> None:
    content, fragment = BAD_FILES[case]
    file = tmp_path / "rocksmqd.toml"
    file.write_text(content)
    options = ["--config", str(file), "--data-dir", str(tmp_path / "data"), "--http", "off"]
    options += [] if fragment == "listen" else ["--listen", "127.0.0.1:0"]
    result = subprocess.run(
        [sys.executable, "-m", "rocksmq.broker", *options],
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )
    refused(BAD_CONFIGURATION, result, fragment, str(file))
    assert not (tmp_path / "data").exists()


def test_given_an_unknown_variable_or_flag_when_started_then_exit_2_names_it(tmp_path: Path) -> None:
    data = ("--data-dir", str(tmp_path / "data"))
    refused(BAD_CONFIGURATION, ended(*data, environment={"ROCKSMQ_FLAVOUR": "mint"}), "ROCKSMQ_FLAVOUR")
    refused(BAD_CONFIGURATION, ended(*data, "--flavour", "mint"), "--flavour")
    refused(BAD_CONFIGURATION, ended(*data, "--config", str(tmp_path / "missing.toml")), "missing.toml")
    assert not (tmp_path / "data").exists()


def test_given_a_port_in_use_when_started_then_it_says_so(broker: Broker, tmp_path: Path) -> None:
    result = ended("--listen", broker.address, "--data-dir", str(tmp_path / "other"))
    refused(BAD_CONFIGURATION, result, broker.address, "in use")


def test_given_file_environment_and_flag_when_printed_then_the_later_wins_and_its_origin_is_told(tmp_path: Path) -> None:
    file = tmp_path / "rocksmqd.toml"
    file.write_text('durability = "os"\nlog_level = "error"\ndata_dir = "from-file"')
    environment = {"ROCKSMQ_DURABILITY": "interval:7", "ROCKSMQ_LOG_LEVEL": "debug"}
    result = ended("--config", str(file), "--durability", "interval:9", "--print-config", environment=environment)
    assert result.returncode == 0, result.stderr
    lines = {line.split(" = ")[0]: line for line in result.stdout.splitlines()}
    assert "interval:9" in lines["durability"]
    assert "--durability" in lines["durability"]
    assert "debug" in lines["log_level"]
    assert "ROCKSMQ_LOG_LEVEL" in lines["log_level"]
    assert str(file) in lines["data_dir"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere: run the tests as another user to see this one")
def test_given_a_directory_that_cannot_be_written_when_started_then_it_says_so(tmp_path: Path) -> None:
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    result = ended("--data-dir", str(locked / "data"))
    refused(BAD_CONFIGURATION, result, str(locked))


def test_given_a_file_in_place_of_the_directory_when_started_then_it_says_so(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("")
    refused(BAD_CONFIGURATION, ended("--data-dir", str(tmp_path / "data")), str(tmp_path / "data"))


def test_given_a_broker_when_it_runs_then_no_core_would_be_dumped_and_nobody_else_may_read_its_files(tmp_path: Path) -> None:
    with Broker(tmp_path / "data") as broker:
        limits = Path(f"/proc/{broker.pid}/limits").read_text()
        status = Path(f"/proc/{broker.pid}/status").read_text()
        open_to_others = [path for path in broker.directory.rglob("*") if path.stat().st_mode & 0o077]
    assert re.search(r"^Max core file size +0 +0 ", limits, re.MULTILINE)
    assert re.search(r"^Umask:\s+0077$", status, re.MULTILINE)
    assert open_to_others == []
