"""The tables of a report's page."""

import math
import re
from collections.abc import Mapping, Sequence
from html import escape
from statistics import fmean

from nec.report.curves import is_raw
from nec.report.deltas import Delta
from nec.report.looks import FAMILIES, Look
from nec.report.table import TableRow
from nec.report.texts import columns, delta_text, percent, ratio_text, within_text
from nec.report.within import Within

Looks = Mapping[str, Look]
# Opacity of the strongest tint.
STRONGEST = 0.45
FEWER, MORE = "0, 114, 178", "213, 94, 0"  # blue is better, vermilion worse


def marks(look: Look) -> str:
    """Return the attributes that tie a part of the page to a curve."""
    return f'data-curve="{look.number}" data-family="{FAMILIES.index(look.family)}"'


def point_table(lines: Sequence[TableRow], looks: Looks) -> str:
    """All points of a task, in the report's order."""
    shown = columns(lines)
    rows = [
        _row(
            line.variant,
            looks,
            _cell(escape(line.setting))
            + "".join(_cell(_soft(column.text(line)), column.order(line)) for column in shown),
        )
        for line in lines
    ]
    headings = [column.heading.replace("\n", "<br>") for column in shown]
    return _sortable(["curve", "setting", *headings], rows)


def _soft(text: str) -> str:
    """A text, what is in brackets less prominent."""
    return re.sub(r"\[.*\]", r'<span class="soft">\g<0></span>', escape(text))


def within_table(close: Sequence[Within], looks: Looks) -> str:
    """Bytes to come close to raw, a row per curve, a bar over log bytes in each cell."""
    sizes = [one.bytes_per_image for one in close if not math.isnan(one.bytes_per_image)]
    low, high = (math.log10(min(sizes)) - 0.3, math.log10(max(sizes))) if sizes else (0, 1)
    rows: dict[str, list[Within]] = {}
    for one in close:
        rows.setdefault(one.variant, []).append(one)
    ordered = sorted(rows, key=lambda name: _fewest(rows[name]))
    lines = [
        _row(name, looks, "".join(_bar(one, low, high, looks) for one in rows[name]))
        for name in ordered
    ]
    points = dict.fromkeys(f"within {one.points:g} points" for one in close)
    return _sortable(["curve", *points], lines)


def _fewest(own: Sequence[Within]) -> tuple[float, ...]:
    """Order of curves: by bytes within one point, then two, then half a point."""
    sizes = {one.points: one.bytes_per_image for one in own}
    return tuple(math.inf if math.isnan(sizes[p]) else sizes[p] for p in (1.0, 2.0, 0.5))


def _bar(one: Within, low: float, high: float, looks: Looks) -> str:
    text = escape(within_text(one))
    if math.isnan(one.bytes_per_image):
        return f'<td class="soft">{text}</td>'
    if ratio := ratio_text(one):
        text += f'<div class="soft">pixels {ratio}</div>'
    width = 100 * (math.log10(one.bytes_per_image) - low) / max(high - low, 1e-9)
    style = f"--c:{looks[one.variant].family.colour};--w:{width:.0f}%"
    return f'<td class="bar" data-v="{one.bytes_per_image:.6g}" style="{style}">{text}<i></i></td>'


def class_table(lines: Sequence[TableRow], looks: Looks) -> str:
    """Overall accuracy and the IoU of each class; "" where there are no classes to tell."""
    names = list(dict.fromkeys(k for line in lines for k in line.further if k.startswith("iou/")))
    if not names:
        return ""
    columns = (["accuracy"] if "accuracy" in lines[0].further else []) + names
    rows = []
    for line in lines:
        values = [line.further.get(name, math.nan) for name in columns]
        cells = [_cell(percent(v), v) for v in values]
        rows.append(_row(line.variant, looks, _cell(escape(line.setting)) + "".join(cells)))
    headings = [
        escape(n.removeprefix("iou/")) if n != "accuracy" else "overall accuracy" for n in columns
    ]
    return _folded("IoU of each class, percent", _sortable(["curve", "setting", *headings], rows))


def split_table(lines: Sequence[TableRow], looks: Looks) -> str:
    """Difference to raw on each split, and their mean; "" where there is one split."""
    splits = sorted({k for line in lines for k in line.of_splits}, key=lambda k: (len(k), k))
    rows = []
    for line in lines:
        own = [line.of_splits.get(split, math.nan) for split in splits]
        if line.of_splits and not is_raw(line.variant):
            cells = [_cell(percent(v, sign="+"), v) for v in (fmean(own), *own)]
            rows.append(_row(line.variant, looks, _cell(escape(line.setting)) + "".join(cells)))
    if not rows:
        return ""
    headings = ["curve", "setting", "mean", *(f"split {split}" for split in splits)]
    return _folded("Minus raw on each split, percentage points", _sortable(headings, rows))


def delta_matrix(found: Sequence[Delta], metric: str, title: str) -> str:
    """Deltas of one kind: a row per curve, a column per curve that it is compared with."""
    own = {(d.variant, d.baseline): d for d in found if d.metric == metric}
    if all(math.isnan(delta.value) for delta in own.values()):
        return ""
    against = list(dict.fromkeys(baseline for _, baseline in own))
    head = "".join(f'<th class="turn"><div>{escape(name)}</div></th>' for name in against)
    rows = [
        f'<tr><td class="name">{escape(name)}</td>'
        + "".join(_delta(own.get((name, other))) for other in against)
        + "</tr>"
        for name in dict.fromkeys(variant for variant, _ in own)
    ]
    table = f'<table class="matrix"><thead><tr><th>curve \\ against</th>{head}</tr></thead>'
    words = '<p class="note">Blue is better than the curve named above, red worse.</p>'
    return _folded(title, f"{words}{table}<tbody>{''.join(rows)}</tbody></table>")


def _delta(delta: Delta | None) -> str:
    if delta is None:
        return "<td></td>"
    words = escape(f"{delta.variant} against {delta.baseline}: {delta_text(delta)}")
    if math.isnan(delta.value):
        return f'<td class="soft" title="{words}">·</td>'
    rate = delta.metric == "bd_rate"
    value = delta.value if rate else 100 * delta.value
    better = (value < 0) == rate
    # Half the bytes are as far from equal as twice; ten times, or ten points, are the strongest.
    strength = min(1.0, abs(math.log10(1 + value / 100)) if rate else abs(value) / 10)
    tint = f"rgba({FEWER if better else MORE}, {STRONGEST * strength:.2f})"
    shown = f"{value:+.0f}" if rate else f"{value:+.1f}"
    return f'<td title="{words}" style="background:{tint}">{shown}</td>'


def _folded(title: str, content: str) -> str:
    return f'<details class="card"><summary>{title}</summary>{content}</details>'


def _sortable(headings: Sequence[str], rows: Sequence[str]) -> str:
    head = "".join(f"<th>{heading}</th>" for heading in headings)
    body = "\n".join(rows)
    return (
        f'<table class="sortable"><thead><tr>{head}</tr></thead><tbody>\n{body}\n</tbody></table>'
    )


def _row(variant: str, looks: Looks, cells: str) -> str:
    look = looks[variant]
    raw = ' class="raw"' if is_raw(variant) else ""
    dot = f'<td style="--c:{look.family.colour}"><span class="dot"></span>{escape(variant)}</td>'
    return f"<tr {marks(look)}{raw}>{dot}{cells}</tr>"


def _cell(text: str, value: float = math.nan) -> str:
    order = "" if math.isnan(value) else f' data-v="{value:.6g}"'
    return f"<td{order}>{text}</td>"
