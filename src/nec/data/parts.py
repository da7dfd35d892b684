"""Large images with masks, and the squares that are cut out of them."""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from nec.data.images import ImageError, Images, Whole
from nec.data.masks import Legend
from nec.data.pillow import opened
from nec.data.rasters import SUFFIXES, Header, read_header, read_pixels, reading

# Files that lie beside an image and are none.
SIDECARS = (".tfw", ".jgw", ".pgw", ".bpw", ".wld", ".prj", ".xml", ".ovr")


class Part(NamedTuple):
    """A large image and its mask."""

    group: str
    image: Path
    mask: Path
    header: Header


class Crop(NamedTuple):
    """A square of a part, by its upper left pixel."""

    part: Part
    top: int
    left: int

    @property
    def id(self) -> str:
        """Group, name of the image, first row and column."""
        return f"{self.part.group}/{self.part.image.stem}/{self.top:05d}_{self.left:05d}"


# Crops are asked for in the order of their parts, a few workers at a time: a part is decoded once.
@lru_cache(maxsize=4)
def _pixels(path: Path) -> np.ndarray:
    """Read the image (C, H, W); it is shared, so what is handed out must be a copy."""
    return read_pixels(path)[1]


@lru_cache(maxsize=4)
def _mask(path: Path, legend: Legend) -> np.ndarray:
    """Read the class numbers (H, W) uint8; they are shared, too."""
    return legend.read(path)


class CropImages(Images):
    """Crops of one split, at native resolution, with their masks.

    Args:
        crops: What to cut out.
        labels: Class of every crop.
        side: Side of a crop, pixels.
        legend: What the codes in masks mean.
    """

    def __init__(
        self, crops: Sequence[Crop], labels: Sequence[int], side: int, legend: Legend
    ) -> None:
        groups = [crop.part.group for crop in crops]
        super().__init__([crop.id for crop in crops], labels, groups)
        self.crops = list(crops)
        self.side = side
        self.legend = legend

    def read(self, index: int) -> Tensor:
        """Pixels of a crop (C, side, side)."""
        return self._cut(index, _pixels(self.crops[index].part.image))

    def read_mask(self, index: int) -> Tensor:
        """Class numbers (side, side) uint8, 255 where ignored."""
        return self._cut(index, _mask(self.crops[index].part.mask, self.legend))

    def whole(self, index: int) -> Whole:
        """Return the image that a crop is cut from; its crops are adjacent in the order of ids."""
        part, top, left = self.crops[index]
        return Whole(str(part.image), torch.from_numpy(_pixels(part.image)), top, left)

    def stamp(self, index: int) -> str:
        """Size and time of the image's file, and the crop's side; its place is in the id."""
        status = self.crops[index].part.image.stat()
        return f"{status.st_size} {status.st_mtime_ns} {self.side}"

    def _cut(self, index: int, whole: np.ndarray) -> Tensor:
        _, top, left = self.crops[index]
        return torch.from_numpy(whole[..., top : top + self.side, left : left + self.side].copy())


def is_image(path: Path) -> bool:
    """Whether a file is meant to be an image; hidden files are not."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


def find_part(image: Path) -> Part:
    """Return the part made of <group>/images/NAME and its mask <group>/masks/NAME.

    Raises:
        FileNotFoundError: The image has no mask, or several.
        ImageError: The image cannot be read.
    """
    group = image.parent.parent
    named = [path for path in sorted((group / "masks").glob("*")) if path.stem == image.stem]
    masks = [path for path in named if path.suffix.lower() not in SIDECARS]
    if len(masks) != 1:
        raise FileNotFoundError(
            f"{image} has {len(masks)} masks in {group / 'masks'}; it needs one file of its name, "
            f"as {image.stem}.png"
        )
    return Part(group.name, image, masks[0], read_header(image))


def check(part: Part, first: Part, side: int) -> None:
    """Refuse a part that cannot be cut into crops of this side (pixels) like the first part.

    Raises:
        ImageError: It is of another type than the first or smaller than a crop, or its mask is of
            another size.
    """
    height, width, found = part.header
    if found != first.header.type:
        raise ImageError(
            f"{part.image} has {found}, {first.image} has {first.header.type}; images of a set are "
            "of one type, convert or remove the file"
        )
    if min(height, width) < side:
        raise ImageError(
            f"{part.image} has {height} x {width} pixels, a crop {side} x {side}; remove it or set "
            f"data.crop={min(height, width)}"
        )
    with reading(part.mask), opened(part.mask) as mask:
        if mask.size != (width, height):
            raise ImageError(
                f"mask {part.mask} has {mask.height} x {mask.width} pixels, its image {height} x "
                f"{width}; a mask names every pixel, mend or remove both"
            )


def cuts(part: Part, side: int) -> list[Crop]:
    """Return all crops of a part, row by row."""
    height, width, _ = part.header
    tops, lefts = range(0, height - side + 1, side), range(0, width - side + 1, side)
    return [Crop(part, top, left) for top in tops for left in lefts]
