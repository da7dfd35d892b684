"""Probabilities of a grid's symbols, each given the one to its left and the one above."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nec.coding.messages import checked_grids, checked_integers
from nec.coding.plain import CorruptStreamError, plain_length
from nec.coding.tables import Tables

LARGEST_CLASSES = 1 << 16  # a class is written as two bytes


@dataclass(frozen=True, eq=False)
class Neighbours:
    """Two tables, one for each neighbour, whose frequencies are multiplied.

    A product of experts (Hinton 2002): symbol c, with a to its left and b above it, has the weight
    ``left[class of a][c] * up[class of b][c]``, and the weights of all symbols are scaled to
    probabilities. Positions outside the grid have their own class, the last. Unlike a mean of the
    two tables, the product is sharp where both neighbours agree.

    Args:
        left: A + 1 contexts of S symbols with offset 0, by the class to the left.
        up: The same shape, by the class above.
        classes: (S,) class of each symbol as a neighbour, 0 to A - 1.

    Raises:
        ValueError: If tables and classes do not fit each other.
    """

    left: Tables
    up: Tables
    classes: NDArray[np.integer[Any]]

    def __post_init__(self) -> None:
        classes = checked_integers("classes", self.classes, 1)
        border = len(self.left.offsets) - 1
        expected = (border + 1, len(classes) + 1)
        shapes = [table.frequencies.shape for table in (self.left, self.up)]
        if shapes != [expected, expected] or not len(classes) or border < 1:
            raise ValueError(
                f"tables of contexts and frequencies {shapes} for {len(classes)} symbols; both "
                "have a context for each class and one for the border, and S + 1 frequencies"
            )
        if self.left.offsets.any() or self.up.offsets.any():
            raise ValueError("a table has an offset; symbols of a grid are 0 to S - 1")
        if not 0 <= classes.min() <= classes.max() < min(border, LARGEST_CLASSES):
            raise ValueError(
                f"classes reach from {classes.min()} to {classes.max()}; the tables have 0 to "
                f"{border - 1}, and behind them the border"
            )
        frozen = classes.astype(np.uint16)
        frozen.setflags(write=False)
        object.__setattr__(self, "classes", frozen)

    @classmethod
    def from_counts(
        cls, left: ArrayLike, up: ArrayLike, classes: ArrayLike, power: float = 1.0
    ) -> "Neighbours":
        """Build tables from counts of symbols beside each class.

        Args:
            left: (A + 1, S) counts >= 0, not necessarily whole: symbols by the class to their left.
            up: (A + 1, S) counts of symbols by the class above.
            classes: (S,) class of each symbol.
            power: Sharpness of the product: 1 takes neighbours as independent given the symbol,
                1/2 takes the geometric mean of their predictions.
        """
        beside, above = np.asarray(left, dtype=np.float64), np.asarray(up, dtype=np.float64)
        share = beside.sum(axis=0) + 1.0
        share /= share.sum()
        tables = _table(beside, share, power), _table(above, share, power)
        return cls(*tables, np.asarray(classes))

    @property
    def size(self) -> int:
        """S, number of symbols."""
        return len(self.classes)

    @property
    def border(self) -> int:
        """A, the class of positions outside the grid."""
        return len(self.left.offsets) - 1

    @cached_property
    def weights(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Frequencies (A + 1, S) to the left and above, for the coder."""
        pair = (self.left.frequencies, self.up.frequencies)
        left, up = (np.ascontiguousarray(each[:, :-1], dtype=np.int64) for each in pair)
        return left, up

    @cached_property
    def places(self) -> NDArray[np.int64]:
        """`classes` as int64, for the coder."""
        return self.classes.astype(np.int64)

    def code_length(self, symbols: ArrayLike) -> NDArray[np.float64]:
        """Ideal bits (N,) of grids (N, h, w) of symbols in 0..S-1."""
        from nec.coding.grids import code_lengths  # imports numba, at the first use

        return code_lengths(checked_grids(symbols, self.size), self)

    @property
    def plain(self) -> bytes:
        """Both tables, then the classes (docs/format.md)."""
        return self.left.plain + self.up.plain + self.classes.astype("<u2").tobytes()

    @classmethod
    def from_plain(cls, data: bytes) -> "Neighbours":
        """Restore from what `plain` returned.

        Raises:
            CorruptStreamError: If these bytes are not tables of neighbours.
        """
        first = plain_length(data)
        second = first + plain_length(data[first:])
        left, up = Tables.from_plain(data[:first]), Tables.from_plain(data[first:second])
        if len(data) - second != 2 * (left.frequencies.shape[1] - 1):
            raise CorruptStreamError("tables of neighbours do not end where they should")
        try:
            return cls(left, up, np.frombuffer(data, "<u2", offset=second))
        except ValueError as error:
            raise CorruptStreamError(f"tables cannot be read: {error}; copy them anew") from None


def _table(counts: NDArray[np.float64], share: NDArray[np.float64], power: float) -> Tables:
    """Build one factor of the product: P(c | class) ** power * P(c) ** (1/2 - power)."""
    total = counts.sum(axis=1, keepdims=True)
    seen = np.where(total > 0, counts / np.maximum(total, 1e-300), share)
    part = seen**power * share ** (0.5 - power)
    return Tables.from_pmfs(part / part.sum(axis=1, keepdims=True), np.zeros(len(part), int))
