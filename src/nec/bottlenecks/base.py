"""The contract of a bottleneck, and the counted tables that some of them share."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from nec.coding import Tables
from nec.store.codec import Codec
from nec.store.schema import EMBEDDING

# Weight, in observations, of the Laplace prior that a counted table is mixed with: symbols that do
# not occur in train still cost less than an escape.
PRIOR_WEIGHT = 16.0
# Largest symbol in a counted table, enough for 12 bits; reaching to outliers would take gigabytes.
LARGEST_COUNTED = 1 << 11
# Spreads from the mean at which the prior stops falling, so that it is not 0 for all of a range.
FARTHEST = 700.0
# Images that are counted or summed at a time: int64 or float64 of a whole split takes gigabytes.
SUMMED_IMAGES = 64


class Coded(NamedTuple):
    """Output of a learned bottleneck for a batch of embeddings."""

    y_hat: Tensor  # (B, D, h, w) float32, as the receiver will see it
    estimated_bits: Tensor  # (B,) float32; differentiable


class Bottleneck(nn.Module, ABC):
    """Embedding y <-> symbols, and what they cost.

    Built for one embedding shape, then `fit` on train. Every bottleneck guarantees that its
    exported codec returns the symbols that `quantize` gave, and that heads see the codec's y_hat.

    Args:
        channels: D, the width of an embedding.
        grid: (h, w), number of token positions.
    """

    learned: ClassVar[bool] = False  # whether a rate-distortion loss can train it

    def __init__(self, channels: int, grid: tuple[int, int]) -> None:
        super().__init__()
        self.channels = channels
        self.grid = (int(grid[0]), int(grid[1]))

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of one y_hat: (D, h, w), unless a bottleneck overrides it."""
        return (self.channels, *self.grid)

    def layers(self) -> dict[str, "Bottleneck"]:
        """Return the bottleneck of each layer of a store, by name; by default only itself.

        `embedding` is among them. Each gives its own symbols and codec; `fit` fits all of them.
        """
        return {EMBEDDING: self}

    def fit(self, y: Tensor) -> None:
        """Fit statistics, steps and tables to train embeddings (N, D, h, w) float32.

        Raises:
            ValueError: If they have another shape, or hold NaN or infinities.
        """
        self._fit(self._checked(y))

    @abstractmethod
    def _fit(self, y: Tensor) -> None:
        """`fit` for embeddings that were checked."""

    def restore(self, state: Mapping[str, Tensor], codecs: Mapping[str, Codec]) -> None:
        """Take over the fit of another bottleneck with the same options, instead of `fit`.

        Args:
            state: Its `state_dict`.
            codecs: Exported codec of each of its layers, by name.

        Raises:
            ValueError: If they have another shape, or come from a bottleneck with other options.
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
        """Take over tables, which `state_dict` does not hold, from a codec; by default, none."""

    def quantize(self, y: Tensor) -> Tensor:
        """Embeddings (B, D, h, w) float32 -> symbols (B, L) int32.

        Raises:
            ValueError: If they have another shape, or hold NaN or infinities.
        """
        return self._quantize(self._checked(y))

    @abstractmethod
    def _quantize(self, y: Tensor) -> Tensor:
        """`quantize` for embeddings that were checked."""

    def _checked(self, y: Tensor) -> Tensor:
        """Return embeddings as float32 if valid: a codec would turn NaN into plausible numbers."""
        if y.ndim != 4 or not len(y) or y.shape[1:] != (self.channels, *self.grid):
            raise ValueError(
                f"embeddings are {tuple(y.shape)}; this {type(self).__name__} takes (n, "
                f"{self.channels}, {self.grid[0]}, {self.grid[1]}) with n > 0, give it those of "
                "the encoder that it was built for"
            )
        y = y.float()
        finite = torch.cat([b.flatten(1).isfinite().all(dim=1) for b in y.split(SUMMED_IMAGES)])
        if not finite.all():
            wrong = (~finite).nonzero().flatten().tolist()
            raise ValueError(
                f"of {len(y)} embeddings {len(wrong)} hold NaN or infinities, the first is number "
                f"{wrong[0]}; look for no-data values in their images, and fill or leave them out"
            )
        return y

    @abstractmethod
    def export(self) -> Codec:
        """Return the codec that stores these symbols: numpy only, frozen."""

    def dequantize(self, symbols: Tensor) -> Tensor:
        """Symbols (B, L) int32 -> y_hat float32, in the shape of the exported codec."""
        decoded = self.export().dequantize(symbols.cpu().numpy())
        return torch.from_numpy(decoded).to(symbols.device)


class LearnedBottleneck(Bottleneck):
    """A bottleneck that a rate-distortion loss trains, starting from `fit`."""

    learned = True

    @abstractmethod
    def forward(self, y: Tensor, keys: Tensor | None = None) -> Coded:
        """Price a batch (B, D, h, w), or (B, D, K, 1) of a masked grid, and decode it.

        Args:
            y: Embeddings.
            keys: (B,) int64 from `nec.chance`, to train with noise; None: as it will be coded.
        """

    @abstractmethod
    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """Return trainable parameters by learning rate: "density", "transform", "auxiliary"."""

    @abstractmethod
    def auxiliary_loss(self) -> Tensor:
        """Return the loss for what likelihood alone cannot train, () float32."""


def counted_tables(
    blocks: Iterable[tuple[np.ndarray, np.ndarray]], contexts: int, low: int, high: int
) -> Tables:
    """Build tables from counts on train, mixed with a Laplace density of the same spread.

    Args:
        blocks: Parts of train: int32 symbols, and their contexts, 0 to contexts - 1, in a shape
            that broadcasts to theirs.
        contexts: K, number of contexts.
        low: Smallest symbol of train.
        high: Largest symbol of train.

    Returns:
        K tables over the common range of all symbols, up to ±LARGEST_COUNTED; larger symbols are
        rare, and coded by escape.
    """
    low, high = (int(np.clip(end, -LARGEST_COUNTED, LARGEST_COUNTED)) for end in (low, high))
    size = high - low + 2  # the last one counts symbols beyond
    counts = np.zeros(contexts * size, np.int64)
    for symbols, own in blocks:
        beyond = (symbols < low) | (symbols > high)
        cells = own.astype(np.int64) * size + np.where(beyond, size - 1, symbols - low)
        counts += np.bincount(cells.ravel(), minlength=contexts * size)
    table = counts.reshape(contexts, size)
    values = np.arange(low, high + 1)
    seen, total = table[:, :-1], table.sum(axis=1, keepdims=True)
    inside = np.maximum(seen.sum(axis=1, keepdims=True), 1)
    mean = (seen * values).sum(axis=1, keepdims=True) / inside
    spread = (seen * np.abs(values - mean)).sum(axis=1, keepdims=True) / inside
    away = np.abs(values - mean) / np.maximum(spread, 1e-3)
    prior = np.exp(-np.minimum(away, FARTHEST))
    prior /= prior.sum(axis=1, keepdims=True)
    pmfs = (seen + PRIOR_WEIGHT * prior) / (total + PRIOR_WEIGHT)
    return Tables.from_pmfs(pmfs, np.full(contexts, low, dtype=np.int32))
