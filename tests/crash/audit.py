"""The audit at the end of a run: the channels as they are, held against the books of all workers.

- produce: nothing lost, doubled or reordered; ids and headers as they were told;
- auto groups: each message was handed out once, to one of the group's readers, and to each reader in order, but for
  what another gave back;
- manual groups: at least once; again only what was not committed.
"""

from array import array
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

from rocksmq.clients import Client

from .book import Kind, Record, read_book
from .cast import CHANNELS, GROUPS, MANUAL_GROUPS
from .content import describe, headers_of, label_of, labels_in, number_of, producer_of
from .staff import Member
from .worker import PARTS_MAX, Part

READ_AT_ONCE = 10_000


class Report(NamedTuple):
    """What a run has seen."""

    produced: int
    handed_out: Mapping[str, int]  # by group
    handed_out_again: int  # to manual consumers
    outages: int  # of the workers' connections, all of them healed
    errors: Mapping[str, int]  # that the client raised, by type and text
    unknown: int  # messages whose outcome the client could not tell
    refused: int  # messages that the client said are not stored
    lives: int  # of workers
    cycles: int = 0
    struck: Sequence[str] = ()
    link: Mapping[str, int] = {}
    etcd: Mapping[str, int] = {}  # what was done to it


class Channel(NamedTuple):
    """A channel as it is at the end; the rank of a message is its place there."""

    ids: "array[int]"
    labels: "array[int]"

    def rank(self, message_id: int) -> int:
        """Raises AssertionError when there is no such message."""
        found = bisect_left(self.ids, message_id)
        assert self.ids[found : found + 1] == array("Q", [message_id]), f"{message_id} was handed out, and is not there"
        return found

    def runs(self, handed: Sequence[int]) -> Iterator[tuple[int, int]]:
        """What was handed out at once (ids, then labels), as runs of neighbours: rank of the first, count."""
        half = len(handed) // 2
        ids, labels = handed[:half], handed[half:]
        begin = 0
        while begin < half:
            first = self.rank(ids[begin])
            count = 1
            if self.ids[first : first + half - begin] == ids[begin:]:
                count = half - begin
            else:  # which ends before the channel does
                while begin + count < half and self.ids[first + count] == ids[begin + count]:
                    count += 1
            assert self.labels[first : first + count] == labels[begin : begin + count], (
                f"{ids[begin]} and {count - 1} more were handed out with other payloads than are stored"
            )
            yield first, count
            begin += count


class Audit:
    """One audit; raises AssertionError for whatever is wrong."""

    def __init__(self, mq: Client, members: Sequence[Member]) -> None:
        self._mq = mq
        self._members = members
        self._channels: dict[str, Channel] = {}
        self._errors: Counter[str] = Counter()
        self._counts: Counter[str] = Counter()
        self._headed = {member.part.number for member in members if member.part.options.get("headers")}

    def run(self) -> Report:
        """Check everything."""
        for channel in CHANNELS:
            self._channels[channel] = self._read(channel)
        for member in self._members:
            self._note(member)
        self._check_produced()
        handed_out = {group: self._check_group(group) for group in GROUPS}
        return Report(
            produced=sum(len(channel.ids) for channel in self._channels.values()),
            handed_out=handed_out,
            handed_out_again=self._counts["again"],
            outages=self._counts["outages"],
            errors=self._errors,
            unknown=self._counts["unknown"],
            refused=self._counts["refused"],
            lives=sum(len(member.books) for member in self._members),
        )

    def _note(self, member: Member) -> None:
        for life in range(len(member.books)):
            records = list(_records(member, life))
            is_ended = bool(records) and records[-1].kind is Kind.END
            assert is_ended or life in member.killed, f"{member.part.name}, life {life}: it did not end cleanly"
            for record in records:
                if record.kind is Kind.ERROR:
                    self._errors[f"{member.part.role}: {record.text}"] += 1
                elif record.kind is Kind.OUTAGES:
                    self._counts["outages"] += record.numbers[0]

    # -- what is stored ----------------------------------------------------------------

    def _read(self, channel: str) -> Channel:
        read = Channel(array("Q"), array("Q"))
        position: int | str = "earliest"
        while batch := self._mq.fetch(channel, position, READ_AT_ONCE):
            assert batch.gap is None, f"{channel} has a gap: {batch.gap}"
            ids, labels = batch.ids, labels_in(batch.payloads)
            assert not read.ids or ids[0] > read.ids[-1], f"{channel}: id {ids[0]} does not rise"
            assert all(a < b for a, b in pairwise(ids)), f"{channel}: ids do not rise"
            for index, label in enumerate(labels):
                if producer_of(label) % PARTS_MAX in self._headed:
                    assert batch.headers_of(index) == headers_of(label), f"{describe(label)} has other headers"
            read.ids.extend(ids)
            read.labels.extend(labels)
            position = batch.next_position
        info = self._mq.describe_channel(channel)
        assert info.message_count == len(read.ids), f"{channel} describes {info.message_count}, and has {len(read.ids)}"
        return read

    def _check_produced(self) -> None:
        stored: dict[int, list[int]] = {}
        for channel in self._channels.values():
            for label in channel.labels:
                stored.setdefault(producer_of(label), []).append(number_of(label))
        for member in self._members:
            if not member.part.is_producer:
                continue
            lives = [member.part._replace(life=life) for life in range(len(member.books))]
            for producer in {producer for part in lives for producer in part.producers}:
                self._check_producer(member, producer, stored.pop(producer, []))
        assert not stored, f"messages of producers that there are not: {sorted(stored)}"

    def _check_producer(self, member: Member, producer: int, numbers: list[int]) -> None:
        """Its messages, in the order in which they are stored, against its books."""
        for before, number in pairwise([-1, *numbers]):
            assert number != before, f"{describe(label_of(producer, number))} is stored twice"
            assert number > before, f"{describe(label_of(producer, number))} comes after {before}: doubled, or reordered"
        sent, surely_sent, unknown, refused = 0, 0, set[int](), set[int]()
        for life in range(len(member.books)):
            for record in _records(member, life):
                if record.kind is Kind.SENT and producer_of(record.numbers[0]) == producer:
                    end = number_of(record.numbers[0]) + record.numbers[1]
                    sent = max(sent, end)
                    if life not in member.killed:
                        surely_sent = max(surely_sent, end)
                elif record.kind is Kind.STORED and producer_of(record.numbers[0]) == producer:
                    self._check_ids(member, record)
                elif record.kind is Kind.UNKNOWN:
                    unknown.update(number_of(label) for label in record.numbers if producer_of(label) == producer)
                elif record.kind is Kind.REFUSED:
                    refused.update(number_of(label) for label in record.numbers if producer_of(label) == producer)
        assert not numbers or numbers[-1] < sent, f"{describe(label_of(producer, numbers[-1]))} was never sent"
        wrong = refused.intersection(numbers)
        assert not wrong, f"{describe(label_of(producer, min(wrong, default=0)))} and {len(wrong)} in all: refused, yet stored"
        lost = sorted(set(range(surely_sent)).difference(numbers) - unknown - refused)
        assert not lost, f"{describe(label_of(producer, lost[0]))} and {len(lost)} in all: lost, of {surely_sent} sent"
        self._counts["unknown"] += len(unknown)
        self._counts["refused"] += len(refused)

    def _check_ids(self, member: Member, record: Record) -> None:
        label, first_id, count = record.numbers
        channel = self._channels[member.part.channel]
        rank = bisect_left(channel.ids, first_id)
        there = channel.labels[rank : rank + count]
        assert list(there) == list(range(label, label + count)), f"{describe(label)} is not at {first_id}, as was told"
        assert channel.ids[rank + count - 1] - first_id == count - 1, f"{describe(label)}: its batch is torn"

    # -- what was handed out -------------------------------------------------------------

    def _check_group(self, group: str) -> int:
        channel = self._channels[GROUPS[group]]
        members = [member for member in self._members if member.part.group == group]
        if group in MANUAL_GROUPS:
            for member in members:
                self._check_manual(member, channel)
            return len(channel.ids)
        handed = bytearray(len(channel.ids))
        for member in members:
            for life in range(len(member.books)):
                for first, count in _handed(member, life, channel):
                    again = handed.find(1, first, first + count)
                    assert again < 0, f"group {group}: {self._at(channel, again)} was handed out twice"
                    handed[first : first + count] = b"\1" * count
        lost = handed.find(0)
        assert lost < 0, f"group {group}: {handed.count(0)} were never handed out, the first {self._at(channel, lost)}"
        self._check_order(group, members, channel)
        return len(handed)

    def _check_order(self, group: str, members: Sequence[Member], channel: Channel) -> None:
        """Ranks rise for each reader, but for what a life that has ended held unread and gave back."""
        given_back: list[tuple[int, int]] = []
        for member in members:
            claimed = max(member.part.options.get("held", 1_000), member.part.options.get("most", 0))
            for life in range(len(member.books) - 1):
                runs = list(_handed(member, life, channel))
                if runs:
                    end = sum(runs[-1])
                    given_back.append((end, end + claimed))
        for member in members:
            for life in range(len(member.books)) if _threads(member.part) == 1 else ():
                end = 0
                for first, count in _handed(member, life, channel):
                    is_given_back = any(low <= first and first + count <= high for low, high in given_back)
                    assert first >= end or is_given_back, (
                        f"group {group}: {self._at(channel, first)} went to {member.part.name} out of order"
                    )
                    end = max(end, first + count)

    def _check_manual(self, member: Member, channel: Channel) -> None:
        """Each life begins where the last commit got to, and goes on without a hole."""
        starts = {0}  # where the next life may begin: behind the last commit, or one without an answer
        seen = 0
        for life in range(len(member.books)):
            place: int | None = None
            for record in _records(member, life):
                if record.kind is Kind.COMMITTING:
                    starts.add(bisect_left(channel.ids, record.numbers[0]))
                elif record.kind is Kind.COMMITTED:
                    starts = {bisect_left(channel.ids, record.numbers[0])}
                elif record.kind is Kind.HANDED:
                    for first, count in channel.runs(record.numbers):
                        where = f"{member.part.name}, life {life}: {self._at(channel, first)}"
                        if place is None:
                            assert first in starts, f"{where} comes first, not one of ranks {sorted(starts)}"
                        else:
                            assert first == place, f"{where} comes where {self._at(channel, place)} should"
                        place = first + count
                        self._counts["again"] += max(0, min(seen, place) - first)
                        seen = max(seen, place)
        assert seen == len(channel.ids), f"{member.part.name}: {len(channel.ids) - seen} were never handed out"

    @staticmethod
    def _at(channel: Channel, rank: int) -> str:
        return f"{describe(channel.labels[rank])}, id {channel.ids[rank]}"


def _threads(part: Part) -> int:
    threads: int = part.options.get("threads", 1)
    return threads


def _records(member: Member, life: int) -> Iterator[Record]:
    if life in member.killed and not member.books[life].exists():
        return iter(())  # it was killed before it began
    return read_book(member.books[life])


def _handed(member: Member, life: int, channel: Channel) -> Iterator[tuple[int, int]]:
    for record in _records(member, life):
        if record.kind is Kind.HANDED:
            yield from channel.runs(record.numbers)
