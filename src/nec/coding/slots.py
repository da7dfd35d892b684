"""Lookup tables of a coder: the slots of each symbol in each context."""

from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nec.coding.frequencies import TOTAL, bit_length

FULL = 1 << 56  # width of the interval before the first symbol
ESCAPE = 1 << 31  # stands in place of a symbol; not an int32
ABOVE = 2 * TOTAL  # above all slots, and above those that an interval gains by rounding
# If the others have fewer slots than this, the dominant symbol is tested before searching.
FLAT = TOTAL >> 2
# Parts of an entry: where its slots end, whether its context is flat, whether it is the escape,
# and where its slots start.
END_MASK = (1 << 30) - 1
FLAT_BIT = 1 << 30
ESCAPE_BIT = 1 << 31
START_SHIFT = 32


class Slots:
    """Slots of each context's symbols, in order of index but the likeliest (the dominant) last.

    The dominant symbol gets what the others leave of an interval, so that no rounding is lost. The
    others share the slots before it: each has as many as its frequency, from its start on. If these
    are few, a decoder tests first for the dominant symbol, which lies after `rests` slots.

    Args:
        frequencies: (K, S + 1) uint32, the escape last; 0 for symbols that are not in the table.
        offsets: (K,) int32, symbol of index 0.
    """

    def __init__(self, frequencies: NDArray[Any], offsets: NDArray[Any]) -> None:
        contexts, self.columns = frequencies.shape
        rows, dominant = np.arange(contexts), frequencies.argmax(axis=1)
        others = frequencies.astype(np.int64)
        others[rows, dominant] = 0
        ends = np.cumsum(others, axis=1)
        starts = ends - others
        values = offsets[:, None].astype(np.int64) + np.arange(self.columns)
        values[:, -1] = ESCAPE
        self.offsets = offsets
        rests = ends[:, -1]
        self.dominants: NDArray[np.int64] = values[rows, dominant]  # (K,)
        first = (rests < FLAT) & (self.dominants != ESCAPE)
        self.rests: NDArray[np.int64] = np.where(first, rests, ABOVE)  # (K,)
        self.sparse = bool(first.any())
        # To decode: where the slots of the others and of the dominant one begin, then ABOVE.
        held = others > 0
        behind = np.cumsum(held.sum(axis=1)).repeat(2)
        last_bounds = np.stack([rests, np.full(contexts, ABOVE)], axis=1)
        last_values = np.stack([self.dominants, np.full(contexts, ESCAPE)], axis=1)
        self._sizes = held.sum(axis=1) + 2
        self._firsts = np.cumsum(self._sizes) - self._sizes
        self.bounds: NDArray[np.int64] = np.insert(starts[held], behind, last_bounds.ravel())
        self.values: NDArray[np.int64] = np.insert(values[held], behind, last_values.ravel())
        self.escapes: NDArray[np.int64] = np.flatnonzero(self.values == ESCAPE)[::2]  # (K,) places
        # To encode: (K, S + 1) entries; symbols that are not in the table have the escape's.
        starts[rows, dominant], ends[rows, dominant] = rests, ABOVE
        entries = starts << START_SHIFT | ends | np.where(first, 0, FLAT_BIT)[:, None]
        entries[:, -1] |= ESCAPE_BIT
        self.entries: NDArray[np.int64] = np.where(frequencies > 0, entries, entries[:, -1:])

    def find(self, contexts: NDArray[np.int64], slots: NDArray[np.int64]) -> NDArray[np.int64]:
        """Find places of slots in `bounds` and `values`; contexts: one for each, or one for all."""
        if contexts.ndim == 0:
            first = self._firsts[contexts]
            own = self.bounds[first : first + self._sizes[contexts]]
            return np.asarray(own.searchsorted(slots, side="right") + (first - 1))
        # Contexts are laid one after the other on a ladder, so that one search serves all.
        return np.asarray(self._ladder.searchsorted(slots + ABOVE * contexts, side="right") - 1)

    def hold(self, contexts: NDArray[np.int64], indices: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether the tables of contexts hold symbols of these indices (any integers)."""
        inside = (indices >= 0) & (indices < self.columns - 1)
        entries = self.entries[contexts, np.where(inside, indices, self.columns - 1)]
        return np.asarray(entries & ESCAPE_BIT == 0)

    @cached_property
    def _ladder(self) -> NDArray[np.int64]:
        return self.bounds + ABOVE * np.repeat(np.arange(len(self.rests)), self._sizes)

    @cached_property
    def shifts(self) -> NDArray[np.int64]:
        """(K,) log2 of the slots that a hint serves: about four hints for each symbol."""
        return np.maximum(bit_length(self._searched) - bit_length(4 * self._sizes), 0)

    @cached_property
    def hint_starts(self) -> NDArray[np.int64]:
        """(K,) place in `hints` of each context's first hint."""
        return np.asarray(np.cumsum(self._hint_counts) - self._hint_counts)

    @cached_property
    def hints(self) -> NDArray[np.int32]:
        """Where a search begins, by slot >> shift: the place that holds the first such slot."""
        contexts = np.repeat(np.arange(len(self.rests)), self._hint_counts)
        number = np.arange(len(contexts)) - self.hint_starts[contexts]
        return self.find(contexts, number << self.shifts[contexts]).astype(np.int32)

    @property
    def _searched(self) -> NDArray[np.int64]:
        """(K,) number of slots that may be searched for."""
        # By rounding, an interval of 2**40 may have up to 2**8 more slots.
        return np.minimum(self.rests, TOTAL + 256)

    @property
    def _hint_counts(self) -> NDArray[np.int64]:
        return (self._searched - 1 >> self.shifts) + 1
