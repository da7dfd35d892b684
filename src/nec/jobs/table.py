"""The wide table: one row per point of a curve and task, from tidy rows alone."""

import csv
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

from nec.jobs.results import ALL_RUNS, SEPARATOR, Row

# The variant that keeps every float: what the others are compared with.
RAW = "identity"


class TableRow(NamedTuple):
    """A point of a curve on one task; NaN is what was not measured."""

    variant: str
    setting: str
    task: str
    learned: int
    runs: int
    splits: int
    bytes_per_image: float
    bpp: float
    ratio: float
    estimated_bytes_per_image: float
    coded_bytes_per_image: float
    index_bytes_per_image: float
    side_bytes: float
    accuracy: float
    accuracy_low: float
    accuracy_high: float
    accuracy_difference: float
    accuracy_difference_low: float
    accuracy_difference_high: float


COLUMNS = TableRow._fields
# Metrics that are averaged over the runs of a point, and those that are given for all runs.
RATES = {
    "bytes_per_image": "test/bytes_per_image",
    "bpp": "test/bpp",
    "ratio": "test/ratio",
    "estimated_bytes_per_image": "test/estimated_bytes_per_image",
    "coded_bytes_per_image": "test/coded_bytes_per_image",
    "index_bytes_per_image": "store/index_bytes_per_image",
    "side_bytes": "store/side_bytes",
}
UTILITIES = {column: f"test/{column}" for column in COLUMNS if column.startswith("accuracy")}


def is_raw(variant: str) -> bool:
    """Whether a curve is raw embeddings, of whatever encoder its overrides make."""
    return variant.split(SEPARATOR)[0] == RAW


def tabulate(rows: Sequence[Row]) -> list[TableRow]:
    """Rows of the table: learned curves, other curves, single points, raw; a curve's by bytes."""
    points: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
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
    rates = {column: _mean(own, metric) for column, metric in RATES.items()}
    tasks = dict.fromkeys(row.task for row in rows if row.run == ALL_RUNS) or {"": None}
    return [
        TableRow(
            *point,
            task=task,
            learned=int(_mean(own, "bottleneck/learned") == 1),
            runs=len({row.run for row in own}),
            splits=len({row.split for row in own}),
            **rates,
            **{
                column: _mean([r for r in rows if r.run == ALL_RUNS and r.task == task], metric)
                for column, metric in UTILITIES.items()
            },
        )
        for task in tasks
    ]


def _mean(rows: Iterable[Row], metric: str) -> float:
    values = [row.value for row in rows if row.metric == metric]
    return fmean(values) if values else math.nan


def _rank(line: TableRow, settings: int) -> int:
    if is_raw(line.variant):
        return 3
    return 0 if line.learned else 1 if settings > 1 else 2


def curves_of(table: Iterable[TableRow]) -> dict[str, list[TableRow]]:
    """The lines of each variant, in the table's order."""
    curves: dict[str, list[TableRow]] = {}
    for line in table:
        curves.setdefault(line.variant, []).append(line)
    return curves


def write_table(path: Path, table: Iterable[TableRow]) -> None:
    """Write the table as CSV: accuracies as fractions, empty where nothing was measured."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for line in table:
            writer.writerow([_cell(*pair) for pair in zip(COLUMNS, line, strict=True)])


def _cell(column: str, value: str | float) -> str:
    if isinstance(value, str | int):
        return str(value)
    if math.isnan(value):
        return ""
    if "difference" in column:
        return f"{value:+.5f}"
    if column in UTILITIES:
        return f"{value:.5f}"
    return f"{value:.2f}" if "bytes" in column else f"{value:.5g}"
