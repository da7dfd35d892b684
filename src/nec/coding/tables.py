"""Frozen tables of integer frequencies, one row for each context."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nec.coding import densities
from nec.coding.frequencies import (
    PRECISION_BITS,
    TOTAL,
    apportion,
    bit_length,
    from_short,
    to_short,
)
from nec.coding.messages import checked_integers, checked_message
from nec.coding.plain import CorruptStreamError, check_size, deflate, inflate, pack, unpack
from nec.coding.slots import Slots

Floats = NDArray[np.float64]

# An escape is followed by a bit count and that many bits without the leading one.
COUNT_BITS = 6
# Rarer symbols are left out of a table: escapes cost less than their entries would.
SMALLEST_PROBABILITY = 2.0**-20
SMALLEST_SCALE = 1e-3  # already nothing but zeros; avoids overflow


@dataclass(frozen=True, eq=False)
class Tables:
    """Integer frequencies, one row per context; symbol = index + offset.

    Args:
        frequencies: (K, S + 1) integers for S symbols and, last, the escape. A row sums to 2**24,
            the escape has at least 1, and all but one have at most six significant bits.
        offsets: (K,) int32, symbol of index 0 in each context.
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
        if ((from_short(to_short(frequencies)) != frequencies).sum(axis=1) > 1).any():
            raise ValueError(
                "a context has two frequencies of more than six significant bits; from_pmfs and "
                "from_counts round all but one"
            )
        check_size(len(frequencies), frequencies.shape[1] - 1)
        held = frequencies[:, :-1] > 0
        last = held.shape[1] - 1 - held[:, ::-1].argmax(axis=1) if held.size else 0
        if (held.any(axis=1) & (offsets + last >= 1 << 31)).any():
            raise ValueError("a context has symbols beyond int32; lower its offset")
        object.__setattr__(self, "frequencies", _frozen(frequencies, np.uint32))
        object.__setattr__(self, "offsets", _frozen(offsets, np.int32))

    @classmethod
    def from_counts(cls, counts: ArrayLike, offsets: ArrayLike) -> "Tables":
        """Build tables from counts of symbols.

        Args:
            counts: (K, S) integers >= 0; a symbol of count 0 is not in the table and is coded by
                escape, as is every symbol in a context of zeros.
            offsets: (K,) integers, symbol of index 0 in each context.
        """
        checked = checked_integers("counts", counts, 2)
        if (checked < 0).any():
            raise ValueError(f"a count is {checked.min()}; counts are >= 0")
        # Scale down until the sum of a row fits int64.
        spare = max(
            int(checked.max(initial=0)).bit_length() + checked.shape[1].bit_length() - 63, 0
        )
        scaled = checked >> spare
        totals = np.maximum(scaled.sum(axis=1, keepdims=True), 1)
        frequencies = apportion(scaled / totals, checked > 0)
        return cls(frequencies, checked_integers("offsets", offsets, 1))

    @classmethod
    def from_pmfs(cls, pmfs: ArrayLike, offsets: ArrayLike) -> "Tables":
        """Build tables from probabilities; the escape gets what a row lacks to 1.

        Args:
            pmfs: (K, S) floats >= 0; each row sums to at most 1, larger sums are normalized.
                Symbols rarer than 2**-20 are left to the escape.
            offsets: (K,) integers, symbol of index 0 in each context.
        """
        given = np.asarray(pmfs, dtype=np.float64)
        if given.ndim != 2 or not np.isfinite(given).all() or (given < 0).any():
            raise ValueError(f"pmfs are {given.shape}; give (K, S) finite probabilities >= 0")
        shares = given / np.maximum(given.max(axis=1, keepdims=True, initial=0.0), 1.0)
        frequencies = apportion(shares, shares >= SMALLEST_PROBABILITY)
        return cls(frequencies, checked_integers("offsets", offsets, 1))

    @classmethod
    def from_laplace(cls, scales: ArrayLike) -> "Tables":
        """Build tables of rounded Laplace variables: mean 0, density exp(-|x| / scale) / 2 scale.

        Args:
            scales: (K,) floats > 0, in steps of the quantizer. Symbols beyond ±2047 are left to
                the escape: with a scale above some hundreds, quantize coarser.
        """
        return cls._rounded(densities.laplace, scales, reach=14.0)

    @classmethod
    def from_gaussian(cls, scales: ArrayLike) -> "Tables":
        """Build tables of rounded normal variables with mean 0.

        Args:
            scales: (K,) floats > 0, standard deviations in steps of the quantizer. Symbols beyond
                ±2047 are left to the escape.
        """
        return cls._rounded(densities.gaussian, scales, reach=5.0)

    @classmethod
    def from_logistic(cls, scales: ArrayLike) -> "Tables":
        """Build tables of rounded logistic variables: P(X > x) is 1 / (1 + exp(x / scale)).

        Args:
            scales: (K,) floats > 0, in steps of the quantizer. Symbols beyond ±2047 are left to
                the escape: with a scale above some hundreds, quantize coarser.
        """
        return cls._rounded(densities.logistic, scales, reach=14.5)

    @classmethod
    def _rounded(
        cls, tail: Callable[[Floats, Floats], Floats], scales: ArrayLike, reach: float
    ) -> "Tables":
        """Build tables of a symmetric density from its upper tail, up to `reach` scales."""
        scale = np.asarray(scales, dtype=np.float64)
        if scale.ndim != 1 or not np.isfinite(scale).all() or (scale <= 0).any():
            raise ValueError(f"scales are {scales!r:.60}; give (K,) finite numbers > 0")
        pmfs, radius = densities.rounded(tail, np.maximum(scale, SMALLEST_SCALE), reach)
        return cls.from_pmfs(pmfs, np.full(len(scale), -radius))

    @cached_property
    def slots(self) -> Slots:
        """Slots of each symbol, for the coder."""
        return Slots(self.frequencies, self.offsets)

    def code_length(self, symbols: ArrayLike, contexts: ArrayLike) -> Floats:
        """Sum up the ideal bits of each row of symbols, escapes included.

        Args:
            symbols: (N, L) int32.
            contexts: (L,) or (N, L) integers in 0..K-1.

        Returns:
            (N,) float64.
        """
        values, rows = checked_message(symbols, contexts, len(self.offsets))
        return np.asarray(self.bits(values, rows).sum(axis=1))

    def bits(self, symbols: NDArray[np.int32], contexts: NDArray[np.int64]) -> Floats:
        """Ideal bits of each symbol in its context, escapes included; arguments broadcast."""
        escape = self.frequencies.shape[1] - 1
        relative = symbols.astype(np.int64) - self.offsets[contexts]
        index = np.where((relative < 0) | (relative >= escape), escape, relative)
        index = np.where(self.frequencies[contexts, index] == 0, escape, index)
        bits = PRECISION_BITS - np.log2(self.frequencies[contexts, index])
        extra = COUNT_BITS + np.maximum(bit_length(zigzag(relative)) - 1, 0)
        return np.asarray(bits + np.where(index == escape, extra, 0))

    def to_bytes(self) -> bytes:
        """Return `plain` with everything after its header deflated."""
        return deflate(self.plain)

    @classmethod
    def from_bytes(cls, data: bytes) -> "Tables":
        """Restore tables from what `to_bytes` returned.

        Raises:
            CorruptStreamError: If these bytes are not tables of this version.
        """
        return cls.from_plain(inflate(data))

    @classmethod
    def from_plain(cls, data: bytes) -> "Tables":
        """Restore tables from what `plain` returned.

        Raises:
            CorruptStreamError: If these bytes are not tables of this version.
        """
        try:
            tables = cls(*unpack(data))
            if tables.plain != data:
                raise ValueError("a context marks another frequency than the one it must")
            return tables
        except CorruptStreamError:
            raise
        except ValueError as error:
            raise CorruptStreamError(f"tables cannot be read: {error}; copy them anew") from None

    @cached_property
    def sha256(self) -> str:
        """Identity of the tables: hash of `plain`, so that no deflate implementation matters."""
        return hashlib.sha256(self.plain).hexdigest()

    @cached_property
    def plain(self) -> bytes:
        """All numbers as bytes, in the format of files (docs/format.md)."""
        return pack(self.frequencies, self.offsets)

    def __repr__(self) -> str:
        contexts, columns = self.frequencies.shape
        return f"Tables(contexts={contexts}, symbols={columns - 1}, sha256={self.sha256[:12]})"


def zigzag(relative: NDArray[np.int64]) -> NDArray[np.int64]:
    """Map 0, -1, 1, -2, ... to 0, 1, 2, 3, ..., below 2**34, to code what follows an escape."""
    return np.asarray((relative << 1) ^ (relative >> 63))


def _frozen(values: NDArray[Any], dtype: type) -> NDArray[Any]:
    copy: NDArray[Any] = np.array(values, dtype=dtype, order="C")
    if copy.size and (copy != values).any():
        raise ValueError(f"values reach from {values.min()} to {values.max()}; they are {dtype}")
    copy.setflags(write=False)
    return copy
