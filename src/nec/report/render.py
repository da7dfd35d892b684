"""How a report looks in a terminal: percent and kB for people, where files keep fractions."""

import math
from collections.abc import Callable, Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from nec.report.deltas import Delta
from nec.report.figures import NAMES, size
from nec.report.table import TableRow, curves_of, split_count
from nec.report.within import NOT_REACHED, SMALLEST, Within

# Most rows of deltas that a terminal shows; more are only in their file.
MOST_PAIRS = 40


def fixed(value: float, digits: int) -> str:
    """Format with so many digits after the point; "" for NaN."""
    return "" if math.isnan(value) else f"{value:,.{digits}f}"


def significant(value: float) -> str:
    """Format with three digits or more: 0.0067, 1.44, 3,546."""
    if math.isnan(value):
        return ""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def percent(value: float, sign: str = "") -> str:
    """Format a fraction in percent: 95.2; "" for NaN."""
    return "" if math.isnan(value) else f"{100 * value:{sign}.1f}"


def interval(low: float, high: float, sign: str = "") -> str:
    """Format the bounds of a fraction in percent: [94.1, 96.0]; "" for NaN."""
    return "" if math.isnan(low) else f"[{percent(low, sign)}, {percent(high, sign)}]"


def with_interval(value: float, low: float, high: float, sign: str = "") -> str:
    """Format a fraction and its interval, if there is one, in percent: 95.2 [94.1, 96.0]."""
    return f"{percent(value, sign)} {interval(low, high, sign)}".rstrip()


def _worst(line: TableRow) -> str:
    """Overall accuracy where it is not the utility, and the class that fares worst."""
    of_class = {k: v for k, v in line.further.items() if k.startswith("iou/")}
    shown = [f"{100 * line.further['accuracy']:.1f}"] if "accuracy" in line.further else []
    if of_class:
        name = min(of_class, key=lambda name: of_class[name])
        shown.append(f"{name.removeprefix('iou/')} {100 * of_class[name]:.0f}")
    return "; ".join(shown)


def shares(line: TableRow) -> str:
    """Share of side bytes in all bytes, in percent."""
    found = (line.side_share_1e3, line.side_share_1e5, line.side_share_1e7)
    return "" if math.isnan(found[0]) else " · ".join(f"{100 * share:.2g}" for share in found)


Cell = Callable[[TableRow], str]
# Heading, cell, and how early a terminal that is too narrow drops the column (0: never).
CELLS: tuple[tuple[str, Cell, int], ...] = (
    ("splits", lambda line: str(split_count(line)), 2),
    ("runs", lambda line: str(line.runs), 2),
    ("bytes\n/image", lambda line: fixed(line.payload_bytes_per_image, 1), 0),
    ("in the\nstore", lambda line: fixed(line.store_bytes_per_image, 1), 2),
    ("bpp", lambda line: significant(line.payload_bpp), 0),
    ("ratio", lambda line: significant(line.payload_ratio), 0),
    ("estimated\nbytes", lambda line: fixed(line.estimated_bytes_per_image, 1), 3),
    ("side", lambda line: "" if math.isnan(line.side_bytes) else size(line.side_bytes), 2),
    ("its share %\n1e3 · 1e5 · 1e7", shares, 3),
    ("encode\n/s", lambda line: significant(line.encode_images_per_second), 3),
    ("decode\n/s", lambda line: significant(line.decode_images_per_second), 3),
    ("{metric} %\n[95 %]", lambda line: with_interval(line.value, line.low, line.high), 0),
    (
        "minus raw\n[95 %]",
        lambda line: with_interval(
            line.difference, line.difference_low, line.difference_high, sign="+"
        ),
        1,
    ),
    ("overall acc.;\nworst IoU", _worst, 3),
)


def print_points(console: Console, lines: Sequence[TableRow], title: str) -> None:
    """Print the points of one task, with as many of the most important columns as fit."""
    unbounded = console.options.update(width=10_000)
    for most in range(max(cell[2] for cell in CELLS), -1, -1):
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
    # A column that says nothing of any point is left out.
    cells = [c for c in CELLS if c[2] <= most and any(c[1](line) for line in lines)]
    table = _table(title)
    table.add_column("curve", overflow="fold")
    for heading, _, _ in cells:
        metric = lines[0].metric if lines else ""
        heading = heading.format(metric=NAMES.get(metric, metric))
        table.add_column(heading, justify="right", no_wrap=True)
    for name, curve in curves_of(lines).items():
        if len(curve) > 1:
            table.add_row(name)
        for line in curve:
            label = f"  {line.setting}" if len(curve) > 1 else f"{name} {line.setting}".rstrip()
            table.add_row(label, *(text(line) for _, text, _ in cells))
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


def within_text(one: Within) -> str:
    """Bytes, or what is said in their place."""
    if math.isnan(one.bytes_per_image):
        return "–" if one.note == NOT_REACHED else f"n/a: {one.note}"
    shown = ("≤ " if one.note == SMALLEST else "") + size(one.bytes_per_image)
    if math.isnan(one.low) or one.low == one.high:
        return shown
    bounds = ("–" if math.isinf(bound) else size(bound) for bound in (one.low, one.high))
    return f"{shown} [{', '.join(bounds)}]"


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


def delta_text(delta: Delta) -> str:
    """A delta and what it was taken over, or why there is none."""
    if math.isnan(delta.value):
        return f"n/a: {delta.why}"
    if delta.metric == "bd_rate":
        low, high = 100 * delta.overlap_low, 100 * delta.overlap_high
        return f"{delta.value:+.1f} % (over {low:.1f} to {high:.1f} %)"
    smallest, largest = size(delta.overlap_low), size(delta.overlap_high)
    return f"{100 * delta.value:+.2f} (over {smallest} to {largest})"


def _table(title: str) -> Table:
    return Table(
        box=SIMPLE_HEAD, title=title, title_justify="left", padding=(0, 1, 0, 0), style="dim"
    )
