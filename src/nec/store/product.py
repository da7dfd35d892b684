"""The codec of product quantization: parts of a vector, each the nearest of some centroids."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from nec.coding import CorruptStreamError, Tables, decode, encode
from nec.store.base import Codec, Floats, Symbols, checked_shape, frozen_floats


@dataclass(frozen=True, eq=False, repr=False)
class ProductCodec(Codec):
    """Channels in M parts of equal width; a symbol is the number of a part's centroid.

    The symbols of an image are its parts one after the other, positions row-major. ``y_hat`` is
    looked up; nothing is computed.

    Args:
        shape: (D, h, w) of one y_hat.
        centroids: (M, K, D / M) float32, K for each part.
        tables: One context per part.
    """

    kind: ClassVar[str] = "product"
    shape: tuple[int, int, int]
    centroids: Floats
    tables: Tables

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", checked_shape(self.shape))
        object.__setattr__(self, "centroids", frozen_floats(self.centroids, "centroids"))
        found, channels = self.centroids.shape, self.shape[0]
        if len(found) != 3 or min(found) < 1 or found[0] * found[2] != channels:
            raise ValueError(
                f"centroids are {found}; shape {self.shape} takes (parts, centroids, width) with "
                f"parts * width = {channels}"
            )
        if len(self.tables.offsets) != found[0]:
            raise ValueError(
                f"tables have {len(self.tables.offsets)} contexts; there are {found[0]} parts, one "
                "context each"
            )

    @property
    def length(self) -> int:
        """M * h * w."""
        return len(self.centroids) * self.shape[1] * self.shape[2]

    @cached_property
    def contexts(self) -> NDArray[np.int64]:
        """(L,) the part of each symbol."""
        return np.repeat(np.arange(len(self.centroids)), self.shape[1] * self.shape[2])

    def check(self, symbols: Symbols) -> Symbols:
        """Symbols as C-ordered int32 (N, L); ValueError if one is no centroid's number."""
        symbols = super().check(symbols)
        if not self._known(symbols):
            raise ValueError(
                f"symbols reach from {symbols.min()} to {symbols.max()}; a symbol is the number "
                f"of a centroid, 0 to {self.centroids.shape[1] - 1}"
            )
        return symbols

    def encode(self, symbols: Symbols) -> list[bytes]:
        """Symbols (N, L) -> streams, by the tables."""
        return encode(self.check(symbols), self.tables, self.contexts)

    def decode(self, streams: Sequence[bytes]) -> Symbols:
        """Streams -> symbols (N, L)."""
        symbols = decode(list(streams), self.tables, self.contexts, self.length)
        if not self._known(symbols):
            raise CorruptStreamError("a stream holds a symbol that is no centroid's number")
        return symbols

    def dequantize(self, symbols: Symbols) -> Floats:
        """Symbols (N, L) -> y_hat (N, D, h, w): the centroids' values."""
        parts = len(self.centroids)
        rows = self.check(symbols).reshape(len(symbols), parts, self.shape[1] * self.shape[2])
        found = self.centroids[np.arange(parts)[:, None], rows]  # (N, M, positions, D / M)
        return np.ascontiguousarray(found.swapaxes(2, 3)).reshape(-1, *self.shape)

    def _known(self, symbols: Symbols) -> bool:
        return not symbols.size or 0 <= symbols.min() <= symbols.max() < self.centroids.shape[1]

    def _parts(self) -> tuple[dict[str, Any], bytes]:
        parts, count, _ = self.centroids.shape
        numbers = self.centroids.astype("<f4").tobytes() + self.tables.plain
        return {"parts": parts, "centroids": count}, numbers

    @classmethod
    def restore(cls, header: Mapping[str, Any], numbers: bytes) -> "ProductCodec":
        """The codec that `_parts` took apart."""
        shape, parts, count = header["shape"], header["parts"], header["centroids"]
        size = count * shape[0]
        centroids = np.frombuffer(numbers, "<f4", size).reshape(parts, count, -1)
        return cls(tuple(shape), centroids, Tables.from_plain(numbers[4 * size :]))
