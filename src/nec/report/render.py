"""How a report looks in a terminal."""

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from nec.report.deltas import Delta
from nec.report.table import TableRow, curves_of
from nec.report.texts import COLUMNS, columns, delta_text, within_text
from nec.report.within import Within

# Most rows of deltas that a terminal shows; more are only in their file.
MOST_PAIRS = 40
# Characters of a point's name on one line, so that a long one leaves room for numbers.
WIDEST_NAME = 48


def print_points(console: Console, lines: Sequence[TableRow], title: str) -> None:
    """Print the points of one task, with as many of the most important columns as fit."""
    unbounded = console.options.update(width=10_000)
    for most in range(max(column.dropped for column in COLUMNS), -1, -1):
        table = point_table(lines, title, most)
        if Measurement.get(console, unbounded, table).maximum <= console.width:
            break
    console.print(table)


def point_table(lines: Sequence[TableRow], title: str, most: int) -> Table:
    """The points of one task, a section per curve: its name, and its settings below it.

    Args:
        lines: Points of one task.
        title: Title above the table.
        most: Columns that are dropped earlier than this are left out.
    """
    shown = [column for column in columns(lines) if column.dropped <= most]
    table = _table(title)
    table.add_column("curve", overflow="fold", max_width=WIDEST_NAME)
    for column in shown:
        table.add_column(column.heading, justify="right", no_wrap=True)
    for name, curve in curves_of(lines).items():
        if len(curve) > 1:
            table.add_row(name)
        for line in curve:
            label = f"  {line.setting}" if len(curve) > 1 else f"{name} {line.setting}".rstrip()
            table.add_row(label, *(column.text(line) for column in shown))
        table.add_section()
    return table


def within_table(found: Sequence[Within], title: str) -> Table:
    """Bytes of one task to come close to raw, a row per curve."""
    table = _table(title)
    table.add_column("curve", overflow="fold")
    rows: dict[str, list[str]] = {}
    for one in found:
        rows.setdefault(one.variant, []).append(within_text(one))
    for points in dict.fromkeys(one.points for one in found):
        table.add_column(f"within {points:g}", justify="right")
    for name, cells in rows.items():
        table.add_row(name, *cells)
    return table


def print_deltas(console: Console, found: Sequence[Delta], title: str) -> None:
    """Print the deltas of one task, unless they are too many to be read."""
    pairs = len({(delta.variant, delta.baseline) for delta in found})
    if pairs > MOST_PAIRS:
        console.print(f"{title}: {pairs} pairs, in bd.csv and on the page; --baseline CURVE: one")
    elif pairs:
        console.print(delta_table(found, title))


def delta_table(found: Sequence[Delta], title: str) -> Table:
    """Bjøntegaard deltas of one task, a row per pair of curves; below it what was left out."""
    table = _table(title)
    for heading in ("curve", "against", "BD-rate (bytes)", "BD-utility (points)"):
        table.add_column(heading, overflow="fold")
    pairs: dict[tuple[str, str], dict[str, str]] = {}
    left_out: dict[str, None] = {}  # what several pairs say is said once
    for delta in found:
        texts = pairs.setdefault((delta.variant, delta.baseline), {})
        texts[delta.metric] = delta_text(delta)
        left_out.update(dict.fromkeys(delta.left_out))
    for names, texts in pairs.items():
        table.add_row(*names, texts["bd_rate"], texts["bd_utility"])
    if left_out:
        table.caption, table.caption_justify = "\n".join(left_out), "left"
    return table


def _table(title: str) -> Table:
    return Table(
        box=SIMPLE_HEAD, title=title, title_justify="left", padding=(0, 1, 0, 0), style="dim"
    )
