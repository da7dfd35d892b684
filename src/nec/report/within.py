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


class Within(NamedTuple):
    """The fewest bytes at which a curve comes within `points` of raw."""

    task: str
    metric: str
    variant: str
    points: float
    bytes_per_image: float  # payload; NaN where it is not reached
    low: float  # of its 95 % interval; infinite where a replicate does not reach it
    high: float
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
        for variant in compared(lines):
            for points, (size, note) in zip(POINTS, _reached(whole.get(variant, [])), strict=True):
                keys = [(task, variant, _setting(points), metric) for metric in (LOW, HIGH)]
                low, high = (bounds.get(key, math.nan) for key in keys)
                found.append(Within(task, lines[0].metric, variant, points, size, low, high, note))
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
    rows = []
    for variant, curve in compared(of_all_splits(by_task(table).get(task, []))).items():
        own = {
            line.setting: drawn[line.setting if variant == BEST_PIXELS else join(line[:2])]
            for line in curve
            if not math.isnan(line.difference)
        }
        for points, (low, high) in _intervals(curve, own).items():
            start = origin._replace(
                run=ALL_POINTS, variant=variant, setting=_setting(points), unit="byte"
            )
            rows += [start._replace(metric=LOW, value=low), start._replace(metric=HIGH, value=high)]
    return rows


def _setting(points: float) -> str:
    return f"within {points:g}"


def _intervals(
    curve: Sequence[TableRow], drawn: Mapping[str, Sums]
) -> dict[float, tuple[float, float]]:
    """The 95 % interval of a curve's bytes for each of POINTS, given replicates by setting."""
    known = [line for line in curve if line.setting in drawn]
    if not known:
        return {}
    replicates = np.stack([drawn[line.setting] for line in known], axis=1)
    sizes = []
    for values in replicates[~np.isnan(replicates).any(axis=1)]:
        worth = dict(zip((line.setting for line in known), values.tolist(), strict=True))
        sizes.append([size for size, _ in _sizes(known, lambda line, w=worth: w[line.setting])])
    if not sizes:  # one group of images says nothing about others
        return {}
    reached = np.nan_to_num(np.array(sizes), nan=np.inf)  # (R, POINTS)
    bounds = np.quantile(reached, [TAIL, 1 - TAIL], axis=0, method="inverted_cdf").T
    return {
        points: (low, high) for points, (low, high) in zip(POINTS, bounds.tolist(), strict=True)
    }


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
    rows = ([*one[:3], f"{one.points:g}", *map(number, one[4:7]), one.note] for one in found)
    write_csv(path, Within._fields, rows)
