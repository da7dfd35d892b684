"""Large images with masks, cut into square crops; folds leave groups of them out."""

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from nec.data.files import (
    SUFFIXES,
    Header,
    PixelType,
    data_root,
    read_header,
    read_pixels,
    reading,
)
from nec.data.images import SPLITS, ImageDataModule, ImageError, Images, Whole
from nec.data.masks import IGNORED, Legend


class Part(NamedTuple):
    """A large image and its mask."""

    group: str
    image: Path
    mask: Path
    header: Header


class Crop(NamedTuple):
    """A square of a part; its upper left pixel."""

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
    """(C, H, W), shared: copy what is given away."""
    return read_pixels(path)[1]


@lru_cache(maxsize=4)
def _mask(path: Path, legend: Legend) -> np.ndarray:
    """(H, W) uint8, shared likewise."""
    return legend.read(path)


class CropImages(Images):
    """Crops of one split, at native resolution, with their masks.

    Args:
        crops: What to cut out.
        labels: Class of every crop.
        side: Of a crop, pixels.
        legend: What masks mean.
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
        """The image that a crop is of; its crops follow each other in the order of ids."""
        part, top, left = self.crops[index]
        return Whole(str(part.image), torch.from_numpy(_pixels(part.image)), top, left)

    def stamp(self, index: int) -> str:
        """Size and time of the image's file, and the crop's side; its place is in the id."""
        status = self.crops[index].part.image.stat()
        return f"{status.st_size} {status.st_mtime_ns} {self.side}"

    def _cut(self, index: int, whole: np.ndarray) -> Tensor:
        _, top, left = self.crops[index]
        return torch.from_numpy(whole[..., top : top + self.side, left : left + self.side].copy())


class Crops(ImageDataModule):
    """Crops of images root/<group>/images/*, with masks of the same names in root/<group>/masks/*.

    Images of any size, of one band count and type, are cut from the upper left; what does not fill
    a crop is left out. Fold k tests on group k, validates on the next (the first after the last)
    and trains on all others; groups are sorted by name. A crop's label is its group, so what tells
    scenes apart cannot be learned from it.

    Args:
        root: Holds the groups; None means $NEC_DATA/crops.
        legend: Name of each class -> what stands for it in masks, all "#RRGGBB" or all numbers.
        ignored: What stands for pixels that count nowhere, likewise.
        crop: Side of a crop, pixels.
        transform: What an encoder does to pixels, native (C, H, W) -> (C, S, S); None: nothing.
        batch_size: Crops in a batch.
        workers: Processes that read images.
        split: k, number of the fold.
        seed: Of the order of the train batches.

    Raises:
        ValueError: A legend or a crop of no meaning.
    """

    def __init__(
        self,
        legend: Mapping[str, str | int],
        root: str | None = None,
        ignored: Sequence[str | int] = (IGNORED,),
        crop: int = 224,
        transform: Callable[[Tensor], Tensor] | None = None,
        batch_size: int = 32,
        workers: int = 0,
        split: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(transform, batch_size, workers, split, seed)
        if crop < 1:
            raise ValueError(f"crop is {crop}; a crop has a pixel or more, set data.crop=224")
        self.legend = Legend.of(legend, ignored)
        self.root = root
        self.crop = crop

    @property
    def mask_classes(self) -> Sequence[str]:
        """Names in the legend."""
        return self.legend.names

    @cached_property
    def parts(self) -> list[Part]:
        """All images and their masks, by group and name.

        Raises:
            FileNotFoundError: No image where one is looked for, or no mask of one.
            ValueError: An image smaller than a crop, of another type than the first, or of another
                size than its mask.
        """
        root = data_root(self.root, self.name or "crops")
        images = [path for path in sorted(root.glob("*/images/*")) if _is_image(path)]
        parts = [_part(path) for path in images]
        if not parts:
            raise FileNotFoundError(
                f"no image in {root} (looked for <group>/images/* with {' '.join(SUFFIXES)}); lay "
                "images out so, masks in <group>/masks/, or give data.root=FOLDER"
            )
        for part, before in zip(parts, [None, *parts[:-1]], strict=True):
            if before and part.mask == before.mask:
                raise ImageError(f"{before.image} and {part.image} have one mask; rename or remove")
            _check(part, parts[0], self.crop)
        return parts

    @property
    def classes(self) -> list[str]:
        """Names of the groups, ascending: a crop's label is its group."""
        return sorted({part.group for part in self.parts})

    @property
    def type(self) -> PixelType:
        """Of every image."""
        return self.parts[0].header.type

    @property
    def bands(self) -> int:
        """Channels of every image."""
        return self.type.bands

    @property
    def raw_bytes_per_pixel(self) -> int:
        """Bands × bytes of their type."""
        return self.type.bands * np.dtype(self.type.dtype).itemsize

    @property
    def native_pixels(self) -> int:
        """Of a crop."""
        return self.crop**2

    def load_splits(self) -> dict[str, CropImages]:
        """The crops of a fold's splits.

        Raises:
            ValueError: Too few groups, or a fold that there is not.
        """
        count = len(self.classes)
        if count < len(SPLITS):
            raise ValueError(
                f"{count} groups of images ({', '.join(self.classes)}); one to test, one to "
                "validate and one to train on are needed, lay images out in three groups or more"
            )
        if self.split >= count:
            raise ValueError(
                f"data.split={self.split}, but {count} groups have folds 0 to {count - 1}; give "
                "one of them"
            )
        validated = (self.split + 1) % count
        chosen = {"test": [self.split], "val": [validated]}
        chosen["train"] = [g for g in range(count) if g not in (self.split, validated)]
        return {split: self._images(chosen[split]) for split in SPLITS}

    def _images(self, groups: Sequence[int]) -> CropImages:
        names = self.classes
        parts = [part for part in self.parts if names.index(part.group) in groups]
        crops = [crop for part in parts for crop in _cuts(part, self.crop)]
        labels = [names.index(crop.part.group) for crop in crops]
        return CropImages(crops, labels, self.crop, self.legend)


class Dubai(Crops):
    """Aerial images of Dubai with masks of five classes: 8 tiles of 9 parts each.

    "Semantic segmentation of aerial imagery" by Humans in the Loop (CC0), as it is distributed:
    root/Tile 1/images/image_part_001.jpg, root/Tile 1/masks/image_part_001.png. Colours are those
    of the masks; the classes.json that comes with them names others.

    Args:
        root: Holds the tiles; None means $NEC_DATA/dubai.
        crop: Side of a crop, pixels.
        transform: What an encoder does to pixels, native (C, H, W) -> (C, S, S); None: nothing.
        batch_size: Crops in a batch.
        workers: Processes that read images.
        split: Number of the fold: the tile to test on, from 0.
        seed: Of the order of the train batches.
    """

    name: ClassVar[str] = "dubai"
    colours: ClassVar[dict[str, str | int]] = {
        "land": "#8429F6",
        "water": "#E2A929",
        "building": "#3C1098",
        "vegetation": "#FEDD3A",
        "road": "#6EC1E4",
    }
    unlabeled: ClassVar[tuple[str, ...]] = ("#9B9B9B", "#000000")

    def __init__(
        self,
        root: str | None = None,
        crop: int = 224,
        transform: Callable[[Tensor], Tensor] | None = None,
        batch_size: int = 32,
        workers: int = 0,
        split: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(
            self.colours, root, self.unlabeled, crop, transform, batch_size, workers, split, seed
        )


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


def _part(image: Path) -> Part:
    group = image.parent.parent
    masks = [path for path in sorted((group / "masks").glob("*")) if path.stem == image.stem]
    if len(masks) != 1:
        raise FileNotFoundError(
            f"{image} has {len(masks)} masks in {group / 'masks'}; it needs one file of its name, "
            f"as {image.stem}.png"
        )
    return Part(group.name, image, masks[0], read_header(image))


def _check(part: Part, first: Part, side: int) -> None:
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
    with reading(part.mask), Image.open(part.mask) as mask:
        if mask.size != (width, height):
            raise ImageError(
                f"mask {part.mask} has {mask.height} x {mask.width} pixels, its image {height} x "
                f"{width}; a mask names every pixel, mend or remove both"
            )


def _cuts(part: Part, side: int) -> list[Crop]:
    """All crops of a part, row by row."""
    height, width, _ = part.header
    tops, lefts = range(0, height - side + 1, side), range(0, width - side + 1, side)
    return [Crop(part, top, left) for top in tops for left in lefts]
