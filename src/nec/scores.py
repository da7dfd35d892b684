"""Scores from confusion counts, which can be summed over images, head seeds and folds."""

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.integer[Any]]


def iou(confusion: Counts) -> NDArray[np.float64]:
    """Compute the intersection over union of each class.

    Args:
        confusion: (..., K, K) pixel counts; rows are true classes, columns predicted ones.

    Returns:
        (..., K) float64; NaN for a class that neither occurs nor is predicted.
    """
    hits = np.diagonal(confusion, axis1=-2, axis2=-1).astype(np.float64)
    union = confusion.sum(axis=-1) + confusion.sum(axis=-2) - hits
    return np.divide(hits, union, out=np.full(hits.shape, np.nan), where=union > 0)


def mean_iou(confusion: Counts) -> NDArray[np.float64]:
    """Mean of `iou` over the classes that occur: (...) float64.

    A class that is only predicted counts by what it takes from the others. One pixel of it would
    otherwise put a zero into the mean, and two codecs would be means over different classes.
    """
    occurs = confusion.sum(axis=-1) > 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # without any pixel, the result is NaN
        return np.asarray(np.nanmean(np.where(occurs, iou(confusion), np.nan), axis=-1))


def overall_accuracy(confusion: Counts) -> NDArray[np.float64]:
    """Share of pixels in (..., K, K) that are classified correctly: (...) float64; NaN of none."""
    hits = np.trace(confusion, axis1=-2, axis2=-1).astype(np.float64)
    total = confusion.sum(axis=(-2, -1))
    return np.divide(hits, total, out=np.full(hits.shape, np.nan), where=total > 0)


def of_confusion(confusion: Counts, classes: Sequence[str]) -> dict[str, NDArray[np.float64]]:
    """Mean IoU, overall accuracy and the IoU of each class, (...) float64 each, by name.

    Args:
        confusion: (..., K, K) pixel counts.
        classes: Names of the K classes.
    """
    of_class = zip(classes, np.moveaxis(iou(confusion), -1, 0), strict=True)
    return {
        "miou": mean_iou(confusion),
        "accuracy": overall_accuracy(confusion),
        **{f"iou/{name}": values for name, values in of_class},
    }
