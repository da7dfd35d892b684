"""The coder in numpy, for many images that step through their symbols side by side."""

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from nec.coding.frequencies import PRECISION_BITS, bit_length
from nec.coding.scalar import DIGIT, INT32, RAW_BITS
from nec.coding.scalar import LOWEST as LOWEST_WIDTH
from nec.coding.slots import END_MASK, ESCAPE_BIT, FULL, START_SHIFT
from nec.coding.tables import COUNT_BITS, Tables, zigzag

Lanes = NDArray[np.int64]

PARALLEL = False  # its steps are short and hold the GIL
COLUMNS = 32  # symbols of each image that are looked up at once
# numpy takes longer to convert Python integers than to compute with arrays of a single value.
UNIT_BITS, DIGIT_BITS = np.array(PRECISION_BITS), np.array(16)
LOWEST, BELOW = np.array(LOWEST_WIDTH), np.array(LOWEST_WIDTH - 1)


def encode(symbols: NDArray[np.int32], tables: Tables, contexts: Lanes) -> list[bytes]:
    """Symbols (N, L) -> N streams; see `nec.coding.encode`."""
    slots = tables.slots
    entries, escape = slots.entries.reshape(-1), slots.columns - 1
    writer = _Writer(len(symbols))
    for first in range(0, symbols.shape[1], COLUMNS):
        block = slice(first, first + COLUMNS)
        # One row per symbol position, so that a step reads adjacent values: (l, N).
        rows = np.atleast_2d(contexts[..., block]).T  # or (l, 1)
        relative = symbols[:, block].T.astype(np.int64, order="C") - slots.offsets[rows]
        # Negative values are too large when viewed as unsigned.
        index = np.minimum(relative.view(np.uint64), np.uint64(escape)).view(np.int64)
        entry = entries.take(rows * slots.columns + index)
        start, end = entry >> START_SHIFT, entry & END_MASK
        escaped = (entry & ESCAPE_BIT).any(axis=1).tolist()
        for i in range(len(entry)):
            writer.put(start[i], end[i])
            if escaped[i]:
                lanes = np.flatnonzero(entry[i] & ESCAPE_BIT)
                writer.put_values(lanes, zigzag(relative[i, lanes]))
    return writer.close()


class _Writer:
    """N coders, each with its interval, and the two-byte digits that they have written."""

    def __init__(self, count: int) -> None:
        self.low = np.zeros(count, dtype=np.int64)
        self.width = np.full(count, FULL, dtype=np.int64)
        # Which lanes wrote a digit in each step, and what their low was then.
        self.lanes: list[Lanes] = [np.empty(0, dtype=np.int64)]
        self.lows: list[Lanes] = [np.empty(0, dtype=np.int64)]

    def put(self, start: Lanes, end: Lanes) -> None:
        """Code a symbol in all lanes."""
        unit = self.width >> UNIT_BITS
        step = unit * start
        self.low += step
        unit *= end
        np.minimum(unit, self.width, out=self.width)
        self.width -= step
        self._shift()

    def put_values(self, lanes: Lanes, values: Lanes) -> None:
        """Code the values after escapes: a bit count, and the bits below the leading one."""
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
        """Return the number in each interval that ends with the most bytes ff, without these."""
        number = np.full_like(self.low, -1)
        for bits in (56, 48, 40):
            largest = ((self.low + self.width) >> bits << bits) - 1
            number = np.where((number < self.low) & (largest >= self.low), largest, number)
        lanes, count = np.concatenate(self.lanes), len(number)
        order = np.argsort(lanes.astype(np.min_scalar_type(count)), kind="stable")
        sizes = np.bincount(lanes, minlength=count)
        # One lane's digits after the other, with room for four more.
        ends = np.cumsum(sizes + 4)
        digits = np.zeros(len(lanes) + 4 * count, dtype=np.int64)
        place = np.arange(len(lanes)) + np.repeat(4 * np.arange(count), sizes)
        digits[place] = np.concatenate(self.lows)[order] >> 40
        for back, shift in ((4, 40), (3, 24), (2, 8)):
            digits[ends - back] = number >> shift
            number &= (1 << shift) - 1
        digits[ends - 1] = number << 8 | 0xFF
        carries = digits >> 16
        while carries.any():  # a lane's number is below 1, so none passes on to the lane before
            digits &= DIGIT
            digits[:-1] += carries[1:]
            carries = digits >> 16
        data = digits.astype(">u2").tobytes()
        bounds = [0, *(2 * ends).tolist()]
        return [data[a:b].rstrip(b"\xff") for a, b in pairwise(bounds)]

    def _put_raw(self, lanes: Lanes, values: Lanes, bits: Lanes) -> None:
        width = self.width[lanes]
        step = (width >> bits) * values
        self.low[lanes] += step
        self.width[lanes] = np.where(values == (1 << bits) - 1, width - step, width >> bits)
        self._shift()

    def _shift(self) -> None:
        """Write digits, with their carries, until all intervals are wide again."""
        lanes = (self.width < LOWEST).nonzero()[0]
        while len(lanes):
            low = self.low[lanes]
            self.lanes.append(lanes)
            self.lows.append(low)
            self.low[lanes] = (low & BELOW) << DIGIT_BITS
            self.width[lanes] = width = self.width[lanes] << DIGIT_BITS
            lanes = lanes[width < LOWEST]


def decode(
    out: NDArray[np.int32],
    contexts: Lanes,
    digits: NDArray[np.uint16],
    ends: Lanes,
    code: Lanes,
    width: Lanes,
    position: Lanes,
    tables: Tables,
) -> bool:
    """Decode into out (N, l) from N streams, and advance them; False on a wrong escape."""
    slots = tables.slots
    reader = _Reader(digits, ends, code, width, position)
    found = np.empty((COLUMNS, len(out)), dtype=np.int64)  # one row per symbol position
    for first in range(0, out.shape[1], COLUMNS):
        block = out[:, first : first + COLUMNS]
        for i in range(block.shape[1]):
            rows, symbols = contexts[..., first + i], found[i]
            unit = width >> UNIT_BITS
            place = slots.find(rows, code // unit)
            start = unit * slots.bounds[place]
            unit *= slots.bounds[place + 1]
            np.minimum(unit, width, out=width)
            width -= start
            code -= start
            reader.widen()
            symbols[:] = slots.values[place]
            escaped = (place == slots.escapes[rows]).nonzero()[0]
            if len(escaped):
                known = rows[escaped] if rows.ndim else np.full(len(escaped), rows)
                relative = reader.take_values(escaped)
                symbols[escaped] = relative + slots.offsets[known]
                beyond = (symbols < -INT32) | (symbols >= INT32)
                if beyond.any() or slots.hold(known, relative).any():
                    return False
        block[:] = found[: block.shape[1]].T
    return True


class _Reader:
    """N decoders over one array of digits."""

    def __init__(
        self, digits: NDArray[np.uint16], ends: Lanes, code: Lanes, width: Lanes, position: Lanes
    ) -> None:
        self.digits = digits
        self.ends, self.code, self.width, self.position = ends, code, width, position

    def widen(self) -> None:
        """Read digits wherever an interval is narrow; beyond an end, all are ff."""
        lanes = (self.width < LOWEST).nonzero()[0]
        while len(lanes):
            at = self.position[lanes]
            digit = self.digits[np.minimum(at, self.ends[lanes])]
            self.code[lanes] = self.code[lanes] << DIGIT_BITS | digit
            self.width[lanes] = width = self.width[lanes] << DIGIT_BITS
            self.position[lanes] = at + 1
            lanes = lanes[width < LOWEST]

    def take_values(self, lanes: Lanes) -> Lanes:
        """Read the values after escapes, relative to the offsets of their contexts."""
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
