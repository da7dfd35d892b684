"""Encode and decode symbol arrays: one stream per image, each as short as its symbols allow.

A range coder (Martin 1979) over 56 bits with carries, described in docs/format.md: an image's
symbols narrow an interval, and its stream is the shortest number in it. Streams of tens of bytes
are 0.3 bytes above their ideal length; rANS, equally fast, ends in a state that costs 0.7 to
1.5 bytes more.
"""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from types import ModuleType
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nec.coding.messages import checked_contexts, checked_grids, checked_message
from nec.coding.neighbours import Neighbours
from nec.coding.plain import CorruptStreamError
from nec.coding.slots import FULL
from nec.coding.tables import Tables

Part = TypeVar("Part")

SYMBOLS_PER_THREAD = 1 << 19  # one to four milliseconds; fewer are not worth a thread
# Without compiled code, fewer images are coded faster one after the other.
FEWEST_LANES = 16
START_BYTES = 7  # of the full interval, read before the first symbol

_MOST_THREADS = ContextVar("most threads", default=sys.maxsize)


def encode(symbols: ArrayLike, tables: Tables, contexts: ArrayLike) -> list[bytes]:
    """Code every row of symbols as its own stream.

    Args:
        symbols: (N, L) int32; a symbol that its table does not hold costs an escape.
        tables: Frequencies of K contexts.
        contexts: (L,) or (N, L) integers in 0..K-1, the table of each symbol.

    Returns:
        N streams; equal symbols give equal bytes on every machine, with numba or without.

    Raises:
        ValueError: If shapes or types do not fit, or the tables lack a context.
    """
    values, rows = checked_message(symbols, contexts, len(tables.offsets))
    coder = _coder(len(values))

    def part(images: slice) -> list[bytes]:
        mine = rows if rows.ndim == 1 else rows[images]
        streams: list[bytes] = coder.encode(values[images], tables, mine)
        return streams

    return [stream for streams in _in_parts(coder, part, values.shape) for stream in streams]


def decode(
    streams: Sequence[bytes], tables: Tables, contexts: ArrayLike, length: int
) -> NDArray[np.int32]:
    """Decode whole streams.

    Args:
        streams: N streams from `encode`.
        tables: The same tables as in `encode`, equal in every number.
        contexts: (L,) or (N, L), the same as in `encode`.
        length: L, number of symbols in each stream.

    Returns:
        (N, L) int32.

    Raises:
        CorruptStreamError: If a stream continues after its symbols, or cannot come from `encode`.
            A stream has no redundancy: other tables, a larger length and most damage give wrong
            symbols without an error. A store's checksums detect damage.
        ValueError: If shapes or types do not fit, or the tables lack a context.
    """
    rows = checked_contexts(contexts, (len(streams), length), len(tables.offsets))
    decoder = Decoder(streams, tables)
    symbols = decoder.read(rows)
    decoder.close()
    return symbols


def encode_grids(symbols: ArrayLike, neighbours: Neighbours) -> list[bytes]:
    """Code every grid of symbols as its own stream, each symbol given its neighbours.

    Args:
        symbols: (N, h, w) integers in 0..S-1.
        neighbours: Probabilities of symbols given those to their left and above.

    Returns:
        N streams; equal symbols give equal bytes on every machine, with numba or without.

    Raises:
        ValueError: If the shape or type does not fit, or the tables lack a symbol.
    """
    values = checked_grids(symbols, neighbours.size)

    def part(images: slice) -> list[bytes]:
        streams: list[bytes] = _grids().encode(values[images], neighbours)
        return streams

    return [
        stream
        for streams in _in_parts(_grids(), part, _work(values, neighbours))
        for stream in streams
    ]


def decode_grids(
    streams: Sequence[bytes], neighbours: Neighbours, grid: tuple[int, int]
) -> NDArray[np.int32]:
    """Decode whole streams of grids.

    Args:
        streams: N streams from `encode_grids`.
        neighbours: The same tables as in `encode_grids`, equal in every number.
        grid: (h, w) of each grid.

    Returns:
        (N, h, w) int32.

    Raises:
        CorruptStreamError: As in `decode`.
    """
    decoder = Decoder(streams, neighbours.left)
    out = np.empty((len(streams), *grid), dtype=np.int32)

    def part(images: slice) -> None:
        _grids().decode(out[images], neighbours, *decoder.progress(images))

    _in_parts(_grids(), part, _work(out, neighbours))
    decoder.close()
    return out


class Decoder:
    """Decodes streams in steps, so that later contexts may depend on symbols read before.

    Args:
        streams: N streams from `encode`.
        tables: The same tables as in `encode`.

    Raises:
        CorruptStreamError: If a stream ends with a byte ff.
    """

    def __init__(self, streams: Sequence[bytes], tables: Tables) -> None:
        for index, stream in enumerate(streams):
            if not isinstance(stream, bytes):
                raise ValueError(f"stream {index} is {stream!r:.40}; give a list of bytes")
            if stream[-1:] == b"\xff":  # would read like the stream without it
                raise CorruptStreamError(
                    f"stream {index} ends with a byte ff, and none that was encoded does; copy "
                    "it anew"
                )
        self.tables = tables
        sizes = np.array([len(stream) for stream in streams], dtype=np.int64)
        # Digits have two bytes: a byte 0 and START_BYTES are the first four. Bytes ff follow a
        # stream without end; one digit stands for them.
        padded = [b"\0" + stream + b"\xff" * (3 - len(stream) % 2) for stream in streams]
        self._digits = np.frombuffer(b"".join(padded), dtype=">u2").astype(np.uint16)
        counts = np.array([len(each) // 2 for each in padded], dtype=np.int64)
        self._ends = np.cumsum(counts) - 1
        self._filled = 1 - sizes % 2  # bytes ff before that digit
        self._empty = sizes == 0
        self._position = self._ends + 1 - counts + (START_BYTES + 1) // 2
        first = [
            int.from_bytes(s[:START_BYTES].ljust(START_BYTES, b"\xff"), "big") for s in streams
        ]
        self._code = np.array(first, dtype=np.int64)
        self._width = np.full(len(streams), FULL, dtype=np.int64)

    def read(self, contexts: ArrayLike) -> NDArray[np.int32]:
        """Decode the next l symbols of every stream.

        Args:
            contexts: (l,) or (N, l) integers in 0..K-1.

        Returns:
            (N, l) int32.

        Raises:
            CorruptStreamError: If an escaped symbol is not an int32, or is in the table.
            ValueError: If shapes or types do not fit, or the tables lack a context.
        """
        length = np.shape(contexts)[-1] if np.ndim(contexts) else 0
        shape = (len(self._code), length)
        rows = checked_contexts(contexts, shape, len(self.tables.offsets))
        out = np.empty(shape, dtype=np.int32)
        coder = _coder(len(out))

        def part(images: slice) -> bool:
            mine = rows if rows.ndim == 1 else rows[images]
            return bool(coder.decode(out[images], mine, *self.progress(images), self.tables))

        if not all(_in_parts(coder, part, shape)):
            raise CorruptStreamError(
                "a stream escapes to what is not an int32, or needs no escape; copy it anew, or "
                "decode it with the tables and contexts that it was encoded with"
            )
        return out

    def progress(self, images: slice) -> tuple[NDArray[Any], ...]:
        """Return digits, ends and positions of some streams; a coder updates them in place."""
        return (
            self._digits,
            self._ends[images],
            self._code[images],
            self._width[images],
            self._position[images],
        )

    def close(self) -> None:
        """Finish reading, and check that every stream ends here.

        Raises:
            CorruptStreamError: If a stream continues, or `encode` would not have written it for
                the symbols read. Reading too many symbols goes unnoticed: more can always be
                decoded after a stream's end.
        """
        wrong = np.flatnonzero(~self._ended())
        if len(wrong):
            raise CorruptStreamError(
                f"stream {wrong[0]} does not end where its symbols do; copy it anew, or decode it "
                "with the tables, contexts and length that it was encoded with"
            )

    def _ended(self) -> NDArray[np.bool_]:
        """(N,) whether an encoder would have written each stream for the symbols read from it."""
        # Bytes read beyond the end.
        behind = 2 * (self._position - self._ends) + self._filled
        unit = 1 << 8 * np.clip(behind, 0, START_BYTES - 1)  # value of 1 in a stream's last byte
        last = self._digits[self._ends - 1] >> 8 * self._filled & 0xFF
        # The interval has no larger number of as many bytes, and no number of fewer bytes.
        largest = self._code + unit >= self._width
        shortest = (self._code < (last + 1) * unit) | self._empty
        return np.asarray((behind >= START_BYTES) | (behind >= 0) & largest & shortest)


@lru_cache
def _scalar() -> ModuleType:
    """Import the coder of one image after the other (and numba with it) at the first use."""
    from nec.coding import scalar

    return scalar


@lru_cache
def _grids() -> ModuleType:
    """Import the coder of grids at the first use."""
    from nec.coding import grids

    return grids


@contextmanager
def at_most_threads(count: int) -> Iterator[None]:
    """Let what is called within code on so many threads at most; bytes do not depend on it."""
    before = _MOST_THREADS.set(count)
    try:
        yield
    finally:
        _MOST_THREADS.reset(before)


def _coder(images: int) -> ModuleType:
    """Return the fastest module: compiled code or, without it, numpy's lanes for many images."""
    if _scalar().PARALLEL or images < FEWEST_LANES:
        return _scalar()
    from nec.coding import vectorized

    return vectorized


def _in_parts(
    coder: ModuleType, part: Callable[[slice], Part], shape: tuple[int, ...]
) -> list[Part]:
    """Call part over slices of (N, L) symbols, on all cores if the coder runs in parallel."""
    count, length = shape
    most = min(_cores(), _MOST_THREADS.get())
    threads = min(most, count, count * length // SYMBOLS_PER_THREAD)
    if threads < 2 or not coder.PARALLEL:
        return [part(slice(0, count))] if count else []
    edges = np.linspace(0, count, 4 * threads + 1).astype(int).tolist()
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(part, map(slice, edges[:-1], edges[1:])))


def _work(grids: NDArray[np.int32], neighbours: Neighbours) -> tuple[int, int]:
    """Number of grids, and the work for each, in symbols of `encode`."""
    return len(grids), grids[0].size * (1 + neighbours.size // 4) if len(grids) else 0


def _cores() -> int:
    """Number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
