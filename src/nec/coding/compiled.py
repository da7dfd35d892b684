"""The coder as numba compiles it: one image after the other, without the GIL."""

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from nec.coding.frequencies import PRECISION_BITS, TOTAL
from nec.coding.tables import COUNT_BITS, Tables
from nec.coding.vectorized import INT32, LOWER, UPPER_SHIFT

# A symbol takes two bytes at most, an escaped one at most 2 + 1 + 5.
LONGEST = 8

PARALLEL = True  # without the GIL, threads run side by side

compiled = njit(nogil=True, cache=True)


def encode(symbols: NDArray[np.int32], tables: Tables, contexts: NDArray[np.int64]) -> list[bytes]:
    """Symbols (N, L) -> N streams; see `nec.coding.encode`."""
    buffer = np.empty(LONGEST * symbols.shape[1] + 8, dtype=np.uint8)
    streams = []
    for index, row in enumerate(symbols):
        chosen = contexts if contexts.ndim == 1 else contexts[index]
        start = _encode_one(row, chosen, tables.frequencies, tables.starts, tables.offsets, buffer)
        streams.append(buffer[start:].tobytes())
    return streams


def decode(
    out: NDArray[np.int32],
    contexts: NDArray[np.int64],
    data: NDArray[np.uint8],
    ends: NDArray[np.int64],
    state: NDArray[np.int64],
    position: NDArray[np.int64],
    tables: Tables,
) -> bool:
    """Fill out (N, l) from where state and position (N,) stand, and move them; False: no int32."""
    for index, row in enumerate(out):
        chosen = contexts if contexts.ndim == 1 else contexts[index]
        state[index], position[index], good = _decode_one(
            row,
            chosen,
            data,
            ends[index],
            state[index],
            position[index],
            tables.ranked,
            tables.bounds,
            tables.order,
            tables.offsets,
        )
        if not good:
            return False
    return True


@compiled
def _push(x: int, frequency: Any, start: Any, buffer: Any, at: int) -> tuple[int, int]:
    """Code one interval of slots; bytes go to the front of what the buffer holds."""
    while x >= frequency << UPPER_SHIFT:
        at -= 1
        buffer[at] = x & 0xFF
        x >>= 8
    return ((x // frequency) << PRECISION_BITS) + x % frequency + start, at


@compiled
def _push_value(x: int, value: Any, buffer: Any, at: int) -> tuple[int, int]:
    """Code what follows an escape: a bit count, and the bits below the leading one."""
    count = 0
    while value >> count:
        count += 1
    left = count - 1
    while left > 0:  # from the lowest up
        bits = min(left, 8)
        step = 1 << (PRECISION_BITS - bits)
        x, at = _push(x, step, (value & ((1 << bits) - 1)) * step, buffer, at)
        value >>= bits
        left -= bits
    step = 1 << (PRECISION_BITS - COUNT_BITS)
    return _push(x, step, count * step, buffer, at)


@compiled
def _encode_one(
    symbols: Any, contexts: Any, frequencies: Any, starts: Any, offsets: Any, buffer: Any
) -> int:
    """Fill the buffer from its end; where the stream starts in it."""
    x, at = 0, len(buffer)
    escape = frequencies.shape[1] - 1
    for i in range(len(symbols) - 1, -1, -1):
        k = contexts[i]
        relative = np.int64(symbols[i]) - offsets[k]
        index = relative if 0 <= relative < escape else escape
        if frequencies[k, index] == 0:
            index = escape
        if index == escape:
            x, at = _push_value(x, (relative << 1) ^ (relative >> 63), buffer, at)
        x, at = _push(x, np.int64(frequencies[k, index]), np.int64(starts[k, index]), buffer, at)
    while x:
        at -= 1
        buffer[at] = x & 0xFF
        x >>= 8
    return at


@compiled
def _refill(x: int, at: int, data: Any, end: int) -> tuple[int, int]:
    """Read bytes while the state is low and bytes are left."""
    while x < LOWER and at < end:
        x = x << 8 | data[at]
        at += 1
    return x, at


@compiled
def _pop(x: int, at: int, bits: int, data: Any, end: int) -> tuple[int, int, int]:
    """Read raw bits, at most 8; them, the state and the position."""
    step = PRECISION_BITS - bits
    value = (x & (TOTAL - 1)) >> step
    x = ((x >> PRECISION_BITS) << step) + (x & ((1 << step) - 1))
    x, at = _refill(x, at, data, end)
    return value, x, at


@compiled
def _pop_value(x: int, at: int, data: Any, end: int) -> tuple[int, int, int]:
    """Read what follows an escape; it (relative to the offset), the state and the position."""
    count, x, at = _pop(x, at, COUNT_BITS, data, end)
    value, left = min(count, 1), max(count - 1, 0)
    while left > 0:
        bits = left & 7 if left & 7 else 8  # the highest, perhaps short, come first
        part, x, at = _pop(x, at, bits, data, end)
        value = value << bits | part
        left -= bits
    return (value >> 1) ^ -(value & 1), x, at


@compiled
def _decode_one(
    out: Any,
    contexts: Any,
    data: Any,
    end: int,
    x: int,
    at: int,
    ranked: Any,
    bounds: Any,
    order: Any,
    offsets: Any,
) -> tuple[int, int, bool]:
    """Fill out; the state, the position, and whether every symbol was an int32."""
    columns = ranked.shape[1]
    escape = columns - 1
    x, at = _refill(x, at, data, end)
    for i in range(len(out)):
        k = contexts[i]
        slot = x & (TOTAL - 1)
        low, high = 0, columns  # the last rank whose slots begin at or before this one
        if columns > 1 and slot < bounds[k, 1]:
            high = 1
        while high - low > 1:
            middle = (low + high) >> 1
            if bounds[k, middle] <= slot:
                low = middle
            else:
                high = middle
        index = order[k, low]
        x = np.int64(ranked[k, low]) * (x >> PRECISION_BITS) + slot - bounds[k, low]
        x, at = _refill(x, at, data, end)
        relative = index
        if index == escape:
            relative, x, at = _pop_value(x, at, data, end)
        symbol = relative + np.int64(offsets[k])
        if not -INT32 <= symbol < INT32:
            return x, at, False
        out[i] = symbol
    return x, at, True
