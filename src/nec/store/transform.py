"""The transform codec: KLT over channels, DCT over the grid, levels coded in magnitude contexts."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from nec.coding import Decoder, Tables, encode
from nec.store.base import (
    Codec,
    Floats,
    Numbers,
    Symbols,
    checked_shape,
    counted,
    frozen_floats,
    frozen_halves,
)

# Latents are coded in groups: the activity of earlier groups at a frequency is a context.
GROUP_EDGES = (8, 32, 96)
# Ratios of activity found to activity expected, in eighths, at which the next class begins.
ACTIVITY_BOUNDS = (3, 6, 9, 13, 20)
ACTIVITIES = len(ACTIVITY_BOUNDS) + 1
# Expected sums are in 1 / EXPECTED_UNIT of a level; SOFTENING is added to both sides compared.
EXPECTED_UNIT, SOFTENING = 64, 16
MOST_ACTIVE = 3  # larger levels count as this much activity
# A band's frequencies are both below its edge, at least one not below the edge before; further
# edges double.
BAND_EDGES = (1, 2, 3, 4, 6, 9, 16)


def bands_of(grid: tuple[int, int]) -> NDArray[np.int64]:
    """Return each frequency's band in a DCT over (h, w): (h * w,), row-major; 0 is the mean."""
    largest = np.maximum(*np.meshgrid(np.arange(grid[0]), np.arange(grid[1]), indexing="ij"))
    return np.searchsorted(_edges(max(grid)), largest.ravel(), side="right")


def band_count(grid: tuple[int, int]) -> int:
    """Return the number of bands, without computing the band of each frequency."""
    return int(np.searchsorted(_edges(max(grid)), max(grid) - 1, side="right")) + 1


def _edges(size: int) -> list[int]:
    """Return the edges between bands, for frequencies below size."""
    edges = list(BAND_EDGES)
    while edges[-1] < size:
        edges.append(2 * edges[-1])
    return edges


def cosines(size: int) -> NDArray[np.float64]:
    """Return the orthonormal DCT-II matrix of a line: (size, size), one row per frequency."""
    frequency, place = np.arange(size)[:, None], np.arange(size)
    rows = np.cos(np.pi / size * (place + 0.5) * frequency) * np.sqrt(2 / size)
    rows[0] = np.sqrt(1 / size)
    return np.asarray(rows)


def groups_of(latents: int) -> Iterator[slice]:
    """Return the groups of latents that are coded together, in order."""
    edges = [0, *(edge for edge in GROUP_EDGES if edge < latents), latents]
    return (slice(*pair) for pair in pairwise(edges))


def activity(levels: NDArray[np.int32], expected: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return activity classes (N, h * w), 0 to ACTIVITIES - 1, from levels of earlier latents.

    Args:
        levels: (N, m, h * w), levels of all latents so far.
        expected: (h * w,), mean of their `sums`, in units of 1 / EXPECTED_UNIT.
    """
    found = sums(levels) * EXPECTED_UNIT + SOFTENING
    bounds = np.array(ACTIVITY_BOUNDS)[:, None, None] * (expected + SOFTENING)
    return np.asarray((8 * found >= bounds).sum(axis=0))


def sums(levels: NDArray[np.int32]) -> NDArray[np.int64]:
    """Sum |levels| (N, m, h * w), each clipped to MOST_ACTIVE, over latents: (N, h * w)."""
    clipped = np.clip(levels, -MOST_ACTIVE, MOST_ACTIVE)
    return np.asarray(np.abs(clipped).sum(axis=1, dtype=np.int64))


@dataclass(frozen=True, eq=False, repr=False)
class TransformCodec(Codec):
    """Levels of DCT coefficients of KLT latents, coded given their class and activity.

    ``y_hat[:, p] = scale * (mean[p] + z[p] @ basis)``; z is the inverse DCT over the grid of
    coefficients ``sign(q) * (|q| - shrinkage[class, min(|q|, R)]) * step of the band``. Symbols are
    the levels q, latent-major, frequencies row-major.

    Args:
        shape: (D, h, w) of one y_hat.
        scale: Factor from the units of mean and latents to those of y_hat.
        mean: (h * w, D) float16, mean of each position.
        basis: (M, D) float16, one row per latent.
        steps: (bands,) float32, quantizer step of each band of `bands_of`.
        classes: (M, bands) uint8, 0 to C - 1, class of coefficients with similar statistics.
        expected: (groups - 1, h * w) integers, `expected` of `activity` for each later group.
        shrinkage: (C, R + 1) float16, mean distance of coefficients below their level, in steps.
        tables: ACTIVITIES contexts for each class.
    """

    kind: ClassVar[str] = "transform"
    shape: tuple[int, int, int]
    scale: float
    mean: Floats
    basis: Floats
    steps: Floats
    classes: NDArray[np.integer[Any]]
    expected: NDArray[np.integer[Any]]
    shrinkage: Floats
    tables: Tables

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", checked_shape(self.shape))
        object.__setattr__(self, "scale", float(np.float32(self.scale)))
        for name in ("mean", "basis", "shrinkage"):
            object.__setattr__(self, name, frozen_halves(getattr(self, name), name))
        object.__setattr__(self, "steps", frozen_floats(self.steps, "steps"))
        for name, dtype in (("classes", np.uint8), ("expected", np.uint32)):
            object.__setattr__(self, name, _frozen_counts(getattr(self, name), name, dtype))
        self._check_shapes()
        for name, values in (("scale", self.scale), ("steps", self.steps)):
            if not np.isfinite(values).all() or np.min(values) <= 0:
                raise ValueError(f"{name} is {values}; of a codec it is finite and > 0")
        if len(self.tables.offsets) != ACTIVITIES * len(self.shrinkage):
            raise ValueError(
                f"tables have {len(self.tables.offsets)} contexts; {len(self.shrinkage)} classes "
                f"take {ACTIVITIES} each"
            )

    def _check_shapes(self) -> None:
        latents, columns = np.shape(self.basis)[0], self.shrinkage.shape[1:]
        if not latents or len(columns) != 1 or not columns[0]:
            raise ValueError(
                f"basis is {self.basis.shape} and shrinkage {self.shrinkage.shape}; a transform "
                "has a latent or more, and shrinks levels of C classes: (C, R + 1)"
            )
        bands = band_count((self.shape[1], self.shape[2]))
        expected = {
            "mean": (self.positions, self.shape[0]),
            "basis": (latents, self.shape[0]),
            "steps": (bands,),
            "classes": (latents, bands),
            "expected": (len(list(groups_of(latents))) - 1, self.positions),
            "shrinkage": (int(self.classes.max(initial=0)) + 1, *columns),
        }
        for name, shape in expected.items():
            if getattr(self, name).shape != shape:
                raise ValueError(
                    f"{name} is {getattr(self, name).shape}; shape {self.shape} and {latents} "
                    f"latents take {shape}"
                )

    @property
    def positions(self) -> int:
        """Positions, h * w."""
        return self.shape[1] * self.shape[2]

    @property
    def length(self) -> int:
        """M * h * w."""
        return len(self.basis) * self.positions

    @cached_property
    def bands(self) -> NDArray[np.int64]:
        """(h * w,) band of each frequency."""
        return bands_of((self.shape[1], self.shape[2]))

    @cached_property
    def coefficient_classes(self) -> NDArray[np.int64]:
        """(M, h * w) class of each coefficient."""
        return self.classes[:, self.bands].astype(np.int64)

    def active(self, levels: NDArray[np.int32], group: int, latents: slice) -> NDArray[np.int64]:
        """Activity classes (N, h * w) of a group, from levels (N, M, h * w) of earlier groups."""
        if not group:
            return np.zeros((len(levels), self.positions), dtype=np.int64)
        return activity(levels[:, : latents.start], self.expected[group - 1])

    def contexts(self, levels: NDArray[np.int32], group: int, latents: slice) -> NDArray[np.int64]:
        """Contexts (N, m, h * w) of a group, from levels (N, M, h * w) of earlier groups."""
        known = self.coefficient_classes[latents] * ACTIVITIES
        return np.asarray(known + self.active(levels, group, latents)[:, None])

    def encode(self, symbols: Symbols) -> list[bytes]:
        """Levels (N, L) -> streams."""
        return encode(self.check(symbols), self.tables, self.all_contexts(symbols))

    def code_length(self, symbols: Symbols) -> NDArray[np.float64]:
        """Ideal bits (N,) under the tables."""
        return self.tables.code_length(self.check(symbols), self.all_contexts(symbols))

    def decode(self, streams: Sequence[bytes]) -> Symbols:
        """Streams -> levels (N, L), group by group."""
        decoder = Decoder(list(streams), self.tables)
        levels = np.zeros((len(streams), len(self.basis), self.positions), dtype=np.int32)
        for group, latents in enumerate(groups_of(len(self.basis))):
            contexts = self.contexts(levels, group, latents)
            length = contexts.shape[1] * self.positions
            found = decoder.read(contexts.reshape(len(streams), length))
            levels[:, latents] = found.reshape(contexts.shape)
        decoder.close()
        return levels.reshape(len(streams), self.length)

    def dequantize(self, symbols: Symbols) -> Floats:
        """Levels (N, L) -> y_hat (N, D, h, w), by products of fixed shape per image."""
        levels = self.check(symbols).reshape(len(symbols), len(self.basis), self.positions)
        rows, columns = (cosines(size).astype(np.float32) for size in self.shape[1:])
        y_hat = np.empty((len(levels), self.shape[0], self.positions), dtype=np.float32)
        for image, out in zip(levels, y_hat, strict=True):
            grid = self.coefficients(image).reshape(-1, *self.shape[1:])
            latents = (rows.T @ grid @ columns).reshape(len(self.basis), -1)
            out[:] = (self.mean.T + self.synthesis @ latents) * np.float32(self.scale)
        return y_hat.reshape(-1, *self.shape)

    def coefficients(self, levels: NDArray[np.int32]) -> Floats:
        """Levels (..., M, h * w) -> the coefficients that they stand for, float32."""
        last = self.shrinkage.shape[1] - 1
        size = np.abs(np.clip(levels, -last, last))
        below = np.sign(levels) * self.shrinkage[self.coefficient_classes, size]
        values: Floats = (levels - below) * self.steps[self.bands]
        return values.astype(np.float32)

    @cached_property
    def synthesis(self) -> Floats:
        """The basis transposed, (D, M), C-ordered."""
        return np.ascontiguousarray(self.basis.T)

    def all_contexts(self, symbols: Symbols) -> NDArray[np.int64]:
        """Contexts (N, L) of levels (N, L)."""
        levels = symbols.reshape(len(symbols), len(self.basis), self.positions)
        parts = [
            self.contexts(levels, group, latents)
            for group, latents in enumerate(groups_of(len(self.basis)))
        ]
        return np.concatenate(parts, axis=1).reshape(len(symbols), self.length)

    def rows(self) -> Iterator[tuple[str, str]]:
        """Yield the latents."""
        yield "latents", f"{counted(len(self.basis), 'latent')}, by a DCT over {self.grid}"

    def _parts(self) -> tuple[dict[str, Any], bytes]:
        header = {"latents": len(self.basis), "levels": self.shrinkage.shape[1] - 1}
        halves = (self.mean, self.basis, self.shrinkage)
        numbers = [
            np.float32(self.scale).tobytes(),
            self.steps.astype("<f4").tobytes(),
            self.expected.astype("<u4").tobytes(),
            self.classes.astype("u1").tobytes(),
            *(array.astype("<f2").tobytes() for array in halves),
            self.tables.plain,
        ]
        return header, b"".join(numbers)

    @classmethod
    def restore(cls, header: Mapping[str, Any], numbers: Numbers) -> "TransformCodec":
        """Restore the codec from what `_parts` returned."""
        shape, latents, levels = tuple(header["shape"]), header["latents"], header["levels"]
        positions, bands = shape[1] * shape[2], band_count((shape[1], shape[2]))
        take = numbers.take
        scale, steps = float(take("<f4")), take("<f4", bands)
        expected = take("<u4", len(list(groups_of(latents))) - 1, positions)
        classes = take("u1", latents, bands)
        mean, basis = take("<f2", positions, shape[0]), take("<f2", latents, shape[0])
        shrinkage = take("<f2", int(classes.max()) + 1, levels + 1)
        tables = Tables.from_plain(numbers.rest())
        return cls(shape, scale, mean, basis, steps, classes, expected, shrinkage, tables)


def _frozen_counts(values: NDArray[Any], name: str, dtype: type) -> NDArray[np.int64]:
    """Return a read-only int64 copy; ValueError if a value is not an integer of dtype."""
    found, largest = np.asarray(values), int(np.iinfo(dtype).max)
    copy = found.astype(np.int64)
    if copy.size and ((copy != found).any() or not 0 <= copy.min() <= copy.max() <= largest):
        raise ValueError(
            f"{name} reach from {found.min()} to {found.max()}; they are integers, 0 to {largest}"
        )
    copy.setflags(write=False)
    return copy
