"""Class folders of images or GeoTIFFs."""

from collections.abc import Callable
from functools import cached_property

from torch import Tensor

from nec.data.files import FileDataModule, Listing, data_root, list_images
from nec.data.rasters import SUFFIXES, PixelType, read_header
from nec.data.splits import SPLITS


class Folder(FileDataModule):
    """Images as root/<class>/<image>, of any size, all of one band count and type.

    Where root holds the folders train, val and test, the images lie as root/<split>/<class>/<image>
    and that is split 0. All other splits go by hash.

    Args:
        root: Folder of the class folders; None means $NEC_DATA/folder.
        transform: Preprocessing for an encoder, native (C, H, W) -> (C, S, S); None for none.
        batch_size: Images in a batch.
        workers: Processes that read images.
        split: Number of the split.
        seed: Seed of the order of the train batches.
    """

    def __init__(
        self,
        root: str | None = None,
        transform: Callable[[Tensor], Tensor] | None = None,
        batch_size: int = 32,
        workers: int = 0,
        split: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(transform, batch_size, workers, split, seed)
        self.root = root

    @cached_property
    def listing(self) -> Listing:
        """All images.

        Raises:
            FileNotFoundError: There is no image.
            ValueError: Exactly one of the three split folders is missing.
        """
        root = data_root(self.root, "folder")
        present = [name for name in SPLITS if (root / name).is_dir()]
        if len(present) == 2:
            raise ValueError(
                f"{root} has the folders {' and '.join(present)} but not all of "
                f"{', '.join(SPLITS)}; add the third, or put the class folders into root"
            )
        listing = list_images(root, present if len(present) == len(SPLITS) else ("",))
        if not listing.ids:
            layout = "<split>/<class>/" if len(present) == len(SPLITS) else "<class>/"
            raise FileNotFoundError(
                f"no image in {root} (looked for {layout}* with {' '.join(SUFFIXES)}); "
                "lay images out in a folder per class, or give data.root=FOLDER"
            )
        return listing

    @cached_property
    def type(self) -> PixelType:
        """Pixel type of the first image; the others are checked when they are read."""
        return read_header(self.listing.root / self.listing.ids[0]).type

    def own_split(self) -> dict[str, list[int]] | None:
        """Return the split that the folders on disk define, if they do."""
        parts = self.listing.parts
        if parts[0] == "":
            return None
        return {split: [i for i, part in enumerate(parts) if part == split] for split in SPLITS}
