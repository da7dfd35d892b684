"""Probabilities -> integer frequencies: the 2**24 slots of a context, shared out in integers.

All frequencies of a context but one have at most six significant bits, like a small float: 32 steps
per octave cost at most 6e-5 bits per symbol and halve the size of tables. The exception, the most
probable symbol, gets what the others leave.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]

PRECISION_BITS = 24
TOTAL = 1 << PRECISION_BITS  # slots of a context
# Probabilities are rounded to this before they are shared out, so that the last bits of a float
# do not decide a frequency.
PROBABILITY_BITS = 38
LARGEST_ALPHABET = 1 << 17
TO_SLOTS = PROBABILITY_BITS - PRECISION_BITS
FRACTION_BITS = 5  # of a frequency, below its leading bit


def apportion(pmfs: NDArray[np.float64], kept: NDArray[np.bool_]) -> Integers:
    """Share out 2**24 slots per context; every kept symbol gets at least one.

    Args:
        pmfs: (K, S) probabilities, each at most 1; a row with a sum above 1 is normalized.
        kept: (K, S), whether a symbol is in the table.

    Returns:
        (K, S + 1) frequencies; a row sums to 2**24, the escape comes last and has at least 1.

    Raises:
        ValueError: If a context has more symbols than a table holds.
    """
    if pmfs.shape[1] > LARGEST_ALPHABET:
        raise ValueError(
            f"a context has {pmfs.shape[1]} symbols; a table holds {LARGEST_ALPHABET}, leave rare "
            "ones to the escape"
        )
    weights = np.where(kept, np.rint(pmfs * 2.0**PROBABILITY_BITS), 0).astype(np.int64)
    mass = weights.sum(axis=1, keepdims=True)
    # One quotient and one product of doubles, which round the same way everywhere.
    weights = np.rint(weights * np.minimum(2.0**PROBABILITY_BITS / np.maximum(mass, 1), 1.0))
    weights = weights.astype(np.int64)
    missing = np.maximum((1 << PROBABILITY_BITS) - weights.sum(axis=1, keepdims=True), 0)
    weights = np.concatenate([weights, missing], axis=1)
    always = np.ones_like(missing, dtype=np.bool_)  # the escape
    return _share(weights, np.concatenate([kept, always], axis=1))


def _share(weights: Integers, kept: NDArray[np.bool_]) -> Integers:
    """Round weights to frequencies, carrying each rounding error over to the next symbol."""
    contexts = np.arange(len(weights))
    largest = weights.argmax(axis=1)
    active = kept.T.copy()
    active[largest, contexts] = False
    # Symbols rarer than one slot still get one; the others share the rest.
    rare = active.T & (weights < 1 << TO_SLOTS)
    left = TOTAL - rare.sum(axis=1, keepdims=True)
    weights = np.where(rare, 1 << TO_SLOTS, (weights * left) >> PRECISION_BITS)
    frequencies = np.zeros(active.shape, dtype=np.int64)
    error = np.zeros(len(weights), dtype=np.int64)
    for weight, chosen, out in zip(weights.T, active, frequencies, strict=True):
        half_step = weight >> FRACTION_BITS + 1  # carry at most a symbol's own rounding error
        aim = weight + np.clip(error, -half_step, half_step)
        slots = (aim + (1 << TO_SLOTS - 1)) >> TO_SLOTS
        out[chosen] = np.maximum(from_short(to_short(slots)), 1)[chosen]
        error += np.where(chosen, weight - (out << TO_SLOTS), 0)
    frequencies[largest, contexts] = TOTAL - frequencies.sum(axis=0)
    return np.ascontiguousarray(frequencies.T)


def to_short(frequencies: NDArray[np.integer[Any]]) -> Integers:
    """Number of the nearest frequency of six significant bits: 0, 1, ... 63, 64, 66, ... 126."""
    values = frequencies.astype(np.int64)
    dropped = np.maximum(bit_length(values) - (FRACTION_BITS + 1), 0)
    rounded = (values + (1 << dropped >> 1)) >> dropped  # may reach the next octave's first
    return np.asarray((dropped << FRACTION_BITS) + rounded)


def from_short(numbers: NDArray[np.integer[Any]]) -> Integers:
    """Return the frequency of each number of `to_short`."""
    numbers = numbers.astype(np.int64)
    dropped = np.maximum((numbers >> FRACTION_BITS) - 1, 0)
    return np.asarray((numbers - (dropped << FRACTION_BITS)) << dropped)


def bit_length(values: NDArray[np.integer[Any]]) -> Integers:
    """Return the bit length of each value, 0 for 0; exact below 2**53."""
    return np.frexp(values.astype(np.float64))[1].astype(np.int64)
