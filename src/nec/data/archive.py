"""All images below a folder, to encode an archive."""

from collections.abc import Iterator, Sequence
from pathlib import Path

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

    If all lie in class folders, two or more, or in class folders within train, val and test, they
    are split and labelled as by `Folder`; otherwise they share one split and one class.

    Raises:
        FileNotFoundError: There is no such folder, or no image in it.
        ValueError: `Folder` refuses the class folders, or the first image cannot be read.
    """
    names = sorted([*images_below(root), *_linked(root)])
    if not names:
        what = "no image in" if root.is_dir() else "no folder"
        raise FileNotFoundError(
            f"there is {what} {root}; give one with images in it ({' '.join(SUFFIXES)}), at any "
            "depth"
        )
    type = read_header(root / names[0]).type
    tops = {name.partition("/")[0] for name in names}
    if len(tops) < 2 or any("/" not in name for name in names):
        count = len(names)
        return Archive(root, names, [0] * count, type, [ALL] * count, [UNLABELLED])
    folder = Folder(str(root))
    found = folder.listing
    split = folder.own_split() or hash_split(found.hashed, found.labels)
    places = {index: name for name, indices in split.items() for index in indices}
    splits = [places[index] for index in range(len(found.ids))]
    return Archive(root, found.ids, found.labels, type, splits, found.classes)


def _linked(root: Path) -> Iterator[str]:
    """Images in folders that root links to, since class folders may be links.

    Links to folders below root are left out, as their images are found anyway.
    """
    for folder in folders_in(root):
        if folder.is_symlink() and not folder.resolve().is_relative_to(root.resolve()):
            yield from (f"{folder.name}/{name}" for name in images_below(folder))
