"""Two layers of one embedding: a pooled vector for scenes beside a grid for places."""

from collections.abc import Callable
from functools import partial

from torch import Tensor

from nec.bottlenecks.base import Bottleneck
from nec.bottlenecks.pooled import Pooled
from nec.bottlenecks.vq import VQ
from nec.store.codec import Codec
from nec.store.schema import EMBEDDING

POOLED = "pooled"  # name of the vector's layer
# 40 bytes on UC Merced; at a step of 1.8 it loses twice as much (experiments/frontier_ucmerced).
COARSE = partial(Pooled, components=128, step=1.0)


class Layered(Bottleneck):
    """A grid of tokens and a pooled vector, stored as two layers; a consumer reads what it needs.

    Neither is needed to decode the other: coding the grid as its remainder after the pooled mean
    took more bytes and served worse than coding it whole (docs/design.md).

    Methods that concern a single layer use the tokens.

    Args:
        channels: D, the width of an embedding.
        grid: (h, w), number of token positions.
        tokens: Makes the bottleneck of the grid; called with channels and grid.
        pooled: Makes the bottleneck of the vector; called with channels and grid.
    """

    def __init__(
        self,
        channels: int,
        grid: tuple[int, int],
        tokens: Callable[[int, tuple[int, int]], Bottleneck] = VQ,
        pooled: Callable[[int, tuple[int, int]], Bottleneck] = COARSE,
    ) -> None:
        super().__init__(channels, grid)
        self.tokens, self.pooled = tokens(channels, grid), pooled(channels, grid)
        if self.pooled.shape[1:] != (1, 1):
            raise ValueError(
                f"the pooled layer is a {type(self.pooled).__name__} of shape {self.pooled.shape}; "
                "it is one vector an image, set bottleneck.pooled._target_=nec.bottlenecks.Pooled"
            )

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of the tokens' y_hat."""
        return self.tokens.shape

    def layers(self) -> dict[str, Bottleneck]:
        """Return the bottlenecks of the tokens and of the pooled vector."""
        return {EMBEDDING: self.tokens, POOLED: self.pooled}

    def _fit(self, y: Tensor) -> None:
        """Fit both layers to train embeddings (N, D, h, w)."""
        for layer in self.layers().values():
            layer.fit(y)

    def _quantize(self, y: Tensor) -> Tensor:
        """Symbols (B, L) of the tokens."""
        return self.tokens.quantize(y)

    def export(self) -> Codec:
        """Return the codec of the tokens."""
        return self.tokens.export()
