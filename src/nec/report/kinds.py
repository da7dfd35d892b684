"""Kinds of task: how each is counted, and the metrics that its summed statistics make."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nec.scores import of_confusion

# Statistics (..., s), summed over images, heads and runs; whole numbers, weighted or not.
Sums = NDArray[Any]
# Metrics (...) by name, the utility first.
Measure = Callable[[Sums], dict[str, Sums]]
# The utility of naming all of test after most of train: the lower bound.
MAJORITY = "test/majority"
# predictions.npz of a run.
Arrays = Mapping[str, NDArray[Any]]


class Kind(NamedTuple):
    """How a kind of task is counted and measured."""

    statistics: Callable[[Arrays, str], NDArray[np.int64]]  # (heads, n, s)
    measure: Callable[[Sums, Sequence[str]], dict[str, Sums]]
    utility: str  # what the task is compared by


def _right_of_all(arrays: Arrays, task: str) -> NDArray[np.int64]:
    """What is right and, beside it, the number of images that it is of: (heads, n, 2)."""
    right = arrays[f"{task}/statistics"]
    return np.concatenate([right, np.ones_like(right)], axis=2)


def _confusion(arrays: Arrays, task: str) -> NDArray[np.int64]:
    return np.asarray(arrays[f"{task}/statistics"])


def _shares(sums: Sums, classes: Sequence[str]) -> dict[str, Sums]:
    return {"accuracy": sums[..., 0] / sums[..., 1]}


def _areas(sums: Sums, classes: Sequence[str]) -> dict[str, Sums]:
    return of_confusion(sums.reshape(*sums.shape[:-1], len(classes), len(classes)), classes)


KINDS = {
    "segmentation": Kind(_confusion, _areas, "miou"),
    "classification": Kind(_right_of_all, _shares, "accuracy"),
}
# What a task is compared by: the first of these that was measured.
UTILITIES = tuple(kind.utility for kind in KINDS.values())
