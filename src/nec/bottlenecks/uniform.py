"""Uniform quantizers: per channel, or per principal component."""

import numpy as np
import torch
from torch import Tensor

from nec.bottlenecks.linear import LinearQuantizer, check_components, principal
from nec.store.packing import PLAIN, Packing

# Share of values beyond either end of a quantizer's range: one outlier must not set the step.
CLIPPED_SHARE = 1e-4
# Shares of that range that a uniform quantizer tries.
SHARES = np.linspace(0.1, 1.0, 19)
BYTE_BITS, MOST_BITS = 8, 12


class EvenLevels(LinearQuantizer):
    """2^bits levels per latent, evenly spaced over a range fitted on train.

    Args:
        channels: D, the width of an embedding.
        grid: (h, w), number of token positions.
        latents: M, number of latents of the transform; None: no transform.
        bits: log2 of the number of levels, 1 to 12; 1 to 8 if levels are packed.
        packing: How one-byte levels are stored; None: levels are entropy-coded.
    """

    def __init__(
        self,
        channels: int,
        grid: tuple[int, int],
        latents: int | None,
        bits: int,
        packing: Packing | None,
    ) -> None:
        super().__init__(channels, grid, latents, packing)
        most = MOST_BITS if packing is None else BYTE_BITS
        if not 1 <= bits <= most:
            raise ValueError(
                f"bits is {bits}; a uniform quantizer has 1 to {most}, set bottleneck.bits"
            )
        self.bits = bits

    def _fit_steps(self, latents: Tensor) -> None:
        low, high = best_range(latents.cpu().numpy(), self.bits)
        steps = np.maximum(high - low, 1e-6) / (2**self.bits - 1)
        self.steps.copy_(torch.from_numpy(steps))
        # Symbol s means low + (s + 2^(bits-1)) * step, so that symbols are signed and centred.
        self.offsets.copy_(torch.from_numpy(low + 2 ** (self.bits - 1) * steps))

    def _rounded(self, latents: Tensor) -> Tensor:
        half = 2 ** (self.bits - 1)
        return self._nearest(latents).clamp(-half, half - 1)


class Uniform(EvenLevels):
    """A uniform quantizer per channel, its range fitted on train, its levels entropy-coded.

    Args:
        channels: D, the width of an embedding.
        grid: (h, w), number of token positions.
        bits: log2 of the number of levels, 1 to 12; 1 to 8 if levels are packed.
        packing: How one-byte levels are stored; None: levels are entropy-coded.
    """

    def __init__(
        self,
        channels: int,
        grid: tuple[int, int],
        bits: int = 4,
        packing: Packing | None = None,
    ) -> None:
        super().__init__(channels, grid, None, bits, packing)


class Int8(EvenLevels):
    """One byte per value, with a scale fitted per channel; not entropy-coded.

    Args:
        channels: D, the width of an embedding.
        grid: (h, w), number of token positions.
        packing: How the bytes are stored.
    """

    def __init__(self, channels: int, grid: tuple[int, int], packing: Packing = PLAIN) -> None:
        super().__init__(channels, grid, None, BYTE_BITS, packing)


class Pca(EvenLevels):
    """Principal components of the standardized channels, one byte each, at every position.

    Args:
        channels: D, the width of an embedding.
        grid: (h, w), number of token positions.
        components: Principal components kept, at most D.
        packing: How the bytes are stored.
    """

    def __init__(
        self,
        channels: int,
        grid: tuple[int, int],
        components: int = 64,
        packing: Packing = PLAIN,
    ) -> None:
        check_components(components, channels)
        super().__init__(channels, grid, components, BYTE_BITS, packing)

    def _fit_transform(self, y: Tensor) -> None:
        self._take_axes(principal(y))


def best_range(values: np.ndarray, bits: int) -> tuple[np.ndarray, np.ndarray]:
    """Find the lowest and highest of 2^bits levels for values (M, n).

    Among ranges around the middle of the values' extreme quantiles, take the one of least squared
    error: with few levels it is much narrower than the quantiles' range (Max 1960).

    Returns:
        Lowest (M,) and highest (M,).
    """
    ends = np.quantile(values, [CLIPPED_SHARE, 1 - CLIPPED_SHARE], axis=1)
    center, half = ends.mean(axis=0), np.maximum(ends[1] - ends[0], 1e-6) / 2
    best, least = half, np.full(len(values), np.inf)
    for share in SHARES:
        step = 2 * share * half / (2**bits - 1)
        low = (center - share * half)[:, None]
        level = np.rint((values - low) / step[:, None]).clip(0, 2**bits - 1)
        error = np.square(level * step[:, None] + low - values).mean(axis=1)
        best, least = np.where(error < least, share * half, best), np.minimum(error, least)
    return center - best, center + best
