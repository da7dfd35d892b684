"""Paired bootstrap: how sure an accuracy, and its difference to raw embeddings, is."""

from collections.abc import Hashable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

REPLICATES = 2000
CONFIDENCE = 0.95
# Weights that are held in memory at once.
BLOCK_VALUES = 1 << 23
# First words of the seeds: what is drawn. The same draw serves all points, which pairs them.
IMAGES, HEADS, RUNS = 0, 1, 2


class Trial(NamedTuple):
    """What the heads of one run got right on the test images of its split."""

    point: Hashable
    split: str
    seed: int
    correct: np.ndarray  # (heads, n) bool
    ids: np.ndarray  # (n,) str


class Tested(NamedTuple):
    """The trials of one split, and what all their heads got right on its test images."""

    trials: list[Trial]
    correct: np.ndarray  # (heads of all trials, n) bool
    ids: np.ndarray  # (n,) str, sorted


class Interval(NamedTuple):
    """A mean and the bounds of its 95 % interval."""

    mean: float
    low: float
    high: float


class Utility(NamedTuple):
    """Accuracy of a point, and what it is more than that of raw embeddings (None without raw)."""

    accuracy: Interval
    difference: Interval | None


def utilities(
    trials: Sequence[Trial], raws: Mapping[Hashable, Hashable]
) -> dict[Hashable, Utility]:
    """Means and paired bootstrap intervals of every point.

    Resampled are the test images, the head seeds, and the runs of a split where it has several.
    An image that several splits test weighs the same in each. Images and head seeds are the same
    for all points, so differences are paired; the difference to raw is taken on the splits that
    both have.

    Args:
        trials: Of all runs of one task.
        raws: The point that a point's difference is taken to; a point that is not in it has none.

    Raises:
        ValueError: Two trials of one split do not have the same images.
    """
    tested = [_tested(trials, split) for split in sorted({trial.split for trial in trials})]
    accuracies = _resample_images(tested)
    sampled: dict[Hashable, dict[str, np.ndarray]] = {}
    for number, (part, accuracy) in enumerate(zip(tested, accuracies, strict=True)):
        for point, values in _resample_trials(part.trials, accuracy, number).items():
            sampled.setdefault(point, {})[part.trials[0].split] = values
    return {
        point: Utility(
            _interval(list(values.values())),
            _difference(values, sampled.get(raws[point]) if point in raws else None),
        )
        for point, values in sampled.items()
    }


def _difference(
    values: dict[str, np.ndarray], reference: dict[str, np.ndarray] | None
) -> Interval | None:
    shared = [split for split in values if reference and split in reference]
    if reference is None or not shared:
        return None
    return _interval([values[split] - reference[split] for split in shared])


def _interval(samples: list[np.ndarray]) -> Interval:
    """Mean over splits; the first of each (1 + REPLICATES,) is the sample itself."""
    mean = np.mean(samples, axis=0)
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(mean[1:], [tail, 1 - tail])
    return Interval(float(mean[0]), float(low), float(high))


def _tested(trials: Sequence[Trial], split: str) -> Tested:
    own = sorted((t for t in trials if t.split == split), key=lambda trial: trial.seed)
    return Tested(own, np.concatenate(_aligned(own)), np.sort(own[0].ids))


def _resample_trials(
    trials: list[Trial], accuracy: np.ndarray, number: int
) -> dict[Hashable, np.ndarray]:
    """Accuracy (1 + REPLICATES,) of each point on split number `number`, from that of heads."""
    by_point: dict[Hashable, list[np.ndarray]] = {}
    start = 0
    for trial in trials:
        heads = len(trial.correct)
        weights = _weights(heads, REPLICATES, np.random.default_rng([HEADS, heads]))
        one = (accuracy[:, start : start + heads] * _with_sample(weights)).mean(axis=1)
        by_point.setdefault(trial.point, []).append(one)
        start += heads
    return {point: _resample_runs(runs, number) for point, runs in by_point.items()}


def _resample_runs(runs: list[np.ndarray], number: int) -> np.ndarray:
    weights = _weights(len(runs), REPLICATES, np.random.default_rng([RUNS, number, len(runs)]))
    return (np.stack(runs, axis=1) * _with_sample(weights)).mean(axis=1)


def _aligned(trials: list[Trial]) -> list[np.ndarray]:
    """What was right (heads, n) in each trial, images in the order of their ids."""
    first = np.sort(trials[0].ids)
    aligned = []
    for trial in trials:
        order = np.argsort(trial.ids)
        if not np.array_equal(trial.ids[order], first):
            raise ValueError(
                f"{trials[0].point} and {trial.point} were tested on different images of split "
                f"{trial.split!r} ({len(first)} and {len(order)}); only runs on the same data can "
                "be compared, report them apart"
            )
        aligned.append(trial.correct[:, order])
    return aligned


def _resample_images(tested: Sequence[Tested]) -> list[np.ndarray]:
    """Accuracy (1 + REPLICATES, m) of the m heads of each split, float64.

    One weight per image serves every split: hash splits overlap, and an image that is tested twice
    is not two.
    """
    images = np.unique(np.concatenate([part.ids for part in tested]))
    columns = [np.searchsorted(images, part.ids) for part in tested]
    values = [part.correct.T.astype(np.float32) for part in tested]
    generator = np.random.default_rng(IMAGES)
    block = max(1, BLOCK_VALUES // len(images))
    found = [[part.correct.mean(axis=1)[None]] for part in tested]
    for start in range(0, REPLICATES, block):
        weights = _weights(len(images), min(block, REPLICATES - start), generator)
        for accuracies, own, right in zip(found, columns, values, strict=True):
            accuracies.append(_weighted(weights[:, own], right))
    return [np.concatenate(accuracies) for accuracies in found]


def _weighted(weights: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Means (replicates, m) of what is right (n, m); sums are whole, so exact in float32."""
    total = weights.sum(axis=1, keepdims=True)
    # Of a split of a few images, others beside it, no image at all may be drawn.
    weights = np.where(total > 0, weights, 1)
    return (weights @ right).astype(np.float64) / weights.sum(axis=1, keepdims=True)


def _weights(count: int, replicates: int, generator: np.random.Generator) -> np.ndarray:
    """How often each of `count` things is drawn (replicates, count) float32; rows sum to count."""
    drawn = generator.integers(0, count, (replicates, count))
    drawn += np.arange(replicates)[:, None] * count
    counts = np.bincount(drawn.ravel(), minlength=replicates * count)
    return counts.reshape(replicates, count).astype(np.float32)


def _with_sample(weights: np.ndarray) -> np.ndarray:
    """Put the sample itself, everything once, before its replicates."""
    return np.concatenate([np.ones_like(weights[:1]), weights])
