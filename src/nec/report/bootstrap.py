"""Paired bootstrap: how sure a metric, and its difference to raw embeddings, is."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nec.report.kinds import Measure, Sums
from nec.report.results import Point

REPLICATES = 2000
# What lies beyond either end of a 95 % interval, where groups are many.
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
    truth: NDArray[np.int64]  # (n, ...), what was to be answered
    bytes_per_image: float  # mean over these images


class Interval(NamedTuple):
    """A value and the bounds of its 95 % interval, NaN where there is none."""

    value: float
    low: float
    high: float


class Compared(NamedTuple):
    """A metric of a point, and its difference to that of raw embeddings (None without raw)."""

    interval: Interval
    difference: Interval | None
    of_splits: dict[str, float]  # the difference on each split
    differences: Sums  # of the replicates (REPLICATES,); empty without raw


class Drawn(NamedTuple):
    """What the replicates make of a point."""

    metrics: dict[str, Compared]  # by name
    sizes: Sums  # bytes per image (REPLICATES,); empty if there is one group alone
    tail: float  # quantile of replicates at the lower end of a 95 % interval


# What the trials of a split have in common.
SAME = ("ids", "groups", "truth")
# Trials by split, in the order of seeds.
Trials = dict[str, list[Trial]]


def compare(
    trials: Sequence[Trial], raws: Mapping[Point, Point], measure: Measure
) -> dict[Point, Drawn]:
    """Compute the metrics of every point, with paired bootstrap intervals.

    A metric is of the statistics of all images, heads and runs of a point together; a split of
    several runs weighs as much as one of a single run. What is resampled are the groups of test
    images, the head seeds, and the runs of a split if it has several. A group that several splits
    test is drawn once for all of them. All points of the same splits get the same draws, so
    differences are paired; the difference to raw is taken on the splits that both have. A group's
    images take the bytes that images of its split take in the mean.

    Percentiles of replicates are too narrow where groups are few, so that further ones bound an
    interval (`tail_of`).

    Args:
        trials: Trials of all runs of one task.
        raws: Point to which a point's difference is taken; a point that is not in it has none.
        measure: Maps statistics (..., s) of groups drawn, and of all groups (s,), to metrics (...);
            a metric that a draw leaves undefined is NaN, and has no part in an interval.

    Returns:
        Metrics and bytes of each point.

    Raises:
        ValueError: Two trials of one split do not have the same images, or the same truth of them.
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
    found = {}
    for point, own in points.items():
        alone, both = sampled[frozenset(own)][point], shared[point]
        pair = (sampled[both][point], sampled[both][raws[point]]) if both else None
        apart = {
            split: _apart(own[split], points[raws[point]][split], measure) for split in sorted(both)
        }
        found[point] = Drawn(_compared(alone, pair, apart), alone.sizes, alone.tail)
    return found


def tail_of(groups: int) -> float:
    """Quantile of replicates at the lower end of a 95 % interval, given the number of groups.

    It is 0.025 where they are many. The distribution over few lacks a factor n / (n - 1) in its
    variance and the tails of Student's t; with this quantile both are made up for (Hesterberg 2015,
    "What Teachers Should Know About the Bootstrap", expanded percentile intervals).
    """
    from scipy.stats import norm, t

    if groups < 2:
        return TAIL
    return float(norm.cdf(np.sqrt(groups / (groups - 1)) * t.ppf(TAIL, groups - 1)))


def _apart(own: list[Trial], raw: list[Trial], measure: Measure) -> dict[str, float]:
    """Difference of each metric on one split."""
    ours, theirs = (
        measure(sums, sums)
        for sums in (
            np.mean([one.statistics.sum(axis=1).mean(axis=0) for one in runs], axis=0)
            for runs in (own, raw)
        )
    )
    return {name: float(ours[name] - theirs[name]) for name in ours}


def _by_point(trials: Sequence[Trial]) -> dict[Point, Trials]:
    """Trials by point and split, in the order of seeds; images in the order of their ids."""
    points: dict[Point, Trials] = {}
    firsts: dict[str, Trial] = {}
    for trial in sorted(trials, key=lambda one: (one.split, one.seed)):
        order = np.argsort(trial.ids)
        moved = trial._replace(
            statistics=trial.statistics[:, order],
            **{name: getattr(trial, name)[order] for name in SAME},
        )
        first = firsts.setdefault(trial.split, moved)
        if any(not np.array_equal(getattr(moved, name), getattr(first, name)) for name in SAME):
            raise ValueError(
                f"{first.point} and {trial.point} were tested on different images, or other "
                f"labels, of split {trial.split!r} ({len(first.ids)} and {len(order)}); only runs "
                "on the same data can be compared, report them apart"
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


def _compared(
    alone: "Sampled", pair: "tuple[Sampled, Sampled] | None", apart: Mapping[str, dict[str, float]]
) -> dict[str, Compared]:
    found = {}
    for name, samples in alone.metrics.items():
        interval = _interval(samples, alone.tail)
        if pair is None:
            found[name] = Compared(interval, None, {}, samples[:0])
        else:
            own, raw = pair
            differences = own.metrics[name] - raw.metrics[name]
            of_splits = {split: values[name] for split, values in apart.items()}
            between = _interval(differences, own.tail)
            found[name] = Compared(interval, between, of_splits, differences[1:])
    return found


def _interval(samples: Sums, tail: float) -> Interval:
    """The first of the samples (1 + REPLICATES,) is the value; a replicate may be undefined."""
    defined = samples[1:][~np.isnan(samples[1:])]
    if not len(defined):
        return Interval(float(samples[0]), np.nan, np.nan)
    low, high = np.quantile(defined, [tail, 1 - tail])
    return Interval(float(samples[0]), float(low), float(high))


class Sampled(NamedTuple):
    """Samples of a point: the sample's value first, then the replicates'."""

    metrics: dict[str, Sums]  # (1 + REPLICATES,), by name
    sizes: Sums  # (REPLICATES,)
    tail: float


def _sample(
    points: Mapping[Point, Trials], numbers: Mapping[str, int], measure: Measure
) -> dict[Point, Sampled]:
    """Metrics and bytes of points that have the same splits."""
    groups = np.unique(
        np.concatenate([own[0].groups for own in next(iter(points.values())).values()])
    )
    parts = {point: _parts(own, groups, numbers) for point, own in points.items()}
    found: dict[Point, list[Sums]] = {
        point: [_pooled(np.ones((1, len(groups))), own, slice(0, 1))]
        for point, own in parts.items()
    }
    sizes: dict[Point, list[Sums]] = {point: [np.zeros(0)] for point in parts}
    generator = np.random.default_rng(GROUPS)
    block = max(1, BLOCK_VALUES // len(groups))
    # One group says nothing about how others would differ.
    for start in range(0, REPLICATES if len(groups) > 1 else 0, block):
        weights = _weights(len(groups), min(block, REPLICATES - start), generator)
        rows = slice(1 + start, 1 + start + len(weights))
        for point, own in parts.items():
            found[point].append(_pooled(weights, own, rows))
            sizes[point].append(_mean_bytes(weights, own))
    tail = tail_of(len(groups))
    return {
        point: Sampled(
            measure(np.concatenate(sums), sums[0][0]), np.concatenate(sizes[point]), tail
        )
        for point, sums in found.items()
    }


class Part(NamedTuple):
    """The trials of a point on one split."""

    columns: NDArray[np.intp]  # (g,) which of all groups it tests
    statistics: Sums  # (g, m, s), summed over a group's images, of the m heads of all its runs
    weights: Sums  # (1 + REPLICATES, m) of each head
    images: Sums  # (g,) in a group
    bytes_per_image: float  # mean of all its runs


def _parts(trials: Trials, groups: NDArray[np.str_], numbers: Mapping[str, int]) -> list[Part]:
    return [_part(own, groups, numbers[split]) for split, own in trials.items()]


def _part(runs: list[Trial], groups: NDArray[np.str_], number: int) -> Part:
    order = np.argsort(runs[0].groups, kind="stable")
    present, starts, images = np.unique(
        runs[0].groups[order], return_index=True, return_counts=True
    )
    heads = np.concatenate([run.statistics for run in runs])  # (m, n, s)
    summed = np.add.reduceat(heads[:, order], starts, axis=1).astype(np.float64)
    generator = np.random.default_rng([RUNS, number, len(runs)])
    drawn = _with_sample(_weights(len(runs), REPLICATES, generator)) / len(runs)
    weights = [drawn[:, [k]] * _head_weights(len(run.statistics)) for k, run in enumerate(runs)]
    return Part(
        np.asarray(np.searchsorted(groups, present)),
        summed.transpose(1, 0, 2),
        np.concatenate(weights, axis=1),
        images,
        float(np.mean([run.bytes_per_image for run in runs])),
    )


def _head_weights(heads: int) -> Sums:
    """Weights (1 + REPLICATES, heads); the same seeds are drawn for every run."""
    drawn = _weights(heads, REPLICATES, np.random.default_rng([HEADS, heads]))
    return _with_sample(drawn) / heads


def _pooled(weights: Sums, parts: list[Part], rows: slice) -> Sums:
    """Statistics (replicates, s) of all splits together, groups weighted by (replicates, G)."""
    total = np.zeros(())
    for part in parts:
        flat = part.statistics.reshape(len(part.columns), -1)
        summed = (weights[:, part.columns] @ flat).reshape(len(weights), *part.statistics.shape[1:])
        total = total + (summed * part.weights[rows, :, None]).sum(axis=1)
    return total


def _mean_bytes(weights: Sums, parts: list[Part]) -> Sums:
    """Bytes per image (replicates,) of all splits, groups weighted by (replicates, G)."""
    images = np.stack([weights[:, part.columns] @ part.images for part in parts])
    sizes = np.array([part.bytes_per_image for part in parts])
    return np.asarray(sizes @ images / images.sum(axis=0))


def _weights(count: int, replicates: int, generator: np.random.Generator) -> Sums:
    """How often each of `count` things is drawn (replicates, count); rows sum to count."""
    drawn = generator.integers(0, count, (replicates, count))
    drawn += np.arange(replicates)[:, None] * count
    counts = np.bincount(drawn.ravel(), minlength=replicates * count)
    return counts.reshape(replicates, count).astype(np.float64)


def _with_sample(weights: Sums) -> Sums:
    """Put the sample itself, everything once, before its replicates."""
    return np.concatenate([np.ones_like(weights[:1]), weights])
