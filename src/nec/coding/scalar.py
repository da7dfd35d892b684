"""One image after the other, symbol by symbol, in whole numbers below 2**58.

numba compiles these functions; where it is not installed, Python runs them as they are.
docs/format.md says the same in words.
"""

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from nec.coding.frequencies import PRECISION_BITS
from nec.coding.slots import ESCAPE, ESCAPE_BIT, FREQUENCY_MASK, START_SHIFT
from nec.coding.tables import COUNT_BITS, Tables

try:
    from numba import njit
except ImportError:
    njit = None  # type: ignore[assignment]

FULL = 1 << 56  # the width of the interval before the first symbol
LOWEST = 1 << 40  # narrower intervals are widened by a digit of two bytes
DIGIT = 0xFFFF
RAW_BITS = 16  # coded at a time of what follows an escape
INT32 = 1 << 31

# Digits: at most two for a symbol and three for what follows an escape; four at the end.
LONGEST_SYMBOL = 5
LONGEST_END = 4

Function = TypeVar("Function", bound=Callable[..., Any])

PARALLEL = njit is not None  # compiled code does without the GIL: threads run side by side
# An index that is known not to be negative saves compiled code a look.
_place = np.uint64 if PARALLEL else int


def encode(symbols: NDArray[np.int32], tables: Tables, contexts: NDArray[np.int64]) -> list[bytes]:
    """Symbols (N, L) -> N streams; see `nec.coding.encode`."""
    slots = tables.slots
    lookups = _views(slots.offsets, slots.entries.reshape(-1))
    out = np.empty(LONGEST_SYMBOL * symbols.shape[1] + LONGEST_END, dtype=np.uint16)
    (buffer,) = _views(out)
    streams = []
    for index in range(len(symbols)):
        row = _views(symbols[index], contexts if contexts.ndim == 1 else contexts[index])
        size = _encode_image(*row, slots.columns, *lookups, buffer)  # type: ignore[call-arg]
        streams.append(out[:size].astype(">u2").tobytes().rstrip(b"\xff"))
    return streams


def decode(
    out: NDArray[np.int32],
    contexts: NDArray[np.int64],
    data: NDArray[np.uint8],
    ends: NDArray[np.int64],
    code: NDArray[np.int64],
    width: NDArray[np.int64],
    position: NDArray[np.int64],
    tables: Tables,
) -> bool:
    """Fill out (N, l) from where streams (N,) stand, and move them; False: no int32."""
    slots = tables.slots
    lookups = _views(
        slots.offsets,
        slots.rests,
        slots.dominants,
        slots.bounds,
        slots.widths,
        slots.values,
        slots.shifts,
        slots.hint_starts,
        slots.hints,
    )
    (bytes_,) = _views(data)
    for index in range(len(out)):
        row = _views(out[index], contexts if contexts.ndim == 1 else contexts[index])
        start = int(ends[index]), int(code[index]), int(width[index]), int(position[index])
        *state, good = _decode_image(*row, bytes_, *start, *lookups)  # type: ignore[call-arg]
        code[index], width[index], position[index] = state
        if not good:
            return False
    return True


def _views(*arrays: Any) -> tuple[Any, ...]:
    """What the functions below index fastest: arrays compiled, memoryviews in Python."""
    return arrays if PARALLEL else tuple(memoryview(array) for array in arrays)


def _compiled(function: Function) -> Function:
    """Compile at the first call, and keep the machine code on disk where there is a place."""
    if njit is None:
        return function
    try:
        return cast(Function, njit(nogil=True, cache=True)(function))
    except RuntimeError:  # neither this folder nor the user's can be written
        return cast(Function, njit(nogil=True)(function))


@_compiled
def _encode_image(
    symbols: Any, contexts: Any, columns: int, offsets: Any, entries: Any, out: Any
) -> int:
    """Write a stream to the front of out, two bytes a digit; how many digits."""
    low, width, at = 0, FULL, 0
    escape = columns - 1
    for i in range(len(symbols)):
        k = contexts[_place(i)]
        relative = symbols[_place(i)] - offsets[_place(k)]
        index = escape if relative < 0 or relative > escape else relative
        entry = entries[_place(k * columns + index)]
        frequency = entry & FREQUENCY_MASK
        unit = width >> PRECISION_BITS
        step = unit * (entry >> START_SHIFT)
        low += step
        if frequency:
            width = unit * frequency
        else:  # the dominant symbol has what the others leave
            width -= step
        if width < LOWEST:
            low, width, at = _shift(low, width, at, out)
        if entry & ESCAPE_BIT:
            low, width, at = _put_value((relative << 1) ^ (relative >> 63), low, width, at, out)
    return _finish(low, width, at, out)


@_compiled
def _shift(low: int, width: int, at: int, out: Any) -> tuple[int, int, int]:
    """Give off digits until the interval is wide again."""
    while width < LOWEST:
        digit = low >> 40
        if digit > DIGIT:
            _carry(at, out)
        out[_place(at)] = digit & DIGIT
        at += 1
        low = (low & (LOWEST - 1)) << 16
        width <<= 16
    return low, width, at


@_compiled
def _carry(at: int, out: Any) -> None:
    """Add one to what was given off before."""
    at -= 1
    while out[at] == DIGIT:
        out[at] = 0
        at -= 1
    out[at] += 1


@_compiled
def _put_raw(
    value: int, bits: int, low: int, width: int, at: int, out: Any
) -> tuple[int, int, int]:
    """Code a value of some bits; the largest has what the others leave."""
    step = (width >> bits) * value
    low += step
    width = width - step if value == (1 << bits) - 1 else width >> bits
    return _shift(low, width, at, out)


@_compiled
def _put_value(value: int, low: int, width: int, at: int, out: Any) -> tuple[int, int, int]:
    """Code what follows an escape: a bit count, and the bits below the leading one."""
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


@_compiled
def _finish(low: int, width: int, at: int, out: Any) -> int:
    """Write the number in the interval that ends with the most bytes ff, not written."""
    bits = 56
    while ((low + width) >> bits << bits) - 1 < low:
        bits -= 8
    number = ((low + width) >> bits << bits) - 1
    if number >= FULL:
        _carry(at, out)
    number = (number & (FULL - 1)) << 8 | 0xFF
    for shift in range(48, -1, -16):
        out[at] = (number >> shift) & DIGIT
        at += 1
    return at


@_compiled
def _decode_image(
    out: Any,
    contexts: Any,
    data: Any,
    end: int,
    code: int,
    width: int,
    at: int,
    offsets: Any,
    rests: Any,
    dominants: Any,
    bounds: Any,
    widths: Any,
    values: Any,
    shifts: Any,
    hint_starts: Any,
    hints: Any,
) -> tuple[int, int, int, bool]:
    """Fill out from a stream's data[at:end]; code, width, at, and whether all were int32."""
    for i in range(len(out)):
        k = _place(contexts[_place(i)])
        unit = width >> PRECISION_BITS
        others = unit * rests[k]
        if code >= others:
            code -= others
            width -= others
            symbol = dominants[k]
        else:
            slot = code // unit
            place = hints[_place(hint_starts[k] + (slot >> shifts[k]))]
            while bounds[_place(place + 1)] <= slot:
                place += 1
            code -= unit * bounds[_place(place)]
            width = unit * widths[_place(place)]
            symbol = values[_place(place)]
        while width < LOWEST:
            code, width, at = _widen(code, width, at, data, end)
        if symbol == ESCAPE:
            value, code, width, at = _take_value(code, width, at, data, end)
            symbol = offsets[k] + ((value >> 1) ^ -(value & 1))
            if not -INT32 <= symbol < INT32:
                return code, width, at, False
        out[_place(i)] = symbol
    return code, width, at, True


@_compiled
def _widen(code: int, width: int, at: int, data: Any, end: int) -> tuple[int, int, int]:
    """Read two bytes; behind the end there are bytes ff."""
    high = data[at] if at < end else 0xFF
    low = data[at + 1] if at + 1 < end else 0xFF
    return code << 16 | high << 8 | low, width << 16, at + 2


@_compiled
def _take_raw(
    bits: int, code: int, width: int, at: int, data: Any, end: int
) -> tuple[int, int, int, int]:
    """Read a value of some bits; it, and where the stream stands."""
    largest = (1 << bits) - 1
    value = min(code // (width >> bits), largest)
    step = (width >> bits) * value
    code -= step
    width = width - step if value == largest else width >> bits
    while width < LOWEST:
        code, width, at = _widen(code, width, at, data, end)
    return value, code, width, at


@_compiled
def _take_value(code: int, width: int, at: int, data: Any, end: int) -> tuple[int, int, int, int]:
    """Read what follows an escape; it, and where the stream stands."""
    count, code, width, at = _take_raw(COUNT_BITS, code, width, at, data, end)
    value, left = min(count, 1), count - 1
    while left > 0:
        bits = (left - 1) % RAW_BITS + 1
        part, code, width, at = _take_raw(bits, code, width, at, data, end)
        value = value << bits | part
        left -= bits
    return value, code, width, at
