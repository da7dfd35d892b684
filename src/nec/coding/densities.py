"""Probabilities of rounded variables, equal on every machine to the last bit.

A library's exp and erfc are not: they differ by CPU and version. The functions here are sums and
products of doubles, which IEEE 754 rounds the same way everywhere; their error is far below 2**-38,
the resolution of tables.
"""

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

LARGEST_RADIUS = 2047
PER_LN2 = 1.4426950408889634  # 1 / ln 2
LN2_HIGH = 6.93147180369123816490e-01  # few bits: its product with a small integer is exact
LN2_LOW = 1.90821492927058770002e-10  # the rest; both as in fdlibm


def laplace(x: Floats, scale: Floats) -> Floats:
    """P(X > x) for x >= 0, of the density exp(-|x| / scale) / 2 scale."""
    return np.asarray(0.5 * _exp(-x / scale))


def gaussian(x: Floats, scale: Floats) -> Floats:
    """P(X > x) for x >= 0, of the normal density with standard deviation `scale`."""
    return np.asarray(0.5 * _erfc(x / (scale * math.sqrt(2.0))))


def logistic(x: Floats, scale: Floats) -> Floats:
    """P(X > x) for x >= 0, of the logistic density: 1 / (1 + exp(x / scale))."""
    small = _exp(-x / scale)
    return np.asarray(small / (1.0 + small))


def rounded(
    tail: Callable[[Floats, Floats], Floats], scales: Floats, reach: float
) -> tuple[Floats, int]:
    """Compute probabilities of the integers that variables with mean 0 are rounded to.

    Args:
        tail: P(X > x) as a function of x and scale.
        scales: (K,), in steps of the quantizer.
        reach: Radius to cover, in units of the largest scale.

    Returns:
        (K, 2 * radius + 1) probabilities, and the radius, at most 2047.
    """
    largest = min(float(scales.max(initial=0.0)), LARGEST_RADIUS)
    radius = min(max(1, math.ceil(reach * largest)), LARGEST_RADIUS)
    edges = np.arange(radius + 1) + 0.5
    upper = tail(edges[None, :], scales[:, None])  # (K, radius + 1), beyond 0.5, 1.5, ...
    side = upper[:, :-1] - upper[:, 1:]
    pmfs = np.concatenate([side[:, ::-1], 1 - 2 * upper[:, :1], side], axis=1)
    return np.maximum(pmfs, 0.0), radius


def _exp(x: Floats) -> Floats:
    """exp(x) for x <= 0: a Taylor polynomial on [-ln 2 / 2, ln 2 / 2] times a power of 2."""
    x = np.maximum(x, -700.0)
    power = np.rint(x * PER_LN2)
    rest = (x - power * LN2_HIGH) - power * LN2_LOW
    total = np.ones_like(rest)
    for n in range(14, 0, -1):
        total = 1.0 + total * rest / n
    return np.asarray(np.ldexp(total, power.astype(np.int64)))


def _erfc(x: Floats) -> Floats:
    """1 - erf(x) for x >= 0 to 1e-15, by the series with terms of one sign (DLMF 7.6.2)."""
    x = np.minimum(x, 6.0)  # erfc(6) is 2e-17
    term = 2.0 * x / math.sqrt(math.pi) * _exp(-x * x)
    total = term
    for n in range(1, 160):
        term = term * (2.0 * x * x) / (2 * n + 1)
        total = total + term
    return np.asarray(np.maximum(1.0 - total, 0.0))
