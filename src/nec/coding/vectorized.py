"""The coder in numpy: all images of a batch step through their symbols side by side."""

import numpy as np
from numpy.typing import NDArray

from nec.coding.frequencies import PRECISION_BITS, TOTAL
from nec.coding.tables import COUNT_BITS, Tables, bit_length, zigzag

Lanes = NDArray[np.int64]

LOWER = 1 << 23  # the state's lower bound once it has grown there
UPPER_SHIFT = 31 - PRECISION_BITS
INT32 = 1 << 31

PARALLEL = False  # its steps are short and hold the GIL


def encode(symbols: NDArray[np.int32], tables: Tables, contexts: Lanes) -> list[bytes]:
    """Symbols (N, L) -> N streams; see `nec.coding.encode`."""
    writer = _Writer(len(symbols))
    escape = tables.frequencies.shape[1] - 1
    every = np.arange(len(symbols))
    for position in range(symbols.shape[1] - 1, -1, -1):
        rows = contexts[..., position]
        relative = symbols[:, position].astype(np.int64) - tables.offsets[rows]
        index = np.where((relative < 0) | (relative >= escape), escape, relative)
        index = np.where(tables.frequencies[rows, index] == 0, escape, index)
        escaped = np.flatnonzero(index == escape)
        if len(escaped):
            writer.push_value(escaped, zigzag(relative[escaped]))
        frequency = tables.frequencies[rows, index].astype(np.int64)
        writer.push(every, frequency, tables.starts[rows, index].astype(np.int64))
    return writer.close()


class _Writer:
    """N coders, each with its state and the bytes it gave off, last first."""

    def __init__(self, count: int) -> None:
        self.state = np.zeros(count, dtype=np.int64)
        self.size = np.zeros(count, dtype=np.int64)
        self.bytes = np.zeros((count, 64), dtype=np.uint8)

    def push(self, lanes: Lanes, frequency: Lanes, start: Lanes) -> None:
        """Code one interval of slots in some lanes."""
        self._give_off(lanes, frequency << UPPER_SHIFT)
        x = self.state[lanes]
        self.state[lanes] = ((x // frequency) << PRECISION_BITS) + x % frequency + start

    def push_value(self, lanes: Lanes, value: Lanes) -> None:
        """Code what follows an escape: a bit count, and the bits below the leading one."""
        count = bit_length(value)
        left, rest = np.maximum(count - 1, 0), value
        while (left > 0).any():
            more = left > 0
            bits = np.minimum(left[more], 8)
            step = PRECISION_BITS - bits
            self.push(lanes[more], 1 << step, (rest[more] & ((1 << bits) - 1)) << step)
            rest = rest >> 8
            left = left - 8
        step = np.full(len(lanes), PRECISION_BITS - COUNT_BITS)
        self.push(lanes, 1 << step, count << step)

    def close(self) -> list[bytes]:
        """The state without leading zeros, then the bytes, first first."""
        self._give_off(np.arange(len(self.state)), np.ones_like(self.state))
        return [row[:n][::-1].tobytes() for row, n in zip(self.bytes, self.size, strict=True)]

    def _give_off(self, lanes: Lanes, bound: Lanes) -> None:
        """Give off bytes while the state is at or above a bound."""
        full = self.state[lanes] >= bound
        while full.any():
            lanes, bound = lanes[full], bound[full]
            if self.size[lanes].max() == self.bytes.shape[1]:
                self.bytes = np.concatenate([self.bytes, np.zeros_like(self.bytes)], axis=1)
            self.bytes[lanes, self.size[lanes]] = self.state[lanes] & 0xFF
            self.size[lanes] += 1
            self.state[lanes] >>= 8
            full = self.state[lanes] >= bound


def decode(
    out: NDArray[np.int32],
    contexts: Lanes,
    data: NDArray[np.uint8],
    ends: Lanes,
    state: Lanes,
    position: Lanes,
    tables: Tables,
) -> bool:
    """Fill out (N, l) from where state and position (N,) stand, and move them; False: no int32."""
    columns = tables.frequencies.shape[1]
    reader = _Reader(data, ends, state, position)
    every = np.arange(len(out))
    reader.refill(every)
    for column in range(out.shape[1]):
        rows = contexts[..., column]
        slot = state & (TOTAL - 1)
        rank = (
            np.searchsorted(tables.ladder, slot + TOTAL * rows, side="right") - 1 - columns * rows
        )
        index = tables.order[rows, rank]
        within = slot - tables.bounds[rows, rank]
        state[:] = tables.ranked[rows, rank] * (state >> PRECISION_BITS) + within
        reader.refill(every)
        relative = index
        escaped = np.flatnonzero(index == columns - 1)
        if len(escaped):
            relative[escaped] = reader.pop_value(escaped)
        symbol = relative + tables.offsets[rows]
        if ((symbol < -INT32) | (symbol >= INT32)).any():
            return False
        out[:, column] = symbol
    return True


class _Reader:
    """N decoders over one row of bytes."""

    def __init__(self, data: NDArray[np.uint8], ends: Lanes, state: Lanes, position: Lanes) -> None:
        self.data, self.ends, self.state, self.position = data, ends, state, position

    def refill(self, lanes: Lanes) -> None:
        """Read bytes while the state is low and bytes are left."""
        while True:
            low = (self.state[lanes] < LOWER) & (self.position[lanes] < self.ends[lanes])
            if not low.any():
                return
            lanes = lanes[low]
            self.state[lanes] = self.state[lanes] << 8 | self.data[self.position[lanes]]
            self.position[lanes] += 1

    def pop_value(self, lanes: Lanes) -> Lanes:
        """What follows an escape, relative to the offset of its context."""
        count = self._pop(lanes, np.full(len(lanes), COUNT_BITS))
        value, left = (count > 0).astype(np.int64), np.maximum(count - 1, 0)
        while (left > 0).any():
            more = np.flatnonzero(left > 0)
            bits = np.where(left[more] & 7, left[more] & 7, 8)
            value[more] = value[more] << bits | self._pop(lanes[more], bits)
            left[more] -= bits
        return np.asarray((value >> 1) ^ -(value & 1))

    def _pop(self, lanes: Lanes, bits: Lanes) -> Lanes:
        step = PRECISION_BITS - bits
        x = self.state[lanes]
        self.state[lanes] = ((x >> PRECISION_BITS) << step) + (x & ((1 << step) - 1))
        self.refill(lanes)
        return np.asarray((x & (TOTAL - 1)) >> step)
