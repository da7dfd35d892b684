"""The bottlenecks that nothing is learned for: floats, integers, pooled vectors."""

import numpy as np
import torch
from torch import Tensor

from nec.bottlenecks.base import Bottleneck, counted_tables
from nec.coding import Tables
from nec.store.codec import Band, Codec, LinearCodec, RawCodec

# The share of values beyond either end of a quantizer's range. One outlier must not set the step.
CLIPPED_SHARE = 1e-4
# Shares of that range which a uniform quantizer tries, on so many train values of each channel.
SHARES = np.linspace(0.1, 1.0, 19)
FITTED_VALUES = 20_000


class Identity(Bottleneck):
    """The embedding as float32: the bound that every other bottleneck is compared with."""

    def fit(self, y: Tensor) -> None:
        """Nothing is fitted."""

    def quantize(self, y: Tensor) -> Tensor:
        """The bit patterns of the floats (B, D * h * w) as int32."""
        return y.float().flatten(1).contiguous().view(torch.int32)

    def estimated_bits(self, y: Tensor) -> Tensor:
        """32 bits a value."""
        return torch.full((len(y),), 32.0 * y[0].numel(), device=y.device)

    def export(self) -> Codec:
        """Raw float32."""
        return RawCodec(shape=self.shape, dtype="float32")


class Float16(Bottleneck):
    """The embedding rounded to float16; values beyond its range saturate."""

    def fit(self, y: Tensor) -> None:
        """Nothing is fitted."""

    def quantize(self, y: Tensor) -> Tensor:
        """The bit patterns of the halves (B, D * h * w), 0 to 65535, as int32."""
        largest = torch.finfo(torch.float16).max
        halves = y.float().clamp(-largest, largest).half().flatten(1).contiguous()
        return halves.view(torch.int16).int() & 0xFFFF

    def estimated_bits(self, y: Tensor) -> Tensor:
        """16 bits a value."""
        return torch.full((len(y),), 16.0 * y[0].numel(), device=y.device)

    def export(self) -> Codec:
        """Raw float16."""
        return RawCodec(shape=self.shape, dtype="float16")


class Uniform(Bottleneck):
    """A uniform quantizer per channel, its range fitted on train, its levels entropy-coded.

    Args:
        channels: D, the width of an embedding.
        grid: (h, w), its positions.
        bits: log2 of the number of levels, 1 to 12.
    """

    def __init__(self, channels: int, grid: tuple[int, int], bits: int = 4) -> None:
        super().__init__(channels, grid)
        if not 1 <= bits <= 12:
            raise ValueError(
                f"bits is {bits}; a uniform quantizer has 1 to 12, set bottleneck.bits"
            )
        self.bits = bits
        self.register_buffer("steps", torch.ones(channels))
        self.register_buffer("offsets", torch.zeros(channels))
        self.tables: Tables | None = None

    def fit(self, y: Tensor) -> None:
        """Fit ranges, clipped at both ends, and tables to train embeddings (N, D, h, w)."""
        values = y.transpose(0, 1).flatten(1).cpu().numpy()  # (D, N * h * w)
        low, high = self._range(values[:, :: max(1, values.shape[1] // FITTED_VALUES)])
        steps = np.maximum(high - low, 1e-6) / (2**self.bits - 1)
        self.steps.copy_(torch.from_numpy(steps))
        # Symbol s means low + (s + 2^(bits-1)) * step, so that symbols are signed and centred.
        self.offsets.copy_(torch.from_numpy(low + 2 ** (self.bits - 1) * steps))
        self.tables = counted_tables(self.quantize(y).cpu().numpy(), self._contexts())

    def quantize(self, y: Tensor) -> Tensor:
        """Levels (B, D * h * w), -2^(bits-1) to 2^(bits-1) - 1, channel-major."""
        latent = (y.float() - self.offsets[:, None, None]) / self.steps[:, None, None]
        half = 2 ** (self.bits - 1)
        return latent.round().clamp(-half, half - 1).int().flatten(1)

    def estimated_bits(self, y: Tensor) -> Tensor:
        """Code length under the fitted tables."""
        symbols = self.quantize(y).cpu().numpy()
        bits = _fitted(self.tables, self).code_length(symbols, self._contexts())
        return torch.from_numpy(bits).float().to(y.device)

    def export(self) -> Codec:
        """Per-channel steps and tables."""
        return self._codec(_fitted(self.tables, self))

    def _range(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Lowest and highest level (D,) of each channel: the range of least squared error.

        With few levels the best range is much narrower than the values' (Max 1960).
        """
        ends = np.quantile(values, [CLIPPED_SHARE, 1 - CLIPPED_SHARE], axis=1)
        center, half = ends.mean(axis=0), np.maximum(ends[1] - ends[0], 1e-6) / 2
        best, least = half, np.full(len(values), np.inf)
        for share in SHARES:
            step = 2 * share * half / (2**self.bits - 1)
            low = (center - share * half)[:, None]
            level = np.rint((values - low) / step[:, None]).clip(0, 2**self.bits - 1)
            error = np.square(level * step[:, None] + low - values).mean(axis=1)
            best, least = np.where(error < least, share * half, best), np.minimum(error, least)
        return center - best, center + best

    def _codec(self, tables: Tables | None) -> LinearCodec:
        steps, offsets = self.steps.cpu().numpy(), self.offsets.cpu().numpy()
        return LinearCodec(
            shape=self.shape,
            bands=(Band(steps=steps, offsets=offsets, basis=None, pooled=False),),
            bias=np.zeros(self.channels, np.float32),
            tables=tables,
        )

    def _contexts(self) -> np.ndarray:
        return np.repeat(np.arange(self.channels), self.grid[0] * self.grid[1])


class Int8(Uniform):
    """One byte a value, its scale fitted per channel; not entropy-coded."""

    def __init__(self, channels: int, grid: tuple[int, int]) -> None:
        super().__init__(channels, grid, bits=8)

    def estimated_bits(self, y: Tensor) -> Tensor:
        """8 bits a value."""
        return torch.full((len(y),), 8.0 * y[0].numel(), device=y.device)

    def export(self) -> Codec:
        """Per-channel steps, plain bytes."""
        return self._codec(tables=None)


class Pooled(Bottleneck):
    """One vector per image: mean and std over the grid, standardized, PCA, one step, entropy-coded.

    What most embedding products ship. Its y_hat is (2D, 1, 1): means, then standard deviations.

    Args:
        channels: D, the width of an embedding.
        grid: (h, w), its positions.
        components: Principal components kept, at most 2D.
        step: Quantizer step, in standard deviations of the standardized vector.
    """

    def __init__(
        self, channels: int, grid: tuple[int, int], components: int = 64, step: float = 1.0
    ) -> None:
        super().__init__(channels, grid)
        if not 1 <= components <= 2 * channels:
            raise ValueError(
                f"components is {components}; a pooled vector of {2 * channels} values has 1 to "
                f"{2 * channels}, set bottleneck.components"
            )
        if not step > 0:
            raise ValueError(f"step is {step}; it must be > 0, set bottleneck.step")
        self.components, self.step = components, step
        self.register_buffer("center", torch.zeros(2 * channels))
        self.register_buffer("spread", torch.ones(2 * channels))
        self.register_buffer("axes", torch.zeros(components, 2 * channels))
        self.tables: Tables | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        """(2D, 1, 1)."""
        return (2 * self.channels, 1, 1)

    def fit(self, y: Tensor) -> None:
        """Fit standardization, components and tables to train embeddings (N, D, h, w)."""
        vectors = _pool(y).double()
        self.center.copy_(vectors.mean(dim=0))
        self.spread.copy_(vectors.std(dim=0).clamp_min(1e-6))
        standardized = (vectors - vectors.mean(dim=0)) / self.spread
        _, axes = torch.linalg.eigh(standardized.T @ standardized)  # ascending
        self.axes.copy_(axes.flip(1).T[: self.components])
        self.tables = counted_tables(self.quantize(y).cpu().numpy(), np.arange(self.components))

    def quantize(self, y: Tensor) -> Tensor:
        """Component levels (B, components)."""
        standardized = (_pool(y) - self.center) / self.spread
        return (standardized @ self.axes.T / self.step).round().int()

    def estimated_bits(self, y: Tensor) -> Tensor:
        """Code length under the fitted tables."""
        symbols = self.quantize(y).cpu().numpy()
        bits = _fitted(self.tables, self).code_length(symbols, np.arange(self.components))
        return torch.from_numpy(bits).float().to(y.device)

    def export(self) -> Codec:
        """A linear codec on a grid of one position."""
        band = Band(
            steps=np.full(self.components, self.step, np.float32),
            offsets=np.zeros(self.components, np.float32),
            basis=(self.axes * self.spread).cpu().numpy(),
            pooled=False,
        )
        return LinearCodec(
            shape=self.shape,
            bands=(band,),
            bias=self.center.cpu().numpy(),
            tables=_fitted(self.tables, self),
        )


def _pool(y: Tensor) -> Tensor:
    """Mean and standard deviation over the grid: (B, D, h, w) -> (B, 2D) float32."""
    positions = y.float().flatten(2)
    return torch.cat([positions.mean(dim=2), positions.std(dim=2, correction=0)], dim=1)


def _fitted(tables: Tables | None, bottleneck: Bottleneck) -> Tables:
    if tables is None:
        raise ValueError(
            f"{type(bottleneck).__name__} has no tables; fit(y) fits them to train embeddings"
        )
    return tables
