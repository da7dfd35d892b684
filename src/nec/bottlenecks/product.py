"""Product quantization: each part of a vector is the nearest of some centroids."""

import numpy as np
import torch
from torch import Tensor

from nec.bottlenecks.base import SUMMED_IMAGES, Bottleneck
from nec.bottlenecks.linear import principal, sampled
from nec.coding import Tables
from nec.store.codec import ProductCodec

# Positions that a centroid is fitted to; faiss takes no more.
POSITIONS_PER_CENTROID = 256


class Product(Bottleneck):
    """Channels in parts of equal width, a code of so many bits for each (Jégou et al. 2011).

    faiss fits the centroids to standardized channels; codes are entropy-coded, as some centroids
    are nearest more often than others. A part whose counts say nothing of other images, because
    train is small, has codes of equal length.

    Args:
        channels: D, the width of an embedding.
        grid: (h, w), its positions.
        parts: Parts M, a divisor of D.
        bits: log2 of the number of centroids of a part, 1 to 12.
    """

    def __init__(
        self, channels: int, grid: tuple[int, int], parts: int = 48, bits: int = 8
    ) -> None:
        super().__init__(channels, grid)
        if parts < 1 or channels % parts:
            raise ValueError(
                f"parts is {parts}; a vector of {channels} values has a divisor of them, set "
                "bottleneck.parts, or bottleneck.vector.parts where it is pooled"
            )
        if not 1 <= bits <= 12:
            raise ValueError(f"bits is {bits}; a part's code has 1 to 12, set bottleneck.bits")
        self.parts, self.bits = parts, bits
        self.register_buffer("center", torch.zeros(channels))
        self.register_buffer("spread", torch.ones(channels))
        self.register_buffer("centroids", torch.zeros(parts, 2**bits, channels // parts))
        self.tables: Tables | None = None

    def fit(self, y: Tensor) -> None:
        """Fit standardization, centroids and tables to train embeddings (N, D, h, w)."""
        found = principal(y)
        self.center.copy_(found.center)
        self.spread.copy_(found.spread)
        self.centroids.copy_(self._fitted_centroids(y))
        counts = np.zeros((self.parts, 2**self.bits), np.int64)
        for block in y.split(SUMMED_IMAGES):
            symbols = self.quantize(block).cpu().numpy().reshape(len(block), self.parts, -1)
            for count, codes in zip(counts, symbols.swapaxes(0, 1), strict=True):
                count += np.bincount(codes.ravel(), minlength=2**self.bits)
        self.tables = _tables(counts)

    def quantize(self, y: Tensor) -> Tensor:
        """Numbers of the nearest centroids (B, M * h * w), part by part; the first of equals.

        Distances are products of one shape per image, whatever the batch.
        """
        standardized = (y.float() - self.center[:, None, None]) / self.spread[:, None, None]
        half_norms = self.centroids.square().sum(dim=2)[:, :, None] / 2  # (M, K, 1)
        codes = []
        for image in standardized.unflatten(1, (self.parts, -1)).flatten(3):  # (M, D / M, h * w)
            codes.append((half_norms - self.centroids @ image).argmin(dim=1))
        return torch.stack(codes).int().flatten(1)

    def estimated_bits(self, y: Tensor) -> Tensor:
        """Code length under the fitted tables."""
        codec = self.export()
        bits = codec.tables.code_length(self.quantize(y).cpu().numpy(), codec.contexts)
        return torch.from_numpy(bits).float().to(y.device)

    def export(self) -> ProductCodec:
        """Centroids in the embedding's own scale, and tables."""
        if self.tables is None:
            raise ValueError("Product has no tables; fit(y) fits them to train embeddings")
        shape = (self.parts, 1, -1)
        centroids = self.centroids * self.spread.reshape(shape) + self.center.reshape(shape)
        return ProductCodec(self.shape, centroids.cpu().numpy(), self.tables)

    def _fitted_centroids(self, y: Tensor) -> Tensor:
        """(M, K, D / M) float32, by k-means of each part."""
        try:
            import faiss
        except ImportError as error:
            raise ImportError(
                "product quantization takes faiss, which is not installed; pip install "
                "'nec[competitors]'"
            ) from error
        most = POSITIONS_PER_CENTROID * 2**self.bits
        vectors = (sampled(y, most) - self.center) / self.spread
        quantizer = faiss.ProductQuantizer(self.channels, self.parts, self.bits)
        quantizer.train(np.ascontiguousarray(vectors.cpu().numpy()))
        centroids = faiss.vector_to_array(quantizer.centroids)
        return torch.from_numpy(centroids.reshape(self.centroids.shape))


def _tables(counts: np.ndarray) -> Tables:
    """Tables of codes that were seen counts (M, K) times; of equal lengths where those are shorter.

    Every count is one more than seen. That makes the length of a code that the others of train
    were counted for: a train image tells of itself what it cannot tell of another one.
    """
    total, size = counts.sum(axis=1, keepdims=True), counts.shape[1]
    lengths = np.log2((total + size - 1) / np.maximum(counts, 1))  # of a code, left out itself
    mean = (counts * lengths).sum(axis=1, keepdims=True) / total
    kept = np.where(mean < np.log2(size), counts + 1, 1)
    return Tables.from_counts(kept, np.zeros(len(counts), np.int32))
