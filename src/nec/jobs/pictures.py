"""Pictures of embeddings: the first three principal components of their tokens as colours."""

import numpy as np
from numpy.typing import NDArray

from nec.store.codec import Codec, LinearCodec

# Percentiles that become black and white.
STRETCH = (2.0, 98.0)


class Colours:
    """Colours of tokens: their places on the three axes along which a sample varies most.

    Args:
        tokens: The sample (n, D); a colour means the same in all pictures of the same `Colours`.

    Attributes:
        share: Share of the sample's variance that three axes hold.
    """

    def __init__(self, tokens: NDArray[np.float32]) -> None:
        self._mean = tokens.mean(axis=0, dtype=np.float64)
        centred = tokens - self._mean
        variances, axes = np.linalg.eigh(centred.T @ centred)  # ascending
        axes = axes[:, ::-1][:, :3]
        axes *= np.where(axes.sum(axis=0) < 0, -1, 1)  # an axis has no sign of its own
        self._axes = np.pad(axes, ((0, 0), (0, 3 - axes.shape[1])))  # (D, 3), zeros for D < 3
        self._limits = np.percentile(centred @ self._axes, STRETCH, axis=0)
        self.share = float(variances[-3:].sum() / max(variances.sum(), 1e-12))

    def __call__(self, y_hat: NDArray[np.float32]) -> NDArray[np.uint8]:
        """Embeddings (N, D, h, w) -> (N, h, w, 3)."""
        return _stretched((tokens_of(y_hat) - self._mean) @ self._axes, self._limits)


def side_by_side(
    images: list[NDArray[np.generic]], decoded: NDArray[np.float32]
) -> list[NDArray[np.uint8]]:
    """Draw each image, and right of it its decoded tokens as colours.

    Colours are the first three principal components over the tokens of all the images given, so
    that the same colour means the same thing in each of them.

    Args:
        images: (C, H, W) each, any type; its first three bands are red, green and blue.
        decoded: y_hat (N, D, h, w) of the same images.

    Returns:
        (H, W + W', 3) each, where W' is the grid's width at the height of the image.
    """
    grids = Colours(tokens_of(decoded).reshape(-1, decoded.shape[1]))(decoded)
    return [_pair(rgb(image), grid) for image, grid in zip(images, grids, strict=True)]


def has_grid(codec: Codec) -> bool:
    """Whether the positions of an embedding differ, so that there is something to look at."""
    pooled = isinstance(codec, LinearCodec) and all(band.pooled for band in codec.bands)
    return codec.shape[1:] != (1, 1) and not pooled


def tokens_of(y_hat: NDArray[np.float32]) -> NDArray[np.float32]:
    """Embeddings (N, D, h, w) -> (N, h, w, D)."""
    return y_hat.transpose(0, 2, 3, 1)


def rgb(image: NDArray[np.generic]) -> NDArray[np.uint8]:
    """Image (C, H, W) -> (H, W, 3); with fewer than three bands, the first becomes grey."""
    bands = (image[:3] if len(image) >= 3 else image[[0, 0, 0]]).transpose(1, 2, 0)
    if image.dtype == np.uint8:
        return bands.astype(np.uint8)
    pixels = np.nan_to_num(bands.astype(np.float64))
    return _stretched(pixels, np.percentile(pixels, STRETCH, axis=(0, 1)))


def enlarged(grid: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """Enlarge a grid (h, w, 3) to another size, each token a block."""
    rows = np.arange(height) * grid.shape[0] // height
    columns = np.arange(width) * grid.shape[1] // width
    return grid[rows][:, columns]


def _stretched(values: NDArray[np.float64], limits: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Map values (..., 3) between limits (2, 3) to 0..255."""
    low, high = limits
    return (255 * ((values - low) / np.maximum(high - low, 1e-12)).clip(0, 1)).astype(np.uint8)


def _pair(image: NDArray[np.uint8], grid: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Put a grid (h, w, 3), each token a block, right of an image (H, W, 3)."""
    height = image.shape[0]
    width = height * grid.shape[1] // grid.shape[0]
    return np.concatenate([image, enlarged(grid, height, width)], axis=1)
