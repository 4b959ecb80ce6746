"""Numbers as people read them: counts, rates, sizes, durations, moments. What is not known is a dash."""

from datetime import UTC, datetime

UNKNOWN = "-"
_SIZES = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
_SPANS = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))  # with the next smaller one beside it


def count(number: float | None) -> str:
    """``12,345``; below 10 with one digit behind the point, unless it is whole."""
    if number is None:
        return UNKNOWN
    return f"{number:,.1f}" if number < 10 and number % 1 else f"{number:,.0f}"


def counted(number: float | None, what: str) -> str:
    """``1 message``, ``2 messages``."""
    return f"{count(number)} {what}{'' if number == 1 else 's'}"


def size(number: float | None) -> str:
    """``1.2 MiB``."""
    if number is None:
        return UNKNOWN
    unit = 0
    while number >= 1_023.95 and unit < len(_SIZES) - 1:
        number /= 1_024
        unit += 1
    return f"{number:.1f} {_SIZES[unit]}" if unit and number < 99.95 else f"{number:,.0f} {_SIZES[unit]}"


def duration(seconds: float | None) -> str:
    """``0.34 ms``, ``12 ms``, ``1.2 s``, ``2 h 5 min``."""
    if seconds is None:
        return UNKNOWN
    if seconds == 0:
        return "0 s"
    if seconds < 0.9995:
        return f"{seconds * 1_000:.2g} ms" if seconds < 0.00995 else f"{seconds * 1_000:.0f} ms"
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    index = next(index for index, (span, _) in enumerate(_SPANS) if whole >= span)
    (span, unit), (smaller, smaller_unit) = _SPANS[index : index + 2]
    rest = whole % span // smaller
    return f"{whole // span} {unit}" + (f" {rest} {smaller_unit}" if rest else "")


def moment(seconds: float | None) -> str:
    """``2026-10-01 12:00:00 UTC``, of so many seconds since 1970."""
    if seconds is None:
        return UNKNOWN
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S} UTC"
