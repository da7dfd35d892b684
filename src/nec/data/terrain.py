"""What scenes are drawn with: noise, cells, shapes with soft edges, trees, buildings."""

from enum import IntEnum
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nec.data.spectra import Palette, draw_palette

Field = NDArray[np.float32]
BANK = 384  # side of the noise that fields are cut from, pixels


class Cover(IntEnum):
    """Land cover of a pixel, as masks hold it."""

    WATER = 0
    BARE = 1
    GRASS = 2
    CROP = 3
    TREES = 4
    BUILDING = 5
    PAVED = 6


class Cells(NamedTuple):
    """A pixel's place in its cell of an irregular grid; all (S, S), metres."""

    index: NDArray[np.intp]  # number of the cell, 0 to count - 1
    count: int
    u: Field  # from the cell's centre, along its rows
    v: Field  # across
    half_u: Field  # of the cell's size
    half_v: Field

    @property
    def edge(self) -> Field:
        """Distance to the cell's border, metres."""
        return np.minimum(self.half_u - np.abs(self.u), self.half_v - np.abs(self.v))

    def inset(self, margin_m: float) -> "Cells":
        """Cells whose border lies further in; what is outside has a negative `edge`."""
        return self._replace(half_u=self.half_u - margin_m, half_v=self.half_v - margin_m)

    def divided(self, pitch_u: float, pitch_v: float) -> "Cells":
        """Cut every cell into equal parts of about these sizes, metres."""
        columns, u, half_u = _parts(self.u, self.half_u, pitch_u)
        rows, v, half_v = _parts(self.v, self.half_v, pitch_v)
        width, depth = columns.max() + 1, rows.max() + 1
        index = (self.index * depth + rows) * width + columns
        return Cells(index, self.count * int(width * depth), u, v, half_u, half_v)

    def mean(self, field: Field) -> Field:
        """Mean of a field (S, S) over each cell: (count,); 0 for cells outside the picture."""
        flat = self.index.ravel()
        total = np.bincount(flat, field.ravel(), minlength=self.count)
        return total / np.maximum(np.bincount(flat, minlength=self.count), 1)


def _parts(position: Field, half: Field, pitch: float) -> tuple[NDArray[np.intp], Field, Field]:
    """Number of the part, place within it and half its size, along one axis of a cell."""
    half = np.maximum(half, 0.5)
    count = np.maximum(np.round(2 * half / pitch), 1)
    size = 2 * half / count
    number = np.clip(np.floor((position + half) / size), 0, count - 1)
    return number.astype(np.intp), position + half - (number + 0.5) * size, size / 2


@cache
def _noise_bank(slope: float) -> Field:
    """Periodic noise (BANK, BANK), amplitude ~ frequency^-slope; always the same."""
    frequency = np.hypot(np.fft.fftfreq(BANK)[:, None], np.fft.rfftfreq(BANK)[None, :])
    frequency[0, 0] = np.inf
    white = np.fft.rfft2(np.random.default_rng(0).standard_normal((BANK, BANK)))
    noise = np.fft.irfft2(white * frequency**-slope)
    return (noise / noise.std()).astype(np.float32)


def fractal(rng: np.random.Generator, side: int, slope: float) -> Field:
    """A field (side, side) of noise with mean 0, std 1 and amplitude ~ frequency^-slope.

    It is cut from one large field at a random place, in a random direction: a Fourier transform
    for each would take longer than all the rest of a scene.
    """
    rows, columns = rng.integers(BANK, size=(2, 1)) + np.arange(side)
    field = _noise_bank(slope)[np.ix_(rows % BANK, columns % BANK)]
    field = field[:: rng.choice((-1, 1))] * np.float32(rng.choice((-1, 1)))
    field = np.ascontiguousarray(field.T if rng.random() < 0.5 else field)
    return (field - field.mean()) / field.std()


def _breaks(
    rng: np.random.Generator, low: float, high: float, pitch: float, spread: float, rows: int
) -> tuple[float, Field]:
    """Return the least border, and all borders (rows, n), which reach past low and high."""
    count = int(np.ceil((high - low) / (pitch * (1 - spread)))) + 3
    steps = pitch * rng.uniform(1 - spread, 1 + spread, (rows, count))
    borders = low - pitch * (1 + spread) * (1 + rng.random((rows, 1))) + np.cumsum(steps, axis=1)
    borders[:, 0] = borders[:, 0].min() - 1
    borders[:, -1] = np.maximum(borders[:, -1], high + 1)
    return float(borders.min()), borders.astype(np.float32)


class Canvas:
    """A scene while it is drawn: reflectance, height above the terrain, and land cover.

    Args:
        rng: Source of everything random.
        side: Side S, pixels.
    """

    def __init__(self, rng: np.random.Generator, side: int) -> None:
        self.rng, self.side = rng, side
        self.pixel_m = float(rng.uniform(1.8, 2.6))
        axis = ((np.arange(side) - (side - 1) / 2) * self.pixel_m).astype(np.float32)
        self.y, self.x = np.meshgrid(axis, axis, indexing="ij")
        self.radius_m = side * self.pixel_m / 2
        self.palette: Palette = draw_palette(rng)
        self.relief, self.stands = (fractal(rng, side, 2.0) for _ in range(2))
        self.warp_u, self.warp_v = (fractal(rng, side, 2.4) for _ in range(2))
        self.grain, self.mottle = (fractal(rng, side, 0.9) for _ in range(2))
        self.texture = 0.6 * self.grain + 0.4 * self.mottle
        self.reflectance = np.zeros((4, side, side), np.float32)  # red, green, blue, near infrared
        self.height = np.zeros((side, side), np.float32)  # metres
        self.cover = np.zeros((side, side), np.uint8)

    def frame(self, angle: float, warp_m: float = 0.0) -> tuple[Field, Field]:
        """Coordinates (u, v) of every pixel, turned and bent; metres from the centre."""
        c, s = np.float32(np.cos(angle)), np.float32(np.sin(angle))
        u, v = c * self.x + s * self.y, c * self.y - s * self.x
        return u + warp_m * self.warp_u, v + warp_m * self.warp_v

    def point(self, reach: float = 1.0) -> tuple[float, float]:
        """A random place (x, y), at most `reach` half pictures from the centre; metres."""
        x, y = self.rng.uniform(-reach * self.radius_m, reach * self.radius_m, 2)
        return float(x), float(y)

    def soft(self, inside_m: Field) -> Field:
        """Share of a pixel within a shape, from the distance to its border (positive inside)."""
        return np.clip(np.asarray(inside_m, np.float32) / self.pixel_m + 0.5, 0.0, 1.0)

    def paint(
        self,
        share: Field,
        cover: Cover,
        spectrum: NDArray[np.floating],
        texture: float = 0.1,
        height_m: Field | float = 0.0,
    ) -> None:
        """Lay a cover over what is there.

        Args:
            share: (S, S), how much of each pixel it covers, 0 to 1.
            cover: What a pixel becomes where it covers more than half.
            spectrum: Reflectance, (4,) or (4, S, S).
            texture: Relative contrast of the fine grain.
            height_m: Height of its surface above the terrain, metres.
        """
        spectrum = np.asarray(spectrum, np.float32)
        if spectrum.ndim == 1:
            spectrum = spectrum[:, None, None]
        share = np.asarray(share, np.float32)
        surface = spectrum * (1 + texture * self.texture)
        self.reflectance += share * (surface - self.reflectance)
        covered = share > 0.5
        self.cover[covered] = cover
        self.height = np.where(covered, height_m, self.height)

    def cells(
        self, u: Field, v: Field, pitch_u: float, pitch_v: float, spread: float = 0.0
    ) -> Cells:
        """Cut the plane into rows of cells.

        Args:
            u: (S, S), metres along the rows.
            v: (S, S), metres across.
            pitch_u: Mean size of a cell along the rows, metres.
            pitch_v: Mean size of a cell across the rows, metres.
            spread: Relative spread of the sizes, 0 to less than 1.
        """
        u, v = np.asarray(u, np.float32), np.asarray(v, np.float32)
        _, rows = _breaks(self.rng, float(v.min()), float(v.max()), pitch_v, spread, 1)
        row = np.searchsorted(rows[0], v) - 1
        low, high = float(u.min()), float(u.max())
        first, columns = _breaks(self.rng, low, high, pitch_u, spread, rows.shape[1])
        # One search for all rows: each row's borders are moved past those of the row before.
        stride = np.float32(columns.max() - first + 1)
        shifts = stride * np.arange(len(columns), dtype=np.float32)
        borders = (columns - np.float32(first) + shifts[:, None]).ravel()
        index = np.searchsorted(borders, (u - np.float32(first) + shifts[row])) - 1
        left, right = columns.ravel()[index], columns.ravel()[index + 1]
        below, above = rows[0][row], rows[0][row + 1]
        return Cells(
            index,
            borders.size,
            u - (left + right) / 2,
            v - (below + above) / 2,
            (right - left) / 2,
            (above - below) / 2,
        )

    def plant(
        self,
        density: Field,
        spacing_m: float,
        species: NDArray[np.floating],
        cells: Cells | None = None,
        tidiness: float = 0.0,
    ) -> None:
        """Scatter trees: crowns with height, colour and size of their own.

        Args:
            density: (S, S), chance of a tree at a place, 0 to 1.
            spacing_m: Mean distance of trees, metres.
            species: Reflectance (4,) of the leaves.
            cells: Cells of one tree each; None: a grid of this spacing, turned at random.
            tidiness: 1 puts every tree at its cell's centre, all of one size.
        """
        if cells is None:
            u, v = self.frame(self.rng.uniform(0, np.pi), warp_m=spacing_m)
            cells = self.cells(u, v, spacing_m, spacing_m, 0.2)
        n, loose = cells.count, 1 - tidiness
        present = self.rng.random(n) < cells.mean(density)
        shift = self.rng.uniform(-0.22, 0.22, (2, n)).astype(np.float32) * np.float32(
            loose * spacing_m
        )
        radius = (spacing_m * (0.42 + loose * self.rng.uniform(-0.14, 0.12, n))).astype(np.float32)
        radius = np.where(present, radius, np.float32(-1e3))[cells.index]
        shift = shift[:, cells.index]
        distance = np.hypot(cells.u - shift[0], cells.v - shift[1])
        tint = (1 + 0.35 * loose * self.rng.uniform(-1, 1, n)).astype(np.float32)[cells.index]
        dome = np.sqrt(np.clip(1 - (distance / np.maximum(radius, 1)) ** 2, 0, 1))
        leaves = np.asarray(species, np.float32)[:, None, None] * tint
        self.paint(self.soft(radius - distance), Cover.TREES, leaves, 0.15, 1.6 * radius * dome)

    def build(
        self,
        cells: Cells,
        present: NDArray[np.bool_],
        size_m: tuple[float, float],
        height_m: tuple[float, float],
        roofs: NDArray[np.floating],
        gabled: bool,
    ) -> None:
        """Put a building into cells, parallel to their sides.

        Args:
            cells: Cells of at most one building each.
            present: (count,), which cells have one.
            size_m: Smallest and largest half side, metres; it is cut to what its cell holds.
            height_m: Smallest and largest height of the eaves, metres.
            roofs: (K, 4) reflectances, of which each building gets one.
            gabled: Roofs rise to a ridge along the longer side; otherwise they are flat.
        """
        n, index = cells.count, cells.index
        halves = self.rng.uniform(*size_m, (2, n)).astype(np.float32)[:, index]
        half_u = np.minimum(halves[0], cells.half_u - 1)
        half_v = np.minimum(halves[1], cells.half_v - 1)
        shift = self.rng.uniform(-1, 1, (2, n)).astype(np.float32)[:, index]
        u = half_u - np.abs(cells.u - shift[0] * (cells.half_u - 1 - half_u))
        v = half_v - np.abs(cells.v - shift[1] * (cells.half_v - 1 - half_v))
        share = self.soft(np.minimum(u, v)) * present[index]
        height = self.rng.uniform(*height_m, n).astype(np.float32)[index]
        if gabled:
            height = height + 0.7 * np.where(half_u > half_v, v, u)
        shade = self.rng.uniform(0.75, 1.2, n).astype(np.float32)[index]
        colour = roofs[self.rng.integers(len(roofs), size=n)].T.astype(np.float32)[:, index]
        self.paint(share, Cover.BUILDING, colour * shade, 0.05, height)
