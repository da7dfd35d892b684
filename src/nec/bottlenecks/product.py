"""Product quantization: latents in parts, each stored as its nearest centroid."""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nec.bottlenecks.base import SUMMED_IMAGES, Bottleneck
from nec.bottlenecks.linear import principal, sampled
from nec.coding import Tables
from nec.store.codec import ProductCodec

# Number of positions per centroid to fit to; faiss takes no more.
POSITIONS_PER_CENTROID = 256
MOST_BITS = 12


class Product(Bottleneck):
    """Latents in parts of equal width, each with a code of `bits` bits (Jégou et al. 2011).

    The latents are principal components of the standardized channels, dealt out so that all parts
    are about equally informative (Ge et al. 2013, 3.2); faiss fits the centroids. Codes are
    entropy-coded, as some centroids are nearest more often than others; if counts from a small
    train split would make an unseen image's codes longer, all codes of a part get `bits` bits.

    Args:
        channels: D, the width of an embedding.
        grid: (h, w), number of token positions.
        parts: M, at most D; each part has D // M of the leading components.
        bits: log2 of the number of centroids of a part, 1 to 12.
    """

    def __init__(
        self, channels: int, grid: tuple[int, int], parts: int = 48, bits: int = 8
    ) -> None:
        super().__init__(channels, grid)
        if not 1 <= parts <= channels:
            raise ValueError(
                f"parts is {parts}; a vector of {channels} values has 1 to {channels}, set "
                "bottleneck.parts, or bottleneck.vector.parts where it is pooled"
            )
        if not 1 <= bits <= MOST_BITS:
            raise ValueError(f"bits is {bits}; a part's code has 1 to {MOST_BITS}, set its bits")
        self.parts, self.bits = parts, bits
        width = channels // parts
        self.register_buffer("center", torch.zeros(channels))
        for name in ("analysis", "synthesis"):
            self.register_buffer(name, torch.zeros(parts * width, channels))
        self.register_buffer("centroids", torch.zeros(parts, 2**bits, width))
        self.tables: Tables | None = None

    def _fit(self, y: Tensor) -> None:
        """Fit components, centroids and tables to train embeddings (N, D, h, w)."""
        found = principal(y)
        kept = len(self.analysis)
        axes = found.axes[_dealt(found.variances[:kept].tolist(), self.parts)]
        self.center.copy_(found.center)
        self.analysis.copy_(axes / found.spread)
        self.synthesis.copy_(axes * found.spread)
        self._fit_centroids(y)
        counts = np.zeros((self.parts, 2**self.bits), np.int64)
        for block in y.split(SUMMED_IMAGES):
            symbols = self.quantize(block).cpu().numpy().reshape(len(block), self.parts, -1)
            for count, codes in zip(counts, symbols.swapaxes(0, 1), strict=True):
                count += np.bincount(codes.ravel(), minlength=2**self.bits)
        self.tables = _tables(counts)

    def take(self, codec: Any) -> None:
        """Take over the codec's tables."""
        self.tables = codec.tables

    def _quantize(self, y: Tensor) -> Tensor:
        """Return numbers of the nearest centroids (B, M * h * w), part by part; ties: the first.

        Latents and distances are computed image by image, whatever the batch size.
        """
        half_norms = self.centroids.square().sum(dim=2)[:, :, None] / 2  # (M, K, 1)
        codes = []
        for image in y.float() - self.center[:, None, None]:
            latents = (self.analysis @ image.flatten(1)).unflatten(0, (self.parts, -1))
            codes.append((half_norms - self.centroids @ latents).argmin(dim=1))  # (M, h * w)
        return torch.stack(codes).int().flatten(1)

    def export(self) -> ProductCodec:
        """Return the codec of centroids, components and tables."""
        if self.tables is None:
            raise ValueError("Product has no tables; fit(y) fits them to train embeddings")
        arrays = (self.centroids, self.synthesis, self.center)
        return ProductCodec(self.shape, *(a.cpu().numpy() for a in arrays), self.tables)

    def _fit_centroids(self, y: Tensor) -> None:
        """Fit the centroids of each part by k-means."""
        try:
            import faiss
        except ImportError as error:
            raise ImportError(
                "product quantization takes faiss, which is not installed; pip install "
                "'nec[competitors]'"
            ) from error
        vectors = sampled(y, POSITIONS_PER_CENTROID * 2**self.bits)
        if len(vectors) < 2**self.bits:
            raise ValueError(
                f"bits is {self.bits}, train has {len(vectors)} vectors for {2**self.bits} "
                "centroids; set bits (of the bottleneck or of its part) to "
                f"{len(vectors).bit_length() - 1} or less"
            )
        latents = (vectors.float() - self.center) @ self.analysis.T
        quantizer = faiss.ProductQuantizer(latents.shape[1], self.parts, self.bits)
        quantizer.cp.min_points_per_centroid = 1  # faiss would print that it wants more
        quantizer.train(np.ascontiguousarray(latents.cpu().numpy()))
        centroids = faiss.vector_to_array(quantizer.centroids)
        self.centroids.copy_(torch.from_numpy(centroids.reshape(self.centroids.shape)))


def _dealt(variances: list[float], parts: int) -> list[int]:
    """Deal components out to parts, each to the open part of the least product of variances.

    Args:
        variances: Variance of each component, falling.
        parts: Number of parts, of equal width.

    Returns:
        Numbers of the components, part by part.
    """
    least = max(variances[-1], 1e-9)
    weights, dealt = [0.0] * parts, [[] for _ in range(parts)]
    for component, variance in enumerate(variances):
        open_parts = (p for p in range(parts) if len(dealt[p]) < len(variances) // parts)
        part = min(open_parts, key=weights.__getitem__)
        dealt[part].append(component)
        weights[part] += math.log(max(variance, least) / least)
    return [component for part in dealt for component in part]


def _tables(counts: np.ndarray) -> Tables:
    """Build tables from counts (M, K) of codes; equal lengths in a part where that is shorter.

    Every count is raised by one. `lengths` is what a code costs if its own occurrence is left out
    of the counts, as it would be for an image outside train.
    """
    total, size = counts.sum(axis=1, keepdims=True), counts.shape[1]
    lengths = np.log2((total + size - 1) / np.maximum(counts, 1))
    mean = (counts * lengths).sum(axis=1, keepdims=True) / total
    kept = np.where(mean < np.log2(size), counts + 1, 1)
    return Tables.from_counts(kept, np.zeros(len(counts), np.int32))
