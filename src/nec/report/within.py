"""What it costs to come close to raw: bytes at which a curve is within so many points of it."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import attrgetter
from pathlib import Path
from typing import NamedTuple

import numpy as np

from nec.report.bootstrap import TAIL
from nec.report.curves import join
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
    low: float  # of its 95 % interval; infinite where a replicate does not reach it
    high: float
    pixels_ratio: float  # bytes of pixels, the best of all, over these; NaN without either
    pixels_ratio_low: float  # of its 95 % interval, paired; infinite where pixels do not reach it
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
    table: Sequence[TableRow], task: str, differences: Mapping[Point, Sums], origin: Row
) -> list[Row]:
    """Return rows of the intervals: what a curve takes in each replicate.

    Args:
        table: All points.
        task: The task to take.
        differences: Replicates (R,) of each point's difference to raw, the same draws for all.
        origin: What the rows have in common.
    """
    drawn = {join(point): values[:REPLICATES] for point, values in differences.items()}
    curves = compared(of_all_splits(by_task(table).get(task, [])))
    sizes: dict[str, Sums] = {}
    for variant, curve in curves.items():
        own = {
            line.setting: drawn[line.setting if variant == BEST_PIXELS else join(line[:2])]
            for line in curve
            if not math.isnan(line.difference)
        }
        if own:
            sizes[variant] = _replicates([line for line in curve if line.setting in own], own)
    pixels = sizes.get(_pixels(curves))
    rows = []
    for variant, own_sizes in sizes.items():
        intervals = {(LOW, HIGH): _bounds(own_sizes, own_sizes)}
        if pixels is not None and not curves[variant][0].pixels:
            intervals[RATIO_LOW, RATIO_HIGH] = _bounds(*_ratios(pixels, own_sizes))
        for metrics, found in intervals.items():
            for points, bounds in zip(POINTS, found, strict=False):
                unit = "byte" if metrics == (LOW, HIGH) else "1"
                start = origin._replace(
                    run=ALL_POINTS, variant=variant, setting=_setting(points), unit=unit
                )
                rows += [
                    start._replace(metric=metric, value=bound)
                    for metric, bound in zip(metrics, bounds, strict=True)
                ]
    return rows


def _setting(points: float) -> str:
    return f"within {points:g}"


def _ratio(pixels: float, size: float, curve: Sequence[TableRow]) -> float:
    apart = curve and not curve[0].pixels and pixels > 0 and size > 0  # neither is NaN
    return pixels / size if apart else math.nan


def _pixels(curves: Mapping[str, Sequence[TableRow]]) -> str:
    """The curve of all pixels together, or the only one of pixels; "" if there is none."""
    names = [name for name, curve in curves.items() if curve[0].pixels]
    return BEST_PIXELS if BEST_PIXELS in names else "".join(names)


def _replicates(known: Sequence[TableRow], drawn: Mapping[str, Sums]) -> Sums:
    """Bytes (R, POINTS) in each replicate: infinite if not reached, NaN if nothing is known."""
    sizes = []
    for values in np.stack([drawn[line.setting] for line in known], axis=1):
        worth = dict(zip((line.setting for line in known), values.tolist(), strict=True))
        if np.isnan(values).any():
            sizes.append([math.nan] * len(POINTS))
        else:
            found = _sizes(known, lambda line, w=worth: w[line.setting])
            sizes.append([math.inf if math.isnan(size) else size for size, _ in found])
    return np.array(sizes).reshape(-1, len(POINTS))


def _ratios(pixels: Sums, sizes: Sums) -> tuple[Sums, Sums]:
    """Ratios (R, POINTS) of bytes, the least and the most they can be: where neither is reached."""
    with np.errstate(invalid="ignore"):
        ratios = pixels / sizes
    neither = np.isinf(pixels) & np.isinf(sizes)
    return np.where(neither, 0.0, ratios), np.where(neither, np.inf, ratios)


def _bounds(least: Sums, most: Sums) -> list[tuple[float, float]]:
    """The 95 % interval for each of POINTS, of replicates (R, POINTS); none if none is known."""
    known = ~np.isnan(least).any(axis=1)
    if not known.any():  # one group of images says nothing about others
        return []
    low = np.quantile(least[known], TAIL, axis=0, method="inverted_cdf")
    high = np.quantile(most[known], 1 - TAIL, axis=0, method="inverted_cdf")
    return list(zip(low.tolist(), high.tolist(), strict=True))


def _reached(curve: Sequence[TableRow]) -> list[tuple[float, str]]:
    """The fewest bytes within each of POINTS, and a note on them."""
    if not curve:
        return [(math.nan, OTHER_SPLITS)] * len(POINTS)
    known = [line for line in curve if not math.isnan(line.difference)]
    if not known:
        return [(math.nan, NO_RAW)] * len(POINTS)
    return _sizes(known, attrgetter("difference"))


def _sizes(
    known: Sequence[TableRow], worth: Callable[[TableRow], float]
) -> list[tuple[float, str]]:
    """The fewest bytes within each of POINTS, of points with a difference to raw."""
    best = best_of(known, worth)
    logs = [math.log10(line.payload_bytes_per_image) for line in best]
    values = [worth(line) for line in best]
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
