"""Tables as bytes: a header, offsets, and frequencies in two planes (docs/format.md)."""

import struct
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nec.coding.frequencies import LARGEST_ALPHABET, TOTAL, from_short, to_short

LARGEST_SIZE = 1 << 25  # frequencies in all: a bound on what a file can make us allocate
VERSION = 1
HEADER = struct.Struct("<BII")  # version, contexts, symbols
REST = 0xFFFF  # marks the frequency that follows from the others


class CorruptStreamError(ValueError):
    """Raised for bytes that no encoder wrote, or not with these tables."""


def check_size(contexts: int, symbols: int) -> None:
    """Raise ValueError for tables larger than the format allows."""
    if contexts * (symbols + 1) > LARGEST_SIZE or symbols > LARGEST_ALPHABET:
        raise ValueError(
            f"tables of {contexts} contexts, {symbols} symbols are too large: at most "
            f"{LARGEST_ALPHABET} symbols and {LARGEST_SIZE} frequencies in all"
        )


def pack(frequencies: NDArray[np.integer[Any]], offsets: NDArray[np.integer[Any]]) -> bytes:
    """Pack header, offsets (K,), and `to_short` of frequencies (K, S + 1): low bytes, then high."""
    contexts, columns = frequencies.shape
    head = HEADER.pack(VERSION, contexts, columns - 1)
    numbers = to_short(frequencies)
    # The frequency that is not short, or else the largest, follows from the others.
    odd = from_short(numbers) != frequencies
    marked = np.where(odd.any(axis=1), odd.argmax(axis=1), frequencies.argmax(axis=1))
    numbers[np.arange(contexts), marked] = REST
    planes = [(numbers & 0xFF).astype(np.uint8), (numbers >> 8).astype(np.uint8)]
    parts = (offsets.astype("<i4"), *planes)
    return head + b"".join(part.tobytes() for part in parts)


def unpack(data: bytes) -> tuple[NDArray[Any], NDArray[Any]]:
    """Read frequencies (K, S + 1) and offsets (K,) from what `pack` returned.

    Raises:
        CorruptStreamError: If the bytes do not begin with a header of this version.
        ValueError: If the length does not fit the header, or a number is not valid.
    """
    contexts, symbols = plain_size(data)
    numbers = data[HEADER.size :]
    if len(numbers) != _numbers_size(contexts, symbols):
        raise ValueError("their length is not what their header says")
    offsets = np.frombuffer(numbers, "<i4", contexts)
    planes = np.frombuffer(numbers, np.uint8, offset=4 * contexts)
    low, high = planes.reshape(2, contexts, symbols + 1).astype(np.int64)
    short = low | high << 8
    marked = short == REST
    if (marked.sum(axis=1) != 1).any() or (short[~marked] > to_short(np.array(TOTAL))).any():
        raise ValueError("a context does not have numbers of frequencies and one mark")
    frequencies = np.where(marked, 0, from_short(np.where(marked, 0, short)))
    return np.where(marked, TOTAL - frequencies.sum(axis=1, keepdims=True), frequencies), offsets


def deflate(plain: bytes) -> bytes:
    """Deflate what `pack` returned, except for its header."""
    return plain[: HEADER.size] + zlib.compress(plain[HEADER.size :], 9)


def inflate(data: bytes) -> bytes:
    """Restore what `deflate` was given.

    Raises:
        CorruptStreamError: If the header is not valid, or not followed by exactly one zlib stream
            of at most the length that it implies.
    """
    contexts, symbols = plain_size(data)
    stream = zlib.decompressobj()
    try:
        numbers = stream.decompress(data[HEADER.size :], _numbers_size(contexts, symbols) + 1)
    except zlib.error as error:
        raise CorruptStreamError(f"tables cannot be read: {error}; copy them anew") from None
    if not stream.eof or stream.unused_data:
        raise CorruptStreamError("tables do not end where they should; copy them anew")
    return data[: HEADER.size] + numbers


def plain_length(data: bytes) -> int:
    """Return the length of the `Tables.plain` that data begins with; raises as `plain_size`."""
    return HEADER.size + _numbers_size(*plain_size(data))


def plain_size(data: bytes) -> tuple[int, int]:
    """Return the contexts and symbols of the `Tables.plain` that data begins with.

    Raises:
        CorruptStreamError: If data does not begin with a header of this version.
    """
    if len(data) < HEADER.size or data[0] != VERSION:
        raise CorruptStreamError(
            f"{len(data)} bytes beginning with {data[:1].hex() or 'nothing'} are not tables of "
            f"version {VERSION}; copy them anew"
        )
    _, contexts, symbols = HEADER.unpack_from(data)
    try:
        check_size(contexts, symbols)
    except ValueError as error:
        raise CorruptStreamError(f"{error}; copy them anew") from None
    return contexts, symbols


def _numbers_size(contexts: int, symbols: int) -> int:
    """Number of bytes after the header: offsets, and two planes of frequencies."""
    return int(contexts * (4 + 2 * (symbols + 1)))
