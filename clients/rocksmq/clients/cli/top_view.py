"""How `rocksmq top` looks: a block of text, or a screen of a terminal's width and height.

Both show the same figures in the same words. Colours only help: nothing is told by them alone. Pure; rich is loaded for a
screen only.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from .figures import UNKNOWN, count, counted, duration, moment, size
from .output import printable
from .overview import Flow, Latency, Mirror, Overview, Reader, holdings

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

READERS_MAX = 10  # in a block of text
CELL_WIDTH = 39
LABEL_WIDTH = 12
NAME_WIDTH_MIN = 8
PROBLEMS_MAX = 4
COLOURS = ((300.0, "red"), (10.0, "yellow"))  # of a group that is so many seconds behind
MIRROR_STATES = ("running", "stopped")  # of its channels: told also when there are none
Cell = tuple[str, str]


class Frame(NamedTuple):
    """What is known at a moment, in seconds since 1970. ``away``: why nothing is known now, so that ``overview`` is older."""

    at: float
    seconds: float
    url: str
    version: str
    durability: str
    channel: str
    overview: Overview | None
    away: str


class Column(NamedTuple):
    """Of the table of groups; a terminal that is narrower than ``from_width`` goes without it."""

    title: str
    width: int
    from_width: int


COLUMNS = (
    Column("channel", 0, 0),
    Column("group", 0, 0),
    Column("unread", 12, 0),
    Column("behind", 12, 0),
    Column("produced/s", 11, 66),
    Column("read/s", 11, 54),
    Column("waiting", 8, 76),
)


def title(frame: Frame) -> str:
    """Which broker it is."""
    found = frame.overview
    parts = [frame.url]
    if frame.version:
        parts += [f"rocksmqd {frame.version}", frame.durability]
    if found is not None and found.up_since is not None and not frame.away:
        parts.append(f"up {duration(frame.at - found.up_since)}")
    if frame.channel:
        parts.append(f"channel {frame.channel} only")
    return printable("  ".join(parts))


def states(frame: Frame) -> list[str]:
    """Whether it is well, a line each."""
    found = frame.overview
    lines = [f"away: {printable(frame.away)}"] if frame.away else []
    if found is None:
        return lines or ["waiting for the broker"]
    if frame.away:
        return [*lines, "what is below is from before"]
    what = "to look at" if found.is_ready else "not ready"
    return ["ready"] * found.is_ready + [f"{what}: {printable(problem)}" for problem in found.problems[:PROBLEMS_MAX]]


def cells(found: Overview) -> list[Cell]:
    """The figures, each with its name: four of traffic, four of latency, four of the machine."""
    long_polls = f", {counted(found.long_polls, 'long poll')}" if found.long_polls else ""
    commits = f"{count(found.commits_per_second)}/s of {count(found.commit_messages)} msg, {size(found.commit_bytes)}"
    cpu = UNKNOWN if found.cpu_share is None else f"{found.cpu_share:.0%}"
    return [
        ("in", _flow(found.produced)),
        ("out", _flow(found.delivered)),
        ("requests", f"{count(found.requests_per_second)}/s, {count(found.errors_per_second)} errors/s"),
        ("commits", commits),
        ("produce", _latency(found.produce)),
        ("read", _latency(found.read)),
        ("sync", _latency(found.sync)),
        ("end to end", _latency(found.end_to_end)),
        ("connections", f"{count(found.connections)} of {count(found.connections_limit)}{long_polls}"),
        ("disk", f"{size(found.disk_free_bytes)} free of {size(found.disk_total_bytes)}"),
        ("memory", f"{size(found.memory_bytes)}, cpu {cpu}"),
        ("positions", _positions(found)),
    ]


def _flow(flow: Flow) -> str:
    return f"{count(flow.messages_per_second)} msg/s  {size(flow.bytes_per_second)}/s"


def _latency(latency: Latency) -> str:
    return f"p50 {duration(latency.p50_seconds):<8} p99 {duration(latency.p99_seconds)}"


def _positions(found: Overview) -> str:
    if found.etcd_is_up is None:
        return found.positions or UNKNOWN
    return f"etcd {_latency(found.etcd)}" if found.etcd_is_up else "etcd does not answer"


def mirror_text(found: Mirror) -> str:
    """How it does."""
    if not found.is_up:
        return "down"
    shown = [f"{number} {state}" for state, number in found.states.items() if number or state in MIRROR_STATES]
    return ", ".join(["up", *shown, f"lag {count(found.lag_messages)}", f"{count(found.messages_per_second)} msg/s"])


def row(reader: Reader) -> list[str]:
    """A reader's cells, in the order of COLUMNS."""
    return [
        printable(reader.channel),
        printable(reader.group) or UNKNOWN,
        count(reader.lag_messages),
        duration(reader.lag_seconds),
        count(reader.produced_per_second),
        count(reader.read_per_second),
        count(reader.waiting_consumers),
    ]


def too_many(found: Overview) -> str:
    """In place of the table."""
    worst = f" (the worst is {duration(found.lag_seconds)} behind)" if found.lag_seconds else ""
    return f"too many channels and groups to list{worst}: --channel NAME shows one"


def block(frame: Frame) -> list[str]:
    """Lines of text, for a pipe or a file."""
    lines = [f"{moment(frame.at)}  {title(frame)}", *states(frame)]
    found = frame.overview
    if found is None or frame.away:
        return [*lines, ""]
    shown = [("holds", holdings(found)), *cells(found)]
    if found.mirror is not None:
        shown.append(("mirror", mirror_text(found.mirror)))
    lines += [f"{name:<{LABEL_WIDTH}} {text}" for name, text in shown]
    if found.is_aggregated:
        lines.append(too_many(found))
    elif found.readers:
        rows = [[column.title for column in COLUMNS], *map(row, found.readers[:READERS_MAX])]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines += ["  ".join(_aligned(cells, widths)).rstrip() for cells in rows]
        if len(found.readers) > READERS_MAX:
            lines.append(f"and {count(len(found.readers) - READERS_MAX)} more")
    return [*lines, ""]


def _aligned(row: Sequence[str], widths: Sequence[int]) -> list[str]:
    """Names to the left, numbers to the right."""
    return [
        f"{text:>{width}}" if column.width else f"{text:<{width}}"
        for text, width, column in zip(row, widths, COLUMNS, strict=True)
    ]


# -- a screen ----------------------------------------------------------------------


def screen(frame: Frame, width: int, height: int) -> "RenderableType":
    """All that fits into so many columns and lines; the worst groups are shown first."""
    from rich.console import Group
    from rich.text import Text

    found = frame.overview
    lines = [_title_line(frame, width), *_state_lines(frame, width)]
    if found is None:
        return Group(*lines[:height])
    style = "dim" if frame.away else ""
    figures = _in_columns(cells(found), width)
    if found.mirror is not None:
        is_bad = not found.mirror.is_up or found.mirror.states.get("stopped")
        figures.append(
            Text.assemble((f"{'mirror':<{LABEL_WIDTH}} ", "cyan"), (mirror_text(found.mirror), "red" if is_bad else ""))
        )
    lines += [Text(""), *(_cut(line, width, style) for line in figures), Text("")]
    room = height - len(lines)
    if found.is_aggregated:
        lines.append(_cut(Text(too_many(found)), width, style))
    elif found.readers and room > 1:
        lines += [_cut(line, width, style) for line in _table(found.readers, width, room)]
    return Group(*lines[:height])


def _title_line(frame: Frame, width: int) -> "Text":
    from rich.text import Text

    time = moment(frame.at)[11:19]
    line = Text(title(frame), "bold")
    line.truncate(max(0, width - len(time) - 2), overflow="ellipsis", pad=True)
    return _cut(line.append(f"  {time}", "dim"), width)


def _state_lines(frame: Frame, width: int) -> "list[Text]":
    from rich.text import Text

    style = "bold yellow" if frame.away else "bold green" if frame.overview and frame.overview.is_ready else "bold red"
    lines = [Text.assemble((state, style)) for state in states(frame)]
    found = frame.overview
    if found is not None and not frame.away:
        if not found.is_ready:
            lines.append(Text())
        lines[0 if found.is_ready else -1].append(("  " if found.is_ready else "") + holdings(found))
    return [_cut(line, width) for line in lines]


def _in_columns(figures: Sequence[Cell], width: int) -> "list[Text]":
    """As many columns as fit, filled from top to bottom."""
    from rich.text import Text

    column_count = max(1, min(3, width // CELL_WIDTH))
    line_count = -(-len(figures) // column_count)
    column_width = width // column_count
    lines: list[Text] = []
    for number in range(line_count):
        line = Text()
        for name, text in figures[number::line_count]:
            cell = Text.assemble((f"{name:<{LABEL_WIDTH}} ", "cyan"), text)
            cell.truncate(column_width - 1, overflow="ellipsis", pad=True)
            line.append_text(cell).append(" ")
        lines.append(line)
    return lines


def _table(readers: Sequence[Reader], width: int, room: int) -> "list[Text]":
    """Heading, as many rows as fit, and how many more there are."""
    from rich.text import Text

    shown = [index for index, column in enumerate(COLUMNS) if width >= column.from_width]
    is_cut = len(readers) > room - 1
    rows = [row(reader) for reader in readers[: room - 1 - is_cut]]
    widths = _widths(rows, [COLUMNS[index] for index in shown], width)
    lines = [_table_line([column.title for column in COLUMNS], shown, widths, "bold")]
    for reader, cells in zip(readers, rows, strict=False):
        lag = reader.lag_seconds or 0
        style = next((colour for seconds, colour in COLOURS if lag >= seconds), "")
        lines.append(_table_line(cells, shown, widths, style))
    if is_cut:
        lines.append(Text(f"and {count(len(readers) - len(lines) + 1)} more", "dim"))
    return lines


def _widths(rows: Sequence[Sequence[str]], columns: Sequence[Column], width: int) -> list[int]:
    """Names take what they need, or share what the numbers leave."""
    channel, group = (max([NAME_WIDTH_MIN, *(len(cells[index]) + 2 for cells in rows)]) for index in (0, 1))
    room = max(2 * NAME_WIDTH_MIN, width - sum(column.width for column in columns))
    if channel + group > room:
        channel = max(min(channel, room // 2), room - group)
        group = room - channel
    return [channel, group, *(column.width for column in columns if column.width)]


def _table_line(cells: Sequence[str], shown: Sequence[int], widths: Sequence[int], style: str) -> "Text":
    from rich.text import Text

    line = Text("", style)
    for index, width in zip(shown, widths, strict=True):
        cell = Text(cells[index])
        if COLUMNS[index].width:
            cell.truncate(width - 1, overflow="ellipsis")
            cell.pad_left(width - cell.cell_len)
        else:
            cell.truncate(width - 1, overflow="ellipsis", pad=True)
            cell.append(" ")
        line.append_text(cell)
    return line


def _cut(line: "Text", width: int, style: str = "") -> "Text":
    line.truncate(width, overflow="ellipsis")
    line.no_wrap = True
    if style:
        line.stylize(style)
    return line
