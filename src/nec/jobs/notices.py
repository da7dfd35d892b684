"""What a run says of its images before it begins: no error, but seldom meant."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from nec.data.images import Images
from nec.encoders import FULL_SCALE, Encoder

# Images all over a split that are looked at, and the share of the full scale below which the
# largest of their values is said: reflectances times 10,000 take 15 % of uint16.
LOOKED_AT = 8
DIM = 0.2


def say_missing(data: Any) -> None:
    """Name the classes of which a split has no image, if any, in one line.

    Of data with masks none: what is told apart there is pixels.
    """
    lines = []
    for split, images in data.datasets.items() if not data.mask_classes else ():
        found = set(images.labels)
        if names := [name for label, name in enumerate(data.classes) if label not in found]:
            lines.append(f"{split} has no image of {', '.join(names)}")
    if lines:
        print("; ".join(lines), flush=True)


def say_scale(images: Images, encoder: Encoder) -> None:
    """Say that images reach the encoder nearly black, or far brighter than white.

    That happens to reflectances times 10,000 if `encoder.full_scale` is left to their type.

    Args:
        images: Native images, of which a few are read.
        encoder: Encoder that will scale them.
    """
    if encoder.full_scale is not None or not len(images):
        return
    kind = images.read(0).dtype
    if kind == torch.uint8:  # dark scenes are no other unit
        return
    places = np.unique(np.linspace(0, len(images) - 1, LOOKED_AT).astype(int))
    largest = max(_largest(images.read(int(place))) for place in places)
    full = FULL_SCALE.get(kind, 1.0)
    far = largest > full / DIM if kind.is_floating_point else largest < DIM * full
    if far and largest > 0:
        print(
            f"images of {str(kind).removeprefix('torch.')} hold values up to {largest:.6g}, and "
            f"{full:.6g} stands for 1.0; if that is not meant, set encoder.full_scale, as to 10000 "
            "for reflectances",
            flush=True,
        )


def _largest(pixels: Tensor) -> float:
    """The largest finite value of an image; 0 if there is none."""
    values = pixels.float()
    return float(torch.where(values.isfinite(), values, 0).max())
