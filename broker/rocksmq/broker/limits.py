"""Every limit of the broker, its default, and why (the wire's own limits stand in rocksmq.protocol)."""

from dataclasses import dataclass, fields
from typing import NamedTuple

from rocksmq.protocol.errors import InvalidRequest
from rocksmq.protocol.operations import Consume, Fetch, FetchMany

MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Limits:
    """Counts and bytes, seconds where the name says so. Each is named in the error it causes."""

    payload_bytes_max: int = MIB
    frame_bytes_max: int = 8 * MIB  # at least payload_bytes_max + 1 MiB
    batch_messages_max: int = 10_000
    consume_messages_max: int = 10_000
    consume_bytes_max: int = 7 * MIB  # of payloads and headers in a reply, which must fit into the client's frame
    poll_ms_max: int = 30_000
    produce_queue_bytes_max: int = 64 * MIB
    channels_max: int = 10_000
    request_channels_max: int = 1_000  # in one request about many; 1,000 owners in a reply are 4,005 of its 4,096 CBOR items
    waiting_channels_max: int = 500_000  # of long polls, each with all of its channels and 16 more: 140 bytes each, 70 MB
    groups_max: int = 1_000  # a channel
    groups_total_max: int = 100_000  # of all channels: each takes some 600 bytes of memory, and is read at the start
    consumers_max: int = 256  # consumer ids remembered a group
    producer_names_max: int = 10_000
    page_names_max: int = 1_000
    tail_cache_bytes: int = 32 * MIB
    connections_max: int = 4_096
    handshakes_max: int = 256  # connections before HELLO
    handshakes_per_address_max: int = 64  # of one address
    connections_bytes_max: int = 512 * MIB  # received and not handled, or not taken by clients, of all connections
    handshake_bytes_max: int = 4_096  # a frame before HELLO
    tls_handshake_seconds: float = 3.0  # of those that follow
    handshake_seconds: float = 5.0  # until HELLO
    frame_seconds: float = 30.0  # from a frame's first byte to its last
    frame_rate_min: int = 1_024  # bytes a second of a frame that has begun, after 5 seconds
    idle_ping_seconds: float = 30.0
    idle_close_seconds: float = 90.0
    write_seconds: float = 10.0  # without any progress
    in_flight_requests_max: int = 256  # a connection; more wait unread
    in_flight_bytes_max: int = 16 * MIB  # a connection; more wait unread
    output_bytes_max: int = 16 * MIB  # a connection; above it no request is read
    meta_start_seconds: float = 3.0  # to reach a meta store elsewhere, before the broker starts without it
    meta_call_seconds: float = 1.0  # for an answer of it
    meta_wait_seconds: float = 0.5  # that an operation on a group waits for it, before MetaUnavailable
    meta_queue_max: int = 10_000  # operations that wait for it
    metrics_series_max: int = 1_000  # channels and groups, above which /metrics has their sums
    http_connections_max: int = 32  # of the HTTP listener
    http_request_bytes_max: int = 8_192  # of a request's head
    http_request_seconds: float = 5.0  # for it
    drain_seconds: float = 10.0  # to finish what is in flight at SIGTERM

    def of_clients(self) -> dict[str, int]:
        """Those that a client must know, for HELLO."""
        told = (
            "payload_bytes_max",
            "frame_bytes_max",
            "batch_messages_max",
            "consume_messages_max",
            "consume_bytes_max",
            "poll_ms_max",
            "request_channels_max",
        )
        return {name: getattr(self, name) for name in told}


class Bounds(NamedTuple):
    """What the answer to a request for messages may hold, and how long it may wait for them."""

    count_max: int
    bytes_max: int
    wait_ms: int

    @classmethod
    def of(cls, request: Consume | Fetch | FetchMany, limits: Limits) -> "Bounds":
        """Raises InvalidRequest."""
        if request.max_messages < 1 or request.max_bytes < 1:
            raise InvalidRequest("max_messages and max_bytes are 1 at least")
        return cls(
            min(request.max_messages, limits.consume_messages_max),
            min(request.max_bytes, limits.consume_bytes_max),
            min(request.wait_ms, limits.poll_ms_max),
        )


LIMIT_NAMES = tuple(field.name for field in fields(Limits))
