"""What every set of images has in common: what an image is and how it is identified."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from torch import Tensor
from torch.utils.data import Dataset

from nec.data.pixels import PixelCodec
from nec.data.splits import SplitDataModule

# Class number of pixels that count nowhere.
IGNORED = 255


class ImageError(ValueError):
    """An image that cannot be used, in one line.

    A worker process puts a traceback in front of its errors; only the message is kept.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message.rpartition("ImageError: ")[2].strip())


class Whole(NamedTuple):
    """A larger image, and where in it an image was cut out."""

    name: str
    pixels: Tensor  # (C, H, W), shared: copy before a change
    top: int
    left: int


class Images(Dataset, ABC):
    """The images of one split, in a fixed order; an item is a dict(image, label, id).

    Where the set has masks, an item also holds `mask`.

    Args:
        ids: Name of every image, unique in the whole data set.
        labels: Class of every image, 0 to classes - 1.
        groups: What every image is a part of; images of a group are not independent samples. None:
            every image is a group of its own, named by its id.
    """

    def __init__(
        self, ids: Sequence[str], labels: Sequence[int], groups: Sequence[str] | None = None
    ) -> None:
        self.ids = list(ids)
        self.labels = [int(label) for label in labels]
        self.groups = self.ids if groups is None else list(groups)

    @abstractmethod
    def read(self, index: int) -> Tensor:
        """Return the native pixels of an image: (C, H, W) uint8, uint16, int16 or float32."""

    @abstractmethod
    def stamp(self, index: int) -> str:
        """Return what changes with the pixels behind an id, as a file's size and time or a seed."""

    def read_mask(self, index: int) -> Tensor | None:
        """Return the class of every pixel, (H, W) uint8, 255 if ignored; None without masks."""
        return None

    def any_counts(self) -> bool:
        """Whether any pixel of any mask counts; mostly the first mask settles it."""
        masks = (self.read_mask(index) for index in range(len(self)))
        return any(mask is not None and bool((mask != IGNORED).any()) for mask in masks)

    def whole(self, index: int) -> Whole | None:
        """Return what an image was cut out of; None if it is whole itself."""
        return None

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> dict[str, Any]:
        item = {"image": self.read(index), "label": self.labels[index], "id": self.ids[index]}
        mask = self.read_mask(index)
        return item if mask is None else {**item, "mask": mask}


class Transformed(Dataset):
    """Images after a transform; an error of the transform names the image.

    Args:
        images: Native images.
        transform: Maps (C, H, W) of any size to what a batch is made of; None leaves them native.
    """

    def __init__(self, images: Images, transform: Callable[[Tensor], Tensor] | None) -> None:
        self.images = images
        self.transform = transform

    @property
    def ids(self) -> list[str]:
        """Name of every image."""
        return self.images.ids

    @property
    def labels(self) -> list[int]:
        """Class of every image."""
        return self.images.labels

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict[str, Any]:
        item = self.images[index]
        if self.transform is None:
            return item
        try:
            return {**item, "image": self.transform(item["image"])}
        except ValueError as error:
            raise ImageError(f"image {item['id']!r}: {error}") from error


class ImageDataModule(SplitDataModule):
    """Images in splits; batches are image (B, C, S, S), label (B,) int64 and id, a list of B str.

    If the set has masks, they also hold mask (B, H, W) uint8, of the images before the transform.

    A subclass gives `load_splits`, which returns `Images`, and the four attributes (or properties).

    Attributes:
        classes: Name of every class, in the order of the labels.
        mask_classes: Name of every class of pixels, in the order of a mask's numbers; empty if
            images have no masks.
        bands: Number of channels C of every image.
        raw_bytes_per_pixel: Number of bands × bytes of the source's type.
        native_pixels: H · W of an image as it lies on disk; where that varies, the subclass
            overrides `pixels_up_to` instead.
        pixel_codec: Codec that images passed through; None if they are as they lie on disk.

    Args:
        transform: Preprocessing for an encoder, native (C, H, W) -> (C, S, S); None for none.
        batch_size: Images in a batch, over all devices.
        workers: Processes that read images.
        split: Number of the split; 0 is the data set's own where it has one.
        seed: Seed of the order of the train batches.
    """

    classes: list[str]
    mask_classes: Sequence[str] = ()
    bands: int
    raw_bytes_per_pixel: int
    native_pixels: int
    pixel_codec: PixelCodec | None = None

    def __init__(
        self,
        transform: Callable[[Tensor], Tensor] | None = None,
        batch_size: int = 32,
        workers: int = 0,
        split: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size, workers, seed)
        if split < 0:
            raise ValueError(f"data.split={split} is negative; give 0 or the number of a split")
        self.transform = transform
        self.split = split

    def pixels_up_to(self, limit: int) -> int:
        """Return the pixels of an image, at most a limit; if they vary, a mean over test images."""
        return min(self.native_pixels, limit)

    def prepare_data(self) -> None:
        """List the images, and download them if asked to, on one process first."""
        _ = self.datasets

    @property
    def datasets(self) -> dict[str, Dataset]:
        """The images of each split, transformed."""
        if self._datasets is None:
            native = super().datasets
            self._datasets = {k: Transformed(v, self.transform) for k, v in native.items()}
        return self._datasets
