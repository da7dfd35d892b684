"""Rounding by rate and distortion: choosing levels that are near and cheap."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

# What a bit is worth, in squared steps: the slope of distortion over rate at high rates, ln 2 / 6,
# and a little more, since most levels are 0.
RATE_WEIGHT = 0.15
# Values beyond this saturate, so that levels and their neighbours fit int32.
LARGEST_LEVEL = 1 << 30

Levels = NDArray[np.int32]
Floats = NDArray[np.floating]


def cheapest(
    aim: Floats, bits: Callable[[Levels], Floats], placed: Callable[[Levels], Floats] = np.asarray
) -> Levels:
    """Choose the levels of least distortion + bits: the nearest, the next one towards 0, or 0.

    Args:
        aim: Values to round, in steps; any shape.
        bits: Maps levels of that shape to their bits, elementwise, so that an image's bytes do not
            depend on other images.
        placed: Maps levels to the values that a receiver decodes, in steps; elementwise too.

    Returns:
        int32 levels, of that shape.
    """
    aim = np.clip(aim, -LARGEST_LEVEL, LARGEST_LEVEL)
    nearest = np.rint(aim).astype(np.int32)
    best = np.zeros_like(nearest)
    least = np.full(nearest.shape, np.inf)
    for level in (best, nearest - np.sign(nearest), nearest):
        cost = np.square(aim - placed(level)) + RATE_WEIGHT * bits(level)
        best, least = np.where(cost < least, level, best), np.minimum(cost, least)
    return best
