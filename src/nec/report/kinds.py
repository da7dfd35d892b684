"""Kinds of task: how each is counted, and the metrics that its summed statistics make."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nec.scores import of_confusion

# Statistics (..., s), summed over images, heads and runs; whole numbers, weighted or not.
Sums = NDArray[Any]
# Metrics (...) by name, the utility first, of statistics (..., s), drawn from a whole (s,).
Measure = Callable[[Sums, Sums], dict[str, Sums]]
# The utility of naming all of test after most of train: the lower bound.
MAJORITY = "test/majority"
# predictions.npz of a run.
Arrays = Mapping[str, NDArray[Any]]


class Kind(NamedTuple):
    """How a kind of task is counted and measured."""

    statistics: Callable[[Arrays, str], NDArray[np.int64]]  # (heads, n, s)
    truth: Callable[[Arrays, str], NDArray[np.int64]]  # (n, ...), what was to be answered
    measure: Callable[[Sums, Sums, Sequence[str]], dict[str, Sums]]
    utility: str  # what the task is compared by


def _right_of_all(arrays: Arrays, task: str) -> NDArray[np.int64]:
    """What is right and, beside it, the number of images that it is of: (heads, n, 2)."""
    right = arrays[f"{task}/statistics"]
    return np.concatenate([right, np.ones_like(right)], axis=2)


def _labels(arrays: Arrays, task: str) -> NDArray[np.int64]:
    return np.asarray(arrays["label"])


def _confusion(arrays: Arrays, task: str) -> NDArray[np.int64]:
    return np.asarray(arrays[f"{task}/statistics"])


def _pixels(arrays: Arrays, task: str) -> NDArray[np.int64]:
    """Pixels of each class in an image: (n, K)."""
    first = _confusion(arrays, task)[0]
    side = round(np.sqrt(first.shape[1]))
    return np.asarray(first.reshape(len(first), side, side).sum(axis=2))


def _shares(sums: Sums, whole: Sums, classes: Sequence[str]) -> dict[str, Sums]:
    return {"accuracy": sums[..., 0] / sums[..., 1]}


def _areas(sums: Sums, whole: Sums, classes: Sequence[str]) -> dict[str, Sums]:
    """Areas; no mean where a class of the whole was not drawn: it would be over other classes."""
    shape = (len(classes), len(classes))
    drawn, all_there = (each.reshape(*each.shape[:-1], *shape) for each in (sums, whole))
    lacks = ((drawn.sum(axis=-1) == 0) & (all_there.sum(axis=-1) > 0)).any(axis=-1)
    found = of_confusion(drawn, classes)
    return found | {"miou": np.where(lacks, np.nan, found["miou"])}


KINDS = {
    "segmentation": Kind(_confusion, _pixels, _areas, "miou"),
    "classification": Kind(_right_of_all, _labels, _shares, "accuracy"),
}
# What a task is compared by: the first of these that was measured.
UTILITIES = tuple(kind.utility for kind in KINDS.values())
