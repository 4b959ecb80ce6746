"""Starts on positions and data that do not belong together: each is refused with numbers, or accepted by --accept-loss."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path

import pytest
import trio

from rocksmq.broker import keys
from rocksmq.broker.durability import Durability
from rocksmq.broker.engine import RocksMQ
from rocksmq.broker.meta_etcd import EtcdRemote, Login
from rocksmq.broker.meta_url import MetaUrl
from rocksmq.broker.records import GroupState
from rocksmq.broker.store import Family, Put, Store
from rocksmq.clients.testing import Broker
from tests.helpers.etcd import Etcd
from tests.helpers.ledger import wait_until
from tests.helpers.model_systems import copy_as_killed

DATA_REFUSED, IN_USE = 3, 4
PATIENCE_SECONDS = 30
PAYLOADS = [b"a", b"b", b"c", b"d"]
CONSUMED = 2
BEYOND = 5  # a position so far behind the end

_prefixes = count()


@pytest.fixture(scope="module")
def etcd() -> Iterator[Etcd]:
    with Etcd() as process:
        yield process


@dataclass(frozen=True)
class Place:
    """A data directory whose broker has stopped, with one group in the midst of PAYLOADS, and where its positions are."""

    directory: Path
    meta: str
    etcd: Etcd
    ids: range = range(0)

    @property
    def prefix(self) -> str:
        return MetaUrl.parse(self.meta).prefix

    @property
    def instance(self) -> str:
        found: str = json.loads((self.directory / "format").read_text())["instance"]
        return found

    def arguments(self) -> list[str]:
        return ["--meta", self.meta]

    def run(self, work: Callable[[RocksMQ], Awaitable[None]], durability: str = "fsync") -> None:
        """A broker's life with ``work`` in it, in this process."""

        async def live() -> None:
            remote = None if self.meta == "embedded" else EtcdRemote(MetaUrl.parse(self.meta), Login(), call_seconds=10)
            async with RocksMQ(self.directory, durability=Durability.parse(durability), remote=remote) as mq:
                await work(mq)

        trio.run(live)

    def get(self, key: str) -> str:
        value = self.etcd.get(f"{self.prefix}/{key}")
        assert value is not None, f"{key} is there"
        return value

    def put(self, key: str, value: str) -> None:
        self.etcd.ctl("put", f"{self.prefix}/{key}", "--", value)

    def delete(self, *keys_or_flags: str) -> None:
        self.etcd.ctl("del", f"{self.prefix}/{keys_or_flags[0]}", *keys_or_flags[1:])

    def move_position(self, position: int) -> None:
        """As the store would show it had the group read as far as that."""
        if self.meta != "embedded":
            self.put("billing/orders/state", json.dumps({**json.loads(self.get("billing/orders/state")), "position": position}))
            self.put("billing/orders/current_id", str(position))
            return
        store = Store(self.directory / "db")
        key = keys.group_key("billing", "orders", keys.STATE)
        value = store.get(Family.META, key)
        assert value is not None
        store.write([Put(Family.META, key, GroupState.decode(value)._replace(position=position).encode())])
        store.close()


def new_place(tmp_path: Path, etcd: Etcd, meta: str = "etcd", durability: str = "fsync", name: str = "data") -> Place:
    place = Place(tmp_path / name, meta if meta == "embedded" else etcd.url(f"start/{next(_prefixes)}"), etcd)
    ids: list[range] = []

    async def load(mq: RocksMQ) -> None:
        await mq.create_channel("orders", durability=durability)
        await mq.create_consumer_group("orders", "billing")
        ids.append(await mq.produce("orders", PAYLOADS))
        await mq.consume("orders", "billing", CONSUMED)

    place.run(load)
    return replace(place, ids=ids[0])


async def nothing(mq: RocksMQ) -> None:
    """A life in which nothing happens."""


async def one_produce(mq: RocksMQ) -> None:
    await mq.produce("orders", [b"e"])
    await mq.consume("orders", "billing")


def refused(place: Place, code: int, *fragments: str, flags: tuple[str, ...] = ()) -> None:
    """A start ends with ``code`` and one line of why; nothing of it is served."""
    result = subprocess.run(
        [
            *(sys.executable, "-P", "-m", "rocksmq.broker", "--listen", "127.0.0.1:0", "--http", "off"),
            *("--data-dir", str(place.directory), *place.arguments(), *flags),
        ],
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        env={name: value for name, value in os.environ.items() if not name.startswith("ROCKSMQ_")},
        check=False,
    )
    assert result.returncode == code, result.stderr
    assert "listening" not in result.stdout
    assert "Traceback" not in result.stderr
    said = [line for line in result.stderr.splitlines() if line.startswith("rocksmqd: ")]
    assert len(said) == 1, result.stderr
    for fragment in fragments:
        assert fragment in said[0], said[0]


def accepted(place: Place, position: int | None, unread: list[bytes]) -> None:
    """It starts with --accept-loss, and again without: the group is at ``position`` (None: there is none), data are kept."""
    with Broker(place.directory, *place.arguments(), "--accept-loss") as broker, broker.client() as mq:
        assert "accepted: " in broker.log.read_text()
        assert mq.fetch("orders", "earliest").payloads[: len(PAYLOADS)] == PAYLOADS
        if position is None:
            assert mq.list_consumer_groups("orders") == []
            mq.create_consumer_group("orders", "billing")
        else:
            # Whoever is beyond the end is brought back with the first transaction.
            wait_until(lambda: mq.describe_consumer_group("orders", "billing").position == position, "it is brought back")
        assert mq.describe_consumer_group("orders", "billing").lag_messages == len(unread)
        assert mq.consume("orders", "billing").payloads == unread
        mq.produce("orders", [b"new"])
        assert mq.consume("orders", "billing").payloads == [b"new"]
        assert broker.terminate() == 0
    place.run(nothing)


# -- refused, and accepted when told to --------------------------------------------------


@pytest.mark.parametrize("meta", ["embedded", "etcd"])
def test_given_a_position_beyond_the_end_of_an_fsync_channel_when_started_then_exit_3_names_both_ids(
    tmp_path: Path, etcd: Etcd, meta: str
) -> None:
    place = new_place(tmp_path, etcd, meta)
    place.move_position(place.ids[-1] + BEYOND)
    refused(place, DATA_REFUSED, "'billing'", "'orders'", str(place.ids[-1] + BEYOND), str(place.ids[-1]), "--accept-loss")
    accepted(place, place.ids[-1] + 1, [])


@pytest.mark.parametrize("meta", ["embedded", "etcd"])
@pytest.mark.parametrize("mode", ["os", "interval:50"])
def test_given_a_position_beyond_the_end_in_another_mode_when_started_then_it_is_brought_back_and_told(
    tmp_path: Path, etcd: Etcd, meta: str, mode: str
) -> None:
    place = new_place(tmp_path, etcd, meta, mode)
    place.move_position(place.ids[-1] + BEYOND)
    with Broker(place.directory, *place.arguments()) as broker, broker.client() as mq:
        wait_until(lambda: mq.describe_consumer_group("orders", "billing").position == place.ids[-1] + 1, "it is brought back")
        assert mq.describe_consumer_group("orders", "billing").lag_messages == 0
        mq.produce("orders", [b"new"])
        assert mq.consume("orders", "billing").payloads == [b"new"]
        told = broker.log.read_text()
    for fragment in ("WARNING", "'billing'", "'orders'", str(place.ids[-1] + BEYOND), str(place.ids[-1])):
        assert fragment in told


@pytest.mark.parametrize("is_etcd_away", [False, True], ids=["etcd there", "etcd away at first"])
def test_given_a_log_whose_end_a_power_cut_took_when_started_then_its_reader_goes_on_behind_what_is_left(
    tmp_path: Path, is_etcd_away: bool
) -> None:
    with Etcd(tmp_path / "etcd") as etcd, Broker(tmp_path / "data", "--meta", etcd.url("cut"), "--durability", "os") as broker:
        with broker.client() as mq:
            mq.create_channel("orders")
            mq.create_consumer_group("orders", "billing")
            mq.produce("orders", [b"kept"])
            mq.create_channel("synced")
            mq.produce("orders", [b"lost"] * 3)
            assert len(mq.consume("orders", "billing")) == 4
            broker.kill()
            (log,) = [path for path in (broker.directory / "db").glob("*.log") if path.stat().st_size]
            os.truncate(log, log.read_bytes().index(b"lostlost"))
            if is_etcd_away:
                etcd.kill()
                broker.environment["ROCKSMQ_LIMITS_META_START_SECONDS"] = "0.1"
            broker.start()
            mq.produce("orders", [b"new"] * 2)
            if is_etcd_away:
                etcd.start()
            assert mq.consume("orders", "billing").payloads == [b"new"] * 2
            assert mq.describe_consumer_group("orders", "billing").lag_messages == 0
            mq.produce("orders", [b"newer"])
            assert mq.describe_consumer_group("orders", "billing").lag_messages == 1
        assert "WARNING rocksmq.broker: group 'billing' of channel 'orders'" in broker.log.read_text()


def test_given_an_older_data_directory_when_started_then_exit_3_counts_the_takeovers(tmp_path: Path, etcd: Etcd) -> None:
    place = new_place(tmp_path, etcd)
    shutil.copytree(place.directory, tmp_path / "older")
    place.run(one_produce)
    older = replace(place, directory=tmp_path / "older")
    refused(older, DATA_REFUSED, "(epoch 2, and here 1)", "older", "--accept-loss")
    place.run(nothing)  # the right one is not harmed by that
    accepted(older, place.ids[-1] + 1, [])
    refused(place, DATA_REFUSED, "older than the positions, or a copy")  # the other has gone on from here


def test_given_a_copy_of_a_running_broker_s_directory_when_put_in_its_place_then_exit_3_counts_the_missing_commits(
    tmp_path: Path, etcd: Etcd
) -> None:
    place = new_place(tmp_path, etcd)

    async def copy_midway(mq: RocksMQ) -> None:
        await mq.produce("orders", [b"before"])
        copy_as_killed(place.directory, tmp_path / "copy")
        for _ in range(3):
            await mq.produce("orders", [b"missing"])
        await mq.consume("orders", "billing", 1)

    place.run(copy_midway)
    copy = replace(place, directory=tmp_path / "copy")
    refused(copy, DATA_REFUSED, "group commit", "3 commits missing", "--accept-loss")
    accepted(copy, place.ids[CONSUMED] + 1, [b"d", b"before"])


def test_given_the_prefix_of_another_instance_when_started_then_exit_3_names_both(tmp_path: Path, etcd: Etcd) -> None:
    owner = new_place(tmp_path, etcd, name="owner")
    other = replace(new_place(tmp_path, etcd, "embedded", name="other"), meta=owner.meta)

    async def without_groups(mq: RocksMQ) -> None:
        await mq.destroy_consumer_group("orders", "billing")

    replace(other, meta="embedded").run(without_groups)
    refused(other, DATA_REFUSED, owner.instance, other.instance, "--accept-loss")
    owner.run(nothing)
    accepted(other, None, PAYLOADS)
    refused(owner, DATA_REFUSED, owner.instance, other.instance)


def test_given_a_running_owner_when_another_instance_starts_then_exit_4_names_it_whatever_is_accepted(
    tmp_path: Path, etcd: Etcd
) -> None:
    place = new_place(tmp_path, etcd)
    with Broker(place.directory, *place.arguments()) as broker, broker.client() as mq:
        other = replace(place, directory=tmp_path / "other")
        for flags in ((), ("--accept-loss",)):
            refused(other, IN_USE, place.prefix, place.instance, str(broker.pid), os.uname().nodename, flags=flags)
        assert len(mq.consume("orders", "billing")) == len(PAYLOADS) - CONSUMED
        # Nothing of the other was stored there, so it is free to go elsewhere.
        replace(other, meta="embedded").run(nothing)


def delete_all(place: Place) -> tuple[int, list[bytes]]:
    place.delete("", "--prefix")
    return place.ids[CONSUMED], PAYLOADS[CONSUMED:]


def restore_older(place: Place) -> tuple[int, list[bytes]]:
    before = {key: place.get(key) for key in ("commit", "data", "billing/orders/state", "billing/orders/current_id")}
    place.run(one_produce)
    position = int(place.get("billing/orders/current_id"))
    for key, value in before.items():
        place.put(key, value)
    return position, []


@pytest.mark.parametrize(("harm", "told"), [(delete_all, "nothing stands there"), (restore_older, "is older (epoch 1)")])
def test_given_positions_deleted_or_restored_when_started_then_exit_3_and_accepted_they_come_from_the_copy(
    tmp_path: Path, etcd: Etcd, harm: Callable[[Place], tuple[int, list[bytes]]], told: str
) -> None:
    place = new_place(tmp_path, etcd)
    position, unread = harm(place)
    refused(place, DATA_REFUSED, told, "--accept-loss")
    accepted(place, position, unread)


def test_given_less_data_than_the_mark_says_when_started_then_exit_3_wherever_positions_are(tmp_path: Path, etcd: Etcd) -> None:
    place = new_place(tmp_path, etcd)
    shutil.copytree(place.directory / "db", tmp_path / "older-db")
    place.run(one_produce)
    shutil.rmtree(place.directory / "db")
    shutil.copytree(tmp_path / "older-db", place.directory / "db")
    refused(place, DATA_REFUSED, "less than was acknowledged", "commits are missing", "--accept-loss")
    accepted(place, place.ids[-1] + 1, [])


# -- moving ------------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["embedded", "another prefix"])
def test_given_positions_in_etcd_when_sought_elsewhere_then_exit_3_says_where_they_are(
    tmp_path: Path, etcd: Etcd, target: str
) -> None:
    place = new_place(tmp_path, etcd)
    moved = replace(place, meta="embedded" if target == "embedded" else etcd.url("start/elsewhere"))
    where = "embedded" if target == "embedded" else "start/elsewhere"
    refused(moved, DATA_REFUSED, place.prefix, where, "rocksmq meta export", "rocksmq meta import", "--accept-loss")
    place.run(nothing)
    if target == "embedded":
        accepted(moved, place.ids[CONSUMED], PAYLOADS[CONSUMED:])  # the copy that is there
    else:
        accepted(moved, None, PAYLOADS)


def test_given_embedded_positions_when_sought_in_etcd_then_exit_3_says_where_they_are(tmp_path: Path, etcd: Etcd) -> None:
    place = new_place(tmp_path, etcd, "embedded")
    moved = replace(place, meta=etcd.url(f"start/{next(_prefixes)}"))
    refused(moved, DATA_REFUSED, "embedded", moved.prefix, "rocksmq meta export", "--accept-loss")
    place.run(nothing)
    accepted(moved, None, PAYLOADS)
    refused(place, DATA_REFUSED, moved.prefix)


def test_given_embedded_positions_and_no_etcd_when_started_then_it_is_refused_at_once(tmp_path: Path, etcd: Etcd) -> None:
    place = new_place(tmp_path, etcd, "embedded")
    refused(replace(place, meta="etcd://127.0.0.1:1/start/away"), DATA_REFUSED, "embedded", "start/away")


def test_given_no_groups_when_sought_in_etcd_then_it_starts(tmp_path: Path, etcd: Etcd) -> None:
    place = Place(tmp_path / "data", "embedded", etcd)

    async def load(mq: RocksMQ) -> None:
        await mq.create_channel("orders")
        await mq.produce("orders", PAYLOADS)

    place.run(load)

    async def check(mq: RocksMQ) -> None:
        await mq.create_consumer_group("orders", "billing")
        assert (await mq.consume("orders", "billing")).payloads == PAYLOADS

    replace(place, meta=etcd.url(f"start/{next(_prefixes)}")).run(check)


# -- values that no broker wrote ---------------------------------------------------------

STATE, CURRENT_ID = "billing/orders/state", "billing/orders/current_id"
EDITS: dict[str, tuple[str, str | None]] = {
    "a position moved by hand": (CURRENT_ID, "7"),
    "a position that is no number": (CURRENT_ID, "first"),
    "a position deleted": (CURRENT_ID, None),
    "a state deleted": (STATE, None),
    "a state that is no JSON": (STATE, "{"),
    "a state that is a list": (STATE, "[]"),
    "a state that is a number": (STATE, "5"),
    "a state without fields": (STATE, "{}"),
    "a state of a newer version": (STATE, '{"version": 2}'),
    "an owner that is none": ("owner", "me"),
    "data that are none": ("data", '{"instance": 1}'),
    "a commit that is none": ("commit", "nonsense"),
}


@pytest.mark.parametrize("case", EDITS)
def test_given_a_value_edited_by_hand_when_started_then_exit_3_names_the_key_and_mended_it_starts(
    edited: Place, case: str
) -> None:
    key, value = EDITS[case]
    before = edited.etcd.get(f"{edited.prefix}/{key}")
    if value is None:
        edited.delete(key)
    else:
        edited.put(key, value)
    try:
        refused(edited, DATA_REFUSED, key, edited.prefix)
    finally:
        if before is None:
            edited.delete(key)
        else:
            edited.put(key, before)
    edited.run(nothing)


@pytest.fixture(scope="module")
def edited(tmp_path_factory: pytest.TempPathFactory, etcd: Etcd) -> Place:
    """One for all edits, since each is mended."""
    return new_place(tmp_path_factory.mktemp("edited"), etcd)


WRONG_TYPES: dict[str, object] = {"offset": None, "consumers": [], "metadata": "zz"}


def test_given_a_state_with_wrong_types_when_started_then_exit_3(edited: Place) -> None:
    before = json.loads(edited.get(STATE))
    try:
        for field, value in WRONG_TYPES.items():
            edited.put(STATE, json.dumps({**before, field: value}))
            refused(edited, DATA_REFUSED, STATE)
    finally:
        edited.put(STATE, json.dumps(before))


def test_given_other_keys_under_the_prefix_when_started_then_they_are_left_alone(edited: Place) -> None:
    others = {"notes": "ours", "a/b/c/d/e": "x", "commit/x": "y", "billing/orders/note": "z", "x//y": "", "\u00e9/state": "v"}
    for key, value in others.items():
        edited.put(key, value)
    edited.run(one_produce)
    for key, value in others.items():
        assert (edited.etcd.get(f"{edited.prefix}/{key}") or "") == value
