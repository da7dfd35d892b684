"""One vector per image, stored by another bottleneck."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from nec.bottlenecks.base import Bottleneck
from nec.bottlenecks.components import Components
from nec.store.codec import Codec


class Moments(Bottleneck):
    """Moments of an embedding over its grid, a vector that another bottleneck stores.

    Its y_hat is (moments * D, 1, 1): means, then standard deviations.

    Args:
        channels: D, the width of an embedding.
        grid: (h, w), number of token positions.
        vector: Makes the bottleneck of the vector; called with its width and the grid (1, 1).
        moments: 1: means alone. 2: means and standard deviations.
    """

    def __init__(
        self,
        channels: int,
        grid: tuple[int, int],
        vector: Callable[[int, tuple[int, int]], Bottleneck],
        moments: int = 2,
    ) -> None:
        super().__init__(channels, grid)
        if moments not in (1, 2):
            raise ValueError(
                f"moments is {moments}; it is 1, means alone, or 2, with standard deviations, set "
                "bottleneck.moments"
            )
        self.moments = moments
        self.vector = vector(moments * channels, (1, 1))

    @property
    def shape(self) -> tuple[int, int, int]:
        """(moments * D, 1, 1)."""
        return self.vector.shape

    def _fit(self, y: Tensor) -> None:
        """Fit the inner bottleneck to the vectors of train embeddings (N, D, h, w)."""
        self.vector.fit(self._pooled(y))

    def take(self, codec: Any) -> None:
        """Hand the codec to the inner bottleneck."""
        self.vector.take(codec)

    def _quantize(self, y: Tensor) -> Tensor:
        """Return the inner bottleneck's symbols (B, L)."""
        return self.vector.quantize(self._pooled(y))

    def export(self) -> Codec:
        """Return the inner bottleneck's codec, for a grid of one position."""
        return self.vector.export()

    def _pooled(self, y: Tensor) -> Tensor:
        """(B, D, h, w) -> (B, moments * D, 1, 1) float32."""
        positions = y.float().flatten(2)
        found = [positions.mean(dim=2), positions.std(dim=2, correction=0)][: self.moments]
        return torch.cat(found, dim=1)[:, :, None, None]


class Pooled(Moments):
    """One vector per image: moments over the grid, standardized, PCA, one step, entropy-coded.

    This is what most embedding products ship.

    Args:
        channels: D, the width of an embedding.
        grid: (h, w), number of token positions.
        components: Principal components kept, at most the vector's width.
        step: Quantizer step, in standard deviations of the standardized vector.
        moments: 1: means alone. 2: means and standard deviations.
    """

    def __init__(
        self,
        channels: int,
        grid: tuple[int, int],
        components: int = 64,
        step: float = 1.0,
        moments: int = 2,
    ) -> None:
        vector = partial(Components, components=components, step=step)
        super().__init__(channels, grid, vector, moments)
