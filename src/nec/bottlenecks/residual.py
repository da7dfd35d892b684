"""Residual coding: a second bottleneck codes what the first one leaves of an embedding."""

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

    A field of codes is the cheapest way to describe most of a token but cannot describe all of it;
    a transform continues from there to any rate. For a second codebook, use VQ as `fine`.

    Args:
        channels: D, the width of an embedding.
        grid: (h, w), number of token positions.
        coarse: Makes the coarse bottleneck; called with channels and grid.
        fine: Makes the fine bottleneck, fitted to residuals of train; called likewise.
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
        """Fit coarse to train embeddings (N, D, h, w), fine to residuals of images it has not seen.

        Residuals of the images that coarse is fitted to are smaller than those of others, so coarse
        is fitted to either half for those of the other, and to all in the end. On 28 images of UC
        Merced (target_bytes=200) unseen images take 384 bytes so, and 960 of residuals of all.
        """
        halves = (y[::2], y[1::2]) if len(y) > 1 else (y, y)
        left = []
        for seen, unseen in (halves, halves[::-1]):
            self.coarse.fit(seen)
            left += [self._left(block)[1] for block in unseen.split(SUMMED_IMAGES)]
        self.coarse.fit(y)
        self.fine.fit(torch.cat(left))

    def take(self, codec: Any) -> None:
        """Hand each bottleneck its part of the codec."""
        self.coarse.take(codec.parts[0])
        self.fine.take(codec.parts[1])

    def _quantize(self, y: Tensor) -> Tensor:
        """Return the coarse symbols, then the fine ones."""
        symbols, left = self._left(y)
        return torch.cat([symbols, self.fine.quantize(left)], dim=1)

    def export(self) -> Codec:
        """Return the codec of the sum."""
        return SumCodec((self.coarse.export(), self.fine.export()))

    def _left(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return the coarse symbols of embeddings, and the residual of decoding them."""
        symbols = self.coarse.quantize(y)
        return symbols, y.float() - self.coarse.dequantize(symbols)
