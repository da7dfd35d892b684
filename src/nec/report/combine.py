"""Rows of runs, and what all runs of a point say together."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from nec.report.bootstrap import Compared, Drawn, Trial, compare
from nec.report.curves import UNTRAINED, is_raw, overrides, without_shared
from nec.report.kinds import KINDS, MAJORITY, Kind, Measure, Sums
from nec.report.results import ALL_POINTS, ALL_RUNS, BOUNDS, Point, Row, Run, check_points
from nec.report.table import BYTES, DISTINCT, PAYLOAD, tabulate
from nec.report.within import interval_rows

# Overrides that a curve and its raw embeddings may differ in.
TOLD_APART = ("task", "data.batch_size")


def combine(runs: Sequence[Run]) -> list[Row]:
    """Return all rows of runs, then the metrics over runs of each point and task, with intervals.

    Raises:
        ValueError: Runs must not be compared, or differ in the kind or the classes of a task.
    """
    names = without_shared(run.point[0] for run in runs)
    runs = [run.renamed(names[run.point[0]]) for run in runs]
    check_points(runs)
    rows = [row for run in runs for row in run.rows]
    origins = {run.point: run.rows[0] for run in runs}
    raws = _raws(list(origins))
    drawn: dict[str, dict[Point, Drawn]] = {}
    tasks = _tasks(runs)
    for task, about in sorted(tasks.items()):
        kind = KINDS[about["kind"]]
        own = [run for run in runs if task in run.about["tasks"]]
        measure = _measure(kind, about["classes"])
        drawn[task] = compare([_trial(run, task, kind) for run in own], raws, measure)
        bounds = _bounds(own, task, kind, measure)
        for point, found in drawn[task].items():
            start = _start(origins[point], task)
            rows += _aggregates(start, found.metrics)
            rows += _of_splits(start, kind.utility, found.metrics[kind.utility])
            if point in bounds:
                rows.append(start._replace(metric=MAJORITY, value=bounds[point]))
    table = tabulate(rows)
    origin = _start(rows[0], "")
    for task, found in drawn.items():
        utility = KINDS[tasks[task]["kind"]].utility
        rows += interval_rows(table, task, utility, found, origin._replace(task=task))
    images = {str(name) for run in runs for name in run.predictions()["id"]}
    whole = origin._replace(run=ALL_POINTS, variant="", setting="", unit="image")
    return [*rows, whole._replace(metric=DISTINCT, value=len(images))]


def _bounds(runs: Sequence[Run], task: str, kind: Kind, measure: Measure) -> dict[Point, float]:
    """Utility of the majority class, from the statistics of all splits of a point together.

    It follows from the images alone, so that of a split is known if any run has kept it. A point
    with a split where none has is left out.
    """
    counted: dict[str, Sums] = {}
    splits: dict[Point, set[str]] = {}
    for run in runs:
        split = run.rows[0].split
        splits.setdefault(run.point, set()).add(split)
        arrays = run.predictions()
        if f"{task}/majority" in arrays:
            answers = {f"{task}/statistics": arrays[f"{task}/majority"]}
            counted[split] = kind.statistics(answers, task).sum(axis=(0, 1))
    known = {point: own for point, own in splits.items() if own <= counted.keys()}
    sums = {p: np.sum([counted[split] for split in own], axis=0) for p, own in known.items()}
    return {point: float(measure(each, each)[kind.utility]) for point, each in sums.items()}


def _measure(kind: Kind, classes: Sequence[str]) -> Measure:
    return lambda sums, whole: kind.measure(sums, whole, classes)


def _tasks(runs: Sequence[Run]) -> dict[str, dict[str, Any]]:
    """Kind and classes of each task."""
    tasks: dict[str, dict[str, Any]] = {}
    for run in runs:
        for name, about in run.about["tasks"].items():
            first = tasks.setdefault(name, about)
            if first != about:
                raise ValueError(
                    f"{run.folder} has a task {name!r} of {about}, another run one of {first}; "
                    "only runs on the same question can be compared, report them apart"
                )
    return tasks


def _trial(run: Run, task: str, kind: Kind) -> Trial:
    arrays = run.predictions()
    statistics, ids, groups = kind.statistics(arrays, task), arrays["id"], arrays["group"]
    first = run.rows[0]
    size = next(
        row.value for metric in (PAYLOAD, BYTES) for row in run.rows if row.metric == metric
    )
    truth = kind.truth(arrays, task)
    return Trial(run.point, first.split, int(first.seed), statistics, ids, groups, truth, size)


def _raws(points: Sequence[Point]) -> dict[Point, Point]:
    """The raw point that each point is compared with: that of the same encoder, images and heads.

    Of other overrides only those of keys that a raw point has count. An untrained encoder is
    compared with raw embeddings of the trained one.
    """
    raws = {frozenset(overrides(point[0])): point for point in points if is_raw(point[0])}
    keys = {_key(override) for own in raws for override in own}
    told = {
        point: frozenset(
            o
            for o in overrides(point[0])
            if _key(o) in keys or (_makes_embeddings_or_heads(_key(o)) and o != UNTRAINED)
        )
        for point in points
    }
    return {point: raws[own] for point, own in told.items() if own in raws}


def _key(override: str) -> str:
    return override.partition("=")[0]


def _makes_embeddings_or_heads(key: str) -> bool:
    """Whether an override changes raw embeddings or heads; choosing tasks, or batches, does not."""
    return key.split(".")[0] in ("encoder", "data", "task") and key not in TOLD_APART


def _aggregates(start: Row, metrics: Mapping[str, Compared]) -> list[Row]:
    """Rows of run "all": value, lower and upper bound of each metric and of its difference."""
    rows = []
    for name, compared in metrics.items():
        named = {f"test/{name}": compared.interval}
        if compared.difference is not None:
            named[f"test/{name}_difference"] = compared.difference
        rows += [
            start._replace(metric=metric + end, value=value)
            for metric, interval in named.items()
            for end, value in zip(BOUNDS.values(), interval, strict=True)
            if not np.isnan(value)  # the IoU of a class that is not there; an interval of one group
        ]
    return rows


def _of_splits(start: Row, utility: str, compared: Compared) -> list[Row]:
    """Rows of run "all" for each split: the difference of the utility, if there are several."""
    several = compared.of_splits if len(compared.of_splits) > 1 else {}
    metric = f"test/{utility}_difference"
    return [start._replace(split=split, metric=metric, value=v) for split, v in several.items()]


def _start(origin: Row, task: str) -> Row:
    """What rows of run "all" have in common; code of any commit may have made them."""
    blank = {"seed": "", "split": "", "commit": ""}
    return origin._replace(run=ALL_RUNS, task=task, unit="fraction", **blank)
