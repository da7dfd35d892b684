"""Bottlenecks that store the embedding as floats."""

import torch
from torch import Tensor

from nec.bottlenecks.base import Bottleneck
from nec.store.codec import Codec, RawCodec
from nec.store.packing import PLAIN, Packing


class Identity(Bottleneck):
    """The embedding as float32, the bound that every other bottleneck is compared with.

    Args:
        channels: D, the width of an embedding.
        grid: (h, w), number of token positions.
        packing: How the bytes of floats are stored.
    """

    def __init__(self, channels: int, grid: tuple[int, int], packing: Packing = PLAIN) -> None:
        super().__init__(channels, grid)
        self.packing = packing

    def _fit(self, y: Tensor) -> None:
        """Fit nothing."""

    def _quantize(self, y: Tensor) -> Tensor:
        """Return the bit patterns of the float32 values as int32 (B, D * h * w)."""
        return y.flatten(1).contiguous().view(torch.int32)

    def export(self) -> Codec:
        """Return the codec of raw float32."""
        return RawCodec(self.shape, "float32", self.packing)


class Float16(Identity):
    """The embedding rounded to float16; values beyond its range saturate."""

    def _quantize(self, y: Tensor) -> Tensor:
        """Return the bit patterns of the float16 values, 0 to 65535, as int32 (B, D * h * w)."""
        largest = torch.finfo(torch.float16).max
        halves = y.clamp(-largest, largest).half().flatten(1).contiguous()
        return halves.view(torch.int16).int() & 0xFFFF

    def export(self) -> Codec:
        """Return the codec of raw float16."""
        return RawCodec(self.shape, "float16", self.packing)
