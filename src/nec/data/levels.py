"""The whole numbers that pixels are: of another size, and of the whole range of their type."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

Pixels = NDArray[Any]  # uint8 or uint16


def resized(image: Tensor, size: list[int]) -> Tensor:
    """Resize (C, H, W) of integers to another (H, W), rounded and clipped to their type.

    Bicubic, and antialiased where it becomes smaller.
    """
    if list(image.shape[1:]) == size:
        return image
    values = image.to(torch.int32).float()[None]  # exact, up to 2^24
    values = F.interpolate(values, size, mode="bicubic", antialias=True)[0]
    largest = torch.iinfo(image.dtype).max
    return values.round().clamp(0, largest).to(torch.int32).to(image.dtype)


def stretched(pixels: Pixels) -> tuple[Pixels, int]:
    """Multiply by a whole number, the largest that the type allows; return that too.

    Qualities of formats refer to the whole range of a type, of which reflectances in uint16 fill a
    small part. Of uint8 the number is 1.
    """
    if pixels.dtype == np.uint8:
        return pixels, 1
    gain = int(np.iinfo(pixels.dtype).max) // max(1, int(pixels.max()))
    return pixels * pixels.dtype.type(gain), gain


def shrunk(pixels: Pixels, gain: int) -> Pixels:
    """Divide by the number that pixels were multiplied by, and round."""
    return ((pixels.astype(np.int64) + gain // 2) // gain).astype(pixels.dtype)
