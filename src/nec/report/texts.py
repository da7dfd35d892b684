"""What a report says to people: percent and kB, where files keep fractions and bytes."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from nec.report.deltas import Delta
from nec.report.table import TableRow, split_count
from nec.report.within import NOT_REACHED, SMALLEST, Within

# Names of utilities.
NAMES = {"accuracy": "accuracy", "miou": "mean IoU"}
UNITS = ("B", "kB", "MB", "GB", "TB")


def size(count: float) -> str:
    """Format a number of bytes as one would print it: 40 B, 2.1 kB, 31 MB (powers of 1000)."""
    shown = float(f"{count:.3g}")
    unit = 0 if shown < 1 else min(int(math.log10(shown)) // 3, len(UNITS) - 1)
    return f"{shown / 1000**unit:.3g} {UNITS[unit]}"


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


def _shares(line: TableRow) -> str:
    """Share of side bytes in all bytes, in percent."""
    found = (line.side_share_1e3, line.side_share_1e5, line.side_share_1e7)
    return "" if math.isnan(found[0]) else " · ".join(f"{100 * share:.2g}" for share in found)


class Column(NamedTuple):
    """A column of the table of points."""

    heading: str  # {metric} is the name of the utility
    text: Callable[[TableRow], str]
    order: Callable[[TableRow], float]  # what it is sorted by
    dropped: int  # how early a terminal that is too narrow drops it; 0: never


COLUMNS = (
    Column(
        "bytes\n/image",
        lambda line: fixed(line.payload_bytes_per_image, 1),
        lambda line: line.payload_bytes_per_image,
        0,
    ),
    Column(
        "{metric} %\n[95 %]",
        lambda line: with_interval(line.value, line.low, line.high),
        lambda line: line.value,
        0,
    ),
    Column(
        "minus raw\n[95 %]",
        lambda line: with_interval(
            line.difference, line.difference_low, line.difference_high, sign="+"
        ),
        lambda line: line.difference,
        1,
    ),
    Column(
        "in the\nstore",
        lambda line: fixed(line.store_bytes_per_image, 1),
        lambda line: line.store_bytes_per_image,
        2,
    ),
    Column("bpp", lambda line: significant(line.payload_bpp), lambda line: line.payload_bpp, 0),
    Column(
        "ratio", lambda line: significant(line.payload_ratio), lambda line: line.payload_ratio, 0
    ),
    Column(
        "estimated\nbytes",
        lambda line: fixed(line.estimated_bytes_per_image, 1),
        lambda line: line.estimated_bytes_per_image,
        3,
    ),
    Column(
        "side\nbytes",
        lambda line: "" if math.isnan(line.side_bytes) else size(line.side_bytes),
        lambda line: line.side_bytes,
        2,
    ),
    Column("side share %\n10³ · 10⁵ · 10⁷", _shares, lambda line: line.side_share_1e5, 3),
    Column(
        "encode\nimages/s",
        lambda line: significant(line.encode_images_per_second),
        lambda line: line.encode_images_per_second,
        3,
    ),
    Column(
        "decode\nimages/s",
        lambda line: significant(line.decode_images_per_second),
        lambda line: line.decode_images_per_second,
        3,
    ),
    Column("splits", lambda line: str(split_count(line)), split_count, 2),
    Column("runs", lambda line: str(line.runs), lambda line: line.runs, 2),
    Column(
        "overall acc.;\nworst IoU", _worst, lambda line: line.further.get("accuracy", math.nan), 3
    ),
)


def columns(lines: Sequence[TableRow]) -> list[Column]:
    """Return the columns of points of one task; one that says nothing of any is left out."""
    metric = lines[0].metric if lines else ""
    return [
        one._replace(heading=one.heading.format(metric=NAMES.get(metric, metric)))
        for one in COLUMNS
        if any(one.text(line) for line in lines)
    ]


def within_text(one: Within) -> str:
    """Bytes, or what is said in their place."""
    if math.isnan(one.bytes_per_image):
        return "–" if one.note == NOT_REACHED else f"n/a: {one.note}"
    shown = ("≤ " if one.note == SMALLEST else "") + size(one.bytes_per_image)
    if math.isnan(one.low) or one.low == one.high:
        return shown
    bounds = (size(bound) if 0 < bound < math.inf else "–" for bound in (one.low, one.high))
    return f"{shown} [{', '.join(bounds)}]"


def ratio_text(one: Within) -> str:
    """How many times as many bytes the best of all pixels takes; "" where that is not known."""
    if math.isnan(one.pixels_ratio):
        return ""
    shown = f"{_times(one.pixels_ratio)} ×"
    if math.isnan(one.pixels_ratio_low):
        return shown
    return f"{shown} [{_times(one.pixels_ratio_low)}, {_times(one.pixels_ratio_high)}]"


def _times(ratio: float) -> str:
    if math.isinf(ratio):
        return "–"
    return f"{ratio:.0f}" if ratio >= 10 else f"{ratio:.2g}"


def delta_text(delta: Delta) -> str:
    """A delta and what it was taken over, or why there is none."""
    if math.isnan(delta.value):
        return f"n/a: {delta.why}"
    if delta.metric == "bd_rate":
        low, high = 100 * delta.overlap_low, 100 * delta.overlap_high
        return f"{delta.value:+.1f} % (over {low:.1f} to {high:.1f} %)"
    smallest, largest = size(delta.overlap_low), size(delta.overlap_high)
    return f"{100 * delta.value:+.2f} (over {smallest} to {largest})"
