"""Where the symbols of each context lie among its slots: what a coder looks up."""

from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nec.coding.frequencies import TOTAL, bit_length

ESCAPE = 1 << 31  # stands where a symbol would: no int32
# Parts of an entry: the frequency in the low bits, whether it is the escape, the start above.
FREQUENCY_MASK = (1 << 30) - 1
ESCAPE_BIT = 1 << 30
START_SHIFT = 32


class Slots:
    """The symbols of a context in the order of their index, and last its likeliest, the dominant.

    The dominant one has what the others leave of an interval, so that no rounding is lost on it and
    no search leads to it. The others share `rests` slots: each has as many as its frequency, from
    its start on.

    Args:
        frequencies: (K, S + 1) uint32, the escape last; 0 for what is not in the table.
        offsets: (K,) int32, the symbol of index 0.
    """

    def __init__(self, frequencies: NDArray[Any], offsets: NDArray[Any]) -> None:
        contexts, self.columns = frequencies.shape
        rows, dominant = np.arange(contexts), frequencies.argmax(axis=1)
        others = frequencies.copy()
        others[rows, dominant] = 0
        starts = np.cumsum(others, axis=1, dtype=np.uint32) - others
        values = offsets[:, None].astype(np.int64) + np.arange(self.columns)
        values[:, -1] = ESCAPE
        self.offsets = offsets
        self.rests: NDArray[np.uint32] = others.sum(axis=1, dtype=np.uint32)  # (K,)
        self.dominants: NDArray[np.int64] = values[rows, dominant]  # (K,)
        # To decode: the others of all contexts, one after the other. Behind each context lies one
        # that holds no slot and ends a search.
        held = others > 0
        self._sizes = held.sum(axis=1)
        ends = np.cumsum(self._sizes)
        self._ladder = (starts + TOTAL * rows[:, None])[held]
        self.bounds: NDArray[np.uint32] = np.insert(starts[held], ends, TOTAL)
        self.widths: NDArray[np.uint32] = np.insert(others[held], ends, 0)
        self.values: NDArray[np.int64] = np.insert(values[held], ends, ESCAPE)
        # To encode: (K, S + 1) entries, the escape's for what is not in the table. The dominant
        # one starts behind the others, and its frequency is 0: what they leave.
        starts[rows, dominant] = self.rests
        entries = others.astype(np.int64) | starts.astype(np.int64) << START_SHIFT
        entries[:, -1] |= ESCAPE_BIT
        self.entries: NDArray[np.int64] = np.where(frequencies > 0, entries, entries[:, -1:])

    def find(self, contexts: NDArray[np.int64], slots: NDArray[np.int64]) -> NDArray[np.int64]:
        """Places in `bounds`, `widths` and `values` of what holds these slots of these contexts."""
        # A context's slots lie behind those of the one before, so that one search serves all.
        below = self._ladder.searchsorted(slots + TOTAL * contexts, side="right")
        return np.asarray(below - 1 + contexts)

    @cached_property
    def shifts(self) -> NDArray[np.int64]:
        """(K,) a hint serves 2**shift slots: about two hints for each symbol."""
        return np.maximum(bit_length(self.rests) - bit_length(2 * self._sizes), 0)

    @cached_property
    def hint_starts(self) -> NDArray[np.int64]:
        """(K,) place in `hints` of each context's first."""
        return np.asarray(np.cumsum(self._hint_counts) - self._hint_counts)

    @cached_property
    def hints(self) -> NDArray[np.int64]:
        """Where a search begins, by slot >> shift: the place of what holds the first such slot."""
        contexts = np.repeat(np.arange(len(self.rests)), self._hint_counts)
        number = np.arange(len(contexts)) - self.hint_starts[contexts]
        return self.find(contexts, number << self.shifts[contexts])

    @property
    def _hint_counts(self) -> NDArray[Any]:
        return (self.rests.astype(np.int64) - 1 >> self.shifts) + 1
