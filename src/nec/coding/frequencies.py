"""Probabilities -> integer frequencies: slots of a context shared out by largest remainder."""

import numpy as np
from numpy.typing import NDArray

PRECISION_BITS = 16
TOTAL = 1 << PRECISION_BITS  # slots of a context
# Probabilities are rounded to this before they are shared out, so that the last bits of a float
# (another machine's exp) do not decide a frequency.
PROBABILITY_BITS = 40


def apportion(pmfs: NDArray[np.float64], kept: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Share 2**16 slots out, in integers; every kept symbol gets one.

    Args:
        pmfs: (K, S) probabilities, each row with a sum of at most 1.
        kept: (K, S), whether a symbol is in the table.

    Returns:
        (K, S + 1) frequencies; a row sums to 2**16, the escape comes last and has at least 1.

    Raises:
        ValueError: If a context keeps more symbols than it has slots.
    """
    counts = kept.sum(axis=1, keepdims=True)
    if counts.max(initial=0) >= TOTAL:
        raise ValueError(
            f"a context has {counts.max()} symbols; a table holds {TOTAL - 1}, leave rare ones to "
            "the escape"
        )
    weights = np.where(kept, np.rint(pmfs * 2.0**PROBABILITY_BITS), 0).astype(np.int64)
    mass = weights.sum(axis=1, keepdims=True)
    room = np.where(mass > 0, np.maximum(TOTAL - _escape(mass), counts), 0)
    scaled = weights * room  # < 2**56
    divisor = np.maximum(mass, 1)
    frequencies = np.where(kept, np.maximum(scaled // divisor, 1), 0)
    for row, remainders, want in zip(frequencies, scaled % divisor, room[:, 0], strict=True):
        _settle(row, remainders, int(want))
    escape = TOTAL - frequencies.sum(axis=1, keepdims=True)
    return np.concatenate([frequencies, escape], axis=1)


def _escape(mass: NDArray[np.int64]) -> NDArray[np.int64]:
    """Slots of what the mass lacks to 1, rounded; at least 1."""
    to_slots = PROBABILITY_BITS - PRECISION_BITS
    missing = (1 << PROBABILITY_BITS) - mass
    return np.maximum((missing + (1 << to_slots - 1)) >> to_slots, 1)


def _settle(frequencies: NDArray[np.int64], remainders: NDArray[np.int64], want: int) -> None:
    """Bring a row to its sum in place: the largest remainders gain, the largest symbols give."""
    excess = int(frequencies.sum()) - want
    if excess < 0:
        frequencies[np.argsort(-remainders, kind="stable")[:-excess]] += 1
    while excess > 0:
        largest = np.argsort(-frequencies, kind="stable")[: min(excess, len(frequencies))]
        largest = largest[frequencies[largest] > 1]
        frequencies[largest] -= 1
        excess -= len(largest)
