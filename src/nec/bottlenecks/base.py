"""The contract of a bottleneck, and the counted tables that some of them share."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from nec.coding import Tables
from nec.store.codec import Codec
from nec.store.schema import EMBEDDING

# Weight, in observations, of the Laplace prior that a counted table is mixed with: symbols that
# train did not show keep a price below that of an escape.
PRIOR_WEIGHT = 16.0
# Images that are counted or summed at a time: integers and float64 of a whole split are gigabytes.
SUMMED_IMAGES = 64


class Coded(NamedTuple):
    """What a bottleneck makes of a batch of embeddings."""

    y_hat: Tensor  # (B, D, h, w) float32, as the receiver will see it
    estimated_bits: Tensor  # (B,) float32; differentiable where the bottleneck is learned


class Bottleneck(nn.Module, ABC):
    """Embedding y <-> symbols, and what they cost.

    Built for one shape of embedding, then `fit` on train. The law of every bottleneck: its exported
    codec returns the symbols that `quantize` gave, and the y_hat that heads see is the codec's.

    Args:
        channels: D, the width of an embedding.
        grid: (h, w), its positions.
    """

    learned: ClassVar[bool] = False  # whether a rate-distortion loss can train it

    def __init__(self, channels: int, grid: tuple[int, int]) -> None:
        super().__init__()
        self.channels = channels
        self.grid = (int(grid[0]), int(grid[1]))

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of y_hat: (D, h, w), unless the bottleneck says otherwise."""
        return (self.channels, *self.grid)

    def layers(self) -> dict[str, "Bottleneck"]:
        """What a store keeps of an embedding, by name of its layer: itself, unless it is several.

        `embedding` is among them. Symbols and codecs are asked of each; the fit is of the whole.
        """
        return {EMBEDDING: self}

    @abstractmethod
    def fit(self, y: Tensor) -> None:
        """Fit statistics, steps and tables to train embeddings (N, D, h, w) float32."""

    def restore(self, state: Mapping[str, Tensor], codecs: Mapping[str, Codec]) -> None:
        """Take over what another one of the same options was fitted to, instead of `fit`.

        Args:
            state: Its `state_dict`.
            codecs: What each of its layers exported.

        Raises:
            ValueError: They are of another shape, or of one with other options.
        """
        shapes = {name: codec.shape for name, codec in codecs.items()}
        own = {name: layer.shape for name, layer in self.layers().items()}
        if shapes != own:
            raise ValueError(
                f"codecs of shapes {shapes} do not fit embeddings that become {own}; take what was "
                "fitted to embeddings of this encoder"
            )
        try:
            self.load_state_dict(state)
        except RuntimeError as error:
            said = " ".join(str(error).split())
            raise ValueError(
                f"weights are not of this bottleneck ({said}); take those of its own options"
            ) from error
        for name, layer in self.layers().items():
            layer.take(codecs[name])

    def take(self, codec: Any) -> None:
        """Take over from an exported codec what `state_dict` does not hold: tables. Here, none."""

    @abstractmethod
    def quantize(self, y: Tensor) -> Tensor:
        """Embeddings (B, D, h, w) float32 -> symbols (B, L) int32."""

    @abstractmethod
    def export(self) -> Codec:
        """The codec that stores these symbols: numpy only, frozen."""

    def dequantize(self, symbols: Tensor) -> Tensor:
        """Symbols (B, L) int32 -> y_hat float32, in the shape of the exported codec."""
        decoded = self.export().dequantize(symbols.cpu().numpy())
        return torch.from_numpy(decoded).to(symbols.device)

    @abstractmethod
    def estimated_bits(self, y: Tensor) -> Tensor:
        """Bits (B,) float32 that embeddings (B, D, h, w) are estimated to cost."""

    def forward(self, y: Tensor) -> Coded:
        """Quantize and price a batch (B, D, h, w)."""
        return Coded(self.dequantize(self.quantize(y)), self.estimated_bits(y))


class LearnedBottleneck(Bottleneck):
    """A bottleneck that a rate-distortion loss trains, from where `fit` starts it."""

    learned = True

    @abstractmethod
    def forward(self, y: Tensor, keys: Tensor | None = None) -> Coded:
        """Price a batch (B, D, h, w), or (B, D, K, 1) of a masked grid, and decode it.

        Args:
            y: Embeddings.
            keys: (B,) int64 of `nec.chance`, to train with noise; None: as it will be coded.
        """

    @abstractmethod
    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """What learns, by the rate it learns at: "density", "transform", "auxiliary"."""

    @abstractmethod
    def auxiliary_loss(self) -> Tensor:
        """What likelihood alone cannot train, () float32."""


def counted_tables(symbols: np.ndarray, contexts: np.ndarray) -> Tables:
    """Tables from what train shows: counts, mixed with a Laplace density of the same spread.

    Args:
        symbols: (N, L) int32.
        contexts: (L,) in 0..K-1, each of them present.

    Returns:
        K tables over the common range of all symbols.
    """
    low, size = int(symbols.min()), int(symbols.max()) - int(symbols.min()) + 1
    count = int(contexts.max()) + 1
    counts = np.zeros(count * size, np.int64)
    bases = contexts.astype(np.int64) * size - low
    for start in range(0, len(symbols), SUMMED_IMAGES):
        found = symbols[start : start + SUMMED_IMAGES].astype(np.int64) + bases
        counts += np.bincount(found.ravel(), minlength=count * size)
    return smoothed_tables(counts.reshape(count, size), low)


def smoothed_tables(counts: np.ndarray, low: int) -> Tables:
    """Tables of K contexts from counts (K, S) of the symbols from `low` on, as `counted_tables`."""
    values = np.arange(low, low + counts.shape[1])
    total = counts.sum(axis=1, keepdims=True)
    seen = np.maximum(total, 1)
    mean = (counts * values).sum(axis=1, keepdims=True) / seen
    spread = (counts * np.abs(values - mean)).sum(axis=1, keepdims=True) / seen
    prior = np.exp(-np.abs(values - mean) / np.maximum(spread, 1e-3))
    prior /= prior.sum(axis=1, keepdims=True)
    pmfs = (counts + PRIOR_WEIGHT * prior) / (total + PRIOR_WEIGHT)
    return Tables.from_pmfs(pmfs, np.full(len(counts), low, dtype=np.int32))
