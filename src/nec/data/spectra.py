"""Reflectance of land covers in red, green, blue and near infrared, and how it varies."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Spectra = NDArray[np.float64]  # (..., 4): red, green, blue, near infrared; 0 to 1

SOILS = np.array(
    [
        [0.33, 0.22, 0.15, 0.42],  # red
        [0.27, 0.20, 0.14, 0.35],  # loam
        [0.45, 0.39, 0.30, 0.52],  # sand, chalk
        [0.14, 0.11, 0.09, 0.19],  # peat, wet
        [0.31, 0.29, 0.26, 0.36],  # gravel
    ]
)
GRASSES = np.array(
    [
        [0.05, 0.10, 0.04, 0.46],  # lush
        [0.11, 0.14, 0.07, 0.38],
        [0.26, 0.22, 0.13, 0.36],  # dry
    ]
)
LEAVES = np.array(
    [
        [0.03, 0.05, 0.03, 0.28],  # conifers
        [0.04, 0.08, 0.03, 0.46],  # broad leaves in summer
        [0.16, 0.11, 0.04, 0.38],  # in autumn
        [0.11, 0.11, 0.07, 0.29],  # olives, or a thin crown
    ]
)
WATERS = np.array(
    [
        [0.02, 0.03, 0.04, 0.012],  # clear and deep
        [0.05, 0.09, 0.06, 0.03],  # algae
        [0.16, 0.13, 0.09, 0.07],  # silt
        [0.04, 0.12, 0.14, 0.02],  # shallow over sand
    ]
)
ROOFS = np.array(
    [
        [0.33, 0.17, 0.12, 0.36],  # tile
        [0.22, 0.21, 0.20, 0.24],  # slate
        [0.52, 0.51, 0.49, 0.53],  # white
        [0.11, 0.11, 0.11, 0.14],  # bitumen
        [0.26, 0.20, 0.15, 0.30],
        [0.20, 0.27, 0.34, 0.30],  # painted metal
    ]
)
PAVINGS = np.array(
    [
        [0.10, 0.10, 0.10, 0.12],  # asphalt
        [0.19, 0.18, 0.17, 0.21],
        [0.33, 0.31, 0.28, 0.35],  # concrete
    ]
)
RIPE = np.array([0.38, 0.31, 0.16, 0.42])


class Palette(NamedTuple):
    """What covers look like in one place on one day, whatever its scene shows."""

    soil: Spectra  # (4,)
    sand: Spectra  # (4,)
    grass: Spectra  # (4,)
    leaves: Spectra  # (2, 4)
    water: Spectra  # (4,)
    roofs: Spectra  # (3, 4)
    paving: Spectra  # (4,)


def mixed(rng: np.random.Generator, spectra: Spectra, count: int = 1) -> Spectra:
    """Draw mixtures of spectra (K, 4), each with a brightness of its own: (count, 4)."""
    shares = rng.dirichlet(np.full(len(spectra), 0.5), count)
    return shares @ spectra * np.exp(rng.normal(0, 0.15, (count, 1)))


def draw_palette(rng: np.random.Generator) -> Palette:
    """Draw the colours of a place and a season."""
    return Palette(
        soil=mixed(rng, SOILS)[0],
        sand=mixed(rng, SOILS[[1, 2, 2, 4]])[0] * 1.15,
        grass=mixed(rng, GRASSES)[0],
        leaves=mixed(rng, LEAVES, 2),
        water=mixed(rng, WATERS)[0],
        roofs=mixed(rng, ROOFS, 3),
        paving=mixed(rng, PAVINGS)[0],
    )


def draw_crops(rng: np.random.Generator, palette: Palette, count: int) -> Spectra:
    """Draw spectra of fields between bare, green and ripe: (count, 4)."""
    stages = np.stack([palette.soil, GRASSES[0], palette.grass, RIPE])
    return mixed(rng, stages, count)
