"""The coder in numpy, for many images: they step through their symbols side by side."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from nec.coding.frequencies import PRECISION_BITS, bit_length
from nec.coding.scalar import DIGIT, FULL, INT32, LOWEST, RAW_BITS
from nec.coding.slots import ESCAPE, ESCAPE_BIT, FREQUENCY_MASK, START_SHIFT
from nec.coding.tables import COUNT_BITS, Tables, zigzag

Lanes = NDArray[np.int64]

PARALLEL = False  # its steps are short and hold the GIL
COLUMNS = 64  # symbols of each image that are looked up at once


def encode(symbols: NDArray[np.int32], tables: Tables, contexts: Lanes) -> list[bytes]:
    """Symbols (N, L) -> N streams; see `nec.coding.encode`."""
    slots = tables.slots
    entries, escape = slots.entries.reshape(-1), slots.columns - 1
    writer = _Writer(len(symbols))
    for first in range(0, symbols.shape[1], COLUMNS):
        block = slice(first, first + COLUMNS)
        rows = contexts[..., block]  # (l,) or (N, l)
        relative = symbols[:, block].astype(np.int64) - slots.offsets[rows]
        index = np.where((relative < 0) | (relative > escape), escape, relative)
        # A symbol's row after the other, so that a step reads neighbours: (l, N).
        entry = np.ascontiguousarray(entries[rows * slots.columns + index].T)
        start, frequency = entry >> START_SHIFT, entry & FREQUENCY_MASK
        rests = np.moveaxis(slots.rests[rows].astype(np.int64), -1, 0)  # (l,) or (l, N)
        rare = (frequency > 0).any(axis=1).tolist()
        escaped = (entry & ESCAPE_BIT).any(axis=1).tolist()
        for i in range(len(entry)):
            if rare[i]:
                writer.put(start[i], frequency[i])
            else:
                writer.put_dominant(rests[i])
            if escaped[i]:
                lanes = np.flatnonzero(entry[i] & ESCAPE_BIT)
                writer.put_values(lanes, zigzag(relative[lanes, i]))
    return writer.close()


class _Writer:
    """N coders, each with its interval and the digits of two bytes that it gave off."""

    def __init__(self, count: int) -> None:
        self.low = np.zeros(count, dtype=np.int64)
        self.width = np.full(count, FULL, dtype=np.int64)
        self.size = np.zeros(count, dtype=np.int64)
        self.digits = np.zeros((count, 32), dtype=np.int64)  # with their carries, below 2**17

    def put(self, start: Lanes, frequency: Lanes) -> None:
        """Code a symbol in all lanes."""
        unit = self.width >> PRECISION_BITS
        step = unit * start
        self.low += step
        self.width = np.where(frequency > 0, unit * frequency, self.width - step)
        self._shift()

    def put_dominant(self, rests: Any) -> None:
        """Code the dominant symbol in all lanes."""
        step = (self.width >> PRECISION_BITS) * rests
        self.low += step
        self.width -= step
        self._shift()

    def put_values(self, lanes: Lanes, values: Lanes) -> None:
        """Code what follows an escape: a bit count, and the bits below the leading one."""
        count = bit_length(values)
        self._put_raw(lanes, count, np.full(len(lanes), COUNT_BITS))
        left = count - 1
        while (left > 0).any():
            more = left > 0
            lanes, values, left = lanes[more], values[more], left[more]
            bits = (left - 1) % RAW_BITS + 1
            left = left - bits
            self._put_raw(lanes, values >> left & (1 << bits) - 1, bits)

    def close(self) -> list[bytes]:
        """The number in each interval that ends with the most bytes ff, without these."""
        number = np.full_like(self.low, -1)
        for bits in (56, 48, 40):
            largest = ((self.low + self.width) >> bits << bits) - 1
            number = np.where((number < self.low) & (largest >= self.low), largest, number)
        every = np.arange(len(number))
        for shift in (40, 24, 8):
            self._append(every, number >> shift)
            number &= (1 << shift) - 1
        self._append(every, number << 8 | 0xFF)
        carry = np.zeros_like(number)
        for column in range(self.digits.shape[1] - 1, -1, -1):
            digit = self.digits[:, column] + carry
            carry = digit >> 16
            self.digits[:, column] = digit & DIGIT
        rows = zip(self.digits.astype(">u2"), self.size, strict=True)
        return [row[:size].tobytes().rstrip(b"\xff") for row, size in rows]

    def _put_raw(self, lanes: Lanes, values: Lanes, bits: Lanes) -> None:
        width = self.width[lanes]
        step = (width >> bits) * values
        self.low[lanes] += step
        self.width[lanes] = np.where(values == (1 << bits) - 1, width - step, width >> bits)
        self._shift()

    def _shift(self) -> None:
        """Give off digits until all intervals are wide again."""
        narrow = self.width < LOWEST
        while narrow.any():
            lanes = np.flatnonzero(narrow)
            self._append(lanes, self.low[lanes] >> 40)
            self.low[lanes] = (self.low[lanes] & LOWEST - 1) << 16
            self.width[lanes] <<= 16
            narrow = self.width < LOWEST

    def _append(self, lanes: Lanes, digits: Lanes) -> None:
        if len(lanes) and self.size[lanes].max() == self.digits.shape[1]:
            self.digits = np.concatenate([self.digits, np.zeros_like(self.digits)], axis=1)
        self.digits[lanes, self.size[lanes]] = digits
        self.size[lanes] += 1


def decode(
    out: NDArray[np.int32],
    contexts: Lanes,
    data: NDArray[np.uint8],
    ends: Lanes,
    code: Lanes,
    width: Lanes,
    position: Lanes,
    tables: Tables,
) -> bool:
    """Fill out (N, l) from where streams (N,) stand, and move them; False: no int32."""
    slots = tables.slots
    reader = _Reader(data, ends, code, width, position)
    rests = np.moveaxis(slots.rests[contexts].astype(np.int64), -1, 0)  # (l,) or (l, N)
    dominants = np.moveaxis(slots.dominants[contexts], -1, 0)
    found = np.empty((out.shape[1], len(out)), dtype=np.int64)
    for i in range(len(found)):
        unit = width >> PRECISION_BITS
        others = unit * rests[i]
        lanes = np.flatnonzero(code < others)
        found[i] = dominants[i]
        if len(lanes):
            unit = unit[lanes]
            slot = code[lanes] // unit
            rows = contexts[..., i] if contexts.ndim == 1 else contexts[lanes, i]
            place = slots.find(rows, slot)
            others[lanes] = unit * slots.bounds[place]
            code -= others
            width -= others
            width[lanes] = unit * slots.widths[place]
            found[i, lanes] = slots.values[place]
        else:
            code -= others
            width -= others
        reader.widen()
        escaped = np.flatnonzero(found[i] == ESCAPE)
        if len(escaped):
            rows = contexts[..., i] if contexts.ndim == 1 else contexts[escaped, i]
            found[i, escaped] = reader.take_values(escaped) + slots.offsets[rows]
            if ((found[i] < -INT32) | (found[i] >= INT32)).any():
                return False
    out[:] = found.T
    return True


class _Reader:
    """N decoders over one row of bytes."""

    def __init__(
        self, data: NDArray[np.uint8], ends: Lanes, code: Lanes, width: Lanes, position: Lanes
    ) -> None:
        self.data = np.append(data, np.uint8(0xFF))
        self.ends, self.code, self.width, self.position = ends, code, width, position

    def widen(self) -> None:
        """Read two bytes wherever an interval is narrow; behind an end there are bytes ff."""
        narrow = self.width < LOWEST
        while narrow.any():
            lanes = np.flatnonzero(narrow)
            at = self.position[lanes]
            left = self.ends[lanes] - at
            high = self.data[np.where(left > 0, at, -1)].astype(np.int64)
            low = self.data[np.where(left > 1, at + 1, -1)]
            self.code[lanes] = self.code[lanes] << 16 | high << 8 | low
            self.width[lanes] <<= 16
            self.position[lanes] += 2
            narrow = self.width < LOWEST

    def take_values(self, lanes: Lanes) -> Lanes:
        """What follows an escape, relative to the offset of its context."""
        count = self._take_raw(lanes, np.full(len(lanes), COUNT_BITS))
        value, left = np.minimum(count, 1), count - 1
        while (left > 0).any():
            more = np.flatnonzero(left > 0)
            bits = (left[more] - 1) % RAW_BITS + 1
            value[more] = value[more] << bits | self._take_raw(lanes[more], bits)
            left[more] -= bits
        return np.asarray((value >> 1) ^ -(value & 1))

    def _take_raw(self, lanes: Lanes, bits: Lanes) -> Lanes:
        code, width, largest = self.code[lanes], self.width[lanes], (1 << bits) - 1
        value = np.minimum(code // (width >> bits), largest)
        step = (width >> bits) * value
        self.code[lanes] = code - step
        self.width[lanes] = np.where(value == largest, width - step, width >> bits)
        self.widen()
        return np.asarray(value)
