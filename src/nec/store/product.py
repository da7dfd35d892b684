"""The codec of product quantization: latents in parts, each stored as its nearest centroid."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from nec.coding import CorruptStreamError, Tables, decode, encode
from nec.store.base import Codec, Floats, Numbers, Symbols, checked_shape, counted, frozen_floats


@dataclass(frozen=True, eq=False, repr=False)
class ProductCodec(Codec):
    """M parts of W latents each; a symbol is the number of the centroid that stands for a part.

    ``y_hat[:, p] = bias + basis.T @ latents``, in float32, where the latents are the centroids of
    all parts, concatenated. The symbols of an image are part-major, positions row-major.

    Args:
        shape: (D, h, w) of one y_hat.
        centroids: (M, K, W) float32, K for each part.
        basis: (M * W, D) float32, one row per latent.
        bias: (D,) float32, added at every position.
        tables: One context per part.
    """

    kind: ClassVar[str] = "product"
    shape: tuple[int, int, int]
    centroids: Floats
    basis: Floats
    bias: Floats
    tables: Tables

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", checked_shape(self.shape))
        for name in ("centroids", "basis", "bias"):
            object.__setattr__(self, name, frozen_floats(getattr(self, name), name))
        found, channels = self.centroids.shape, self.shape[0]
        if len(found) != 3 or min(found) < 1:
            raise ValueError(f"centroids are {found}; they are (parts, centroids, width)")
        latents = found[0] * found[2]
        if self.basis.shape != (latents, channels) or self.bias.shape != (channels,):
            raise ValueError(
                f"basis is {self.basis.shape} and bias {self.bias.shape}; shape {self.shape} with "
                f"{latents} latents takes ({latents}, {channels}) and ({channels},)"
            )
        if len(self.tables.offsets) != found[0]:
            raise ValueError(
                f"tables have {len(self.tables.offsets)} contexts; there are {found[0]} parts, one "
                "context each"
            )

    @property
    def length(self) -> int:
        """M * h * w."""
        return len(self.centroids) * self._positions

    @cached_property
    def contexts(self) -> NDArray[np.int64]:
        """(L,) part of each symbol."""
        return np.repeat(np.arange(len(self.centroids)), self._positions)

    def check(self, symbols: Symbols) -> Symbols:
        """Return symbols as C-ordered int32 (N, L); ValueError if one is no centroid's number."""
        symbols = super().check(symbols)
        if not self._known(symbols):
            raise ValueError(
                f"symbols reach from {symbols.min()} to {symbols.max()}; a symbol is the number "
                f"of a centroid, 0 to {self.centroids.shape[1] - 1}"
            )
        return symbols

    def encode(self, symbols: Symbols) -> list[bytes]:
        """Symbols (N, L) -> streams, coded by the tables."""
        return encode(self.check(symbols), self.tables, self.contexts)

    def code_length(self, symbols: Symbols) -> NDArray[np.float64]:
        """Ideal bits (N,) under the tables."""
        return self.tables.code_length(self.check(symbols), self.contexts)

    def code_counts(self, symbols: Symbols) -> NDArray[np.int64]:
        """Count each centroid of each part: (N, M * K), or (N, 0) if the grid is one position."""
        if self._positions == 1:
            return super().code_counts(symbols)
        size = self.centroids.shape[1]
        cells = self.check(symbols) + size * self.contexts
        width = size * len(self.centroids)
        counts = np.zeros((len(cells), width), dtype=np.int64)
        np.add.at(counts, (np.arange(len(cells))[:, None], cells), 1)
        return counts

    def decode(self, streams: Sequence[bytes]) -> Symbols:
        """Streams -> symbols (N, L)."""
        symbols = decode(list(streams), self.tables, self.contexts, self.length)
        if not self._known(symbols):
            raise CorruptStreamError("a stream holds a symbol that is not the number of a centroid")
        return symbols

    def dequantize(self, symbols: Symbols) -> Floats:
        """Symbols (N, L) -> y_hat (N, D, h, w), by one product of fixed shape per image."""
        symbols, parts = self.check(symbols), np.arange(len(self.centroids))[:, None]
        y_hat = np.empty((len(symbols), self.shape[0], self._positions), dtype=np.float32)
        for image, out in zip(symbols, y_hat, strict=True):
            found = self.centroids[parts, image.reshape(len(parts), -1)]  # (M, positions, W)
            latents = found.swapaxes(1, 2).reshape(len(self.basis), -1)
            out[:] = self._synthesis @ latents + self.bias[:, None]
        return y_hat.reshape(-1, *self.shape)

    def rows(self) -> Iterator[tuple[str, str]]:
        """Yield the parts."""
        parts, count, width = self.centroids.shape
        size = f"{width} wide, {counted(count, 'centroid')} each"
        yield "parts", f"{counted(parts, 'part')} at {self.grid}, {size}"

    @property
    def _positions(self) -> int:
        return self.shape[1] * self.shape[2]

    @cached_property
    def _synthesis(self) -> Floats:
        return np.ascontiguousarray(self.basis.T)

    def _known(self, symbols: Symbols) -> bool:
        return not symbols.size or 0 <= symbols.min() <= symbols.max() < self.centroids.shape[1]

    def _parts(self) -> tuple[dict[str, Any], bytes]:
        parts, count, width = self.centroids.shape
        arrays = (self.bias, self.basis, self.centroids)
        numbers = b"".join(array.astype("<f4").tobytes() for array in arrays)
        header = {"parts": parts, "centroids": count, "width": width}
        return header, numbers + self.tables.plain

    @classmethod
    def restore(cls, header: Mapping[str, Any], numbers: Numbers) -> "ProductCodec":
        """Restore the codec from what `_parts` returned."""
        shape, parts, width = tuple(header["shape"]), header["parts"], header["width"]
        bias = numbers.take("<f4", shape[0])
        basis = numbers.take("<f4", parts, width, shape[0]).reshape(-1, shape[0])
        centroids = numbers.take("<f4", parts, header["centroids"], width)
        return cls(shape, centroids, basis, bias, Tables.from_plain(numbers.rest()))
