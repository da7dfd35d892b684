"""The lengths of a chunk's streams in few bits: Golomb-Rice codes around their median.

Rice 1979 (JPL 79-22). Streams of 35 bytes have lengths that differ by a few bytes: a difference
takes 5 bits, where a whole byte would be 3 % of the stream.
"""

import numpy as np
from numpy.typing import NDArray

from nec.coding import CorruptStreamError
from nec.coding.tables import zigzag

LARGEST_PARAMETER = 32  # low bits of a difference


def lengths_bytes(count: int) -> int:
    """Upper bound for the bytes that `count` lengths take."""
    # A median, a parameter, and at most LARGEST_PARAMETER + 1 bits for each difference.
    return 5 + 1 + (count * (LARGEST_PARAMETER + 1) + 7) // 8


def pack_lengths(lengths: NDArray[np.int64]) -> bytes:
    """Lengths (n,) below 2**31 -> median, parameter k, k low bits each, and unary quotients."""
    if not len(lengths):
        return varint(0) + b"\0"
    median = int(np.sort(lengths)[len(lengths) // 2])
    differences = zigzag(lengths - median)
    sizes = [len(lengths) * (k + 1) + int((differences >> k).sum()) for k in _parameters()]
    k = int(np.argmin(sizes))
    low = (differences[:, None] >> np.arange(k - 1, -1, -1)) & 1  # (n, k), the highest first
    unary = np.zeros(sizes[k] - low.size, dtype=np.uint8)
    unary[np.cumsum((differences >> k) + 1) - 1] = 1
    bits = np.concatenate([low.ravel().astype(np.uint8), unary])
    return varint(median) + bytes([k]) + np.packbits(bits).tobytes()


def read_lengths(data: bytes, start: int, count: int) -> tuple[list[int], int]:
    """Read `count` lengths from `start` on; return them and the position behind them.

    Raises:
        CorruptStreamError: If the data end before the lengths do, or a length is not valid.
    """
    median, start = read_varint(data, start)
    k = data[start] if start < len(data) else LARGEST_PARAMETER + 1
    start += 1
    if k > LARGEST_PARAMETER or count * (k + 1) > 8 * (len(data) - start):
        raise CorruptStreamError("the lengths in a chunk do not end; copy its shard anew")
    if not count:
        return [], start
    region = np.frombuffer(data[start : start + lengths_bytes(count)], np.uint8)
    bits = np.unpackbits(region)
    low, unary = bits[: count * k].reshape(count, k), bits[count * k :]
    ones = np.flatnonzero(unary)[:count]
    if len(ones) < count:
        raise CorruptStreamError("the lengths in a chunk do not end; copy its shard anew")
    quotients = np.diff(ones, prepend=-1) - 1
    differences = (quotients << k) + low.astype(np.int64) @ (1 << np.arange(k - 1, -1, -1))
    lengths = median + ((differences >> 1) ^ -(differences & 1))
    if lengths.min() < 0 or lengths.max() >= 1 << 31:
        raise CorruptStreamError("a chunk has a stream of no length; copy its shard anew")
    return lengths.tolist(), start + (count * k + int(ones[-1]) + 8) // 8


def _parameters() -> range:
    return range(LARGEST_PARAMETER + 1)


def varint(value: int) -> bytes:
    """Encode value in seven bits per byte, lowest first; the eighth bit says that more follow."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def read_varint(data: bytes, start: int) -> tuple[int, int]:
    """Read the varint at `start`; return it and the position behind it.

    Raises:
        CorruptStreamError: If it does not end, or takes more bytes than it needs.
    """
    value = 0
    for i, byte in enumerate(data[start : start + 5]):
        value |= (byte & 0x7F) << (7 * i)
        if byte < 0x80 and (byte or not i):
            return value, start + i + 1
        if byte < 0x80:
            break
    raise CorruptStreamError("a length is not written as an encoder does; copy its shard anew")
