"""Numbers as Grafana writes them, in the units that the dashboard uses."""

import math

_BINARY = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
_SHORT = ("", " K", " Mil", " Bil", " Tri")
_TIMES = ((86_400.0, "day"), (3600.0, "hour"), (60.0, "min"), (1.0, "s"), (1e-3, "ms"), (1e-6, "µs"))
_RATES = {"mps": "msg/s", "reqps": "req/s", "ops": "ops/s", "cps": "c/s"}


def written(value: float, unit: str) -> str:
    """``value`` with its unit."""
    if math.isnan(value):
        return "no data"
    if unit in {"bytes", "binBps"}:
        return _scaled(value, 1024, _BINARY, " ") + ("/s" if unit == "binBps" else "")
    if unit == "percentunit":
        return f"{_figures(value * 100)}%"
    if unit in {"s", "dtdurations"}:
        return _time(value)
    if unit in _RATES:
        return f"{_scaled(value, 1000, _SHORT, '')} {_RATES[unit]}"
    return _scaled(value, 1000, _SHORT, "")


def ticks(low: float, high: float, unit: str) -> list[float]:
    """Round numbers between, four or so."""
    if not high > low:
        return [low]
    base = 2.0 if unit in {"bytes", "binBps"} else 10.0
    steps = (1.0,) if base == 2 else (1.0, 2.0, 2.5, 5.0)
    rough = (high - low) / 4
    power = base ** math.floor(math.log(rough, base))
    step = next((power * factor for factor in (*steps, base) if power * factor >= rough), power * base)
    first = math.ceil(low / step - 1e-9)
    return [number * step for number in range(first, math.floor(high / step + 1e-9) + 1)]


def _figures(value: float) -> str:
    """Three of them, without an exponent and without zeros at the end."""
    if value == 0:
        return "0"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    text = f"{value:.{min(digits, 6)}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _scaled(value: float, base: int, names: tuple[str, ...], space: str) -> str:
    power = 0
    while abs(value) >= base and power < len(names) - 1:
        value /= base
        power += 1
    return f"{_figures(value)}{space}{names[power]}"


def _time(value: float) -> str:
    if value == 0:
        return "0 s"
    size, name = next((entry for entry in _TIMES if abs(value) >= entry[0]), _TIMES[-1])
    count = value / size
    return f"{_figures(count)} {name}{'s' if name in {'day', 'hour'} and count >= 1.5 else ''}"
