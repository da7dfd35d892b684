"""The wide table: one row per point of a curve and task, from tidy rows alone."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

from nec.report.curves import is_raw, join
from nec.report.kinds import MAJORITY, UTILITIES
from nec.report.results import ALL_POINTS, ALL_RUNS, BOUNDS, Row, write_csv

# What nobody stores: the best of all formats and resolutions at each number of bytes.
BEST_PIXELS = "pixels, the best of all"
# Images of a store, for the share of side bytes in all its bytes.
ARCHIVES = {"1e3": 10**3, "1e5": 10**5, "1e7": 10**7}


class TableRow(NamedTuple):
    """A point of a curve on one task; NaN is what was not measured."""

    variant: str
    setting: str
    task: str
    learned: int
    pixels: int  # 1 where images are stored and not embeddings
    runs: int
    splits: str  # their numbers
    bytes_per_image: float
    payload_bytes_per_image: float  # without the container of a pixel codec's file
    store_bytes_per_image: float  # with ids, labels, splits
    payload_bpp: float
    payload_ratio: float
    estimated_bytes_per_image: float
    coded_bytes_per_image: float
    index_bytes_per_image: float
    side_bytes: float
    side_share_1e3: float  # of all bytes of a store of 1,000 images
    side_share_1e5: float
    side_share_1e7: float
    encode_images_per_second: float
    decode_images_per_second: float
    metric: str  # the utility of the task
    value: float
    low: float
    high: float
    difference: float
    difference_low: float
    difference_high: float
    majority: float  # the utility of naming all after most of train
    of_splits: Mapping[str, float]  # the difference on each split, if there are several
    further: Mapping[str, float]  # other metrics of the task


COLUMNS = TableRow._fields
BYTES, PAYLOAD = "test/bytes_per_image", "test/payload_bytes_per_image"
# Metrics that are averaged over the runs of a point; those of test, over their images.
RATES = {
    "bytes_per_image": BYTES,
    "estimated_bytes_per_image": "test/estimated_bytes_per_image",
    "coded_bytes_per_image": "test/coded_bytes_per_image",
    "index_bytes_per_image": "store/index_bytes_per_image",
    "side_bytes": "store/side_bytes",
    "encode_images_per_second": "encode/images_per_second",
    "decode_images_per_second": "decode/images_per_second",
}
BPP, RATIO = "test/bpp", "test/ratio"  # of all bytes
IMAGES = "test/images"  # of a run, over which its means are
DISTINCT = "test/distinct_images"  # of all splits together, each counted once
# Columns of the utility, and what the names of their metrics end in.
ENDS = {**BOUNDS, **{f"difference{end}": f"_difference{end}" for end in BOUNDS.values()}}


def tabulate(rows: Sequence[Row]) -> list[TableRow]:
    """Return the rows: learned curves, other curves, single points, raw; a curve's by bytes."""
    points: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        if row.run != ALL_POINTS:
            points.setdefault((row.variant, row.setting), []).append(row)
    settings = Counter(variant for variant, _ in points)
    table = [line for point, own in points.items() for line in _lines(point, own)]
    return sorted(
        table,
        key=lambda line: (
            _rank(line, settings[line.variant]),
            line.variant,
            line.bytes_per_image,
            line.task,
        ),
    )


def _lines(point: tuple[str, str], rows: list[Row]) -> list[TableRow]:
    """A point's row of the table for each of its tasks."""
    own = [row for row in rows if row.run != ALL_RUNS]
    tasks = dict.fromkeys(row.task for row in rows if row.run == ALL_RUNS) or {"": None}
    return [
        TableRow(
            *point,
            task=task,
            learned=int(_mean(own, "bottleneck/learned") == 1),
            pixels=int(any(row.metric == PAYLOAD for row in own)),
            runs=len({row.run for row in own}),
            splits=" ".join(sorted({row.split for row in own}, key=lambda k: (len(k), k))),
            **_rates(own),
            majority=_majority([row for row in rows if row.task == task]),
            **_utility([row for row in rows if row.run == ALL_RUNS and row.task == task]),
        )
        for task in tasks
    ]


def _rates(rows: list[Row]) -> dict[str, float]:
    """What an image costs, and what a store costs."""
    rates = {column: _mean_over_images(rows, metric) for column, metric in RATES.items()}
    # Raw bytes over mean bytes: a mean of the folds' ratios would be another number, and larger.
    shares = [row._replace(value=1 / row.value) if row.metric == RATIO else row for row in rows]
    whole, index, side = (
        rates[name] for name in ("bytes_per_image", "index_bytes_per_image", "side_bytes")
    )
    found = _mean_over_images(rows, PAYLOAD)
    payload = whole if math.isnan(found) else found
    stored = whole + (0 if math.isnan(index) else index)
    return rates | {
        "payload_bytes_per_image": payload,
        "payload_bpp": _mean_over_images(rows, BPP) * payload / whole,
        "payload_ratio": whole / payload / _mean_over_images(shares, RATIO),
        "store_bytes_per_image": stored,
        **{f"side_share_{n}": side / (side + count * stored) for n, count in ARCHIVES.items()},
    }


def _utility(rows: list[Row]) -> dict[str, object]:
    """The utility with its bounds, and what else was measured, of the rows of one task."""
    values = {
        row.metric.removeprefix("test/"): row.value
        for row in rows
        if row.metric != MAJORITY and not row.split
    }
    metric = next((name for name in UTILITIES if name in values), "")
    if values and not metric:
        raise ValueError(
            f"task {rows[0].task!r} has {', '.join(values)}, none of which is a utility "
            f"({', '.join(UTILITIES)}); add its kind to nec.report.kinds"
        )
    bounds = {column: values.get(metric + end, math.nan) for column, end in ENDS.items()}
    bounded = {name + end for name in values for end in ENDS.values() if end}
    further = {k: v for k, v in values.items() if k != metric and k not in bounded}
    of_splits = {row.split: row.value for row in rows if row.split}
    return {"metric": metric, **bounds, "of_splits": of_splits, "further": further}


def _majority(rows: list[Row]) -> float:
    """The bound over all splits together, or their mean if runs have not kept what it takes."""
    pooled = [row for row in rows if row.run == ALL_RUNS]
    together = _mean(pooled, MAJORITY)
    return _mean(rows, MAJORITY) if math.isnan(together) else together


def _mean(rows: Iterable[Row], metric: str) -> float:
    values = [row.value for row in rows if row.metric == metric]
    return fmean(values) if values else math.nan


def _mean_over_images(rows: Iterable[Row], metric: str) -> float:
    """A point's mean: folds differ in size, and utilities are of all their images together.

    A split of several runs weighs as much as one of a single run, as it does in utilities.
    """
    rows = list(rows)
    images = {row.run: row.value for row in rows if row.metric == IMAGES}
    own = [row for row in rows if row.metric == metric]
    if not metric.startswith("test/"):
        images = {}
    runs = Counter(row.split for row in own)
    weights = [images.get(row.run, 1) / runs[row.split] for row in own]
    return fmean([row.value for row in own], weights) if own else math.nan


def _rank(line: TableRow, settings: int) -> int:
    if is_raw(line.variant):
        return 3
    return 0 if line.learned else 1 if settings > 1 else 2


def curves_of(table: Iterable[TableRow]) -> dict[str, list[TableRow]]:
    """Return the lines of each variant, in the table's order."""
    curves: dict[str, list[TableRow]] = {}
    for line in table:
        curves.setdefault(line.variant, []).append(line)
    return curves


def split_count(line: TableRow) -> int:
    """Return the number of splits of a point."""
    return len(line.splits.split())


def of_all_splits(lines: Sequence[TableRow]) -> list[TableRow]:
    """Keep a task's points of the splits that raw embeddings have or, without raw, of the most.

    Splits differ by more than codecs do, so points of others cannot stand beside them.
    """
    if not lines:  # a task that was nowhere defined
        return []
    raws = [line for line in lines if is_raw(line.variant)]
    chosen = max(raws or lines, key=split_count).splits
    return [line for line in lines if line.splits == chosen]


def compared(table: Iterable[TableRow]) -> dict[str, list[TableRow]]:
    """Return the curves and, if several are of pixels, all their points together as one more.

    Of this one the hull counts (`nec.report.deltas.hull`): what the best format does at the best
    resolution, chosen for each number of bytes by what was measured on test, which favours pixels.
    """
    curves = curves_of(table)
    pixels = [name for name, curve in curves.items() if curve[0].pixels]
    if len(pixels) > 1:
        curves[BEST_PIXELS] = [
            line._replace(variant=BEST_PIXELS, setting=join((name, line.setting)))
            for name in pixels
            for line in curves[name]
        ]
    return curves


def by_task(table: Iterable[TableRow]) -> dict[str, list[TableRow]]:
    """Return the lines of each task that was measured, tasks in the order of their names."""
    tasks: dict[str, list[TableRow]] = {}
    for line in table:
        if not math.isnan(line.value):
            tasks.setdefault(line.task, []).append(line)
    return dict(sorted(tasks.items()))


def write_table(path: Path, table: Iterable[TableRow]) -> None:
    """Write the table as CSV: utilities as fractions, empty where nothing was measured."""
    rows = ([cell(*pair) for pair in zip(COLUMNS, line, strict=True)] for line in table)
    write_csv(path, COLUMNS, rows)


def cell(column: str, value: str | float | Mapping[str, float]) -> str:
    """Format a value as files have it."""
    if isinstance(value, Mapping):
        return "; ".join(f"{name}={number:.5f}" for name, number in value.items())
    if isinstance(value, str | int):
        return str(value)
    if math.isnan(value):
        return ""
    if "difference" in column:
        return f"{value:+.5f}"
    if column in (*ENDS, "majority"):
        return f"{value:.5f}"
    return f"{value:.2f}" if "bytes" in column else f"{value:.5g}"
