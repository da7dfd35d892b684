"""All images below a folder, to encode an archive."""

from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from rich.progress import track

from nec.data.files import ImageFiles, folders_in, images_below
from nec.data.folder import Folder
from nec.data.images import ImageError
from nec.data.rasters import SUFFIXES, PixelType, read_header
from nec.data.splits import SPLITS, hash_split

# Split and class of images that do not lie in class folders.
ALL, UNLABELLED = "all", "unlabelled"


class Archive(ImageFiles):
    """Images of one type, whose paths determine their split and class.

    Args:
        root: Folder that ids are relative to.
        ids: Path of every image.
        labels: Class of every image.
        type: Pixel type that every image must have.
        splits: Split of every image.
        classes: Names of the classes.
    """

    def __init__(
        self,
        root: Path,
        ids: Sequence[str],
        labels: Sequence[int],
        type: PixelType,
        splits: Sequence[str],
        classes: Sequence[str],
    ) -> None:
        super().__init__(root, ids, labels, type)
        self.splits, self.classes = list(splits), list(classes)

    @property
    def split_names(self) -> list[str]:
        """Names of the splits, in their order."""
        return [name for name in (*SPLITS, ALL) if name in set(self.splits)]

    @property
    def raw_bytes_per_pixel(self) -> int:
        """Bytes of a pixel, over all bands."""
        return self.type.bytes_per_pixel

    def pixels_up_to(self, limit: int) -> int:
        """Return the mean of min(H · W, limit), rounded; every header is read.

        Raises:
            ImageError: A file is not an image, or has another type than the first.
        """
        total = 0
        for name in track(self.ids, "headers"):
            header = read_header(self.root / name)
            if header.type != self.type:
                raise ImageError(
                    f"{self.root / name} has {header.type}, {self.ids[0]} has {self.type}; convert "
                    "or remove the file"
                )
            total += min(header.height * header.width, limit)
        return round(total / len(self))


def find_archive(root: Path) -> Archive:
    """Find the images below a folder, at any depth.

    If every one lies in class folders, two or more, or in class folders within train, val and
    test, they are split and labelled as by `Folder`; otherwise all share one split and one class.
    So do images in folders `images`, with their masks in `masks` beside it, which are no images.

    Raises:
        FileNotFoundError: There is no such folder, or no image in it.
        OSError: A folder cannot be listed.
        ValueError: The first image cannot be read.
    """
    below = sorted([*images_below(root), *_linked(root)]) if root.is_dir() else []
    names = _without_masks(below)
    if not names:
        what = "no image in" if root.is_dir() else "no folder"
        raise FileNotFoundError(
            f"there is {what} {root}; give one with images in it ({' '.join(SUFFIXES)}), at any "
            "depth"
        )
    type = read_header(root / names[0]).type
    folder = Folder(str(root))
    try:
        left_out = set(names).difference(folder.listing.ids)
    except (FileNotFoundError, ValueError):  # there are no class folders
        left_out = set(names)
    if left_out or len(names) < len(below):
        count = len(names)
        return Archive(root, names, [0] * count, type, [ALL] * count, [UNLABELLED])
    found = folder.listing
    split = folder.own_split() or hash_split(found.hashed, found.labels)
    places = {index: name for name, indices in split.items() for index in indices}
    splits = [places[index] for index in range(len(found.ids))]
    return Archive(root, found.ids, found.labels, type, splits, found.classes)


def _without_masks(names: Sequence[str]) -> list[str]:
    """Leave out what lies in folders `masks` beside `images`: the layout of `nec.data.crops`."""
    imaged = {parts[:k] for parts in map(_parts, names) for k in _places(parts, "images")}
    return [
        name
        for name in names
        if not any(_parts(name)[:k] in imaged for k in _places(_parts(name), "masks"))
    ]


def _parts(name: str) -> tuple[str, ...]:
    return PurePosixPath(name).parts


def _places(parts: tuple[str, ...], folder: str) -> list[int]:
    """Where a name passes through a folder."""
    return [k for k, part in enumerate(parts[:-1]) if part == folder]


def _linked(root: Path) -> Iterator[str]:
    """Images in folders that root or its split folders link to, since class folders may be links.

    Links to folders below root are left out, as their images are found anyway.
    """
    for parent in (root, *(root / name for name in SPLITS)):
        for folder in folders_in(parent):
            if folder.is_symlink() and not folder.resolve().is_relative_to(root.resolve()):
                place = folder.relative_to(root).as_posix()
                yield from (f"{place}/{name}" for name in images_below(folder))
