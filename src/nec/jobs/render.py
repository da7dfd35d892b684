"""How a report looks in a terminal: percent and kB for people, where files keep fractions."""

import math
from collections.abc import Callable, Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from nec.jobs.deltas import NOTE_SEPARATOR, Delta
from nec.jobs.figures import size
from nec.jobs.table import TableRow, curves_of


def _fixed(value: float, digits: int) -> str:
    return "" if math.isnan(value) else f"{value:,.{digits}f}"


def _significant(value: float) -> str:
    """Three digits or more: 0.0067, 1.44, 3,546."""
    if math.isnan(value):
        return ""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _percent(value: float, low: float, high: float, sign: str = "") -> str:
    """A fraction and its interval in percent: 95.2 [94.1, 96.0]."""
    if math.isnan(value):
        return ""
    return " ".join(
        (f"{100 * value:{sign}.1f}", f"[{100 * low:{sign}.1f}, {100 * high:{sign}.1f}]")
    )


# Heading, cell, and whether a narrow terminal keeps the column.
CELLS: tuple[tuple[str, Callable[[TableRow], str], bool], ...] = (
    ("runs", lambda line: str(line.runs), False),
    ("bytes\n/image", lambda line: _fixed(line.bytes_per_image, 1), True),
    ("bpp", lambda line: _significant(line.bpp), True),
    ("ratio", lambda line: _significant(line.ratio), True),
    ("estimated\nbytes", lambda line: _fixed(line.estimated_bytes_per_image, 1), False),
    ("coded\nbytes", lambda line: _fixed(line.coded_bytes_per_image, 1), False),
    ("index\nbytes", lambda line: _fixed(line.index_bytes_per_image, 1), False),
    ("side", lambda line: "" if math.isnan(line.side_bytes) else size(line.side_bytes), False),
    (
        "accuracy %\n[95 %]",
        lambda line: _percent(line.accuracy, line.accuracy_low, line.accuracy_high),
        True,
    ),
    (
        "minus raw\n[95 %]",
        lambda line: _percent(
            line.accuracy_difference,
            line.accuracy_difference_low,
            line.accuracy_difference_high,
            sign="+",
        ),
        False,
    ),
)


def print_points(console: Console, lines: Sequence[TableRow], title: str) -> None:
    """Print the points of one task; a narrow terminal gets the columns that matter."""
    table = point_table(lines, title)
    unbounded = console.options.update(width=10_000)
    if Measurement.get(console, unbounded, table).maximum > console.width:
        table = point_table(lines, title, narrow=True)
    console.print(table)


def point_table(lines: Sequence[TableRow], title: str, narrow: bool = False) -> Table:
    """The points of one task, a section per curve: its name, and its settings below it."""
    cells = [cell for cell in CELLS if cell[2] or not narrow]
    table = _table(title)
    table.add_column("curve", overflow="fold")
    for heading, _, _ in cells:
        table.add_column(heading, justify="right", no_wrap=True)
    for name, curve in curves_of(lines).items():
        if len(curve) > 1:
            table.add_row(name)
        for line in curve:
            label = f"  {line.setting}" if len(curve) > 1 else f"{name} {line.setting}".rstrip()
            table.add_row(label, *(text(line) for _, text, _ in cells))
        table.add_section()
    return table


def delta_table(found: Sequence[Delta], title: str) -> Table:
    """Bjøntegaard deltas of one task, a row per pair of curves; below it what was left out."""
    table = _table(title)
    for heading in ("curve", "against", "BD-rate (bytes)", "BD-utility (points)"):
        table.add_column(heading, overflow="fold")
    pairs: dict[tuple[str, str], dict[str, str]] = {}
    left_out: dict[str, None] = {}  # what several pairs say is said once
    for delta in found:
        reason, others = _note_parts(delta)
        texts = pairs.setdefault((delta.variant, delta.baseline), {})
        texts[delta.metric] = f"n/a: {reason}" if reason else _delta_text(delta)
        left_out.update(dict.fromkeys(others))
    for names, texts in pairs.items():
        table.add_row(*names, texts["bd_rate"], texts["bd_utility"])
    if left_out:
        table.caption, table.caption_justify = "\n".join(left_out), "left"
    return table


def _note_parts(delta: Delta) -> tuple[str, list[str]]:
    """Why there is no value, and what was left out."""
    parts = [part for part in delta.note.split(NOTE_SEPARATOR) if part]
    return (parts[0], parts[1:]) if math.isnan(delta.value) else ("", parts)


def _delta_text(delta: Delta) -> str:
    if delta.metric == "bd_rate":
        low, high = 100 * delta.overlap_low, 100 * delta.overlap_high
        return f"{delta.value:+.1f} % (over {low:.1f} to {high:.1f} %)"
    low, high = size(delta.overlap_low), size(delta.overlap_high)
    return f"{100 * delta.value:+.2f} (over {low} to {high})"


def _table(title: str) -> Table:
    return Table(
        box=SIMPLE_HEAD, title=title, title_justify="left", padding=(0, 1, 0, 0), style="dim"
    )
