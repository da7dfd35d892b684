"""Transform coding: KLT over channels, DCT over the grid, rounding by rate and distortion."""

import math
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nec.bottlenecks.base import SUMMED_IMAGES, Bottleneck, counted_tables
from nec.bottlenecks.rounding import LARGEST_LEVEL, cheapest
from nec.bottlenecks.tokens import PositionedKLT
from nec.coding import Tables
from nec.store.codec import Codec, TransformCodec
from nec.store.transform import (
    ACTIVITIES,
    EXPECTED_UNIT,
    bands_of,
    cosines,
    groups_of,
    sums,
)

# Classes per octave of the mean level, and the smallest mean; smaller ones share its class.
CLASSES_PER_OCTAVE, SMALLEST_MEAN = 3, 2.0**-12
FIRST_SHARE = 0.85  # factor before rounding a coefficient while there are no tables yet
SHRUNK_APART = 3  # magnitudes with their own shrinkage; larger ones share the last
# Rounds of refitting levels, classes and tables to each other.
REFITS = 2
# Train images that classes and tables are fitted to, at most: they hold few numbers.
TABLE_IMAGES = 512
# To find the step for target_bytes: number of train images, and of halvings of the interval.
TARGET_IMAGES, HALVINGS = 64, 10


class Transform(Bottleneck):
    """Tokens less the mean of their position, KLT over channels, DCT over the grid, one step.

    A level is the one of least distortion + bits (rate–distortion-optimized quantization) among the
    nearest, the next one towards 0, and 0. Coefficients of similar mean level share tables; a
    further context is how active earlier latents are at a frequency, relative to expectation. A
    receiver decodes a level to the mean of its coefficients.

    Args:
        channels: D, the width of an embedding.
        grid: (h, w), number of token positions.
        step: Quantizer step, in standard deviations of a token's mean channel.
        mean_step: Step of the grid's mean, as a share of `step`: it is worth more bits.
        target_bytes: Mean bytes of a train image, for which the step is chosen instead of `step`;
            nearly constant embeddings get the finest step and fewer bytes. Other images take more.
        latents: M, largest number of KLT latents; None: D. Latents behind the last one that train
            uses at this step are not coded.
    """

    def __init__(
        self,
        channels: int,
        grid: tuple[int, int],
        step: float = 4.0,
        mean_step: float = 0.5,
        target_bytes: float | None = None,
        latents: int | None = None,
    ) -> None:
        super().__init__(channels, grid)
        for name, value in (("step", step), ("mean_step", mean_step)):
            if not 0 < value < math.inf:
                raise ValueError(f"{name} is {value}; it is a number > 0, set bottleneck.{name}")
        if target_bytes is not None and not 0 < target_bytes < math.inf:
            raise ValueError(
                f"target_bytes is {target_bytes}; an image takes more than 0, set "
                "bottleneck.target_bytes"
            )
        self.step, self.mean_step, self.target_bytes = step, mean_step, target_bytes
        self.klt = PositionedKLT(channels, grid, channels if latents is None else latents)
        self.codec: TransformCodec | None = None

    def _fit(self, y: Tensor) -> None:
        """Fit transform, step, classes and tables to train embeddings (N, D, h, w)."""
        self.klt.fit(y)
        step = self.step
        if self.target_bytes is not None:
            step = self._step_of(self._coefficients(_some(y, TARGET_IMAGES)))
        self.codec = self._fitted_codec(self._coefficients(_some(y, TABLE_IMAGES)), step)

    def take(self, codec: Any) -> None:
        """Take over the whole codec."""
        self.codec = codec

    def _quantize(self, y: Tensor) -> Tensor:
        """Return levels (B, M * h * w), latent by latent."""
        codec = self._codec()
        levels = self._rounded(self._coefficients(y)[:, : len(codec.basis)], codec)
        return torch.from_numpy(levels.reshape(len(y), -1)).to(y.device)

    def export(self) -> Codec:
        """Return the codec of steps, classes and tables, with the fitted KLT."""
        codec = self._codec()
        basis = self.klt.basis[: len(codec.basis)].cpu().numpy()
        return replace(
            codec, scale=float(self.klt.scale), mean=self.klt.mean.cpu().numpy(), basis=basis
        )

    def _coefficients(self, y: Tensor) -> np.ndarray:
        """Embeddings (B, D, h, w) -> DCT of their latents (B, M, h * w) float32."""
        rows, columns = (torch.from_numpy(cosines(n)).float().to(y.device) for n in self.grid)
        latents = self.klt(y).transpose(1, 2).unflatten(2, self.grid)
        grids = [rows @ each @ columns.T for each in latents]
        return torch.stack(grids).flatten(2).cpu().numpy()

    def _step_of(self, coefficients: np.ndarray) -> float:
        """Find the step at which these coefficients take `target_bytes` on average."""
        low, high = np.log(1e-3), np.log(1e3)
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            codec = self._fitted_codec(coefficients, float(np.exp(middle)))
            levels = self._rounded(coefficients[:, : len(codec.basis)], codec)
            smaller = (
                codec.code_length(levels.reshape(len(levels), -1)).mean() / 8 < self.target_bytes
            )
            low, high = (low, middle) if smaller else (middle, high)
        return float(np.exp((low + high) / 2))

    def _fitted_codec(self, coefficients: np.ndarray, step: float) -> TransformCodec:
        """Fit classes, tables and shrinkage to levels, and levels to them, in turns."""
        bands = bands_of(self.grid)
        steps = np.full(int(bands.max()) + 1, step / np.sqrt(self.channels), np.float32)
        steps[0] *= self.mean_step
        nearest = np.rint(FIRST_SHARE * coefficients / steps[bands])
        levels = np.clip(nearest, -LARGEST_LEVEL, LARGEST_LEVEL).astype(np.int32)
        kept = 1 + int(np.flatnonzero(levels.any(axis=(0, 2))).max(initial=0))
        coefficients, levels = coefficients[:, :kept], levels[:, :kept]
        for last in range(REFITS, -1, -1):
            codec = self._codec_of(coefficients, levels, steps)
            if last:
                levels = self._rounded(coefficients, codec)
        return codec

    def _codec_of(
        self, coefficients: np.ndarray, levels: np.ndarray, steps: np.ndarray
    ) -> TransformCodec:
        """Fit a codec to levels (N, M, h * w) of coefficients (N, M, h * w)."""
        bands = bands_of(self.grid)
        means = np.abs(levels).mean(axis=0)
        banded = np.stack([means[:, bands == b].mean(axis=1) for b in range(len(steps))], axis=1)
        octaves = np.log2(np.maximum(banded, SMALLEST_MEAN))
        numbers = np.rint(CLASSES_PER_OCTAVE * octaves).astype(int)
        classes = np.unique(numbers, return_inverse=True)[1].reshape(banded.shape)
        starts = [group.start for group in groups_of(levels.shape[1])][1:]
        expected = [sums(levels[:, :start]).mean(axis=0) for start in starts]
        expected = np.rint(EXPECTED_UNIT * np.reshape(expected, (len(starts), len(bands))))
        shrinkage = _shrinkage(coefficients / steps[bands], levels, classes[:, bands])
        mean, basis = self.klt.mean.cpu().numpy(), self.klt.basis[: levels.shape[1]].cpu().numpy()
        fixed = (self.shape, float(self.klt.scale), mean, basis, steps, classes, expected)
        count = ACTIVITIES * len(shrinkage)
        draft = TransformCodec(*fixed, shrinkage, Tables.from_laplace(np.ones(count)))
        return replace(draft, tables=_tables(levels, draft, count))

    def _rounded(self, coefficients: np.ndarray, codec: TransformCodec) -> np.ndarray:
        """Choose levels (N, M, h * w) int32 of least distortion + bits, group by group."""
        blocks = np.array_split(coefficients, -(-len(coefficients) // SUMMED_IMAGES))
        return np.concatenate([_round(block, codec) for block in blocks])

    def _codec(self) -> TransformCodec:
        if self.codec is None:
            raise ValueError("Transform has no tables; fit(y) fits them to train embeddings")
        return self.codec


def _some(y: Tensor, count: int) -> Tensor:
    """Pick at most `count` embeddings, evenly from (N, D, h, w)."""
    return y[torch.linspace(0, len(y) - 1, min(count, len(y))).long()]


def _round(coefficients: np.ndarray, codec: TransformCodec) -> np.ndarray:
    """Choose levels of coefficients (n, M, h * w); a level is 0 wherever the nearest one is."""
    scaled = coefficients / codec.steps[codec.bands]
    levels = np.zeros(scaled.shape, dtype=np.int32)
    for group, latents in enumerate(groups_of(scaled.shape[1])):
        places = np.nonzero(np.rint(scaled[:, latents]))
        classes = codec.coefficient_classes[latents][places[1:]]
        contexts = classes * ACTIVITIES + codec.active(levels, group, latents)[places[::2]]
        levels[:, latents][places] = cheapest(
            scaled[:, latents][places],
            bits=partial(codec.tables.bits, contexts=contexts),
            placed=partial(_placed, codec=codec, classes=classes),
        )
    return levels


def _placed(levels: np.ndarray, codec: TransformCodec, classes: np.ndarray) -> np.ndarray:
    """Return the values, in steps, that levels (n,) of classes (n,) are decoded to."""
    size = np.abs(levels)
    return np.sign(levels) * (size - codec.shrinkage[classes, np.minimum(size, SHRUNK_APART)])


def _tables(levels: np.ndarray, codec: TransformCodec, count: int) -> Tables:
    """Build tables of `count` contexts from levels (N, M, h * w)."""
    blocks = (
        (block[:, latents], codec.contexts(block, group, latents))
        for block in np.array_split(levels, -(-len(levels) // SUMMED_IMAGES))
        for group, latents in enumerate(groups_of(levels.shape[1]))
    )
    return counted_tables(blocks, count, levels.min(), levels.max())


def _shrinkage(scaled: np.ndarray, levels: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Mean distance of a class's coefficients below each size of level, in steps: (C, R + 1)."""
    size = np.minimum(np.abs(levels), SHRUNK_APART)
    shape = (int(classes.max()) + 1, SHRUNK_APART + 1)
    cells = (classes * shape[1] + size).ravel()
    below = np.abs(levels) - np.sign(levels) * scaled
    count = np.bincount(cells, minlength=shape[0] * shape[1])
    total = np.bincount(cells, below.ravel(), minlength=shape[0] * shape[1])
    found = (total / (count + 16.0)).reshape(shape)
    found[:, 0] = 0
    return found.astype(np.float32)
