"""Residual coding: what one bottleneck leaves of an embedding, another one codes."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from nec.bottlenecks.base import SUMMED_IMAGES, Bottleneck
from nec.bottlenecks.transform import Transform
from nec.bottlenecks.vq import VQ
from nec.store.codec import Codec, SumCodec


class Residual(Bottleneck):
    """A coarse bottleneck, and a fine one for what it leaves; y_hat is their sum.

    A field of codes is the cheapest way to say most of a token and cannot say all of it; a
    transform goes on from there to any rate. A second codebook is `fine` = VQ.

    Args:
        channels: D, the width of an embedding.
        grid: (h, w), its positions.
        coarse: Called with channels and grid.
        fine: Likewise, fitted to what the coarse one leaves of train.
    """

    def __init__(
        self,
        channels: int,
        grid: tuple[int, int],
        coarse: Callable[[int, tuple[int, int]], Bottleneck] = VQ,
        fine: Callable[[int, tuple[int, int]], Bottleneck] = Transform,
    ) -> None:
        super().__init__(channels, grid)
        self.coarse, self.fine = coarse(channels, grid), fine(channels, grid)
        for name, part in (("coarse", self.coarse), ("fine", self.fine)):
            if part.shape != self.shape:
                raise ValueError(
                    f"the {name} part is a {type(part).__name__} and makes {part.shape} of "
                    f"{self.shape}; a sum takes what keeps the grid, set bottleneck.{name}._target_"
                )

    def _fit(self, y: Tensor) -> None:
        """Fit one after the other to train embeddings (N, D, h, w)."""
        self.coarse.fit(y)
        self.fine.fit(torch.cat([self._left(block)[1] for block in y.split(SUMMED_IMAGES)]))

    def take(self, codec: Any) -> None:
        """What each of them takes of its own part."""
        self.coarse.take(codec.parts[0])
        self.fine.take(codec.parts[1])

    def _quantize(self, y: Tensor) -> Tensor:
        """Symbols of the coarse one, then of the fine one."""
        symbols, left = self._left(y)
        return torch.cat([symbols, self.fine.quantize(left)], dim=1)

    def export(self) -> Codec:
        """Their sum."""
        return SumCodec((self.coarse.export(), self.fine.export()))

    def _left(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """The coarse symbols of embeddings, and what these leave of them."""
        symbols = self.coarse.quantize(y)
        return symbols, y.float() - self.coarse.dequantize(symbols)
