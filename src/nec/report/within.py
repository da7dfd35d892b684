"""What it costs to come close to raw: bytes at which a curve is within so many points of it."""

import math
from collections.abc import Iterable, Mapping, Sequence
from operator import attrgetter
from pathlib import Path
from typing import NamedTuple

import numpy as np

from nec.report.bootstrap import Drawn
from nec.report.curves import SEPARATOR, is_raw
from nec.report.deltas import best_of
from nec.report.kinds import Sums
from nec.report.results import ALL_POINTS, Point, Row, number, write_csv
from nec.report.table import BEST_PIXELS, TableRow, by_task, compared, of_all_splits

# Percentage points of the utility below raw.
POINTS = (0.5, 1.0, 1.5, 2.0)
NOT_REACHED = "not reached"
SMALLEST = "the smallest point does"
NO_RAW = "no raw of the same"
OTHER_SPLITS = "of other splits than raw"
# Of the replicates of a difference, for a curve's bytes.
REPLICATES = 500
LOW, HIGH = "test/within_low", "test/within_high"
RATIO_LOW, RATIO_HIGH = "test/within_pixels_ratio_low", "test/within_pixels_ratio_high"


class Within(NamedTuple):
    """The fewest bytes at which a curve comes within `points` of raw."""

    task: str
    metric: str
    variant: str
    points: float
    bytes_per_image: float  # payload; NaN where it is not reached
    low: float  # of its 95 % interval: 0 where fewer than any point's may do
    high: float  # infinite where it may not be reached
    pixels_ratio: float  # bytes of pixels, the best of all, over these; NaN without either
    pixels_ratio_low: float  # of its 95 % interval, paired
    pixels_ratio_high: float
    note: str  # why there is no value, or that fewer bytes may do: smaller points were not tried


def within(table: Sequence[TableRow], rows: Iterable[Row] = ()) -> list[Within]:
    """Return the bytes that every curve takes on every task to come within POINTS of raw.

    A curve is its upper envelope in the paired difference to raw (all pixels together: their hull),
    its log bytes interpolated over that by piecewise cubics (PCHIP), as for BD-rate, and never
    beyond its points. Points of other splits than raw embeddings are left out.

    Args:
        table: All points.
        rows: Rows that hold the intervals, as `interval_rows` makes them; others are ignored.
    """
    bounds = {
        (row.task, row.variant, row.setting, row.metric): row.value
        for row in rows
        if row.run == ALL_POINTS
    }
    found = []
    for task, lines in by_task(table).items():
        whole = compared(of_all_splits(lines))
        pixels = _reached(whole.get(_pixels(whole), []))
        kind = lines[0].metric
        for variant in compared(lines):
            reached = _reached(whole.get(variant, []))
            for points, (size, note), (other, _) in zip(POINTS, reached, pixels, strict=True):
                key = task, variant, _setting(points)
                low, high, *ratios = (
                    bounds.get((*key, metric), math.nan)
                    for metric in (LOW, HIGH, RATIO_LOW, RATIO_HIGH)
                )
                ratios = [_ratio(other, size, whole.get(variant, [])), *ratios]
                found.append(Within(task, kind, variant, points, size, low, high, *ratios, note))
    return found


def interval_rows(
    table: Sequence[TableRow], task: str, utility: str, drawn: Mapping[Point, Drawn], origin: Row
) -> list[Row]:
    """Return rows of the intervals: what a curve takes in each replicate.

    Args:
        table: All points.
        task: The task to take.
        utility: What it is compared by.
        drawn: Replicates of each point, the same draws for all.
        origin: What the rows have in common.
    """
    curves = compared(of_all_splits(by_task(table).get(task, [])))
    ranges: dict[str, Range] = {}
    for variant, curve in curves.items():
        known = [line for line in curve if not math.isnan(line.difference)]
        own = [drawn[line[:2] if variant != BEST_PIXELS else _point(line)] for line in known]
        if own and len(own[0].sizes):  # one group of images says nothing about others
            ranges[variant] = _replicates(known, own, utility)
    pixels = ranges.get(_pixels(curves))
    rows = []
    for variant, found in ranges.items():
        start = origin._replace(run=ALL_POINTS, variant=variant, unit="byte")
        rows += _bounds(found, (LOW, HIGH), start)
        if pixels is not None and _is_compared(curves[variant]):
            ratio = _ratio_range(pixels, found)
            rows += _bounds(ratio, (RATIO_LOW, RATIO_HIGH), start._replace(unit="1"))
    return rows


class Range(NamedTuple):
    """The least and the most (R, POINTS) that something can be in each replicate."""

    least: Sums
    most: Sums
    tail: float


def _point(line: TableRow) -> Point:
    """The point that a point of all pixels together was."""
    name, _, setting = line.setting.rpartition(SEPARATOR)
    return name, setting


def _setting(points: float) -> str:
    return f"within {points:g}"


def _ratio(pixels: float, size: float, curve: Sequence[TableRow]) -> float:
    known = pixels > 0 and size > 0  # neither is NaN
    return pixels / size if known and _is_compared(curve) else math.nan


def _is_compared(curve: Sequence[TableRow]) -> bool:
    """Whether a curve is compared with pixels: one of codecs of embeddings."""
    return not curve[0].pixels and not is_raw(curve[0].variant)


def _pixels(curves: Mapping[str, Sequence[TableRow]]) -> str:
    """The curve of all pixels together, or the only one of pixels; "" if there is none."""
    names = [name for name, curve in curves.items() if curve[0].pixels]
    return BEST_PIXELS if BEST_PIXELS in names else "".join(names)


def _replicates(known: Sequence[TableRow], drawn: Sequence[Drawn], utility: str) -> Range:
    """Bytes of a curve, given its points: infinite if not reached, NaN if nothing is known.

    Where the smallest point is already close enough, fewer may do: from 0 on.
    """
    sizes = np.stack([one.sizes[:REPLICATES] for one in drawn], axis=1)
    differences = [one.metrics[utility].differences[:REPLICATES] for one in drawn]
    most, least = [], []
    for size, worth in zip(sizes.tolist(), np.stack(differences, axis=1).tolist(), strict=True):
        lines = [
            line._replace(payload_bytes_per_image=b, difference=d)
            for line, b, d in zip(known, size, worth, strict=True)
        ]
        found = _reached(lines) if not np.isnan(worth).any() else [(math.nan, "")] * len(POINTS)
        most.append([math.inf if note == NOT_REACHED else value for value, note in found])
        least.append(
            [0.0 if found[k][1] == SMALLEST else value for k, value in enumerate(most[-1])]
        )
    return Range(np.array(least), np.array(most), drawn[0].tail)


def _ratio_range(pixels: Range, sizes: Range) -> Range:
    """The ratio of bytes; anything where neither is reached."""
    with np.errstate(invalid="ignore", divide="ignore"):
        least, most = pixels.least / sizes.most, pixels.most / sizes.least
    neither = np.isinf(pixels.most) & np.isinf(sizes.most)
    unknown = np.isnan(pixels.most) | np.isnan(sizes.most)
    least = np.where(unknown, np.nan, np.where(neither, 0.0, least))
    return Range(least, np.where(unknown, np.nan, np.where(neither, np.inf, most)), sizes.tail)


def _bounds(found: Range, metrics: tuple[str, str], start: Row) -> list[Row]:
    """Rows of the 95 % interval for each of POINTS; none if no replicate is known."""
    known = ~np.isnan(found.most).any(axis=1)
    if not known.any():
        return []
    ends = ((found.least, found.tail), (found.most, 1 - found.tail))
    quantiles = [
        np.quantile(values[known], q, axis=0, method="inverted_cdf").tolist() for values, q in ends
    ]
    return [
        start._replace(setting=_setting(points), metric=metric, value=value)
        for points, *values in zip(POINTS, *quantiles, strict=True)
        for metric, value in zip(metrics, values, strict=True)
    ]


def _reached(curve: Sequence[TableRow]) -> list[tuple[float, str]]:
    """The fewest bytes within each of POINTS, and a note on them."""
    if not curve:
        return [(math.nan, OTHER_SPLITS)] * len(POINTS)
    known = [line for line in curve if not math.isnan(line.difference)]
    if not known:
        return [(math.nan, NO_RAW)] * len(POINTS)
    best = best_of(known, attrgetter("difference"))
    logs = [math.log10(line.payload_bytes_per_image) for line in best]
    values = [line.difference for line in best]
    found = []
    for level in (-points / 100 for points in POINTS):
        if values[0] >= level:
            found.append((best[0].payload_bytes_per_image, SMALLEST))
        elif values[-1] < level:
            found.append((math.nan, NOT_REACHED))
        else:
            found.append((_crossing(values, logs, level), ""))
    return found


def _crossing(values: Sequence[float], logs: Sequence[float], level: float) -> float:
    """Bytes at which a rising curve of two points or more has a level between its ends."""
    from scipy.interpolate import PchipInterpolator

    return float(10 ** PchipInterpolator(values, logs)(level))


def write_within(path: Path, found: Iterable[Within]) -> None:
    """Write them as CSV, one per row; bytes are empty where there are none."""
    rows = ([*one[:3], f"{one.points:g}", *map(number, one[4:10]), one.note] for one in found)
    write_csv(path, Within._fields, rows)
