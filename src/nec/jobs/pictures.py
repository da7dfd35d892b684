"""Pictures of embeddings: an image beside the first three principal components of its tokens."""

import numpy as np
from numpy.typing import NDArray

# Percentiles that become black and white.
STRETCH = (2.0, 98.0)


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
    tokens = decoded.transpose(0, 2, 3, 1)  # (N, h, w, D)
    colours = _stretched(_components(tokens.reshape(-1, tokens.shape[-1])))
    grids = colours.reshape(*tokens.shape[:3], 3)
    return [_pair(_rgb(image), grid) for image, grid in zip(images, grids, strict=True)]


def _components(tokens: NDArray[np.float32]) -> NDArray[np.float64]:
    """Tokens (n, D) on their first three principal axes (n, 3), zeros where D is smaller."""
    centred = tokens - tokens.mean(axis=0, dtype=np.float64)
    _, axes = np.linalg.eigh(centred.T @ centred)  # ascending
    axes = axes[:, ::-1][:, :3]
    axes *= np.where(axes.sum(axis=0) < 0, -1, 1)  # an axis has no sign of its own
    found = centred @ axes
    return np.pad(found, ((0, 0), (0, 3 - found.shape[1])))


def _rgb(image: NDArray[np.generic]) -> NDArray[np.uint8]:
    """Image (C, H, W) -> (H, W, 3); of fewer than three bands the first is grey."""
    bands = image[:3] if len(image) >= 3 else image[[0, 0, 0]]
    height, width = bands.shape[1:]
    pixels = bands.transpose(1, 2, 0).reshape(-1, 3).astype(np.float64)
    if image.dtype == np.uint8:
        return pixels.astype(np.uint8).reshape(height, width, 3)
    return _stretched(pixels).reshape(height, width, 3)


def _stretched(values: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Columns (n, 3) between their percentiles to 0..255."""
    low, high = np.percentile(values, STRETCH, axis=0)
    return (255 * ((values - low) / np.maximum(high - low, 1e-12)).clip(0, 1)).astype(np.uint8)


def _pair(image: NDArray[np.uint8], grid: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Put a grid (h, w, 3), each token a block, right of an image (H, W, 3)."""
    height = image.shape[0]
    rows = np.arange(height) * grid.shape[0] // height
    width = height * grid.shape[1] // grid.shape[0]
    columns = np.arange(width) * grid.shape[1] // width
    return np.concatenate([image, grid[rows][:, columns]], axis=1)
