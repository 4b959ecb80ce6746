"""Panels of the dashboard as SVG, about as Grafana draws them: lines, areas, figures, a heat map, states, a table.

Knows what stands in a panel, and nothing of where its data come from.
"""

import math
import re
import time
from collections.abc import Mapping, Sequence
from html import escape
from itertools import pairwise
from typing import Any, NamedTuple

from tests.helpers.dashboard import Panel

from .units import ticks, written

PALETTE = (
    *("#73BF69", "#F2CC0C", "#5794F2", "#FF9830", "#F2495C", "#B877D9"),
    *("#8AB8FF", "#FFA6B0", "#96D98D", "#FFCB7D", "#CA95E5", "#C0D8FF"),
)
NAMED = {"green": "#73BF69", "red": "#F2495C", "blue": "#5794F2"}
TEXT, FAINT, GRID, BACKGROUND, PAGE = "#D8D9DA", "#8E8E8E", "#2C3235", "#181B1F", "#111217"
HEAT = ("#3B1F0B", "#7A3410", "#B84E14", "#F07818", "#FFB357", "#FFE3B0")
TITLE_PIXELS, LEGEND_PIXELS, AXIS_PIXELS, BELOW_PIXELS = 22, 16, 58, 16
LEGEND_CHARACTERS = 6.6  # pixels of one
NAME_CHARACTERS = 9  # of a state, that have room before it
Point = tuple[float, float]


class Curve(NamedTuple):
    """One series of a panel: its legend, its labels, its points (time, value), and which query it is of."""

    name: str
    labels: Mapping[str, str]
    points: Sequence[Point]
    query: int


class Box(NamedTuple):
    """Where to draw, and what stretch of time."""

    width: float
    height: float
    begin: float
    end: float

    def x(self, at: float) -> float:
        return AXIS_PIXELS + (at - self.begin) / (self.end - self.begin) * (self.width - AXIS_PIXELS - 10)


def drawn(panel: Panel, curves: Sequence[Curve], box: Box) -> str:
    """The panel as an SVG element of the size of ``box``."""
    draw = {"stat": _stat, "heatmap": _heat_map, "state-timeline": _states, "table": _table}.get(panel.kind, _graph)
    content = draw(panel, curves, box) if curves else _text(box.width / 2, box.height / 2, "No data", FAINT, "middle")
    title = _text(8, 15, panel.title, TEXT, weight=500)
    frame = f'<rect width="{box.width}" height="{box.height}" fill="{BACKGROUND}" stroke="{GRID}"/>'
    return f'<svg width="{box.width}" height="{box.height}">{frame}{title}{content}</svg>'


def _text(x: float, y: float, text: str, color: str = FAINT, anchor: str = "start", size: int = 11, weight: int = 400) -> str:
    style = f'fill="{color}" text-anchor="{anchor}" font-size="{size}" font-weight="{weight}"'
    return f'<text x="{x:.1f}" y="{y:.1f}" {style}>{escape(text)}</text>'


def _rectangle(x: float, y: float, width: float, height: float, color: str, opacity: float = 1.0) -> str:
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" fill="{color}" opacity="{opacity}"/>'


def _color(name: str) -> str:
    return NAMED.get(name, name)


def _by_threshold(panel: Panel, value: float, defaults: Mapping[str, Any] | None = None) -> str:
    steps = (defaults or panel.raw["fieldConfig"]["defaults"])["thresholds"]["steps"]
    return _color([step["color"] for step in steps if step["value"] is None or value >= step["value"]][-1])


def _mapped(panel: Panel, value: float) -> tuple[str, str] | None:
    """Text and colour that a value has been given."""
    for mapping in panel.raw["fieldConfig"]["defaults"].get("mappings", ()):
        if found := mapping["options"].get(f"{value:g}"):
            return found["text"], _color(found["color"])
    return None


# -- figures


def _stat(panel: Panel, curves: Sequence[Curve], box: Box) -> str:
    parts: list[str] = []
    if panel.raw["options"]["textMode"] == "name":
        return _text(box.width / 2, box.height / 2 + 14, curves[0].name, _by_threshold(panel, 1), "middle", 14)
    for number, curve in enumerate(curves):
        value = curve.points[-1][1]
        text, color = _mapped(panel, value) or (written(value, panel.unit), _by_threshold(panel, value))
        middle = box.width * (number + 0.5) / len(curves)
        if panel.raw["options"]["graphMode"] == "area":
            parts.append(_spark(curve, color, box, number, len(curves)))
        parts.append(_text(middle, box.height / 2 + 16, text, color, "middle", 24 if len(curves) == 1 else 17, 500))
        if len(curves) > 1:
            parts.append(_text(middle, box.height / 2 - 10, curve.name, TEXT, "middle"))
    return "".join(parts)


def _spark(curve: Curve, color: str, box: Box, number: int, count: int) -> str:
    high = max(value for _, value in curve.points) or 1.0
    width, left, low = box.width / count, box.width * number / count, box.height - 2
    points = [
        (left + (at - box.begin) / (box.end - box.begin) * width, low - max(0.0, value) / high * 28)
        for at, value in curve.points
    ]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    area = f"{points[0][0]:.1f},{low} {line} {points[-1][0]:.1f},{low}"
    return f'<polygon points="{area}" fill="{color}" opacity="0.15"/><polyline points="{line}" fill="none" stroke="{color}"/>'


# -- graphs


def _graph(panel: Panel, curves: Sequence[Curve], box: Box) -> str:
    defaults = panel.raw["fieldConfig"]["defaults"]
    custom = defaults.get("custom", {})
    is_stacked = "stacking" in custom
    aside = [curve for curve in curves if _is_aside(panel, curve)]
    curves = [curve for curve in curves if curve not in aside]
    layers = _stacked(curves) if is_stacked else [(curve, [(at, 0.0, value) for at, value in curve.points]) for curve in curves]
    told = [f"{curve.name}: {written(curve.points[-1][1], panel.unit)}" for curve in aside]
    legend, legend_height = _legend([*(curve.name for curve in curves), *told], box)
    top, bottom = TITLE_PIXELS + 6.0, box.height - legend_height - BELOW_PIXELS
    values = [value for _, points in layers for _, _, value in points if math.isfinite(value)]
    low, high = min([0.0, *values]), defaults.get("max", max(values, default=1.0) * 1.05) or 1.0

    def y(value: float) -> float:
        return bottom - (min(value, high) - low) / (high - low) * (bottom - top)

    parts = [_axes(panel.unit, low, high, y, box, bottom)]
    for number, (_, points) in reversed(list(enumerate(layers))):
        parts.append(_area(points, PALETTE[number % len(PALETTE)], custom.get("fillOpacity", 0) / 100, box, y))
    for step in defaults.get("thresholds", {}).get("steps", ())[1:] if "thresholdsStyle" in custom else ():
        if low < step["value"] <= high:
            at = y(step["value"])
            style = f'stroke="{_color(step["color"])}" stroke-dasharray="6 4"'
            parts.append(f'<line x1="{AXIS_PIXELS}" x2="{box.width - 10}" y1="{at:.1f}" y2="{at:.1f}" {style}/>')
    return "".join(parts) + legend


def _is_aside(panel: Panel, curve: Curve) -> bool:
    """Whether it has the axis on the right for itself; here it is told in the legend instead."""
    return any(
        found["matcher"]["id"] == "byRegexp" and re.search(found["matcher"]["options"].strip("/"), curve.name)
        for found in panel.raw["fieldConfig"]["overrides"]
    )


def _stacked(curves: Sequence[Curve]) -> list[tuple[Curve, list[tuple[float, float, float]]]]:
    """Each upon those before it: (time, from, to)."""
    below: dict[float, float] = {}
    layers: list[tuple[Curve, list[tuple[float, float, float]]]] = []
    for curve in curves:
        found = [(at, below.get(at, 0.0), below.get(at, 0.0) + value) for at, value in curve.points if math.isfinite(value)]
        below |= {at: upper for at, _, upper in found}
        layers.append((curve, found))
    return layers


def _area(points: Sequence[tuple[float, float, float]], color: str, opacity: float, box: Box, y: Any) -> str:
    """A line, and what is below it; broken where data are missing."""
    if not points:
        return ""
    gap = 2.5 * min((later[0] - former[0] for former, later in pairwise(points)), default=1.0)
    runs: list[list[tuple[float, float, float]]] = [[]]
    for point in points:
        if not math.isfinite(point[2]) or (runs[-1] and point[0] - runs[-1][-1][0] > gap):
            runs.append([])
        if math.isfinite(point[2]):
            runs[-1].append(point)
    parts: list[str] = []
    for run in filter(None, runs):
        upper = " ".join(f"{box.x(at):.1f},{y(value):.1f}" for at, _, value in run)
        lower = " ".join(f"{box.x(at):.1f},{y(value):.1f}" for at, value, _ in reversed(run))
        parts.append(f'<polygon points="{upper} {lower}" fill="{color}" opacity="{opacity}"/>')
        parts.append(f'<polyline points="{upper}" fill="none" stroke="{color}" stroke-width="1.2"/>')
    return "".join(parts)


def _axes(unit: str, low: float, high: float, y: Any, box: Box, bottom: float) -> str:
    parts: list[str] = []
    for tick in ticks(low, high, unit):
        parts.append(f'<line x1="{AXIS_PIXELS}" x2="{box.width - 10}" y1="{y(tick):.1f}" y2="{y(tick):.1f}" stroke="{GRID}"/>')
        parts.append(_text(AXIS_PIXELS - 5, y(tick) + 4, written(tick, unit), anchor="end", size=10))
    return "".join(parts) + _times(box, bottom)


def _times(box: Box, bottom: float) -> str:
    step = next(step for step in (10, 30, 60, 120, 300, 600, 3600) if (box.end - box.begin) / step <= 5)
    first = math.ceil(box.begin / step) * step
    return "".join(
        _text(box.x(at), bottom + 13, time.strftime("%H:%M:%S", time.gmtime(at)), anchor="middle", size=10)
        for at in range(first, math.floor(box.end) + 1, step)
        if AXIS_PIXELS + 20 < box.x(at) < box.width - 24
    )


def _legend(names: Sequence[str], box: Box) -> tuple[str, float]:
    """Beneath the graph, on as many lines as it takes, and its height."""
    lines: list[list[tuple[float, int]]] = [[]]
    x = 10.0
    for number, name in enumerate(names):
        width = 22 + len(name) * LEGEND_CHARACTERS
        if x + width > box.width and lines[-1]:
            lines.append([])
            x = 10.0
        lines[-1].append((x, number))
        x += width
    height = LEGEND_PIXELS * len(lines) + 4.0
    parts: list[str] = []
    for row, line in enumerate(lines):
        y = box.height - height + LEGEND_PIXELS * (row + 0.75)
        for left, number in line:
            color = PALETTE[number % len(PALETTE)]
            parts.append(_rectangle(left, y - 5, 12, 3, color))
            parts.append(_text(left + 16, y, names[number], TEXT, size=10))
    return "".join(parts), height


# -- the others


def _heat_map(panel: Panel, curves: Sequence[Curve], box: Box) -> str:
    """Cumulative buckets, as they are counted: each row is what its bucket has more than the one below."""
    rows = sorted((float(curve.labels["le"]), dict(curve.points)) for curve in curves)
    counts = [
        (upper, {at: value - below.get(at, 0.0) for at, value in points.items()})
        for (_, below), (upper, points) in pairwise([(0.0, dict[float, float]()), *rows])
    ]
    used = [index for index, (_, points) in enumerate(counts) if any(value > 0 for value in points.values())]
    if used:
        counts = counts[used[0] : used[-1] + 1]
    most = max((value for _, points in counts for value in points.values()), default=1.0) or 1.0
    top, bottom = TITLE_PIXELS + 6.0, box.height - BELOW_PIXELS - 6
    height = (bottom - top) / len(counts)
    parts: list[str] = []
    for index, (upper, points) in enumerate(counts):
        y = bottom - (index + 1) * height
        parts.append(
            _text(AXIS_PIXELS - 5, y + 4, written(upper, panel.unit) if math.isfinite(upper) else "", anchor="end", size=10)
        )
        step = (box.end - box.begin) / max(1, len(points))
        for at, value in points.items():
            if value > 0:
                color = HEAT[min(len(HEAT) - 1, int(math.sqrt(value / most) * len(HEAT)))]
                left = max(AXIS_PIXELS, box.x(at - step))
                parts.append(_rectangle(left, y, box.x(at) - left, height - 1, color))
    return "".join(parts) + _times(box, bottom)


def _states(panel: Panel, curves: Sequence[Curve], box: Box) -> str:
    top, bottom = TITLE_PIXELS + 4.0, box.height - BELOW_PIXELS - 4
    height = (bottom - top) / len(curves)
    parts: list[str] = []
    for row, curve in enumerate(curves):
        y = top + row * height
        changes = [curve.points[0], *(later for former, later in pairwise(curve.points) if later[1] != former[1])]
        for (at, value), (until, _) in pairwise([*changes, (box.end, 0.0)]):
            color = (_mapped(panel, value) or ("", _by_threshold(panel, value)))[1]
            parts.append(_rectangle(box.x(at), y + 2, box.x(until) - box.x(at), height - 4, color, 0.7))
        is_long = len(curve.name) > NAME_CHARACTERS
        x, anchor = (AXIS_PIXELS + 8, "start") if is_long else (AXIS_PIXELS - 5, "end")
        parts.append(_text(x, y + height / 2 + 4, curve.name, TEXT, anchor, size=9))
    return "".join(parts) + _times(box, bottom)


def _table(panel: Panel, curves: Sequence[Curve], box: Box) -> str:
    """The last values of each query, a row for each set of labels; columns as the panel names them."""
    organized = next(found for found in panel.raw["transformations"] if found["id"] == "organize")["options"]
    names: dict[str, str] = organized["renameByName"]
    overrides = {found["matcher"]["options"]: found["properties"] for found in panel.raw["fieldConfig"]["overrides"]}
    labels = [name for name in names if not name.startswith("Value")]
    rows: dict[tuple[str, ...], dict[int, float]] = {}
    for curve in curves:
        rows.setdefault(tuple(curve.labels.get(label, "") for label in labels), {})[curve.query] = curve.points[-1][1]
    columns = [names[label] for label in labels] + [names[f"Value #{chr(ord('A') + n)}"] for n in range(len(panel.queries))]
    width = box.width / len(columns)
    parts = [_text(10 + number * width, TITLE_PIXELS + 18, name, FAINT) for number, name in enumerate(columns)]
    ordered = sorted(rows.items(), key=lambda row: -row[1].get(0, 0.0))
    for line, (found, values) in enumerate(ordered[: int((box.height - TITLE_PIXELS - 30) / 20)]):
        y = TITLE_PIXELS + 40 + line * 20
        parts += [_text(10 + number * width, y, text, TEXT) for number, text in enumerate(found)]
        for number in range(len(panel.queries)):
            properties = {entry["id"]: entry["value"] for entry in overrides.get(columns[len(labels) + number], ())}
            value = values.get(number, math.nan)
            color = _by_threshold(panel, value, properties) if "thresholds" in properties else TEXT
            parts.append(
                _text(10 + (len(labels) + number) * width, y, written(value, properties.get("unit", panel.unit)), color)
            )
    return "".join(parts)
