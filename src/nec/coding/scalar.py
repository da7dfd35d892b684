"""The coder of one image after the other, symbol by symbol, in integers below 2**58.

numba compiles these functions; where it is not installed, Python runs them as they are.
docs/format.md says the same in words.
"""

from collections.abc import Callable
from itertools import pairwise
from typing import Any, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from nec.coding.frequencies import PRECISION_BITS
from nec.coding.slots import END_MASK, ESCAPE, ESCAPE_BIT, FLAT_BIT, FULL, START_SHIFT
from nec.coding.tables import COUNT_BITS, Tables

try:
    from numba import njit
except ImportError:
    njit = None  # type: ignore[assignment]

LOWEST = 1 << 40  # narrower intervals are widened by a digit of two bytes
DIGIT = 0xFFFF
RAW_BITS = 16  # bits coded at a time of what follows an escape
INT32 = 1 << 31
DIGITS = 1 << 21  # size of a buffer, unless one image needs more
LANES = 4  # images decoded in turns, so that one proceeds while another waits

# In digits: at most two for a symbol plus three for what follows an escape; four at the end.
LONGEST_SYMBOL = 5
LONGEST_END = 4

Function = TypeVar("Function", bound=Callable[..., Any])

PARALLEL = njit is not None  # compiled code releases the GIL: threads run side by side
# Unsigned indices and operands of quotients spare compiled code its checks for negative numbers.
_place = np.uint64 if PARALLEL else int
_integer = np.int64 if PARALLEL else int


def encode(symbols: NDArray[np.int32], tables: Tables, contexts: NDArray[np.int64]) -> list[bytes]:
    """Symbols (N, L) -> N streams; see `nec.coding.encode`."""
    slots = tables.slots
    lookups = views(slots.offsets, slots.entries.reshape(-1))
    length = symbols.shape[1]
    stride = length if contexts.ndim > 1 else 0  # from one image's contexts to the next
    longest = LONGEST_SYMBOL * length + LONGEST_END
    step = max(min(DIGITS // longest, len(symbols)), 1)
    out = np.empty(step * longest, dtype=np.uint32)
    streams = []
    for first in range(0, len(symbols), step):
        images = slice(first, first + step)
        rows = symbols[images].reshape(-1), (contexts[images] if stride else contexts).reshape(-1)
        ends = np.zeros(len(symbols[images]), dtype=np.int64)
        where = (*views(*rows), slots.columns, *lookups, *views(out, ends))
        _encode_images(length, stride, *where)
        digits = out[: ends[-1]].astype(">u2").tobytes()
        bounds = [0, *(2 * ends).tolist()]
        streams += [digits[a:b].rstrip(b"\xff") for a, b in pairwise(bounds)]
    return streams


def decode(
    out: NDArray[np.int32],
    contexts: NDArray[np.int64],
    digits: NDArray[np.uint16],
    ends: NDArray[np.int64],
    code: NDArray[np.int64],
    width: NDArray[np.int64],
    position: NDArray[np.int64],
    tables: Tables,
) -> bool:
    """Decode into out (N, l) from N streams, and advance them; False on a wrong escape."""
    slots = tables.slots
    lookups = views(
        slots.offsets,
        slots.entries.reshape(-1),
        slots.rests,
        slots.dominants,
        slots.bounds,
        slots.values,
        slots.shifts,
        slots.hint_starts,
        slots.hints,
    )
    length = out.shape[1]
    stride = length if contexts.ndim > 1 else 0  # from one image's contexts to the next
    done = np.zeros(len(out), dtype=np.int64)
    rows = (out.reshape(-1), contexts.reshape(-1))
    where = views(*rows, digits, ends, code, width, position, done)
    arguments: tuple[Any, ...] = (length, stride, slots.sparse, *where, slots.columns, *lookups)
    return bool(_decode_images(*arguments))


def views(*arrays: Any) -> tuple[Any, ...]:
    """Return what the functions below index fastest: arrays if compiled, else memoryviews."""
    return arrays if PARALLEL else tuple(memoryview(array) for array in arrays)


def compiled(function: Function) -> Function:
    """Compile at the first call, and cache the machine code on disk if a folder is writable."""
    if njit is None:
        return function
    try:
        return cast(Function, njit(nogil=True, cache=True)(function))
    except RuntimeError:  # neither this folder nor the user's can be written
        return cast(Function, njit(nogil=True)(function))


@compiled
def _encode_images(
    length: int,
    stride: int,
    symbols: Any,
    contexts: Any,
    columns: int,
    offsets: Any,
    entries: Any,
    out: Any,
    ends: Any,
) -> None:
    """Write the digits of all streams to out in order, and the end of each to ends."""
    at = 0
    for j in range(len(ends)):
        at = _encode_image(
            j * length, length, j * stride, symbols, contexts, columns, offsets, entries, at, out
        )
        ends[_place(j)] = at


@compiled
def _encode_image(
    first: int,
    length: int,
    first_context: int,
    symbols: Any,
    contexts: Any,
    columns: int,
    offsets: Any,
    entries: Any,
    at: int,
    out: Any,
) -> int:
    """Write the digits of a stream to out from `at` on; return their end."""
    low, width, begin = 0, FULL, at
    escape = columns - 1
    for i in range(length):
        k = contexts[_place(first_context + i)]
        relative = symbols[_place(first + i)] - offsets[_place(k)]
        index = escape if relative < 0 or relative > escape else relative
        entry = entries[_place(k * columns + index)]
        unit = width >> PRECISION_BITS
        step = unit * (entry >> START_SHIFT)
        low += step
        width = min(unit * (entry & END_MASK), width) - step
        if entry & FLAT_BIT:  # narrowness is unpredictable here: avoid a branch
            narrow = width < LOWEST
            out[_place(at)] = low >> 40
            at += narrow
            low = (low & (LOWEST - 1 | narrow - 1)) << (narrow << 4)
            width <<= narrow << 4
        if width < LOWEST:
            low, width, at = shift(low, width, at, out)
        if entry & ESCAPE_BIT:
            low, width, at = _put_value((relative << 1) ^ (relative >> 63), low, width, at, out)
    return finish(low, width, begin, at, out)


@compiled
def shift(low: int, width: int, at: int, out: Any) -> tuple[int, int, int]:
    """Write digits, with their carries, until the interval is wide again."""
    while width < LOWEST:
        out[_place(at)] = low >> 40
        at += 1
        low = (low & (LOWEST - 1)) << 16
        width <<= 16
    return low, width, at


@compiled
def _put_raw(
    value: int, bits: int, low: int, width: int, at: int, out: Any
) -> tuple[int, int, int]:
    """Code a value of `bits` bits; the largest value gets the rest of the interval."""
    step = (width >> bits) * value
    low += step
    width = width - step if value == (1 << bits) - 1 else width >> bits
    return shift(low, width, at, out)


@compiled
def _put_value(value: int, low: int, width: int, at: int, out: Any) -> tuple[int, int, int]:
    """Code the value after an escape: a bit count, and the bits below the leading one."""
    count = 0
    while value >> count:
        count += 1
    low, width, at = _put_raw(count, COUNT_BITS, low, width, at, out)
    left = count - 1
    while left > 0:
        bits = (left - 1) % RAW_BITS + 1  # the highest, perhaps fewer, come first
        left -= bits
        part = (value >> left) & ((1 << bits) - 1)
        low, width, at = _put_raw(part, bits, low, width, at, out)
    return low, width, at


@compiled
def finish(low: int, width: int, begin: int, at: int, out: Any) -> int:
    """Write the number in the interval that ends with the most bytes ff; return its end."""
    bits = 56
    while ((low + width) >> bits << bits) - 1 < low:
        bits -= 8
    number = ((low + width) >> bits << bits) - 1
    for shift in (40, 24, 8):
        out[_place(at)] = number >> shift
        number &= (1 << shift) - 1
        at += 1
    out[_place(at)] = number << 8 | 0xFF
    at += 1
    carry = 0
    for i in range(at - 1, begin - 1, -1):
        carry += out[_place(i)]
        out[_place(i)] = carry & DIGIT
        carry >>= 16
    return at


@compiled
def _decode_images(
    length: int,
    stride: int,
    sparse: bool,
    out: Any,
    contexts: Any,
    digits: Any,
    ends: Any,
    codes: Any,
    widths: Any,
    positions: Any,
    done: Any,
    columns: int,
    offsets: Any,
    entries: Any,
    rests: Any,
    dominants: Any,
    bounds: Any,
    values: Any,
    shifts: Any,
    hint_starts: Any,
    hints: Any,
) -> bool:
    """Decode into out from the streams' positions, advance these; False on a wrong escape.

    In its turn, an image proceeds up to and including the next symbol that has to be searched. If
    no context is sparse, every symbol has to be.
    """
    for first in range(0, len(done), LANES):
        busy = length > 0
        while busy:
            busy = False
            for j in range(first, min(first + LANES, len(done))):
                code, width, at = codes[_place(j)], widths[_place(j)], positions[_place(j)]
                end, i = ends[_place(j)], done[_place(j)]
                k = _place(0)
                while sparse and i < length:
                    k = _place(contexts[_place(j * stride + i)])
                    others = (width >> PRECISION_BITS) * rests[k]
                    if code < others:
                        break
                    code -= others
                    width -= others
                    while width < LOWEST:
                        code, width, at = widen(code, width, at, digits, end)
                    out[_place(j * length + i)] = dominants[k]
                    i += 1
                if i < length:
                    k = _place(contexts[_place(j * stride + i)])
                    unit = width >> PRECISION_BITS
                    slot = _integer(_place(code) // _place(unit))
                    place = hints[_place(hint_starts[k] + (slot >> shifts[k]))]
                    top = unit * bounds[_place(place + 1)]
                    while top <= code:
                        place += 1
                        top = unit * bounds[_place(place + 1)]
                    start = unit * bounds[_place(place)]
                    code -= start
                    width = min(top, width) - start
                    narrow = width < LOWEST
                    code = code << (narrow << 4) | digits[_place(min(at, end))] & -narrow
                    width <<= narrow << 4
                    at += narrow
                    while width < LOWEST:
                        code, width, at = widen(code, width, at, digits, end)
                    symbol = values[_place(place)]
                    if symbol == ESCAPE:
                        value, code, width, at = _take_value(code, width, at, digits, end)
                        relative = (value >> 1) ^ -(value & 1)
                        symbol = offsets[k] + relative
                        index = relative if 0 <= relative < columns else columns - 1
                        entry = entries[k * _place(columns) + _place(index)]
                        # An escape is valid only for a symbol that is not in the table.
                        if not entry & ESCAPE_BIT or not -INT32 <= symbol < INT32:
                            return False
                    out[_place(j * length + i)] = symbol
                    i += 1
                    busy |= i < length
                codes[_place(j)], widths[_place(j)], positions[_place(j)] = code, width, at
                done[_place(j)] = i
    return True


@compiled
def widen(code: int, width: int, at: int, digits: Any, end: int) -> tuple[int, int, int]:
    """Read a digit; beyond the end, all are ff."""
    return code << 16 | digits[_place(min(at, end))], width << 16, at + 1


@compiled
def _take_raw(
    bits: int, code: int, width: int, at: int, digits: Any, end: int
) -> tuple[int, int, int, int]:
    """Read a value of `bits` bits; return it and the new state of the stream."""
    largest = (1 << bits) - 1
    value = min(code // (width >> bits), largest)
    step = (width >> bits) * value
    code -= step
    width = width - step if value == largest else width >> bits
    while width < LOWEST:
        code, width, at = widen(code, width, at, digits, end)
    return value, code, width, at


@compiled
def _take_value(code: int, width: int, at: int, digits: Any, end: int) -> tuple[int, int, int, int]:
    """Read the value after an escape; return it and the new state of the stream."""
    count, code, width, at = _take_raw(COUNT_BITS, code, width, at, digits, end)
    value, left = min(count, 1), count - 1
    while left > 0:
        bits = (left - 1) % RAW_BITS + 1
        part, code, width, at = _take_raw(bits, code, width, at, digits, end)
        value = value << bits | part
        left -= bits
    return value, code, width, at
