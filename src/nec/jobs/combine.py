"""Rows of runs, and what all runs of a point say together."""

from collections.abc import Hashable, Sequence

import numpy as np

from nec.jobs.bootstrap import Trial, Utility, utilities
from nec.jobs.results import ALL_RUNS, Row, Run, check_points, overrides, without_shared
from nec.jobs.table import is_raw


def combine(runs: Sequence[Run]) -> list[Row]:
    """All rows of runs, then per point and task the accuracy over its runs, with intervals."""
    runs = without_shared(runs)
    check_points(runs)
    rows = [row for run in runs for row in run.rows]
    origins = {run.point: run.rows[0] for run in runs}
    trials = _trials(runs)
    raws = _raws(list(origins))
    for task in sorted(trials):
        for point, utility in utilities(trials[task], raws).items():
            rows += _aggregates(origins[point], task, utility)
    return rows


def _raws(points: Sequence[tuple[str, str]]) -> dict[Hashable, Hashable]:
    """The raw point that each point is compared with: of the same overrides.

    Only overrides of keys that a raw point has too: where raw embeddings exist of encoder.block=6
    and 8, a curve of block 8 and another learning rate is compared with raw block 8.
    """
    raws = {frozenset(overrides(point[0])): point for point in points if is_raw(point[0])}
    keys = {_key(override) for own in raws for override in own}
    told = {point: frozenset(o for o in overrides(point[0]) if _key(o) in keys) for point in points}
    return {point: raws[own] for point, own in told.items() if own in raws}


def _key(override: str) -> str:
    return override.partition("=")[0]


def _aggregates(origin: Row, task: str, utility: Utility) -> list[Row]:
    """Rows of run "all": mean, lower and upper bound of the accuracy and of its difference."""
    start = origin._replace(run=ALL_RUNS, seed="", split="", task=task, unit="fraction")
    named = {"test/accuracy": utility.accuracy, "test/accuracy_difference": utility.difference}
    return [
        start._replace(metric=name + suffix, value=value)
        for name, interval in named.items()
        if interval is not None
        for suffix, value in zip(("", "_low", "_high"), interval, strict=True)
    ]


def _trials(runs: Sequence[Run]) -> dict[str, list[Trial]]:
    """What was right in every run, by task."""
    trials: dict[str, list[Trial]] = {}
    for run in runs:
        with np.load(run.folder / "predictions.npz") as arrays:
            for name in (n for n in arrays.files if n.endswith("/predicted")):
                correct = arrays[name] == arrays["label"]
                trial = Trial(
                    run.point, run.rows[0].split, int(run.rows[0].seed), correct, arrays["id"]
                )
                trials.setdefault(name.removesuffix("/predicted"), []).append(trial)
    return trials
