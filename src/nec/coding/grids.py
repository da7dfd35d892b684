"""The coder of grids, one after the other: each symbol by the product of its neighbours' tables.

The range coder is that of `scalar`; only the probabilities are computed anew for each symbol. numba
compiles these functions; without it, Python runs them. docs/format.md says the same in words.
"""

from itertools import pairwise
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from nec.coding.scalar import LONGEST_END, LOWEST, PARALLEL, compiled, finish, shift, views, widen
from nec.coding.slots import FULL

__all__ = ["PARALLEL", "code_lengths", "decode", "encode"]

# Weights sum to less than this plus one per symbol: the narrowest interval, 2**40, divided by that
# leaves about 12 bits of precision.
LARGEST_SUM = 1 << 28
DIGITS_PER_SYMBOL = 2


class Products(Protocol):
    """The part of `nec.coding.Neighbours` that is used here."""

    @property
    def weights(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Frequencies (A + 1, S) to the left and above."""

    @property
    def places(self) -> NDArray[np.int64]:
        """(S,) class of each symbol as a neighbour."""


def encode(symbols: NDArray[np.int32], neighbours: Products) -> list[bytes]:
    """Grids (N, h, w) -> N streams; see `nec.coding.encode_grids`."""
    count, height, width = symbols.shape
    longest = DIGITS_PER_SYMBOL * height * width + LONGEST_END
    out = np.empty(count * longest, dtype=np.uint32)
    ends = np.zeros(count, dtype=np.int64)
    where = views(symbols.reshape(-1), neighbours.places)
    arguments: tuple[Any, ...] = (*where, *neighbours.weights, *views(out, ends))
    _encode_grids(height, width, *arguments)
    digits = out[: ends[-1] if count else 0].astype(">u2").tobytes()
    bounds = [0, *(2 * ends).tolist()]
    return [digits[a:b].rstrip(b"\xff") for a, b in pairwise(bounds)]


def decode(
    out: NDArray[np.int32],
    neighbours: Products,
    digits: NDArray[np.uint16],
    ends: NDArray[np.int64],
    code: NDArray[np.int64],
    width: NDArray[np.int64],
    position: NDArray[np.int64],
) -> None:
    """Decode into out (N, h, w) from the current positions of N streams, and advance these."""
    where = views(out.reshape(-1), neighbours.places)
    progress = views(digits, ends, code, width, position)
    arguments: tuple[Any, ...] = (*out.shape, *where, *neighbours.weights, *progress)
    _decode_grids(*arguments)


def code_lengths(symbols: NDArray[np.int32], neighbours: Products) -> NDArray[np.float64]:
    """Compute the ideal bits (N,) of grids (N, h, w)."""
    bits = np.zeros(len(symbols))
    where = views(symbols.reshape(-1), neighbours.places)
    arguments: tuple[Any, ...] = (*symbols.shape[1:], *where, *neighbours.weights, bits)
    _measure_grids(*arguments)
    return bits


@compiled
def _cumulative(left: Any, up: Any) -> Any:
    """Cumulative weights (S,) of symbols, from the frequencies of left and upper neighbour."""
    products = left * up
    total = products.sum()
    scale = 0
    while total >> scale >= LARGEST_SUM:
        scale += 1
    return np.cumsum(1 + (products >> scale))


@compiled
def _neighbour(inside: bool, place: int, symbols: Any, classes: Any, border: int) -> int:
    """Class of the neighbour at a place, or border if it lies outside the grid."""
    return classes[symbols[place]] if inside else border


@compiled
def _encode_grids(
    height: int,
    width_: int,
    symbols: Any,
    classes: Any,
    left: Any,
    up: Any,
    out: Any,
    ends: Any,
) -> None:
    """Write the digits of all streams to out in order, and the end of each to ends."""
    at, border = 0, len(left) - 1
    for j in range(len(ends)):
        low, width, begin = 0, FULL, at
        for i in range(height * width_):
            place = j * height * width_ + i
            a = _neighbour(i % width_ > 0, place - 1, symbols, classes, border)
            b = _neighbour(i >= width_, place - width_, symbols, classes, border)
            tops = _cumulative(left[a], up[b])
            symbol, last = symbols[place], len(tops) - 1
            unit = width // int(tops[last])
            start = int(tops[symbol - 1]) if symbol > 0 else 0
            step = unit * start
            low += step
            width = width - step if symbol == last else unit * (int(tops[symbol]) - start)
            low, width, at = shift(low, width, at, out)
        at = finish(low, width, begin, at, out)
        ends[j] = at


@compiled
def _decode_grids(
    count: int,
    height: int,
    width_: int,
    out: Any,
    classes: Any,
    left: Any,
    up: Any,
    digits: Any,
    ends: Any,
    codes: Any,
    widths: Any,
    positions: Any,
) -> None:
    """Decode into out from the streams' current positions, and advance these."""
    border = len(left) - 1
    for j in range(count):
        code, width, at, end = codes[j], widths[j], positions[j], ends[j]
        for i in range(height * width_):
            place = j * height * width_ + i
            a = _neighbour(i % width_ > 0, place - 1, out, classes, border)
            b = _neighbour(i >= width_, place - width_, out, classes, border)
            tops = _cumulative(left[a], up[b])
            last = len(tops) - 1
            unit = width // int(tops[last])
            symbol = int(np.searchsorted(tops, code // unit, "right"))
            symbol = min(symbol, last)
            start = int(tops[symbol - 1]) if symbol > 0 else 0
            step = unit * start
            code -= step
            width = width - step if symbol == last else unit * (int(tops[symbol]) - start)
            while width < LOWEST:
                code, width, at = widen(code, width, at, digits, end)
            out[place] = symbol
        codes[j], widths[j], positions[j] = code, width, at


@compiled
def _measure_grids(
    height: int, width: int, symbols: Any, classes: Any, left: Any, up: Any, bits: Any
) -> None:
    """Sum up the ideal bits of each grid."""
    border = len(left) - 1
    for j in range(len(bits)):
        for i in range(height * width):
            place = j * height * width + i
            a = _neighbour(i % width > 0, place - 1, symbols, classes, border)
            b = _neighbour(i >= width, place - width, symbols, classes, border)
            tops = _cumulative(left[a], up[b])
            symbol = symbols[place]
            weight = tops[symbol] - tops[symbol - 1] if symbol > 0 else tops[0]
            bits[j] += np.log2(tops[len(tops) - 1] / weight)
