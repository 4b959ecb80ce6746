"""A tiny disk, filled and freed in every way: short runs of `python -m tests.crash.tiny_disk`, and does its ledger bite."""

from pathlib import Path
from random import Random
from typing import get_args

import pytest

from rocksmq.clients import Client
from tests.helpers.small_disk import Kind, refusal

from .tiny_disk import MIB, run
from .tiny_disk_book import ChannelBook

TURNS: dict[Kind, int] = {"tmpfs": 5, "ext4": 2}  # each way of freeing it; on a file system that stores, some
DISK_BYTES = 256 * MIB


@pytest.mark.slow
@pytest.mark.parametrize("kind", get_args(Kind))
def test_given_a_tiny_disk_when_filled_and_freed_in_each_way_then_nothing_acknowledged_is_lost_without_a_restart(
    tmp_path: Path, kind: Kind
) -> None:
    if why := refusal(kind):
        pytest.skip(why)
    lines = list(run(tmp_path, TURNS[kind], DISK_BYTES, kind, seed="7660"))
    assert len(lines) == TURNS[kind] + 1


@pytest.fixture
def book(client: Client) -> ChannelBook:
    """Of a channel that has two batches, of which the book knows."""
    book = ChannelBook("orders")
    client.create_channel("orders")
    for _ in range(2):
        payloads = book.payloads(Random(1), 100)
        book.acknowledged(payloads, client.produce("orders", payloads))
    book.refused(book.payloads(Random(1), 100))
    assert book.check(client) == len(book.stored)
    return book


def test_given_an_acknowledged_message_that_is_not_there_when_checked_then_it_is_told(
    client: Client, book: ChannelBook
) -> None:
    lost = book.payloads(Random(1), 100)
    behind = max(book.stored) + 1
    book.acknowledged(lost, range(behind, behind + len(lost)))
    with pytest.raises(AssertionError, match="are lost"):
        book.check(client)


def test_given_a_trimmed_channel_when_checked_then_a_beginning_may_be_missing_and_nothing_else(
    client: Client, book: ChannelBook
) -> None:
    book.is_trimmed = True
    first = min(book.stored)
    book.stored[first - 1] = b"gone"
    book.check(client)
    book.stored[max(book.stored) + 1] = b"lost"
    with pytest.raises(AssertionError, match="1 acknowledged messages are lost"):
        book.check(client)


@pytest.mark.parametrize("fate", ["refused", "acknowledged twice", "never sent", "other bytes"])
def test_given_a_message_that_should_not_be_there_when_checked_then_it_is_told(
    client: Client, book: ChannelBook, fate: str
) -> None:
    payloads = book.payloads(Random(1), 100)
    ids = client.produce("orders", payloads)
    if fate == "refused":
        book.refused(payloads)
    elif fate == "acknowledged twice":
        book.unknown(payloads)
        client.produce("orders", payloads)
    elif fate == "other bytes":
        book.acknowledged([b"other"] * len(ids), ids)
    with pytest.raises(AssertionError, match=r"refused|twice|nobody sent|other bytes"):
        book.check(client)


def test_given_a_batch_of_unknown_outcome_when_checked_then_it_may_be_there_or_not(client: Client, book: ChannelBook) -> None:
    for is_sent in (True, False):
        payloads = book.payloads(Random(1), 100)
        book.unknown(payloads)
        if is_sent:
            client.produce("orders", payloads)
    book.check(client)
