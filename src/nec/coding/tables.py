"""Frozen tables of integer frequencies, and what a coder looks up in them."""

import hashlib
import math
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nec.coding.frequencies import PRECISION_BITS, TOTAL, apportion
from nec.coding.messages import checked_integers, checked_message

Floats = NDArray[np.float64]

# An escape is followed by a bit count and that many bits, less the leading one.
COUNT_BITS = 6
# What is rarer than half a step of a frequency is not in a table: by escape it costs less.
SMALLEST_PROBABILITY = 2.0**-17
LARGEST_RADIUS = 2047
LARGEST_SIZE = 1 << 26  # contexts times symbols: a bound on what a file can make us allocate
VERSION = 1
HEADER = struct.Struct("<BII")  # version, contexts, symbols


class CorruptStreamError(ValueError):
    """Bytes that no encoder wrote, or not with these tables."""


@dataclass(frozen=True, eq=False)
class Tables:
    """Integer frequencies, one row per context; symbol = index + offset.

    Args:
        frequencies: (K, S + 1) integers; S symbols and, last, the escape. A row sums to 2**16, and
            an escape is at least 1.
        offsets: (K,) int32, the symbol of index 0.
    """

    frequencies: NDArray[np.integer[Any]]
    offsets: NDArray[np.integer[Any]]

    def __post_init__(self) -> None:
        frequencies = checked_integers("frequencies", self.frequencies, 2)
        offsets = checked_integers("offsets", self.offsets, 1)
        if len(offsets) != len(frequencies) or not frequencies.shape[1]:
            raise ValueError(
                f"frequencies are {frequencies.shape} and offsets {offsets.shape}; K contexts of S "
                "symbols take (K, S + 1) and (K,)"
            )
        if (frequencies < 0).any() or (frequencies.sum(axis=1) != TOTAL).any():
            raise ValueError(f"frequencies must be >= 0 and sum to {TOTAL} in every context")
        if (frequencies[:, -1] < 1).any():
            raise ValueError("an escape has frequency 0; it must be at least 1 in every context")
        object.__setattr__(self, "frequencies", _frozen(frequencies, np.uint32))
        object.__setattr__(self, "offsets", _frozen(offsets, np.int32))

    @classmethod
    def from_counts(cls, counts: ArrayLike, offsets: ArrayLike) -> "Tables":
        """Tables from how often each symbol was seen.

        Args:
            counts: (K, S) integers >= 0; a symbol of count 0 is not in the table and is coded by
                escape, a context of zeros codes everything so.
            offsets: (K,) integers, the symbol of index 0.
        """
        checked = checked_integers("counts", counts, 2)
        if (checked < 0).any():
            raise ValueError(f"a count is {checked.min()}; counts are >= 0")
        totals = np.maximum(checked.sum(axis=1, keepdims=True), 1)
        frequencies = apportion(checked / totals, checked > 0)
        return cls(frequencies, checked_integers("offsets", offsets, 1))

    @classmethod
    def from_pmfs(cls, pmfs: ArrayLike, offsets: ArrayLike) -> "Tables":
        """Tables from probabilities; what a row lacks to 1 is its escape's.

        Args:
            pmfs: (K, S) floats >= 0, each row with a sum of at most 1 (larger ones are normalized).
                What is rarer than 2**-17 is left to the escape.
            offsets: (K,) integers, the symbol of index 0.
        """
        given = np.asarray(pmfs, dtype=np.float64)
        if given.ndim != 2 or not np.isfinite(given).all() or (given < 0).any():
            raise ValueError(f"pmfs are {given.shape}; give (K, S) finite probabilities >= 0")
        shares = given / np.maximum(given.sum(axis=1, keepdims=True), 1.0)
        frequencies = apportion(shares, shares >= SMALLEST_PROBABILITY)
        return cls(frequencies, checked_integers("offsets", offsets, 1))

    @classmethod
    def from_laplace(cls, scales: ArrayLike) -> "Tables":
        """Tables of rounded Laplace variables with mean 0 and density exp(-|x| / scale) / 2 scale.

        Args:
            scales: (K,) floats > 0, in steps of the quantizer.
        """

        def tail(x: Floats, scale: Floats) -> Floats:
            return np.asarray(0.5 * np.exp(-x / scale))

        return cls._symmetric(tail, scales, reach=12.0)

    @classmethod
    def from_gaussian(cls, scales: ArrayLike) -> "Tables":
        """Tables of rounded normal variables with mean 0.

        Args:
            scales: (K,) floats > 0, standard deviations in steps of the quantizer.
        """
        erfc = np.vectorize(math.erfc, otypes=[np.float64])

        def tail(x: Floats, scale: Floats) -> Floats:
            return np.asarray(0.5 * erfc(x / (scale * math.sqrt(2.0))))

        return cls._symmetric(tail, scales, reach=4.5)

    @classmethod
    def from_logistic(cls, scales: ArrayLike) -> "Tables":
        """Tables of rounded logistic variables with mean 0, 1 / (1 + exp(-x / scale)) below x.

        Args:
            scales: (K,) floats > 0, in steps of the quantizer.
        """

        def tail(x: Floats, scale: Floats) -> Floats:
            return np.asarray(1.0 / (1.0 + np.exp(np.minimum(x / scale, 700.0))))

        return cls._symmetric(tail, scales, reach=12.5)

    @classmethod
    def _symmetric(
        cls, tail: Callable[[Floats, Floats], Floats], scales: ArrayLike, reach: float
    ) -> "Tables":
        """Tables of a density by its upper tail P(X > x), as far as `reach` scales."""
        scale = np.asarray(scales, dtype=np.float64)
        if scale.ndim != 1 or not np.isfinite(scale).all() or (scale <= 0).any():
            raise ValueError(f"scales are {scale.shape}; give (K,) finite numbers > 0")
        radius = min(max(1, math.ceil(reach * scale.max(initial=0.0))), LARGEST_RADIUS)
        edges = np.arange(radius + 1) + 0.5
        upper = tail(edges[None, :], scale[:, None])  # (K, radius + 1), beyond 0.5, 1.5, ...
        side = upper[:, :-1] - upper[:, 1:]
        pmfs = np.concatenate([side[:, ::-1], 1 - 2 * upper[:, :1], side], axis=1)
        return cls.from_pmfs(np.maximum(pmfs, 0.0), np.full(len(scale), -radius))

    @cached_property
    def order(self) -> NDArray[np.int64]:
        """(K, S + 1) indices by falling frequency, ties in order: where slots are given out.

        The likeliest symbol has the slots from 0 on; a coder at rest stays at rest on it.
        """
        falling = -self.frequencies.astype(np.int64)
        return _frozen(np.argsort(falling, axis=1, kind="stable"), np.int64)

    @cached_property
    def ranked(self) -> NDArray[np.uint32]:
        """(K, S + 1) frequency of each index in `order`."""
        return _frozen(np.take_along_axis(self.frequencies, self.order, axis=1), np.uint32)

    @cached_property
    def bounds(self) -> NDArray[np.uint32]:
        """(K, S + 1) first slot of each index in `order`."""
        return _frozen(np.cumsum(self.ranked, axis=1, dtype=np.int64) - self.ranked, np.uint32)

    @cached_property
    def starts(self) -> NDArray[np.uint32]:
        """(K, S + 1) first slot of each index."""
        starts = np.empty_like(self.bounds)
        np.put_along_axis(starts, self.order, self.bounds, axis=1)
        return _frozen(starts, np.uint32)

    @cached_property
    def ladder(self) -> NDArray[np.int64]:
        """(K * (S + 1),) `bounds` of all contexts as one ascending row.

        A context's slots lie behind those of the one before, so that one search serves all.
        """
        first = TOTAL * np.arange(len(self.bounds), dtype=np.int64)
        return _frozen((self.bounds + first[:, None]).ravel(), np.int64)

    def code_length(self, symbols: ArrayLike, contexts: ArrayLike) -> Floats:
        """Ideal bits of symbols under these tables, escapes included.

        Args:
            symbols: (N, L) int32.
            contexts: (L,) or (N, L) integers in 0..K-1.

        Returns:
            (N,) float64.
        """
        values, rows = checked_message(symbols, contexts, len(self.offsets))
        escape = self.frequencies.shape[1] - 1
        relative = values.astype(np.int64) - self.offsets[rows]
        index = np.where((relative < 0) | (relative >= escape), escape, relative)
        index = np.where(self.frequencies[rows, index] == 0, escape, index)
        bits = PRECISION_BITS - np.log2(self.frequencies[rows, index])
        extra = COUNT_BITS + np.maximum(bit_length(zigzag(relative)) - 1, 0)
        return np.asarray((bits + np.where(index == escape, extra, 0)).sum(axis=1))

    def to_bytes(self) -> bytes:
        """Version, sizes, then deflated offsets and frequencies (docs/format.md)."""
        head, numbers = self._plain()
        return head + zlib.compress(numbers, 9)

    @classmethod
    def from_bytes(cls, data: bytes) -> "Tables":
        """Restore tables.

        Raises:
            CorruptStreamError: If no tables of this version are in these bytes.
        """
        if len(data) < HEADER.size or data[0] != VERSION:
            raise CorruptStreamError(
                f"{len(data)} bytes beginning with {data[:1].hex() or 'nothing'} are no tables of "
                f"version {VERSION}; copy them anew"
            )
        _, contexts, symbols = HEADER.unpack_from(data)
        if contexts * (symbols + 1) > LARGEST_SIZE:
            raise CorruptStreamError(
                f"tables of {contexts} contexts, {symbols} symbols are too large (at most "
                f"{LARGEST_SIZE} frequencies); copy them anew"
            )
        size = contexts * (4 + 2 * (symbols + 1))
        inflate = zlib.decompressobj()
        try:
            numbers = inflate.decompress(data[HEADER.size :], size + 1)
            whole = inflate.eof and not inflate.unused_data and len(numbers) == size
            if not whole:
                raise ValueError("their length is not what their header says")
            offsets = np.frombuffer(numbers, "<i4", contexts)
            packed = np.frombuffer(numbers, "<u2", offset=4 * contexts)
            frequencies = packed.reshape(contexts, symbols + 1).astype(np.int64)
            frequencies[frequencies[:, -1] == 0, -1] = TOTAL
            return cls(frequencies, offsets)
        except (zlib.error, ValueError) as error:
            raise CorruptStreamError(f"tables cannot be read: {error}; copy them anew") from None

    @cached_property
    def sha256(self) -> str:
        """Identity of the tables: over what `to_bytes` deflates, and its header."""
        return hashlib.sha256(b"".join(self._plain())).hexdigest()

    def _plain(self) -> tuple[bytes, bytes]:
        """Header; offsets, and frequencies modulo 2**16: only an escape can be 2**16, written 0."""
        contexts, columns = self.frequencies.shape
        head = HEADER.pack(VERSION, contexts, columns - 1)
        packed = (self.frequencies & (TOTAL - 1)).astype("<u2")
        return head, self.offsets.astype("<i4").tobytes() + packed.tobytes()

    def __repr__(self) -> str:
        contexts, columns = self.frequencies.shape
        return f"Tables(contexts={contexts}, symbols={columns - 1}, sha256={self.sha256[:12]})"


def zigzag(relative: NDArray[np.int64]) -> NDArray[np.int64]:
    """0, -1, 1, -2, ... -> 0, 1, 2, 3, ...: what follows an escape, below 2**34."""
    return np.asarray((relative << 1) ^ (relative >> 63))


def bit_length(values: NDArray[np.int64]) -> NDArray[np.int64]:
    """Bits of each value, 0 for 0; exact below 2**53."""
    return np.frexp(values.astype(np.float64))[1].astype(np.int64)


def _frozen(values: NDArray[Any], dtype: type) -> NDArray[Any]:
    copy: NDArray[Any] = np.array(values, dtype=dtype, order="C")
    if copy.size and (copy != values).any():
        raise ValueError(f"values reach from {values.min()} to {values.max()}; they are {dtype}")
    copy.setflags(write=False)
    return copy
