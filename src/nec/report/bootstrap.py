"""Paired bootstrap: how sure a metric, and its difference to raw embeddings, is."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nec.report.kinds import Measure, Sums
from nec.report.results import Point

REPLICATES = 2000
# What lies beyond either end of a 95 % interval.
TAIL = 0.025
# Weights that are held in memory at once.
BLOCK_VALUES = 1 << 23
# First words of the seeds: what is drawn. The same draw serves all points, which pairs them.
GROUPS, HEADS, RUNS = 0, 1, 2


class Trial(NamedTuple):
    """What the heads of one run made of the test images of its split."""

    point: Point
    split: str
    seed: int
    statistics: NDArray[np.int64]  # (heads, n, s), summable over all but s
    ids: NDArray[np.str_]  # (n,)
    groups: NDArray[np.str_]  # (n,): images of one group are drawn together


class Interval(NamedTuple):
    """A value and the bounds of its 95 % interval, NaN where there is none."""

    value: float
    low: float
    high: float


class Compared(NamedTuple):
    """A metric of a point, and its difference to that of raw embeddings (None without raw)."""

    interval: Interval
    difference: Interval | None
    differences: Sums  # of the replicates (REPLICATES,); empty without raw


# Trials by split, in the order of seeds.
Trials = dict[str, list[Trial]]
# A metric by name: the sample's value, then the replicates' (1 + REPLICATES,).
Sampled = dict[str, Sums]


def compare(
    trials: Sequence[Trial], raws: Mapping[Point, Point], measure: Measure
) -> dict[Point, dict[str, Compared]]:
    """Compute the metrics of every point, with paired bootstrap intervals.

    A metric is of the statistics of all images, heads and runs of a point together; a split of
    several runs weighs as much as one of a single run. What is resampled are the groups of test
    images, the head seeds, and the runs of a split if it has several. A group that several splits
    test is drawn once for all of them. All points of the same splits get the same draws, so
    differences are paired; the difference to raw is taken on the splits that both have.

    Args:
        trials: Trials of all runs of one task.
        raws: Point to which a point's difference is taken; a point that is not in it has none.
        measure: Maps statistics (..., s) to metrics (...).

    Returns:
        Metrics by name, of each point.

    Raises:
        ValueError: Two trials of one split do not have the same images.
    """
    numbers = {split: k for k, split in enumerate(sorted({trial.split for trial in trials}))}
    points = _by_point(trials)
    shared = {point: _shared(points, point, raws) for point in points}
    wanted: dict[frozenset[str], set[Point]] = {}
    for point, own in points.items():
        wanted.setdefault(frozenset(own), set()).add(point)
        if shared[point]:
            wanted.setdefault(shared[point], set()).update((point, raws[point]))
    sampled = {
        splits: _sample(
            {p: _only(points[p], splits) for p in points if p in some}, numbers, measure
        )
        for splits, some in wanted.items()
    }
    return {
        point: _compared(
            sampled[frozenset(own)][point],
            sampled[shared[point]][point] if shared[point] else None,
            sampled[shared[point]][raws[point]] if shared[point] else None,
        )
        for point, own in points.items()
    }


def _by_point(trials: Sequence[Trial]) -> dict[Point, Trials]:
    """Trials by point and split, in the order of seeds; images in the order of their ids."""
    points: dict[Point, Trials] = {}
    firsts: dict[str, Trial] = {}
    for trial in sorted(trials, key=lambda one: (one.split, one.seed)):
        order = np.argsort(trial.ids)
        moved = trial._replace(
            statistics=trial.statistics[:, order], ids=trial.ids[order], groups=trial.groups[order]
        )
        first = firsts.setdefault(trial.split, moved)
        if not (
            np.array_equal(moved.ids, first.ids) and np.array_equal(moved.groups, first.groups)
        ):
            raise ValueError(
                f"{first.point} and {trial.point} were tested on different images of split "
                f"{trial.split!r} ({len(first.ids)} and {len(order)}); only runs on the same data "
                "can be compared, report them apart"
            )
        points.setdefault(trial.point, {}).setdefault(trial.split, []).append(moved)
    return points


def _shared(
    points: Mapping[Point, Trials], point: Point, raws: Mapping[Point, Point]
) -> frozenset[str]:
    """The splits that both a point and its raw point have."""
    raw = points.get(raws[point], {}) if point in raws else {}
    return frozenset(points[point]) & frozenset(raw)


def _only(trials: Trials, splits: Iterable[str]) -> Trials:
    return {split: own for split, own in trials.items() if split in splits}


def _compared(alone: Sampled, paired: Sampled | None, raw: Sampled | None) -> dict[str, Compared]:
    found = {}
    for name, samples in alone.items():
        if paired is None or raw is None:
            found[name] = Compared(_interval(samples), None, samples[:0])
        else:
            apart = paired[name] - raw[name]
            found[name] = Compared(_interval(samples), _interval(apart), apart[1:])
    return found


def _interval(samples: Sums) -> Interval:
    """The first of the samples (1 + REPLICATES,) is the value; a replicate may be undefined."""
    defined = samples[1:][~np.isnan(samples[1:])]
    if not len(defined):
        return Interval(float(samples[0]), np.nan, np.nan)
    low, high = np.quantile(defined, [TAIL, 1 - TAIL])
    return Interval(float(samples[0]), float(low), float(high))


def _sample(
    points: Mapping[Point, Trials], numbers: Mapping[str, int], measure: Measure
) -> dict[Point, Sampled]:
    """Metrics (1 + REPLICATES,) of points that have the same splits, by name."""
    groups = np.unique(
        np.concatenate([own[0].groups for own in next(iter(points.values())).values()])
    )
    parts = {point: _parts(own, groups, numbers) for point, own in points.items()}
    found: dict[Point, list[Sums]] = {
        point: [_pooled(np.ones((1, len(groups))), own, slice(0, 1))]
        for point, own in parts.items()
    }
    generator = np.random.default_rng(GROUPS)
    block = max(1, BLOCK_VALUES // len(groups))
    # One group says nothing about how others would differ.
    for start in range(0, REPLICATES if len(groups) > 1 else 0, block):
        weights = _weights(len(groups), min(block, REPLICATES - start), generator)
        rows = slice(1 + start, 1 + start + len(weights))
        for point, own in parts.items():
            found[point].append(_pooled(weights, own, rows))
    return {point: measure(np.concatenate(sums)) for point, sums in found.items()}


class Part(NamedTuple):
    """The trials of a point on one split."""

    columns: NDArray[np.intp]  # (g,) which of all groups it tests
    statistics: Sums  # (g, m, s), summed over a group's images, of the m heads of all its runs
    weights: Sums  # (1 + REPLICATES, m) of each head


def _parts(trials: Trials, groups: NDArray[np.str_], numbers: Mapping[str, int]) -> list[Part]:
    return [_part(own, groups, numbers[split]) for split, own in trials.items()]


def _part(runs: list[Trial], groups: NDArray[np.str_], number: int) -> Part:
    order = np.argsort(runs[0].groups, kind="stable")
    present, starts = np.unique(runs[0].groups[order], return_index=True)
    heads = np.concatenate([run.statistics for run in runs])  # (m, n, s)
    summed = np.add.reduceat(heads[:, order], starts, axis=1).astype(np.float64)
    generator = np.random.default_rng([RUNS, number, len(runs)])
    drawn = _with_sample(_weights(len(runs), REPLICATES, generator)) / len(runs)
    weights = [drawn[:, [k]] * _head_weights(len(run.statistics)) for k, run in enumerate(runs)]
    return Part(
        np.asarray(np.searchsorted(groups, present)),
        summed.transpose(1, 0, 2),
        np.concatenate(weights, axis=1),
    )


def _head_weights(heads: int) -> Sums:
    """Weights (1 + REPLICATES, heads); the same seeds are drawn for every run."""
    drawn = _weights(heads, REPLICATES, np.random.default_rng([HEADS, heads]))
    return _with_sample(drawn) / heads


def _pooled(weights: Sums, parts: list[Part], rows: slice) -> Sums:
    """Statistics (replicates, s) of all splits together, groups weighted by (replicates, G)."""
    total = np.zeros(())
    for columns, statistics, heads in parts:
        flat = statistics.reshape(len(columns), -1)
        summed = (weights[:, columns] @ flat).reshape(len(weights), *statistics.shape[1:])
        total = total + (summed * heads[rows, :, None]).sum(axis=1)
    return total


def _weights(count: int, replicates: int, generator: np.random.Generator) -> Sums:
    """How often each of `count` things is drawn (replicates, count); rows sum to count."""
    drawn = generator.integers(0, count, (replicates, count))
    drawn += np.arange(replicates)[:, None] * count
    counts = np.bincount(drawn.ravel(), minlength=replicates * count)
    return counts.reshape(replicates, count).astype(np.float64)


def _with_sample(weights: Sums) -> Sums:
    """Put the sample itself, everything once, before its replicates."""
    return np.concatenate([np.ones_like(weights[:1]), weights])
