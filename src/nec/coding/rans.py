"""Encode and decode symbol arrays: one rANS stream per image.

Duda 2013 (arXiv 1311.2540), with bytes for renormalization and a state in [2**23, 2**31) once it
has grown that far. It starts at 0 and is written without leading zero bytes: a stream is at most 3
bytes longer than its ideal length, less than 2 in the mean, because a symbol costs up to 16 bits
until the state has grown past 2**16; one of likeliest symbols alone is empty.
"""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from types import ModuleType
from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nec.coding.messages import checked_contexts, checked_message
from nec.coding.tables import CorruptStreamError, Tables

Part = TypeVar("Part")

# Images that a thread takes at a time; fewer than two of these are not worth a second thread.
IMAGES_PER_TASK = 16


def encode(symbols: ArrayLike, tables: Tables, contexts: ArrayLike) -> list[bytes]:
    """Code every row of symbols as a stream of its own.

    Args:
        symbols: (N, L) int32; what a table does not hold costs an escape.
        tables: Frequencies of K contexts.
        contexts: (L,) or (N, L) integers in 0..K-1, the table of each symbol.

    Returns:
        N streams; equal symbols give equal bytes on every machine, with numba or without.

    Raises:
        ValueError: Of another shape or type, or a context that the tables do not have.
    """
    values, rows = checked_message(symbols, contexts, len(tables.offsets))
    coder = _coder()

    def part(images: slice) -> list[bytes]:
        mine = rows if rows.ndim == 1 else rows[images]
        streams: list[bytes] = coder.encode(values[images], tables, mine)
        return streams

    return [stream for streams in _in_parts(part, len(values)) for stream in streams]


def decode(
    streams: Sequence[bytes], tables: Tables, contexts: ArrayLike, length: int
) -> NDArray[np.int32]:
    """Read streams whole.

    Args:
        streams: N streams of `encode`.
        tables: The same tables, equal in every number.
        contexts: (L,) or (N, L), as they were in `encode`.
        length: L, symbols of each stream.

    Returns:
        (N, L) int32.

    Raises:
        CorruptStreamError: If a stream does not end where its symbols do, or is none of
            `encode` from its first byte on.
        ValueError: Of another shape or type, or a context that the tables do not have.
    """
    rows = checked_contexts(contexts, (len(streams), length), len(tables.offsets))
    decoder = Decoder(streams, tables)
    symbols = decoder.read(rows)
    decoder.close()
    return symbols


class Decoder:
    """Reads streams in steps, so that later contexts may follow from what was read.

    Args:
        streams: N streams of `encode`.
        tables: The same tables.

    Raises:
        CorruptStreamError: If a stream begins with a zero byte.
    """

    def __init__(self, streams: Sequence[bytes], tables: Tables) -> None:
        for index, stream in enumerate(streams):
            if stream[:1] == b"\0":  # it would read as the stream without it: two for one message
                raise CorruptStreamError(
                    f"stream {index} begins with a zero byte, and none that was encoded does; copy "
                    "it anew"
                )
        self.tables = tables
        self._data = np.frombuffer(b"".join(streams), dtype=np.uint8)
        sizes = np.array([len(stream) for stream in streams], dtype=np.int64)
        self._ends = np.cumsum(sizes)
        self._position = self._ends - sizes
        self._state = np.zeros(len(streams), dtype=np.int64)

    def read(self, contexts: ArrayLike) -> NDArray[np.int32]:
        """The next symbols of every stream.

        Args:
            contexts: (l,) or (N, l) integers in 0..K-1.

        Returns:
            (N, l) int32.

        Raises:
            CorruptStreamError: If an escape stands for what is no int32.
            ValueError: Of another shape or type, or a context that the tables do not have.
        """
        length = np.shape(contexts)[-1] if np.ndim(contexts) else 0
        shape = (len(self._state), length)
        rows = checked_contexts(contexts, shape, len(self.tables.offsets))
        out = np.empty(shape, dtype=np.int32)
        coder = _coder()

        def part(images: slice) -> bool:
            mine = rows if rows.ndim == 1 else rows[images]
            progress = (self._state[images], self._position[images])  # views, moved in place
            ends = self._ends[images]
            return bool(coder.decode(out[images], mine, self._data, ends, *progress, self.tables))

        if not all(_in_parts(part, len(out))):
            raise CorruptStreamError("a stream escapes to a symbol that is no int32; copy it anew")
        return out

    def close(self) -> None:
        """Say that all was read.

        Raises:
            CorruptStreamError: If a stream does not end here.
        """
        wrong = np.flatnonzero((self._state != 0) | (self._position != self._ends))
        if len(wrong):
            raise CorruptStreamError(
                f"stream {wrong[0]} does not end where its symbols do; copy it anew, or decode it "
                "with the tables, contexts and length that it was encoded with"
            )


@lru_cache
def _coder() -> ModuleType:
    """The module that codes: compiled where numba is installed."""
    try:
        import numba  # noqa: F401
    except ImportError:
        from nec.coding import vectorized

        return vectorized
    from nec.coding import compiled

    return compiled


def _in_parts(part: Callable[[slice], Part], count: int) -> list[Part]:
    """Call part over slices of 0..count: on all cores where threads run side by side."""
    threads = min(os.cpu_count() or 1, count // IMAGES_PER_TASK)
    if threads < 2 or not _coder().PARALLEL:
        return [part(slice(0, count))] if count else []
    edges = np.linspace(0, count, 4 * threads + 1).astype(int).tolist()
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(part, map(slice, edges[:-1], edges[1:])))
