"""What it costs to come close to raw: bytes at which a curve is within so many points of it."""

import math
from collections.abc import Iterable, Sequence
from operator import attrgetter
from pathlib import Path
from typing import NamedTuple

from nec.report.deltas import best_of
from nec.report.results import write_csv
from nec.report.table import TableRow, by_task, compared

# Percentage points of the utility below raw.
POINTS = (0.5, 1.0, 1.5, 2.0)
NOT_REACHED = "not reached"
SMALLEST = "the smallest point does"
NO_RAW = "no raw of the same"
FEWER_SPLITS = "of fewer splits than others"


class Within(NamedTuple):
    """The fewest bytes at which a curve comes within `points` of raw."""

    task: str
    metric: str
    variant: str
    points: float
    bytes_per_image: float  # payload; NaN where it is not reached
    note: str  # why there is no value, or that fewer bytes may do: smaller points were not tried


def within(table: Sequence[TableRow]) -> list[Within]:
    """Return the bytes that every curve takes on every task to come within POINTS of raw.

    A curve is its upper envelope in the paired difference to raw (all pixels together: their hull),
    its log bytes interpolated over that by piecewise cubics (PCHIP), as for BD-rate, and never
    beyond its points. Points of fewer splits than others of the task are left out.
    """
    return [
        Within(task, lines[0].metric, variant, points, *_fewest(curve, splits, -points / 100))
        for task, lines in by_task(table).items()
        for splits in [max(line.splits for line in lines)]
        for variant, curve in compared(lines).items()
        for points in POINTS
    ]


def _fewest(curve: Sequence[TableRow], splits: int, level: float) -> tuple[float, str]:
    """The fewest bytes with a difference of at least `level`, and a note on them."""
    whole = [line for line in curve if line.splits == splits]
    if not whole:
        return math.nan, FEWER_SPLITS
    known = [line for line in whole if not math.isnan(line.difference)]
    if not known:
        return math.nan, NO_RAW
    best = best_of(known, attrgetter("difference"))
    first = best[0]
    if first.difference >= level:
        return first.payload_bytes_per_image, SMALLEST
    if best[-1].difference < level:
        return math.nan, NOT_REACHED
    return _crossing(best, level), ""


def _crossing(best: Sequence[TableRow], level: float) -> float:
    """Bytes at which a rising curve of two points or more has a level between its ends."""
    from scipy.interpolate import PchipInterpolator

    logs = [math.log10(line.payload_bytes_per_image) for line in best]
    return float(10 ** PchipInterpolator([line.difference for line in best], logs)(level))


def write_within(path: Path, found: Iterable[Within]) -> None:
    """Write them as CSV, one per row; bytes are empty where there are none."""
    sizes = ((one, f"{one.bytes_per_image:.5g}".replace("nan", "")) for one in found)
    rows = ([*one[:3], f"{one.points:g}", size, one.note] for one, size in sizes)
    write_csv(path, Within._fields, rows)
