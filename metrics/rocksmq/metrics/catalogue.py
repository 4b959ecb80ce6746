"""Every metric of the broker: name, kind, labels, help, buckets with their reasons.

The one place where they are named. What is exposed, the table in ``metrics/metrics.md``, the dashboard and the
alerts are held against `CATALOGUE` by tests. Units stand in the names: seconds, bytes, messages;
counters end in ``_total``.
"""

from enum import StrEnum
from typing import NamedTuple


class Kind(StrEnum):
    """As Prometheus has them."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class Metric(NamedTuple):
    """One metric. ``buckets``: upper bounds of a histogram's, without the last, which has none."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()


# From a fifth of a loopback round trip to the client's default timeout, some 2.5 apart: a p99 is known to within its step.
REQUEST_BUCKETS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
# A disk with a cache that survives power cuts syncs in 50 us, a spinning one in 10 ms; 0.5 s is what the alert asks about.
DISK_BUCKETS = (0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
# From a message that was waited for to one that was caught up with a day later.
AGE_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 3600.0, 86400.0)
# One message, a batch, sixteen batches of the largest size in flight.
COUNT_BUCKETS = (1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1e3, 3e3, 1e4, 3e4, 1e5)
# Up to the 4 MiB above which connections wait, and what a large batch may add to that.
BYTE_BUCKETS = (256.0, 1024.0, 4096.0, 16384.0, 65536.0, 262144.0, 1048576.0, 4194304.0, 16777216.0)
# The loop's turn of 5 ms is the aim; half a second is what the alert asks about.
LOOP_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)

_CHANNEL = ("channel",)
_GROUP = ("channel", "group")
_MIRROR = ("mirror",)
_MIRRORED = ("mirror", "channel")
_COUNTER, _GAUGE, _HISTOGRAM = Kind.COUNTER, Kind.GAUGE, Kind.HISTOGRAM

# -- the broker itself
BUILD_INFO = Metric(
    "rocksmq_build_info",
    _GAUGE,
    "Always 1: the broker's version, Python, the RocksDB binding, default durability and where positions are kept.",
    ("version", "python", "rocksdict", "durability", "meta"),
)
READY = Metric("rocksmq_ready", _GAUGE, "1 while every check of /readyz passes.")
READY_CHECK = Metric("rocksmq_ready_check", _GAUGE, "1 while this check of /readyz passes.", ("check",))
AFTER_CRASH = Metric(
    "rocksmq_started_after_crash", _GAUGE, "1 if the broker before this one on the data directory did not end in order."
)
READ_ONLY = Metric("rocksmq_read_only", _GAUGE, "1 once the store has failed: nothing more is acknowledged, the broker ends.")

# -- requests
REQUESTS = Metric(
    "rocksmq_requests_total", _COUNTER, "Requests answered, by operation and result: OK or the error's name.", ("op", "code")
)
REQUEST_SECONDS = Metric(
    "rocksmq_request_duration_seconds",
    _HISTOGRAM,
    "From a request's arrival to its answer. Long polls that had to wait for messages are left out.",
    ("op",),
    REQUEST_BUCKETS,
)
IN_FLIGHT_REQUESTS = Metric("rocksmq_requests_in_flight", _GAUGE, "Requests taken and not answered, long polls included.")
IN_FLIGHT_BYTES = Metric("rocksmq_in_flight_bytes", _GAUGE, "Bytes of the requests taken and not answered.")
LONG_POLLS = Metric("rocksmq_long_polls", _GAUGE, "Requests that wait for messages, or for the store of the positions.")

# -- the write path
PRODUCED_MESSAGES = Metric("rocksmq_produced_messages_total", _COUNTER, "Messages appended and durable.", _CHANNEL)
PRODUCED_BYTES = Metric(
    "rocksmq_produced_bytes_total", _COUNTER, "Bytes of payloads and headers appended and durable.", _CHANNEL
)
COMMIT_MESSAGES = Metric("rocksmq_commit_messages", _HISTOGRAM, "Messages that one group commit brought.", (), COUNT_BUCKETS)
COMMIT_BYTES = Metric("rocksmq_commit_bytes", _HISTOGRAM, "Bytes that one group commit wrote, about.", (), BYTE_BUCKETS)
COMMIT_QUEUE_BYTES = Metric(
    "rocksmq_commit_queue_bytes", _GAUGE, "Bytes that wait for the next group commit: to be written, and of answers."
)
COMMITS_REFUSED = Metric("rocksmq_commits_refused_total", _COUNTER, "Group commits undone because the disk was full.")
WRITE_SECONDS = Metric(
    "rocksmq_wal_write_duration_seconds", _HISTOGRAM, "One write to RocksDB: its log and its memtable.", (), DISK_BUCKETS
)
SYNC_SECONDS = Metric(
    "rocksmq_wal_sync_duration_seconds", _HISTOGRAM, "One sync of RocksDB's log, of a group commit.", (), DISK_BUCKETS
)
SYNC_RUNNING = Metric(
    "rocksmq_wal_sync_running_seconds", _GAUGE, "For how long the present sync has not come back; 0: there is none."
)
SYNC_FAILURES = Metric(
    "rocksmq_wal_sync_failures_total", _COUNTER, "Writes and syncs that failed for good; the broker ends with exit code 5."
)
UNSYNCED_COMMITS = Metric("rocksmq_unsynced_commits", _GAUGE, "Group commits written and not synced, of os and interval.")
MARK_LAG = Metric(
    "rocksmq_durable_mark_lag_commits", _GAUGE, "Group commits synced that the durable mark does not tell of yet."
)
MARK_FAILURES = Metric("rocksmq_durable_mark_failures_total", _COUNTER, "Writes of the durable mark that failed.")
ID_AHEAD = Metric("rocksmq_message_id_ahead_seconds", _GAUGE, "How far message ids run ahead of the clock; 0: not at all.")

# -- the read path
DELIVERED_MESSAGES = Metric(
    "rocksmq_delivered_messages_total",
    _COUNTER,
    "Messages in answers: to a group's consume, or to fetches, whose group is empty.",
    _GROUP,
)
DELIVERED_BYTES = Metric("rocksmq_delivered_bytes_total", _COUNTER, "Bytes of payloads and headers in those answers.", _GROUP)
REDELIVERED_MESSAGES = Metric(
    "rocksmq_redelivered_messages_total",
    _COUNTER,
    "Of these, messages of a consume that was asked again, since its answer had been lost.",
)
END_TO_END_SECONDS = Metric(
    "rocksmq_end_to_end_latency_seconds",
    _HISTOGRAM,
    "Age of each message when it is given to a reader, since it was appended.",
    (),
    AGE_BUCKETS,
)
CACHE_BYTES = Metric("rocksmq_tail_cache_bytes", _GAUGE, "Bytes of the newest batches that are kept in memory.")
CACHE_READS = Metric(
    "rocksmq_tail_cache_reads_total", _COUNTER, "Reads that found messages: hit from memory, miss from RocksDB.", ("result",)
)

# -- channels and groups
CHANNELS = Metric("rocksmq_channels", _GAUGE, "Channels.")
GROUPS = Metric("rocksmq_groups", _GAUGE, "Consumer groups of all channels.")
CHANNEL_FIRST_ID = Metric("rocksmq_channel_first_id", _GAUGE, "Id of the first message kept, to within 256.", _CHANNEL)
CHANNEL_LAST_ID = Metric("rocksmq_channel_last_id", _GAUGE, "Id of the last message, to within 256.", _CHANNEL)
CHANNEL_MESSAGES = Metric("rocksmq_channel_messages", _GAUGE, "Messages kept.", _CHANNEL)
CHANNEL_BYTES = Metric("rocksmq_channel_bytes", _GAUGE, "Bytes of payloads and headers kept.", _CHANNEL)
GROUP_OFFSET = Metric(
    "rocksmq_group_offset_messages", _GAUGE, "Messages ever appended that lie before the group's position.", _GROUP
)
GROUP_LAG = Metric("rocksmq_group_lag_messages", _GAUGE, "Messages that the group has not read.", _GROUP)
GROUP_LAG_SECONDS = Metric(
    "rocksmq_group_lag_seconds", _GAUGE, "Age of the oldest message that the group has not read; 0: it has read all.", _GROUP
)
GROUP_WAITING = Metric("rocksmq_group_waiting_consumers", _GAUGE, "Consumes of the group that wait for messages.", _GROUP)
SERIES = Metric("rocksmq_metrics_series", _GAUGE, "Channels and groups, each of which has series of its own.")
AGGREGATED = Metric(
    "rocksmq_metrics_aggregated",
    _GAUGE,
    "1 while these are too many for /metrics, which then has their sums; lag seconds: the most.",
)

# -- connections
CONNECTIONS = Metric("rocksmq_connections", _GAUGE, "Connections open; state: handshake before HELLO, then open.", ("state",))
CONNECTIONS_LIMIT = Metric(
    "rocksmq_connections_limit", _GAUGE, "Connections that the broker takes (connections_max, open files)."
)
CONNECTIONS_PAUSED = Metric(
    "rocksmq_connections_paused", _GAUGE, "Connections not read for now: too much of theirs is in flight, unsent or unwritten."
)
CONNECTIONS_OPENED = Metric("rocksmq_connections_opened_total", _COUNTER, "Connections accepted.")
CONNECTIONS_REJECTED = Metric(
    "rocksmq_connections_rejected_total", _COUNTER, "Connections refused, by the limit that was reached.", ("reason",)
)
CONNECTIONS_CLOSED = Metric(
    "rocksmq_connections_closed_total",
    _COUNTER,
    "Connections that ended: client, replaced by a newer one of the same client, protocol, version, token, a limit, stop, bug.",
    ("reason",),
)
PROTOCOL_ERRORS = Metric(
    "rocksmq_protocol_errors_total", _COUNTER, "Connections ended for what they sent: protocol or version.", ("kind",)
)
AUTHENTICATION_ON = Metric("rocksmq_authentication_on", _GAUGE, "1 while only clients with a token are admitted.")
AUTHENTICATION_FAILURES = Metric(
    "rocksmq_authentication_failures_total", _COUNTER, "Clients not admitted: token missing, unknown, expired.", ("reason",)
)
PERMISSIONS_DENIED = Metric("rocksmq_permissions_denied_total", _COUNTER, "Requests that their client's token did not permit.")
CREDENTIAL_EXPIRY = Metric(
    "rocksmq_credential_expiry_timestamp_seconds",
    _GAUGE,
    "When each token, and the certificate of TLS, expires, since 1970.",
    ("kind", "name"),
)
RECEIVED_BYTES = Metric("rocksmq_received_bytes_total", _COUNTER, "Bytes received from clients.")
SENT_BYTES = Metric("rocksmq_sent_bytes_total", _COUNTER, "Bytes sent to clients.")
UNSENT_BYTES = Metric("rocksmq_unsent_bytes", _GAUGE, "Bytes that clients have not taken yet.")

# -- storage
STORAGE_DISK = Metric("rocksmq_storage_disk_bytes", _GAUGE, "Bytes of files: sst, wal.", ("kind",))
STORAGE_MEMORY = Metric(
    "rocksmq_storage_memory_bytes", _GAUGE, "Bytes in RocksDB's memory: memtables, block_cache, table_readers.", ("kind",)
)
COMPACTION_PENDING = Metric("rocksmq_compaction_pending_bytes", _GAUGE, "Bytes that RocksDB has yet to compact, about.")
COMPACTIONS = Metric("rocksmq_compactions_running", _GAUGE, "Compactions that run.")
FLUSHES = Metric("rocksmq_flushes_running", _GAUGE, "Memtables that are being written to files.")
WRITE_STALLED = Metric("rocksmq_write_stalled", _GAUGE, "1 while RocksDB stops writes to catch up.")
WRITE_RATE = Metric("rocksmq_write_delayed_bytes_per_second", _GAUGE, "To how much RocksDB slows writes down; 0: not at all.")
BACKGROUND_ERRORS = Metric("rocksmq_storage_background_errors_total", _COUNTER, "Flushes and compactions that failed.")
DISK_FREE = Metric("rocksmq_disk_free_bytes", _GAUGE, "Bytes free on the disk of the data directory.")
DISK_TOTAL = Metric("rocksmq_disk_total_bytes", _GAUGE, "Bytes of that disk.")
DISK_RESERVE = Metric("rocksmq_disk_reserve_bytes", _GAUGE, "Bytes of it that produce leaves free.")
DISK_FULL = Metric("rocksmq_disk_full", _GAUGE, "1 while produce is refused for lack of space.")

# -- retention
REMOVED_MESSAGES = Metric("rocksmq_retention_removed_messages_total", _COUNTER, "Messages that retention removed.")
REMOVED_BYTES = Metric("rocksmq_retention_removed_bytes_total", _COUNTER, "Bytes of their payloads and headers.")
UNCOMPACTED_BYTES = Metric(
    "rocksmq_retention_uncompacted_bytes", _GAUGE, "Bytes of removed messages whose space the disk may not have back yet."
)
HELD_BYTES = Metric(
    "rocksmq_retention_held_bytes",
    _GAUGE,
    "Bytes that consumed_by_all keeps for the group that is furthest behind, of the channels with that rule.",
    _GROUP,
)
GROUPS_EXPIRED = Metric(
    "rocksmq_groups_expired_total", _COUNTER, "Groups destroyed because nobody read them (group_idle_seconds)."
)
CLOCK_IN_DOUBT = Metric("rocksmq_clock_in_doubt", _GAUGE, "1 while no message is removed for its age, as the clock was set.")

# -- dependencies; there is nothing of etcd while positions are embedded
ETCD_UP = Metric("rocksmq_etcd_up", _GAUGE, "1 while positions can be moved in etcd.")
ETCD_REQUESTS = Metric(
    "rocksmq_etcd_requests_total",
    _COUNTER,
    "Calls of etcd, by what was asked and whether it was answered: ok, failed.",
    ("op", "result"),
)
ETCD_SECONDS = Metric("rocksmq_etcd_request_duration_seconds", _HISTOGRAM, "One call of etcd.", ("op",), DISK_BUCKETS)
POSITIONS_WAITING = Metric("rocksmq_positions_waiting", _GAUGE, "Operations on groups that wait for etcd.")
POSITIONS_BROUGHT_BACK = Metric(
    "rocksmq_positions_brought_back_total", _COUNTER, "Groups moved back to a channel's end that a power cut had shortened."
)

# -- the mirror to Pulsar: of the broker's own, or of a `rocksmq mirror --http`; there is nothing of it where there is none
MIRROR_UP = Metric("rocksmq_mirror_up", _GAUGE, "1 while the mirror runs, and says how it does.", _MIRROR)
MIRROR_RESTARTS = Metric(
    "rocksmq_mirror_restarts_total", _COUNTER, "How often the broker started the mirror's process again.", _MIRROR
)
MIRROR_CHANNELS = Metric(
    "rocksmq_mirror_channels",
    _GAUGE,
    "Channels mirrored, by how that goes: starting, running, waiting for the other side, stopped, ended.",
    ("mirror", "state"),
)
MIRROR_CHANNEL_UP = Metric("rocksmq_mirror_channel_up", _GAUGE, "1 while the channel is being mirrored.", _MIRRORED)
MIRROR_CHANNEL_STOPPED = Metric(
    "rocksmq_mirror_channel_stopped", _GAUGE, "1 while it is stopped by what somebody must look at.", _MIRRORED
)
MIRROR_MESSAGES = Metric("rocksmq_mirror_messages_total", _COUNTER, "Messages that the other side acknowledged.", _MIRRORED)
MIRROR_BYTES = Metric("rocksmq_mirror_bytes_total", _COUNTER, "Bytes of their payloads.", _MIRRORED)
MIRROR_LAG = Metric("rocksmq_mirror_lag_messages", _GAUGE, "Messages not mirrored yet, where that is known.", _MIRRORED)
MIRROR_SKIPPED = Metric(
    "rocksmq_mirror_skipped_messages_total", _COUNTER, "Messages left out, too large for the other side.", _MIRRORED
)
MIRROR_GAPS = Metric(
    "rocksmq_mirror_gap_messages_total", _COUNTER, "Messages that were removed before they were mirrored.", _MIRRORED
)
MIRROR_ERRORS = Metric("rocksmq_mirror_errors_total", _COUNTER, "Failures that mirroring the channel met.", _MIRRORED)
MIRROR_LAST_ERROR = Metric(
    "rocksmq_mirror_last_error_timestamp_seconds", _GAUGE, "When it met the last, since 1970; 0: none yet.", _MIRRORED
)
MIRROR_NOT_DEDUPLICATED = Metric(
    "rocksmq_mirror_not_deduplicated",
    _GAUGE,
    "1 where Pulsar was found not to deduplicate the topic: after a failure messages may be there twice.",
    _MIRRORED,
)

# -- the process; rocksmq.metrics.process adds process_* and python_gc_*
LOOP_LAG = Metric(
    "rocksmq_event_loop_lag_seconds", _HISTOGRAM, "How much later than asked for the broker's loop wakes.", (), LOOP_BUCKETS
)
MEMORY_LIMIT = Metric(
    "rocksmq_memory_limit_bytes", _GAUGE, "Bytes of memory that the process may take: the machine's, or less by its cgroups."
)
HTTP_REFUSED = Metric("rocksmq_http_connections_refused_total", _COUNTER, "HTTP connections closed at once: too many.")
LOG_RECORDS = Metric("rocksmq_log_records_total", _COUNTER, "Lines of log, by level.", ("level",))
LOG_SUPPRESSED = Metric("rocksmq_log_suppressed_total", _COUNTER, "Lines of log left out, because there were too many alike.")
RELOADS = Metric("rocksmq_config_reloads_total", _COUNTER, "SIGHUPs: ok, or failed and the former options stay.", ("result",))
RELOAD_OK = Metric("rocksmq_config_last_reload_successful", _GAUGE, "0 while the last SIGHUP has failed.")

CATALOGUE: tuple[Metric, ...] = tuple(value for value in globals().values() if isinstance(value, Metric))
