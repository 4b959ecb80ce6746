"""The commands of SECURITY.md, and its program, at a broker."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

from rocksmq.clients.testing import Broker
from tests.helpers.certificates import Certificates

GUIDE = (Path(__file__).parents[2] / "deploy" / "SECURITY.md").read_text()
PATIENCE_SECONDS = 60


def test_given_the_commands_of_the_guide_when_run_then_only_those_with_a_token_get_in(tmp_path: Path) -> None:
    blocks = re.search(r"```sh\n(.*?)```\n\n```python\n(.*?)```", GUIDE, re.DOTALL)
    assert blocks
    lines, program = blocks[1].splitlines(), blocks[2]
    begin = next(number for number, line in enumerate(lines) if line.startswith("rocksmqd "))
    served = shlex.split(lines[begin])[1:-1]
    assert served[:2] == ["--listen", "0.0.0.0:7660"]
    certificates = Certificates.make(tmp_path)
    certificates.server_certificate.rename(tmp_path / "cert.pem")
    certificates.server_key.rename(tmp_path / "key.pem")
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}

    def run(*command: str) -> str:
        return subprocess.run(
            command, cwd=tmp_path, env=environment, check=True, capture_output=True, text=True, timeout=PATIENCE_SECONDS
        ).stdout

    run("sh", "-ec", "\n".join(lines[:begin]))
    files = [str(tmp_path / word) if word.endswith((".pem", ".json")) else word for word in served[2:]]
    with Broker(tmp_path / "data", *files) as broker:
        asked = "\n".join(lines[begin + 1 :])
        run("sh", "-ec", asked.replace("127.0.0.1:7660", broker.address))
        environment["ROCKSMQ_CA"] = "ca.pem"
        run(sys.executable, "-c", program.replace("127.0.0.1:7660", broker.address))
        environment |= {"ROCKSMQ_URL": f"rocksmqs://{broker.address}", "ROCKSMQ_TOKEN_FILE": "ops.token"}
        told = run("rocksmq", "--json", "channel", "info", "orders.eu")
    assert '"message_count": 2' in told
