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

# Weight, in observations, of the Laplace prior that a counted table is mixed with: symbols that
# train did not show keep a price below that of an escape.
PRIOR_WEIGHT = 16.0
# Tables of 12 bits a symbol reach as far; of a few outliers they would take gigabytes.
LARGEST_COUNTED = 1 << 11
# Spreads from the mean beyond which all is as unlikely: a prior of far symbols alone is not 0.
FARTHEST = 700.0
# Images that are counted or summed at a time: integers and float64 of a whole split are gigabytes.
SUMMED_IMAGES = 64


class Coded(NamedTuple):
    """What a learned bottleneck makes of a batch of embeddings."""

    y_hat: Tensor  # (B, D, h, w) float32, as the receiver will see it
    estimated_bits: Tensor  # (B,) float32; differentiable


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

    def fit(self, y: Tensor) -> None:
        """Fit statistics, steps and tables to train embeddings (N, D, h, w) float32.

        Raises:
            ValueError: They are of another shape, or hold what is not a number.
        """
        self._fit(self._checked(y))

    @abstractmethod
    def _fit(self, y: Tensor) -> None:
        """`fit`, of embeddings that were checked."""

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

    def quantize(self, y: Tensor) -> Tensor:
        """Embeddings (B, D, h, w) float32 -> symbols (B, L) int32.

        Raises:
            ValueError: They are of another shape, or hold what is not a number.
        """
        return self._quantize(self._checked(y))

    @abstractmethod
    def _quantize(self, y: Tensor) -> Tensor:
        """`quantize`, of embeddings that were checked."""

    def _checked(self, y: Tensor) -> Tensor:
        """Embeddings as float32, if they are such: of NaN a codec would make plausible numbers."""
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
        """The codec that stores these symbols: numpy only, frozen."""

    def dequantize(self, symbols: Tensor) -> Tensor:
        """Symbols (B, L) int32 -> y_hat float32, in the shape of the exported codec."""
        decoded = self.export().dequantize(symbols.cpu().numpy())
        return torch.from_numpy(decoded).to(symbols.device)

    def estimated_bits(self, y: Tensor) -> Tensor:
        """Bits (B,) float32 that embeddings (B, D, h, w) are estimated to cost."""
        bits = self.export().code_length(self.quantize(y).cpu().numpy())
        return torch.from_numpy(bits).float().to(y.device)


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


def counted_tables(
    blocks: Iterable[tuple[np.ndarray, np.ndarray]], contexts: int, low: int, high: int
) -> Tables:
    """Tables from what train shows: counts, mixed with a Laplace density of the same spread.

    Args:
        blocks: Symbols int32, and the context of each, 0 to contexts - 1, of a shape that
            broadcasts to theirs; a part of train at a time.
        contexts: K.
        low: The smallest symbol of train.
        high: The largest.

    Returns:
        K tables over the common range of all symbols, as far as LARGEST_COUNTED: what is larger is
        rare, and an escape.
    """
    low, high = (int(np.clip(end, -LARGEST_COUNTED, LARGEST_COUNTED)) for end in (low, high))
    size = high - low + 2  # the last counts what lies beyond
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
