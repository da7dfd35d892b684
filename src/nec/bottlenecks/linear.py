"""Quantized latents of a linear transform over channels, with one step for each latent."""

from abc import abstractmethod
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from nec.bottlenecks.base import SUMMED_IMAGES, Bottleneck, counted_tables
from nec.bottlenecks.rounding import LARGEST_LEVEL
from nec.coding import Tables
from nec.store.codec import Band, Codec, LinearCodec
from nec.store.packing import PLAIN, Packing

# Number of train values of each latent that its quantizer is fitted to.
FITTED_VALUES = 20_000


class LinearQuantizer(Bottleneck):
    """Rounds latents ``z = A (y - center)`` to symbols, and returns ``center + S z_hat``.

    A symbol s of a latent means ``z_hat = s * step + offset``. Without a transform, latents are
    channels: A and S are the identity.

    Args:
        channels: D, the width of an embedding.
        grid: (h, w), number of token positions.
        latents: M, number of latents of the transform; None: no transform.
        packing: How one-byte symbols are stored; None: symbols are entropy-coded, by tables counted
            on train.
    """

    def __init__(
        self,
        channels: int,
        grid: tuple[int, int],
        latents: int | None,
        packing: Packing | None,
    ) -> None:
        super().__init__(channels, grid)
        self.packing = packing
        count = latents or channels
        self.register_buffer("center", torch.zeros(channels))
        self.register_buffer("steps", torch.ones(count))
        self.register_buffer("offsets", torch.zeros(count))
        for name in ("analysis", "synthesis"):
            matrix = None if latents is None else torch.zeros(latents, channels)
            self.register_buffer(name, matrix)
        self.fitted = False
        self.tables: Tables | None = None

    def _fit(self, y: Tensor) -> None:
        """Fit transform, quantizers and tables to train embeddings (N, D, h, w)."""
        self._fit_transform(y)
        sample = sampled(y, FITTED_VALUES)[:, :, None, None]
        self._fit_steps(self._latents(sample).transpose(0, 1).flatten(1))
        self.fitted = True
        if self.packing is None:
            self.tables = self._counted(y)

    def take(self, codec: Any) -> None:
        """Take over the codec's tables, if it has any."""
        self.tables = codec.tables
        self.fitted = True

    def _quantize(self, y: Tensor) -> Tensor:
        """Return symbols (B, M * h * w), latent by latent."""
        return self._rounded(self._latents(y)).int().flatten(1)

    def export(self) -> Codec:
        """Return a codec with one band, at every position."""
        if not self.fitted:
            raise ValueError(
                f"{type(self).__name__} has no tables or steps; fit(y) fits them to train "
                "embeddings"
            )
        numbers = {name: buffer.cpu().numpy() for name, buffer in self.named_buffers()}
        band = Band(numbers["steps"], numbers["offsets"], numbers.get("synthesis"), pooled=False)
        packing = PLAIN if self.packing is None else self.packing
        return LinearCodec(self.shape, (band,), numbers["center"], self.tables, packing)

    def _fit_transform(self, y: Tensor) -> None:
        """Fit center, analysis and synthesis, if there is a transform."""

    def _take_axes(self, found: "Principal") -> None:
        """Set the transform to the first M axes of the standardized channels."""
        axes = found.axes[: len(self.steps)]
        self.center.copy_(found.center)
        self.analysis.copy_(axes / found.spread)
        self.synthesis.copy_(axes * found.spread)

    @abstractmethod
    def _fit_steps(self, latents: Tensor) -> None:
        """Fit steps and offsets to train latents (M, n)."""

    @abstractmethod
    def _rounded(self, latents: Tensor) -> Tensor:
        """Latents (B, M, h, w) -> symbols of the same shape."""

    def _nearest(self, latents: Tensor) -> Tensor:
        """Return the symbols whose values are nearest to latents (B, M, h, w)."""
        return self._scaled(latents).round().clamp(-LARGEST_LEVEL, LARGEST_LEVEL)

    def _scaled(self, latents: Tensor) -> Tensor:
        """Return latents (B, M, h, w) in steps, relative to the value of symbol 0."""
        return (latents - self.offsets[:, None, None]) / self.steps[:, None, None]

    def _latents(self, y: Tensor) -> Tensor:
        """(B, D, h, w) -> (B, M, h, w), by one product per image, whatever the batch size."""
        centered = y.float() - self.center[:, None, None]
        if self.analysis is None:
            return centered
        images = [self.analysis @ image.flatten(1) for image in centered]
        return torch.stack(images).unflatten(2, y.shape[2:])

    def _counted(self, y: Tensor) -> Tables:
        """Build tables from the symbols of embeddings (N, D, h, w)."""
        blocks = [self._quantize(block).cpu().numpy() for block in y.split(SUMMED_IMAGES)]
        low, high = min(block.min() for block in blocks), max(block.max() for block in blocks)
        contexts = self._contexts()
        return counted_tables(((b, contexts) for b in blocks), len(self.steps), low, high)

    def _contexts(self) -> np.ndarray:
        """Return the latent of each symbol (M * h * w,)."""
        return np.repeat(np.arange(len(self.steps)), self.grid[0] * self.grid[1])


class Principal(NamedTuple):
    """Principal axes of train embeddings whose channels are standardized."""

    center: Tensor  # (D,) float64, mean of each channel
    spread: Tensor  # (D,) float64, standard deviation of each channel
    axes: Tensor  # (D, D) float64, one axis per row, by falling variance
    variances: Tensor  # (D,) float64, variance along each axis


def principal(y: Tensor) -> Principal:
    """Compute principal axes over all positions of embeddings (N, D, h, w), in float64.

    Channels are standardized, as heads do, so that a few channels of large spread do not dominate.
    """
    channels, count = y.shape[1], y[:, 0].numel()
    total = torch.zeros(channels, dtype=torch.float64, device=y.device)
    for block in y.split(SUMMED_IMAGES):
        total += block.double().sum(dim=(0, 2, 3))
    center = total / count
    moment = torch.zeros(channels, channels, dtype=torch.float64, device=y.device)
    for block in y.split(SUMMED_IMAGES):
        flat = block.double().transpose(0, 1).flatten(1) - center[:, None]
        moment += flat @ flat.T
    moment /= count
    spread = moment.diag().sqrt().clamp_min(1e-6)
    variances, axes = torch.linalg.eigh(moment / spread[:, None] / spread)  # ascending
    return Principal(center, spread, axes.flip(1).T, variances.flip(0))


def check_components(components: int, channels: int) -> None:
    """Raise ValueError unless there are 1 to `channels` components."""
    if not 1 <= components <= channels:
        raise ValueError(
            f"components is {components}; a vector of {channels} values has 1 to {channels}, set "
            "components (of the bottleneck or of its part)"
        )


def sampled(y: Tensor, most: int) -> Tensor:
    """Draw at most `most` positions of (N, D, h, w) with a fixed seed: (n, D)."""
    positions = y.shape[2] * y.shape[3]
    drawn = torch.randperm(len(y) * positions, generator=torch.Generator().manual_seed(0))
    chosen = drawn[:most].sort().values.to(y.device)
    return y.flatten(2)[chosen // positions, :, chosen % positions]
