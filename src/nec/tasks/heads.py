"""Heads on stored embeddings: a fixed part that is computed once, and a part that learns."""

from abc import ABC, abstractmethod
from typing import Any, Protocol

import numpy as np
import torch
from timm.layers import AttentionPoolLatent
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from nec.bottlenecks.base import SUMMED_IMAGES

# A feature that hardly varies on train is scaled by this share of the median spread, so that one
# rare value does not outweigh all others.
SMALLEST_SHARE = 1e-2


class Standardized(nn.Module):
    """Features minus their mean, divided by their spread, both of the whole train split.

    Args:
        width: Number of features F.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("spread", torch.ones(width))

    def fit(self, features: Tensor) -> None:
        """Fit to train features (N, F) or (N, F, positions)."""
        columns = features.flatten(2) if features.ndim > 2 else features[:, :, None]
        count = len(columns) * columns.shape[2]
        blocks = columns.split(SUMMED_IMAGES)
        mean = sum(block.double().sum(dim=(0, 2)) for block in blocks) / count
        away = (block.double() - mean[:, None] for block in blocks)
        spread = (sum(each.square().sum(dim=(0, 2)) for each in away) / count).sqrt()
        self.mean.copy_(mean)
        self.spread.copy_(spread.clamp_min(max(SMALLEST_SHARE * float(spread.median()), 1e-12)))

    def forward(self, features: Tensor) -> Tensor:
        """Features (B, F) or (B, F, positions), standardized."""
        shape = (-1,) + (1,) * (features.ndim - 2)
        return (features - self.mean.reshape(shape)) / self.spread.reshape(shape)


class Read(Protocol):
    """What a head has read of a split's images."""

    features: Tensor  # (N, ...) float32
    labels: Tensor  # (N,) int64
    counts: Tensor | None  # (N, K, R, C) int32 pixels of each class in cells, where they are asked


class Head(nn.Module, ABC):
    """Maps what `read` makes of stored images to logits.

    Attributes:
        scale: Number of cells along a token's side that it answers for; 0: it answers for images.

    Args:
        shape: (D, h, w) of an embedding.
        classes: Number of classes.
    """

    scale: int = 0

    def __init__(self, shape: tuple[int, int, int], classes: int) -> None:
        super().__init__()
        self.shape = shape
        self.classes = classes

    def features(self, embedding: Tensor) -> Tensor:
        """Embeddings (B, D, h, w) -> features; no parameters, so once per image is enough."""
        return embedding

    def read(self, store: Any, rows: np.ndarray) -> Tensor:
        """Read what the head learns from, features (n, ...), of images of an `EmbeddingStore`."""
        return self.features(torch.from_numpy(store.read(rows)))

    @abstractmethod
    def fit(self, train: Read, val: Read) -> None:
        """Fit to train what does not learn by gradient; choose on val what is to be chosen."""

    @abstractmethod
    def forward(self, features: Tensor) -> Tensor:
        """Features of a batch -> logits (B, classes), or (B, classes, R, C) of cells."""


class PooledHead(Head):
    """A head on mean and standard deviation over the grid, each feature standardized.

    A pooled embedding, (2D, 1, 1), holds both already; if a store has several layers, one that
    holds such vectors is read in place of the grid.
    """

    def __init__(self, shape: tuple[int, int, int], classes: int) -> None:
        super().__init__(shape, classes)
        self.width = shape[0] if shape[1] * shape[2] == 1 else 2 * shape[0]
        self.norm = Standardized(self.width)

    def read(self, store: Any, rows: np.ndarray) -> Tensor:
        """Read mean and std (n, 2D): the layer that holds them, or those of the first layer."""
        vectors = [n for n, codec in store.layers.items() if codec.shape == (self.width, 1, 1)]
        return super().read(store.layer(vectors[0]) if vectors else store, rows)

    def features(self, embedding: Tensor) -> Tensor:
        """Return mean and std over positions: (B, 2D)."""
        positions = embedding.flatten(2)
        if positions.shape[2] == 1:
            return positions[:, :, 0]
        return torch.cat([positions.mean(dim=2), positions.std(dim=2, correction=0)], dim=1)

    def fit(self, train: Read, val: Read) -> None:
        """Fit the standardization to train features (N, 2D)."""
        self.norm.fit(train.features)


class LinearHead(PooledHead):
    """Logistic regression on mean and standard deviation over the grid."""

    def __init__(self, shape: tuple[int, int, int], classes: int) -> None:
        super().__init__(shape, classes)
        self.linear = nn.Linear(self.width, classes)

    def forward(self, features: Tensor) -> Tensor:
        """Features (B, 2D) -> logits (B, classes)."""
        return self.linear(self.norm(features))


def check_heads(heads: int, channels: int) -> None:
    """Raise ValueError unless attention heads divide the channels."""
    if heads < 1 or channels % heads:
        raise ValueError(
            f"heads is {heads}; an embedding of {channels} channels needs a divisor of them, "
            "set task.NAME.head.heads"
        )


class AttentionHead(Head):
    """timm's attention pooling with one learned query, then a linear layer.

    Args:
        shape: (D, h, w) of an embedding.
        classes: Number of classes.
        heads: Number of attention heads; D must be a multiple of it.
        decoder_block: Put one ViT block before the pooling, as NEC's decoders do.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        classes: int,
        heads: int = 4,
        decoder_block: bool = False,
    ) -> None:
        super().__init__(shape, classes)
        channels, height, width = shape
        check_heads(heads, channels)
        self.norm = Standardized(channels)
        self.positions = nn.Parameter(torch.zeros(height * width, channels))
        self.block = Block(channels, heads) if decoder_block else nn.Identity()
        self.pool = AttentionPoolLatent(channels, num_heads=heads, mlp_ratio=1.0)
        self.linear = nn.Linear(channels, classes)

    def fit(self, train: Read, val: Read) -> None:
        """Fit the standardization of channels to train embeddings (N, D, h, w)."""
        self.norm.fit(train.features.flatten(2))

    def forward(self, features: Tensor) -> Tensor:
        """Embeddings (B, D, h, w) -> logits (B, classes)."""
        tokens = self.norm(features.flatten(2)).transpose(1, 2) + self.positions  # (B, h w, D)
        return self.linear(self.pool(self.block(tokens)))
