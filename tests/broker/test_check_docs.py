"""What broker/check.md shows is what `rocksmq check` prints, but for its numbers; and its list of repairs is whole."""

import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from rocksmq.broker.engine import RocksMQ
from rocksmq.broker.repair import ORDER
from rocksmq.broker.store import Family, Put, Store
from rocksmq.clients.cli import main

from .support import in_trio

GUIDE = Path(__file__).parents[2] / "broker" / "check.md"
SHOWN_DIRECTORY = "/var/lib/rocksmq"


def damaged_directory(path: Path) -> None:
    """The one that the guide shows: a batch of `orders` is damaged, `bills` is whole."""

    @in_trio
    async def fill() -> None:
        async with RocksMQ(path) as mq:
            for channel, group in (("bills", "archive"), ("orders", "billing")):
                await mq.create_channel(channel)
                await mq.create_consumer_group(channel, group)
                for number in range(100):
                    await mq.produce(channel, [b"message %d" % number] * 10)
            await mq.consume("orders", "billing", 950)

    fill()
    store = Store(path / "db")
    found = list(store.scan(Family.DATA, b"", b"\xff" * 17))
    key, value = found[170]
    store.write([Put(Family.DATA, key, value[:-1] + b"?")])
    store.sync()
    store.close()


def shown() -> list[tuple[str, list[str]]]:
    """The commands of the guide, each with the lines below it."""
    blocks = re.findall(r"```console\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    commands = [part for block in blocks for part in re.split(r"^\$ ", block, flags=re.MULTILINE) if part]
    return [(part.splitlines()[0], part.splitlines()[1:]) for part in commands]


def form(line: str) -> str:
    """Numbers as 0, hexadecimal ones too."""
    return re.sub(r"\b([0-9a-f]{32}|\d[\d,]*)\b", "0", line)


def test_given_the_guide_when_its_commands_are_run_in_order_then_they_print_what_it_shows(tmp_path: Path) -> None:
    path = tmp_path / "data"
    damaged_directory(path)
    repairs: list[str] = []
    for command, lines in shown():
        name, *arguments = command.replace(SHOWN_DIRECTORY, str(path)).split()
        assert name == "rocksmq"
        # The guide's ids are of another time: it names the first repair that was offered.
        arguments = [repairs[0] if argument.startswith("end:") else argument for argument in arguments]
        result = CliRunner().invoke(main, arguments, prog_name="rocksmq")
        printed = (result.stdout + result.stderr).replace(str(path), SHOWN_DIRECTORY).splitlines()
        assert sorted(map(form, printed)) == sorted(map(form, lines)), result.output
        repairs += re.findall(r"--repair (\S+)", result.stdout)
    assert repairs


def test_given_the_guide_when_its_table_is_read_then_it_has_every_repair() -> None:
    rows = re.findall(r"^\| `([a-z][a-z-]*)[^`]*` \|", GUIDE.read_text(), re.MULTILINE)
    assert sorted(rows) == sorted(ORDER)


@pytest.mark.parametrize("name", ["format", "mark"])
def test_given_the_guide_when_read_then_it_tells_of_the_files(name: str) -> None:
    assert f"`{name}`" in GUIDE.read_text()
