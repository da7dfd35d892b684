"""Bjøntegaard deltas: the mean distance of two curves, in bytes and in utility."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import attrgetter
from pathlib import Path
from typing import NamedTuple

from nec.report.curves import parts
from nec.report.results import number, write_csv
from nec.report.table import BEST_PIXELS, TableRow, by_task, compared, split_count

# Two points give a chord, not a curve; piecewise cubics have a shape of their own from three on.
MIN_POINTS = 3


class Point(NamedTuple):
    """A point of a curve as a function."""

    x: float
    y: float


class Delta(NamedTuple):
    """How a curve differs from a baseline on what both cover."""

    task: str
    baseline: str
    variant: str
    metric: str  # "bd_rate" or "bd_utility"
    unit: str
    value: float  # NaN where there is none
    overlap_low: float  # bounds of the integral: the utility for bd_rate, bytes for bd_utility
    overlap_high: float
    why: str  # there is no value; "" if there is one
    left_out: tuple[str, ...]  # points of either curve, in words

    @property
    def note(self) -> str:
        """Both in one text, as files have it."""
        return "; ".join(filter(None, (self.why, *self.left_out)))


# Columns of files.
COLUMNS = (*Delta._fields[:-2], "note")
UNITS = {"bd_rate": "percent", "bd_utility": "fraction"}


def deltas(table: Sequence[TableRow], baseline: str | None = None) -> list[Delta]:
    """Compute the deltas of every curve against the baselines, task by task.

    BD-utility is the mean difference in utility at equal bytes, BD-rate the mean difference in
    bytes at equal utility; both over log bytes with piecewise cubics (PCHIP) on the overlap alone.
    Bytes are payloads: a pixel codec's without the container of its files.
    A curve is its upper envelope: a point that is no better than one of fewer bytes is left out, as
    nobody would choose it; for all pixels together it is their hull. Points of other splits than
    the other curve's are left out, since splits differ by more than codecs do. Notes count both.

    Args:
        table: All points.
        baseline: The variant to compare with. By default every training-free curve is one, and
            the first learned curve, of the distortion `embedding` if there is one; two baselines
            are compared once, the one that begins at fewer bytes against the other.

    Raises:
        ValueError: The baseline is not in the table, or is a single point.
    """
    if baseline is not None:
        check_baseline(table, baseline)
    found = []
    for task, lines in by_task(table).items():
        curves = _curves(lines)
        for anchor, variant in (
            _pairs(curves) if baseline is None else _pairs_with(baseline, curves)
        ):
            found += _pair(task, curves[anchor], curves[variant])
    return found


def _pairs_with(baseline: str, curves: Iterable[str]) -> list[tuple[str, str]]:
    """A baseline and each other curve of a task that has it."""
    others = [name for name in curves if name != baseline]
    return [(baseline, name) for name in others] if baseline in curves else []


def _pairs(curves: Mapping[str, Sequence[TableRow]]) -> list[tuple[str, str]]:
    """Default pairs: every baseline with every other curve that is not one.

    Of two baselines, the one that begins at fewer bytes is compared with the other, once.
    """
    anchors = _baselines(curves)
    start = {
        name: (min(line.payload_bytes_per_image for line in curve), number)
        for number, (name, curve) in enumerate(curves.items())
    }
    return [
        (anchor, name)
        for anchor in anchors
        for name in curves
        if name != anchor and (name not in anchors or start[name] < start[anchor])
    ]


def _baselines(curves: Mapping[str, Sequence[TableRow]]) -> list[str]:
    """The curves that others are compared with by default."""
    learned = [name for name, curve in curves.items() if curve[0].learned]
    learned.sort(key=lambda name: "embedding" not in parts(name))  # stable
    return [name for name in curves if name not in learned[1:]]


def check_baseline(table: Sequence[TableRow], baseline: str) -> None:
    """Refuse a baseline that is not a curve of the table.

    Raises:
        ValueError: It is not in the table, or is a single point.
    """
    known = _curves(table)
    if baseline not in known:
        raise ValueError(
            f"baseline {baseline!r} is not a curve here; curves of two points or more: "
            f"{', '.join(known) or 'none'}"
        )


def _curves(table: Sequence[TableRow]) -> dict[str, list[TableRow]]:
    return {name: curve for name, curve in compared(table).items() if _points(curve) > 1}


def _points(curve: Sequence[TableRow]) -> int:
    return len({line.setting for line in curve})


def _pair(task: str, anchor: list[TableRow], curve: list[TableRow]) -> list[Delta]:
    names = (anchor[0].variant, curve[0].variant)
    splits = _common_splits(anchor, curve)
    whole = [[line for line in lines if line.splits == splits] for lines in (anchor, curve)]
    kept = [best_of(lines, attrgetter("value")) for lines in whole]
    left_out = [
        f"{len(lines) - len(best)} of {len(lines)} points of {name} not above the curve's best so "
        f"far{' or below a chord' * (name == BEST_PIXELS)} were left out"
        for name, lines, best in zip(names, whole, kept, strict=True)
        if len(best) < len(lines)
    ]
    left_out += [
        f"{len(lines) - len(own)} of {name}, of other splits, were left out"
        for name, lines, own in zip(names, (anchor, curve), whole, strict=True)
        if len(own) < len(lines)
    ]
    rates = [[_rate(line) for line in best] for best in kept]
    flipped = [[Point(y, x) for x, y in points] for points in rates]
    log_ratio, *utilities, why_rate = mean_distance(*rates, names, anchor[0].metric)
    utility, *logs, why_utility = mean_distance(*flipped, names, "bytes")
    percent = 100 * (10**log_ratio - 1)
    sizes = [10**value for value in logs]
    said = tuple(left_out)
    return [
        Delta(task, *names, "bd_rate", UNITS["bd_rate"], percent, *utilities, why_rate, said),
        Delta(task, *names, "bd_utility", UNITS["bd_utility"], utility, *sizes, why_utility, said),
    ]


def _common_splits(anchor: Sequence[TableRow], curve: Sequence[TableRow]) -> str:
    """The most splits of which both curves have a point; if there are none, those of either."""
    common = {line.splits for line in anchor} & {line.splits for line in curve}
    most = max((*anchor, *curve), key=lambda line: (line.splits in common, split_count(line)))
    return most.splits


def envelope(lines: Iterable[TableRow], worth: Callable[[TableRow], float]) -> list[TableRow]:
    """Return the lines worth more than every one of fewer bytes, in order of bytes."""
    kept: list[TableRow] = []
    for line in sorted(lines, key=lambda line: (line.payload_bytes_per_image, -worth(line))):
        if not kept or worth(line) > worth(kept[-1]):
            kept.append(line)
    return kept


def hull(lines: Iterable[TableRow], worth: Callable[[TableRow], float]) -> list[TableRow]:
    """Return the upper concave hull over log bytes, up to the best line.

    The envelope of several curves may be worse than some of them: a point barely better than one of
    another curve bends the interpolation away from both.
    """
    kept: list[TableRow] = []
    for line in envelope(lines, worth):
        while len(kept) > 1 and _slope(*kept[-2:], worth) <= _slope(kept[-1], line, worth):
            kept.pop()
        kept.append(line)
    return kept


def best_of(lines: Sequence[TableRow], worth: Callable[[TableRow], float]) -> list[TableRow]:
    """Return the lines that make a curve: its envelope or, for all pixels, their hull."""
    pixels = any(line.variant == BEST_PIXELS for line in lines)
    return hull(lines, worth) if pixels else envelope(lines, worth)


def _slope(one: TableRow, other: TableRow, worth: Callable[[TableRow], float]) -> float:
    """Worth per log bytes, from one line to one of more bytes."""
    return (worth(other) - worth(one)) / (_log_bytes(other) - _log_bytes(one))


def _rate(line: TableRow) -> Point:
    return Point(line.value, _log_bytes(line))


def _log_bytes(line: TableRow) -> float:
    return math.log10(line.payload_bytes_per_image)


class Distance(NamedTuple):
    """Mean distance of two curves on their overlap; NaN where `why` says so."""

    value: float
    low: float
    high: float
    why: str


def mean_distance(
    anchor: Sequence[Point],
    curve: Sequence[Point],
    names: tuple[str, str],
    quantity: str,
) -> Distance:
    """Return the mean of y(curve) - y(anchor) over the x that both cover; x rises along points."""
    nothing = (math.nan, math.nan, math.nan)
    for name, points in zip(names, (anchor, curve), strict=True):
        if len(points) < MIN_POINTS:
            return Distance(
                *nothing, f"{name} has {len(points)} points that rise, a curve {MIN_POINTS}"
            )
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
    """Write deltas as CSV, one per row; the value is empty where there is none."""
    values = ([getattr(delta, column) for column in COLUMNS] for delta in found)
    rows = ([v if isinstance(v, str) else number(v) for v in row] for row in values)
    write_csv(path, COLUMNS, rows)
