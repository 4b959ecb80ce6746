"""What broker/meta.md shows of etcd is what stands there."""

import json
import re
from pathlib import Path
from typing import cast

from rocksmq.clients.testing import Broker
from tests.helpers.etcd import Etcd
from tests.helpers.ledger import wait_until

GUIDE = Path(__file__).parents[2] / "broker" / "meta.md"


def shown() -> tuple[str, dict[str, str]]:
    """The command of the guide, and keys and values behind it."""
    block = re.search(r"```console\n\$ (.*?)\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    assert block is not None
    return block[1], paired(block[2])


def paired(text: str) -> dict[str, str]:
    lines = text.splitlines()
    return dict(zip(lines[::2], lines[1::2], strict=True))


def form(value: str) -> list[str]:
    """Numbers as 0, text of JSON by its keys."""
    if value.startswith("{"):
        return list(cast(dict[str, object], json.loads(value)))
    return [re.sub(r"\d+", "0", value)]


def test_given_the_guide_when_its_command_is_run_then_the_keys_and_the_form_of_the_values_are_those_it_shows(
    tmp_path: Path,
) -> None:
    command, wanted = shown()
    name, *arguments = command.split()
    assert name == "etcdctl"
    with Etcd(tmp_path / "etcd") as etcd, Broker(tmp_path / "data", "--meta", etcd.url("rocksmq")) as broker:
        with broker.client() as mq:
            mq.create_channel("orders")
            mq.create_consumer_group("orders", "billing")
            ids = mq.produce("orders", [b"x"] * 20)
            mq.consume("orders", "billing", 10)
        wait_until(lambda: etcd.get("rocksmq/orders/end_id") == str(ids[-1]), "ids are mirrored")
        found = paired(etcd.ctl(*arguments))
    assert list(found) == list(wanted)
    assert {key: form(value) for key, value in found.items()} == {key: form(value) for key, value in wanted.items()}
