"""The rules of a channel's retention as users write them, and as the wire carries them (SPEC §8.5)."""

from collections.abc import Mapping
from typing import Any

from rocksmq.protocol.errors import InvalidRequest

U64_MAX = (1 << 64) - 1
AGE_SECONDS_MAX = 1 << 53  # as in the broker's options; far more than there are
MAX_AGE, MAX_AGE_MS = "max_age", "max_age_ms"
COUNTS = ("max_bytes", "max_messages")
CONSUMED_BY_ALL = "consumed_by_all"
RULES = (MAX_AGE, *COUNTS, CONSUMED_BY_ALL)


def to_wire(retention: Mapping[str, Any] | None) -> dict[str, int] | None:
    """The rules as a request carries them; None: the broker's. Raises InvalidRequest, which says what is allowed."""
    if retention is None:
        return None
    if not isinstance(retention, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise InvalidRequest(f"retention {retention!r:.80} is not a mapping of {', '.join(RULES)}, nor None")
    found: dict[str, int] = {}
    for rule, value in retention.items():
        if rule == MAX_AGE:
            found[MAX_AGE_MS] = _milliseconds(value)
        elif rule in COUNTS:
            if type(value) is not int or not 1 <= value <= U64_MAX:
                raise InvalidRequest(f"retention's {rule} is a whole number, from 1 to 2^64 - 1, not {value!r}")
            found[rule] = value
        elif rule == CONSUMED_BY_ALL:
            if type(value) is not bool:
                raise InvalidRequest(f"retention's {rule} is True or False, not {value!r}")
            found[rule] = int(value)
        else:
            raise InvalidRequest(f"retention has no rule {rule!r}: it has {', '.join(RULES)}")
    return found


def _milliseconds(value: Any) -> int:
    seconds = float(value) if type(value) in (int, float) and 0 < value <= AGE_SECONDS_MAX else 0.0
    if (age_ms := round(seconds * 1000)) < 1:
        raise InvalidRequest(f"retention's {MAX_AGE} is a number of seconds, from a millisecond to 2^53, not {value!r}")
    return age_ms


def of_wire(retention: Mapping[str, int]) -> dict[str, Any]:
    """The rules of a reply, as users write them."""
    found: dict[str, Any] = dict(retention)
    if (age_ms := found.pop(MAX_AGE_MS, None)) is not None:
        found[MAX_AGE] = age_ms // 1000 if age_ms % 1000 == 0 else age_ms / 1000
    if CONSUMED_BY_ALL in found:
        found[CONSUMED_BY_ALL] = bool(found[CONSUMED_BY_ALL])
    return {rule: found[rule] for rule in (*RULES, *found) if rule in found}
