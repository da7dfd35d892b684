"""The content of a report, for pages and, as JSON, for programs."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from nec.report.deltas import COLUMNS, Delta
from nec.report.results import ALL_POINTS, ALL_RUNS, Row
from nec.report.table import DISTINCT, IMAGES, TableRow
from nec.report.within import Within


class About(NamedTuple):
    """Where the numbers come from; "" where there is more than one answer."""

    experiment: str
    data: str
    encoder: str
    runs: int
    splits: int
    test_images: int  # of all splits together, each counted once
    answers: int  # asked of a head: more where several splits test an image
    commits: list[str]


class Summary(NamedTuple):
    """All that a report says."""

    about: About
    points: list[TableRow]
    within: list[Within]
    deltas: list[Delta]


def about(rows: Sequence[Row]) -> About:
    """Return where the rows of a report come from."""
    images = {row.split: round(row.value) for row in rows if row.metric == IMAGES}
    distinct = (round(row.value) for row in rows if row.metric == DISTINCT)
    measured = [row for row in rows if row.run not in (ALL_RUNS, ALL_POINTS)]
    return About(
        experiment=_only(rows, "experiment"),
        data=_only(rows, "data"),
        encoder=_only(rows, "encoder"),
        runs=len({row.run for row in measured}),
        splits=len({row.split for row in measured}),
        test_images=next(distinct, sum(images.values())),
        answers=sum(images.values()),
        commits=sorted({row.commit for row in measured if row.commit}),
    )


def _only(rows: Sequence[Row], column: str) -> str:
    values = {getattr(row, column) for row in rows}
    return str(values.pop()) if len(values) == 1 else ""


def write_json(path: Path, summary: Summary) -> None:
    """Write a summary as JSON, fractions and bytes.

    What was not measured is null, and so is a bound of bytes that is not reached.
    """
    content = {
        "about": _plain(summary.about, About._fields),
        "points": [_plain(one, TableRow._fields) for one in summary.points],
        "within": [_plain(one, Within._fields) for one in summary.within],
        "deltas": [_plain(one, COLUMNS) for one in summary.deltas],
    }
    text = json.dumps(content, ensure_ascii=False, indent=1, allow_nan=False)
    path.write_text(text + "\n", encoding="utf-8")


def _plain(record: Any, columns: Sequence[str]) -> dict[str, Any]:
    return {name: _value(getattr(record, name)) for name in columns}


def _value(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _value(one) for key, one in value.items()}
    # Ten digits, as in results.csv: the last bits of an interpolation differ from build to build.
    return (
        (float(f"{value:.10g}") if math.isfinite(value) else None)
        if isinstance(value, float)
        else value
    )
