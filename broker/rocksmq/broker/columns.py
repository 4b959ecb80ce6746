"""The columns of requests about many channels (SPEC §3.33), checked: each refusal names the column."""

from collections.abc import Sequence

from rocksmq.protocol.batch import LENGTH_BYTES, unpack_lengths
from rocksmq.protocol.cbor import Buffer
from rocksmq.protocol.columns import NUMBER_BYTES, unpack_numbers
from rocksmq.protocol.errors import InvalidRequest, LimitExceeded
from rocksmq.protocol.operations import METADATA_BYTES_MAX

from .limits import Limits


def check_channel_count(count: int, limits: Limits) -> None:
    """Raises InvalidRequest for none, LimitExceeded for too many."""
    if count < 1:
        raise InvalidRequest("a request about many channels is about one at least")
    if count > limits.request_channels_max:
        raise LimitExceeded(
            f"{count} channels in a request exceed the limit of {limits.request_channels_max} (request_channels_max)"
        )


def channel_numbers(column: Buffer, limits: Limits) -> list[int]:
    """Those of a request, each once. Raises InvalidRequest, LimitExceeded."""
    count = len(column) // NUMBER_BYTES
    numbers_of = numbers("numbers", column, count)
    check_channel_count(count, limits)
    check_distinct(numbers_of)
    return numbers_of


def starts(column: Buffer, limits: Limits) -> dict[int, int]:
    """Pairs of a channel's number and where to read from, in their order. Raises InvalidRequest, LimitExceeded."""
    count = len(column) // (2 * NUMBER_BYTES)
    pairs = numbers("starts", column, 2 * count)
    check_channel_count(count, limits)
    check_distinct(pairs[::2])
    return dict(zip(pairs[::2], pairs[1::2], strict=True))


def check_distinct(channel_numbers: Sequence[int]) -> None:
    """Raises InvalidRequest for a number that is there twice."""
    if len(set(channel_numbers)) == len(channel_numbers):
        return
    seen: set[int] = set()
    for number in channel_numbers:
        if number in seen:
            raise InvalidRequest(f"the channel of number {number} is there twice")
        seen.add(number)


def numbers(name: str, column: Buffer, count: int) -> list[int]:
    """The ``count`` numbers of the column ``name``. Raises InvalidRequest."""
    if len(column) != count * NUMBER_BYTES:
        raise InvalidRequest(f"{name} holds {len(column)} bytes, which are not {NUMBER_BYTES} for each of {count}")
    return unpack_numbers(column).tolist()


def metadata(lengths: Buffer, content: Buffer, count: int) -> list[bytes]:
    """What is kept with each of ``count`` positions. Raises InvalidRequest."""
    if len(lengths) != count * LENGTH_BYTES:
        raise InvalidRequest(f"metadata_lengths holds {len(lengths)} bytes, which are not {LENGTH_BYTES} for each of {count}")
    sizes = unpack_lengths(lengths)
    if sum(sizes) != len(content):
        raise InvalidRequest(f"metadata_lengths add up to {sum(sizes)} bytes, but metadata holds {len(content)}")
    if (longest := max(sizes)) > METADATA_BYTES_MAX:
        raise InvalidRequest(f"metadata of {longest} bytes exceed the limit of {METADATA_BYTES_MAX}")
    found: list[bytes] = []
    begin = 0
    for size in sizes:
        found.append(bytes(content[begin : begin + size]))
        begin += size
    return found
