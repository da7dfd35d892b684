"""Bjøntegaard deltas: the mean distance of two curves, in bytes and in utility."""

import csv
import math
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from nec.jobs.table import TableRow, curves_of

# Two points give a chord, not a curve; piecewise cubics have a shape of their own from three on.
MIN_POINTS = 3


class Point(NamedTuple):
    """A point of a curve as a function, and what the table calls it."""

    x: float
    y: float
    setting: str


class Delta(NamedTuple):
    """How a curve differs from a baseline on what both cover."""

    task: str
    baseline: str
    variant: str
    metric: str  # "bd_rate" or "bd_utility"
    unit: str
    value: float  # NaN where `note` says why
    overlap_low: float  # bounds of the integral: accuracy for bd_rate, bytes for bd_utility
    overlap_high: float
    note: str


UNITS = {"bd_rate": "percent", "bd_utility": "fraction"}


def deltas(table: Sequence[TableRow], baseline: str | None = None) -> list[Delta]:
    """Deltas of every curve against the baselines, task by task.

    BD-utility is the mean difference in accuracy at equal bytes, BD-rate the mean difference in
    bytes at equal accuracy; both over log bytes with piecewise cubics (PCHIP) on the overlap alone.

    Args:
        table: All points.
        baseline: The variant to compare with. By default every training-free curve is one.

    Raises:
        ValueError: The baseline is not in the table, or is a single point.
    """
    if baseline is not None:
        check_baseline(table, baseline)
    found = []
    for task in dict.fromkeys(line.task for line in table if not math.isnan(line.accuracy)):
        curves = _curves([line for line in table if line.task == task])
        free = [name for name, curve in curves.items() if not curve[0].learned]
        for anchor in [baseline] if baseline is not None else free:
            for variant in curves:
                if variant != anchor and anchor in curves:
                    found += _pair(task, curves[anchor], curves[variant])
    return found


def check_baseline(table: Sequence[TableRow], baseline: str) -> None:
    """Refuse a baseline that is no curve of the table.

    Raises:
        ValueError: It is not in the table, or is a single point.
    """
    known = _curves(table)
    if baseline not in known:
        raise ValueError(
            f"baseline {baseline!r} is no curve here; curves of two points or more: "
            f"{', '.join(known) or 'none'}"
        )


def _curves(table: Sequence[TableRow]) -> dict[str, list[TableRow]]:
    return {name: curve for name, curve in curves_of(table).items() if _points(curve) > 1}


def _points(curve: Sequence[TableRow]) -> int:
    return len({line.setting for line in curve})


def _pair(task: str, anchor: list[TableRow], curve: list[TableRow]) -> list[Delta]:
    names = (anchor[0].variant, curve[0].variant)
    rates = [[_rate(line) for line in lines] for lines in (anchor, curve)]
    flipped = [[Point(y, x, setting) for x, y, setting in points] for points in rates]
    log_ratio, *accuracies, why_rate = mean_distance(*rates, names, "accuracy")
    utility, *logs, why_utility = mean_distance(*flipped, names, "bytes")
    percent = 100 * (10**log_ratio - 1)
    sizes = [10**value for value in logs]
    return [
        Delta(task, *names, "bd_rate", UNITS["bd_rate"], percent, *accuracies, why_rate),
        Delta(task, *names, "bd_utility", UNITS["bd_utility"], utility, *sizes, why_utility),
    ]


def _rate(line: TableRow) -> Point:
    return Point(line.accuracy, math.log10(line.bytes_per_image), line.setting)


class Distance(NamedTuple):
    """Mean distance of two curves on their overlap; NaN where `note` says why."""

    value: float
    low: float
    high: float
    note: str


def mean_distance(
    anchor: Sequence[Point],
    curve: Sequence[Point],
    names: tuple[str, str],
    quantity: str,
) -> Distance:
    """Mean of y(curve) - y(anchor) over the x that both cover; points in order of bytes.

    A function of x is needed: where x does not rise from point to point (an accuracy that falls
    with more bytes), there is none, and the note names the first two points that break the rule.
    """
    nothing = (math.nan, math.nan, math.nan)
    for name, points in zip(names, (anchor, curve), strict=True):
        if len(points) < MIN_POINTS:
            return Distance(*nothing, f"{name} has {len(points)} points, a curve {MIN_POINTS}")
        for left, right in pairwise(points):
            if left.x >= right.x:
                pair = f"{left.setting} to {right.setting}"
                return Distance(*nothing, f"{quantity} of {name} does not rise from {pair}")
    low = max(points[0].x for points in (anchor, curve))
    high = min(points[-1].x for points in (anchor, curve))
    if low >= high:
        return Distance(*nothing, f"no overlap in {quantity}")
    inside = sum(low <= point.x <= high for point in (*anchor, *curve))
    if inside < MIN_POINTS:
        return Distance(*nothing, f"the overlap in {quantity} holds only its two ends")
    return Distance(_integrate(anchor, curve), low, high, "")


def _integrate(anchor: Sequence[Point], curve: Sequence[Point]) -> float:
    from bjontegaard import bd_linear

    # min_overlap only warns; the overlap is judged, and printed, by the caller.
    columns = [
        values
        for points in (anchor, curve)
        for values in ([p.x for p in points], [p.y for p in points])
    ]
    return float(bd_linear(*columns, method="pchip", require_matching_points=False, min_overlap=0))


def write_deltas(path: Path, found: Iterable[Delta]) -> None:
    """Write deltas as CSV, one a row; the value is empty where `note` says why."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(Delta._fields)
        for delta in found:
            writer.writerow([_cell(value) for value in delta])


def _cell(value: str | float) -> str:
    if isinstance(value, str):
        return value
    # Five digits: the last bits of an interpolation differ from build to build.
    return "" if math.isnan(value) else f"{value:.5g}"
