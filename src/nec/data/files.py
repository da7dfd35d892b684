"""Image files in class folders: find them, and split them."""

import os
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from nec.data.images import ImageDataModule, ImageError, Images
from nec.data.rasters import SUFFIXES, PixelType, read_header, read_pixels
from nec.data.splits import hash_split


class Listing(NamedTuple):
    """Images in class folders, by class and then by path, whatever the order on disk.

    Attributes:
        root: Folder that ids are relative to.
        classes: Names of the class folders, ascending.
        ids: Path of every image relative to root, with "/" on every system.
        labels: Class of every image.
        parts: Folder of class folders that every image is in; "" is root itself.
        hashed: What a split by hash hashes: the id without its class folder, so that a data set
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

    JPEG is decoded by Pillow, as in torchvision (GDAL rebuilds subsampled colour differently, by up
    to 38 levels on EuroSAT), all else by GDAL.

    Args:
        root: Folder that ids are relative to.
        ids: Path of every image.
        labels: Class of every image.
        type: Pixel type that every image must have.
    """

    def __init__(
        self, root: Path, ids: Sequence[str], labels: Sequence[int], type: PixelType
    ) -> None:
        super().__init__(ids, labels)
        self.root = root
        self.type = type

    def read(self, index: int) -> Tensor:
        """Return the pixels of an image as they are in its file.

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
        """Return size and modification time of the image's file."""
        status = (self.root / self.ids[index]).stat()
        return f"{status.st_size} {status.st_mtime_ns}"

    def pixels_up_to(self, limit: int) -> int:
        """Return the mean of min(H · W, limit) over the images, rounded; reads only headers."""
        headers = (read_header(self.root / name) for name in self.ids)
        return round(sum(min(h.height * h.width, limit) for h in headers) / len(self))


class FileDataModule(ImageDataModule):
    """Images in class folders, wherever these come from.

    A subclass gives the images (`listing`), their type (`type`) and, if the data set has a split of
    its own, that split (`own_split`). All other splits go by hash.
    """

    @property
    @abstractmethod
    def listing(self) -> Listing:
        """All images."""

    @property
    @abstractmethod
    def type(self) -> PixelType:
        """Pixel type that every image must have."""

    def own_split(self) -> dict[str, list[int]] | None:
        """Return the indices of each split that the data set itself defines; None if none."""
        return None

    def load_splits(self) -> dict[str, ImageFiles]:
        """Return the images of each split."""
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
        """Number of channels of every image."""
        return self.type.bands

    @property
    def raw_bytes_per_pixel(self) -> int:
        """Bytes of a pixel, over all bands."""
        return self.type.bytes_per_pixel

    def pixels_up_to(self, limit: int) -> int:
        """Return the mean over the test images, whose bytes are reported, rounded."""
        return self.datasets["test"].images.pixels_up_to(limit)


def data_root(root: str | None, name: str) -> Path:
    """Return the folder that holds a data set; it may not exist yet.

    Args:
        root: The folder as configured; None means $NEC_DATA/<name>.
        name: Name of the data set.

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


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Wait until no other process makes a file, or what comes out of it."""
    from nec.store.lock import locked  # not every system has its calls

    with locked(path.with_name(f".{path.name}.lock"), str(path), wait=True):
        yield


def list_images(root: Path, parts: Sequence[str] = ("",)) -> Listing:
    """Find the images in root/<part>/<class>/, at any depth; hidden files are skipped.

    A folder without an image is not a class.

    Args:
        root: Folder of the data set.
        parts: Folders that each hold class folders; "" is root itself.

    Raises:
        ValueError: There is only one class, as if root were one folder too high.
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
    """Return the folders in root, and links to folders, except hidden ones."""
    if not root.is_dir():
        return []
    return [p for p in root.iterdir() if p.is_dir() and not p.name.startswith(".")]


def images_below(folder: Path) -> Iterator[str]:
    """Yield the relative posix path of every image, without a stat of each, which is slow.

    Links to folders are not followed, but the folder itself may be a link.

    Raises:
        OSError: A folder cannot be listed.
    """
    for directory, inner, names in os.walk(folder, onerror=_refuse):
        inner[:] = [name for name in inner if not name.startswith(".")]
        relative = Path(directory).relative_to(folder)
        for name in names:
            if name.lower().endswith(SUFFIXES) and not name.startswith("."):
                yield (relative / name).as_posix()


def _refuse(error: OSError) -> None:
    """Stop at a folder that cannot be listed, instead of leaving its images out."""
    raise type(error)(
        error.errno,
        f"{error.strerror}, so that its images would be left out; make it readable or remove it",
        error.filename,
    ) from error
