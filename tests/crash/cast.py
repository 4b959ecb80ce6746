"""Who works in the crash harness: two channels, eight producers of every kind, four groups with six readers."""

from collections.abc import Sequence

from .worker import Part

CHANNELS = ("orders", "clicks")
GROUPS = {"shared": "orders", "called": "orders", "manual": "clicks", "single": "clicks"}  # group -> its channel
MANUAL_GROUPS = frozenset({"manual"})
HEADED = 2  # the producer that gives headers to its messages

WHOLE_CAST: Sequence[Part] = (
    Part("send", 1, "orders", {"burst": 3_000, "rate": 20_000}),
    Part("send", HEADED, "clicks", {"burst": 300, "rate": 2_000, "headers": True, "linger": 0.0, "batch_messages": 50}),
    Part("send", 3, "clicks", {"burst": 500, "rate": 3_000, "linger": 0.05, "batch_bytes": 20_000, "max_in_flight": 3}),
    Part("send", 4, "clicks", {"burst": 3_000, "rate": 20_000, "linger": 0.02, "batch_messages": 200}),
    Part("named", 5, "orders", {"name": "billing", "burst": 200, "rate": 2_000, "batch_messages": 20}),
    Part("named", 6, "clicks", {"name": "sensor", "burst": 20, "rate": 500, "text": True}),
    Part("produce", 7, "clicks", {"batch": 50, "rate": 2_000}),
    Part("produce", 8, "orders", {"batch": 3, "rate": 200, "threads": 3}),
    Part("iterate", 11, "orders", {"held": 500}, "shared"),
    Part("batches", 12, "orders", {"most": 2_000, "held": 2_000}, "shared"),
    Part("batches", 13, "orders", {"most": 100}, "shared"),
    Part("consume", 14, "orders", {"most": 2_000, "threads": 3}, "called"),
    Part("manual", 15, "clicks", {"most": 3_000}, "manual"),
    Part("iterate", 16, "clicks", {"held": 1_000}, "single"),
)
SMALL_CAST: Sequence[Part] = (
    Part("send", 1, "orders", {"burst": 100, "rate": 5_000, "batch_messages": 20}),
    Part("produce", 2, "clicks", {"batch": 20, "rate": 2_000}),
    Part("batches", 11, "orders", {"most": 200, "held": 200}, "shared"),
    Part("consume", 12, "orders", {"most": 200}, "called"),
    Part("manual", 13, "clicks", {"most": 200}, "manual"),
    Part("iterate", 14, "clicks", {"held": 100}, "single"),
)
