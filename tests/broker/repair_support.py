"""Doing what `check` offers, in tests."""

from pathlib import Path

from rocksmq.broker.check import examine
from rocksmq.broker.engine import RocksMQ
from rocksmq.broker.findings import Repair
from rocksmq.broker.repair import Offers, locked_for_repair, repair
from rocksmq.protocol.operations import DescribeGroup, ListGroups

from .check_support import Healthy, findings
from .support import in_trio


def offers(path: Path) -> Offers:
    return Offers.of(examine(path, offers_repairs=True))


def repaired(path: Path, *arguments: str) -> list[Repair]:
    """Do it; what was offered of that. Nothing but notes may be left."""
    with locked_for_repair(path):
        found = offers(path)
        assert set(arguments) <= set(found.repairs), sorted(found.repairs)
        assert len(list(repair(path, found, arguments))) == len(arguments)
    assert [line for line in findings(path) if line.startswith("problem")] == []
    return [found.repairs[argument] for argument in arguments]


def goes_on(healthy: Healthy, kept: dict[int, bytes]) -> None:
    """A broker serves exactly ``kept`` of `orders`, gives out no id again, and hands out what follows once."""

    @in_trio
    async def play() -> None:
        for round_ in range(2):
            async with RocksMQ(healthy.path) as mq:
                found: dict[int, bytes] = {}
                batch = await mq.fetch("orders", "earliest")
                while batch:
                    found |= dict(zip(batch.ids, batch.payloads, strict=True))
                    batch = await mq.fetch("orders", batch.next_position)
                assert found == kept
                for group in (await mq.call(ListGroups("orders", ""))).names:
                    while await mq.consume("orders", group):
                        pass
                    assert (await mq.call(DescribeGroup("orders", group))).lag_messages == 0
                (new_id,) = await mq.produce("orders", [b"more"])
                assert new_id > max(healthy.ids)
                kept[new_id] = b"more"
                for group in (await mq.call(ListGroups("orders", ""))).names:
                    assert (await mq.consume("orders", group)).payloads == [b"more"], (group, round_)

    play()
    assert findings(healthy.path) == []


def messages(healthy: Healthy) -> dict[int, bytes]:
    return dict(zip(healthy.ids, healthy.payloads, strict=True))
