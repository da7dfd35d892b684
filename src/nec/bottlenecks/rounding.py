"""Rounding by rate and distortion: the level that is near enough and cheap."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

# What a bit is worth, in squared steps: the slope of distortion over rate at high rates, ln 2 / 6,
# and a little more where most levels are 0.
RATE_WEIGHT = 0.15
# Values beyond saturate, so that levels and their neighbours are int32.
LARGEST_LEVEL = 1 << 30

Levels = NDArray[np.int32]
Floats = NDArray[np.floating]


def cheapest(
    aim: Floats, bits: Callable[[Levels], Floats], placed: Callable[[Levels], Floats] = np.asarray
) -> Levels:
    """Levels of least distortion + bits among the nearest, the next one towards 0, and 0.

    Args:
        aim: What is to be rounded, in steps; any shape.
        bits: What levels of that shape cost, each by itself: an image's bytes depend on no other.
        placed: Where a receiver puts them, in steps, likewise.

    Returns:
        int32, of that shape.
    """
    aim = np.clip(aim, -LARGEST_LEVEL, LARGEST_LEVEL)
    nearest = np.rint(aim).astype(np.int32)
    best = np.zeros_like(nearest)
    least = np.full(nearest.shape, np.inf)
    for level in (best, nearest - np.sign(nearest), nearest):
        cost = np.square(aim - placed(level)) + RATE_WEIGHT * bits(level)
        best, least = np.where(cost < least, level, best), np.minimum(cost, least)
    return best
