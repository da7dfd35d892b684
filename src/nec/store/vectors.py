"""The codec of a field of codes: a codebook entry for each token, coded given its neighbours."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from nec.coding import Neighbours, decode_grids, encode_grids
from nec.store.base import Codec, Floats, Numbers, Symbols, checked_shape, counted, frozen_halves

REACH = 3  # side of a filter's window, in positions


@dataclass(frozen=True, eq=False, repr=False)
class VectorCodec(Codec):
    """A code at each position, coded given those to its left and above, looked up and filtered.

    With z[p] the centre of the code at position p (edges repeated beyond the grid),
    ``y_hat[:, p] = scale * (mean[p] + (sum over o of z[p + o] @ filters[o]) @ basis)``, in float32,
    o over the 3 x 3 positions around p. Symbols are the codes, row-major.

    Args:
        shape: (D, h, w) of one y_hat.
        scale: Factor from the units of mean and latents to those of y_hat.
        mean: (h * w, D) float16, mean of each position.
        centres: (K, M) float16, centre of each code.
        filters: (9, M, M) float16, row-major over the neighbourhood.
        basis: (M, D) float16, one row per latent.
        neighbours: Probabilities of the K codes given their neighbours.
    """

    kind: ClassVar[str] = "vector"
    shape: tuple[int, int, int]
    scale: float
    mean: Floats
    centres: Floats
    filters: Floats
    basis: Floats
    neighbours: Neighbours

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", checked_shape(self.shape))
        object.__setattr__(self, "scale", float(np.float32(self.scale)))
        object.__setattr__(self, "tables", self.neighbours)
        for name in ("mean", "centres", "filters", "basis"):
            object.__setattr__(self, name, frozen_halves(getattr(self, name), name))
        channels, positions = self.shape[0], self.length
        latents = len(self.basis)
        if not latents:
            raise ValueError(f"basis is {self.basis.shape}; a codebook has a latent or more")
        expected = {
            "mean": (positions, channels),
            "centres": (self.neighbours.size, latents),
            "filters": (REACH * REACH, latents, latents),
            "basis": (latents, channels),
        }
        for name, shape in expected.items():
            if getattr(self, name).shape != shape:
                raise ValueError(
                    f"{name} is {getattr(self, name).shape}; shape {self.shape}, "
                    f"{self.neighbours.size} codes and {latents} latents take {shape}"
                )
        if not np.isfinite(self.scale) or self.scale <= 0:
            raise ValueError(f"scale is {self.scale}; it is a finite number > 0")

    @property
    def length(self) -> int:
        """Positions, h * w."""
        return self.shape[1] * self.shape[2]

    def check(self, symbols: Symbols) -> Symbols:
        """Return symbols as C-ordered int32 (N, L); ValueError if one is not a code."""
        symbols, size = super().check(symbols), self.neighbours.size
        if symbols.size and not 0 <= symbols.min() <= symbols.max() < size:
            raise ValueError(
                f"symbols reach from {symbols.min()} to {symbols.max()}; a symbol is the number "
                f"of a code, 0 to {size - 1}"
            )
        return symbols

    def codes(self, symbols: Symbols) -> Symbols:
        """Symbols (N, h * w) -> codes (N, h, w)."""
        return self.check(symbols).reshape(-1, *self.shape[1:])

    def code_counts(self, symbols: Symbols) -> NDArray[np.int64]:
        """Count how often each code occurs: (N, K)."""
        codes, size = self.check(symbols), self.neighbours.size
        cells = codes + size * np.arange(len(codes))[:, None]
        return np.bincount(cells.ravel(), minlength=size * len(codes)).reshape(len(codes), size)

    def encode(self, symbols: Symbols) -> list[bytes]:
        """Codes (N, h * w) -> streams."""
        return encode_grids(self.codes(symbols), self.neighbours)

    def code_length(self, symbols: Symbols) -> NDArray[np.float64]:
        """Ideal bits (N,) of codes given their neighbours."""
        return self.neighbours.code_length(self.codes(symbols))

    def decode(self, streams: Sequence[bytes]) -> Symbols:
        """Streams -> codes (N, h * w)."""
        codes = decode_grids(list(streams), self.neighbours, self.shape[1:])
        return codes.reshape(len(streams), self.length)

    def dequantize(self, symbols: Symbols) -> Floats:
        """Codes (N, h * w) -> y_hat (N, D, h, w), by products of fixed shape per image."""
        codes = self.codes(symbols)
        filters = self.filters.reshape(-1, len(self.basis))
        y_hat = np.empty((len(codes), self.shape[0], self.length), dtype=np.float32)
        for grid, out in zip(codes, y_hat, strict=True):
            restored = neighbourhoods(self.centres[grid]) @ filters  # (h * w, M)
            out[:] = ((self.mean + restored @ self.basis) * np.float32(self.scale)).T
        return y_hat.reshape(-1, *self.shape)

    def rows(self) -> Iterator[tuple[str, str]]:
        """Yield the codes, and by which neighbours they have tables."""
        latents = counted(len(self.basis), "latent")
        count = f"one of {self.neighbours.size:,} at {self.grid}"
        yield "codes", f"{count}, of {latents}, filtered over {REACH} x {REACH}"
        yield "neighbours", "left and upper, each with tables of its own"

    def _parts(self) -> tuple[dict[str, Any], bytes]:
        header = {"codes": self.neighbours.size, "latents": len(self.basis)}
        arrays = (self.mean, self.centres, self.filters, self.basis)
        numbers = b"".join(array.astype("<f2").tobytes() for array in arrays)
        return header, np.float32(self.scale).tobytes() + numbers + self.neighbours.plain

    @classmethod
    def restore(cls, header: Mapping[str, Any], numbers: Numbers) -> "VectorCodec":
        """Restore the codec from what `_parts` returned."""
        shape, codes, latents = tuple(header["shape"]), header["codes"], header["latents"]
        scale = float(numbers.take("<f4"))
        mean = numbers.take("<f2", shape[1] * shape[2], shape[0])
        centres = numbers.take("<f2", codes, latents)
        filters = numbers.take("<f2", REACH * REACH, latents, latents)
        basis = numbers.take("<f2", latents, shape[0])
        neighbours = Neighbours.from_plain(numbers.rest())
        return cls(shape, scale, mean, centres, filters, basis, neighbours)


def neighbourhoods(grid: Floats) -> Floats:
    """Gather 3 x 3 vectors around each position of (h, w, M), edges repeated: (h * w, 9 * M)."""
    height, width = grid.shape[:2]
    padded = np.pad(grid, ((1, 1), (1, 1), (0, 0)), mode="edge")
    around = [padded[y : y + height, x : x + width] for y in range(REACH) for x in range(REACH)]
    near: Floats = np.concatenate(around, axis=2).reshape(height * width, -1)
    return near
