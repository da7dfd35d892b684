"""Large images with masks, cut into square crops; folds leave groups of them out."""

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import ClassVar

from torch import Tensor

from nec.data.files import data_root
from nec.data.images import ImageDataModule, ImageError
from nec.data.masks import Legend
from nec.data.parts import CropImages, Part, check, cuts, find_part, is_image
from nec.data.rasters import SUFFIXES, PixelType
from nec.data.splits import SPLITS


class Crops(ImageDataModule):
    """Crops of images root/<group>/images/*, with masks of the same names in root/<group>/masks/*.

    Images of any size, of one band count and type, are cut from the upper left; what does not fill
    a crop is left out. Fold k tests on group k, validates on the next (the first after the last)
    and trains on all others; groups are sorted by name. A crop's label is its group, so what tells
    scenes apart cannot be learned from it.

    Args:
        root: Folder of the groups; None means $NEC_DATA/crops.
        legend: Name of each class -> its code in masks, all "#RRGGBB" or all numbers.
        ignored: Codes of pixels that count nowhere, in the same form; None: 255 if codes are
            other numbers, none if 255 is a class or they are colours.
        crop: Side of a crop, pixels.
        transform: Preprocessing for an encoder, native (C, H, W) -> (C, S, S); None for none.
        batch_size: Crops in a batch.
        workers: Processes that read images.
        split: Number k of the fold.
        seed: Seed of the order of the train batches.

    Raises:
        ValueError: The legend or the crop is invalid.
    """

    def __init__(
        self,
        legend: Mapping[str, str | int],
        root: str | None = None,
        ignored: Sequence[str | int] | None = None,
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
        """All images and their masks, sorted by group and name.

        Raises:
            FileNotFoundError: There is no image, or an image has no mask or several.
            ValueError: An image is smaller than a crop, of another type than the first, or of
                another size than its mask.
        """
        root = data_root(self.root, self.name or "crops")
        images = [path for path in sorted(root.glob("*/images/*")) if is_image(path)]
        parts = [find_part(path) for path in images]
        if not parts:
            raise FileNotFoundError(
                f"no image in {root} (looked for <group>/images/* with {' '.join(SUFFIXES)}); lay "
                "images out so, masks in <group>/masks/, or give data.root=FOLDER"
            )
        for part, before in zip(parts, [None, *parts[:-1]], strict=True):
            if before and part.mask == before.mask:
                raise ImageError(f"{before.image} and {part.image} have one mask; rename or remove")
            check(part, parts[0], self.crop)
        return parts

    @property
    def classes(self) -> list[str]:
        """Names of the groups, ascending: a crop's label is its group."""
        return sorted({part.group for part in self.parts})

    @property
    def type(self) -> PixelType:
        """Pixel type of every image."""
        return self.parts[0].header.type

    @property
    def bands(self) -> int:
        """Number of channels of every image."""
        return self.type.bands

    @property
    def raw_bytes_per_pixel(self) -> int:
        """Bytes of a pixel, over all bands."""
        return self.type.bytes_per_pixel

    @property
    def native_pixels(self) -> int:
        """Number of pixels of a crop."""
        return self.crop**2

    def load_splits(self) -> dict[str, CropImages]:
        """Return the crops of each split of the fold.

        Raises:
            ValueError: There are too few groups, or there is no such fold.
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
        crops = [crop for part in parts for crop in cuts(part, self.crop)]
        labels = [names.index(crop.part.group) for crop in crops]
        return CropImages(crops, labels, self.crop, self.legend)


class Dubai(Crops):
    """Aerial images of Dubai with masks of five classes: 8 tiles of 9 parts each.

    "Semantic segmentation of aerial imagery" by Humans in the Loop (CC0), as it is distributed:
    root/Tile 1/images/image_part_001.jpg, root/Tile 1/masks/image_part_001.png. Colours are those
    of the masks; the classes.json that comes with them names others.

    Args:
        root: Folder of the tiles; None means $NEC_DATA/dubai.
        crop: Side of a crop, pixels.
        transform: Preprocessing for an encoder, native (C, H, W) -> (C, S, S); None for none.
        batch_size: Crops in a batch.
        workers: Processes that read images.
        split: Number of the fold: the tile to test on, from 0.
        seed: Seed of the order of the train batches.
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
