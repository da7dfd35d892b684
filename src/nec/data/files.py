"""Image files in class folders: find them, and split them."""

import os
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from nec.data.images import ImageDataModule, ImageError, Images
from nec.data.rasters import SUFFIXES, PixelType, read_header, read_pixels
from nec.data.splits import hash_split


class Listing(NamedTuple):
    """Images in class folders, by class and then by path, whatever the order on disk.

    Attributes:
        root: What ids are relative to.
        classes: Names of the class folders, ascending.
        ids: Path of every image relative to root, with "/" on every system.
        labels: Class of every image.
        parts: Which folder of class folders every image is in; "" is root itself.
        hashed: What a split by hash goes by: the id without its class folder, so that a data set
            has the same splits wherever its class folders lie.
    """

    root: Path
    classes: list[str]
    ids: list[str]
    labels: list[int]
    parts: list[str]
    hashed: list[str]


class ImageFiles(Images):
    """Images that lie in files, all of one type.

    JPEG is decoded by Pillow, as torchvision does (GDAL rebuilds subsampled colour otherwise, up to
    38 levels apart on EuroSAT), all else by GDAL.

    Args:
        root: What ids are relative to.
        ids: Path of every image.
        labels: Class of every image.
        type: What every image must be.
    """

    def __init__(
        self, root: Path, ids: Sequence[str], labels: Sequence[int], type: PixelType
    ) -> None:
        super().__init__(ids, labels)
        self.root = root
        self.type = type

    def read(self, index: int) -> Tensor:
        """Pixels of an image as they lie in its file.

        Raises:
            ImageError: The file cannot be read, or has another type.
        """
        path = self.root / self.ids[index]
        found, pixels = read_pixels(path)
        if found != self.type:
            raise ImageError(
                f"{path} has {found}, the data set has {self.type}; convert or remove the file"
            )
        return torch.from_numpy(pixels)

    def stamp(self, index: int) -> str:
        """Size and time of the image's file."""
        status = (self.root / self.ids[index]).stat()
        return f"{status.st_size} {status.st_mtime_ns}"

    def pixels_up_to(self, limit: int) -> int:
        """Mean over the images of H · W, each no more than a limit; reads headers alone."""
        headers = (read_header(self.root / name) for name in self.ids)
        return round(sum(min(h.height * h.width, limit) for h in headers) / len(self))


class FileDataModule(ImageDataModule):
    """Images in class folders, wherever those come from.

    A subclass says where (`listing`), of which type (`type`) and, where a data set has a split of
    its own, which (`own_split`). All other splits go by hash.
    """

    @property
    @abstractmethod
    def listing(self) -> Listing:
        """All images."""

    @property
    @abstractmethod
    def type(self) -> PixelType:
        """What every image must be."""

    def own_split(self) -> dict[str, list[int]] | None:
        """Indices of each split as the data set itself has them; None where it has none."""
        return None

    def load_splits(self) -> dict[str, ImageFiles]:
        """The images of each split."""
        found = self.listing
        split = self.own_split() if self.split == 0 else None
        if split is None:
            split = hash_split(found.hashed, found.labels, self.split)
        return {name: self._images(indices) for name, indices in split.items()}

    def _images(self, indices: Sequence[int]) -> ImageFiles:
        found = self.listing
        ids, labels = [found.ids[i] for i in indices], [found.labels[i] for i in indices]
        return ImageFiles(found.root, ids, labels, self.type)

    @property
    def classes(self) -> list[str]:
        """Names of the class folders."""
        return self.listing.classes

    @property
    def bands(self) -> int:
        """Channels of every image."""
        return self.type.bands

    @property
    def raw_bytes_per_pixel(self) -> int:
        """Bands × bytes of their type."""
        return self.type.bands * np.dtype(self.type.dtype).itemsize

    def pixels_up_to(self, limit: int) -> int:
        """Of the test images, whose bytes are what is reported, rounded."""
        return self.datasets["test"].images.pixels_up_to(limit)


def data_root(root: str | None, name: str) -> Path:
    """The folder that holds a data set, which may not exist yet.

    Args:
        root: As configured; None means $NEC_DATA/<name>.
        name: Of the data set.

    Raises:
        ValueError: Neither root nor NEC_DATA is set, or the folder is a file.
    """
    if root is None and not os.environ.get("NEC_DATA"):
        raise ValueError(
            f"data.root is not set and neither is NEC_DATA; give data.root=FOLDER, or set NEC_DATA "
            f"to the folder that holds {name}"
        )
    path = Path(root).expanduser() if root else Path(os.environ["NEC_DATA"], name).expanduser()
    if path.exists() and not path.is_dir():
        raise ValueError(f"{path} is a file, data.root must be a folder; give the one it lies in")
    return path


def list_images(root: Path, parts: Sequence[str] = ("",)) -> Listing:
    """Find the images in root/<part>/<class>/, at any depth below; hidden files are none.

    A folder without an image is not a class.

    Args:
        root: Of the data set.
        parts: Folders that hold class folders each; "" is root itself.

    Raises:
        ValueError: Images of one class alone, as where root is one folder too high.
    """
    found = [
        (folder.name, part, inner)
        for part in parts
        for folder in folders_in(root / part)
        for inner in images_below(folder)
    ]
    found.sort()
    classes = sorted({name for name, _, _ in found})
    if len(classes) == 1:
        raise ValueError(
            f"{root} holds one class folder {classes[0]!r}; classification needs two or more, "
            "give the folder that holds the class folders"
        )
    labels = {name: label for label, name in enumerate(classes)}
    return Listing(
        root=root,
        classes=classes,
        ids=[_join(part, name, inner) for name, part, inner in found],
        labels=[labels[name] for name, _, _ in found],
        parts=[part for _, part, _ in found],
        hashed=[_join(part, inner) for _, part, inner in found],
    )


def _join(*names: str) -> str:
    return "/".join(name for name in names if name)


def folders_in(root: Path) -> list[Path]:
    """Its folders, and links to such, but for hidden ones."""
    if not root.is_dir():
        return []
    return [p for p in root.iterdir() if p.is_dir() and not p.name.startswith(".")]


def images_below(folder: Path) -> Iterator[str]:
    """Relative path of every image, as posix; a stat of each would take longer than all else.

    Links to folders are not followed, but a folder may be one itself.
    """
    for directory, inner, names in os.walk(folder):
        inner[:] = [name for name in inner if not name.startswith(".")]
        relative = Path(directory).relative_to(folder)
        for name in names:
            if name.lower().endswith(SUFFIXES) and not name.startswith("."):
                yield (relative / name).as_posix()
