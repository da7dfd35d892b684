"""Published data sets that TorchGeo knows: where they come from, their checksums, their splits."""

import logging
import os
from abc import abstractmethod
from collections import Counter
from collections.abc import Callable
from functools import cached_property
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any, ClassVar

from torch import Tensor

from nec.data.files import FileDataModule, Listing, alone, data_root, list_images
from nec.data.rasters import PixelType
from nec.data.splits import SPLITS

logger = logging.getLogger(__name__)


class PublishedImages(FileDataModule):
    """A classification set of TorchGeo, its images as they lie on disk.

    Split 0 is the published one, by TorchGeo's lists; all others go by hash. Pixels are not read
    through TorchGeo, which resizes UC Merced's and turns all into floats.

    Args:
        root: Folder of what TorchGeo downloads; None means $NEC_DATA/<name>.
        download: Whether to download what root lacks.
        transform: Preprocessing for an encoder, native (C, H, W) -> (C, S, S); None for none.
        batch_size: Images in a batch.
        workers: Processes that read images.
        split: Number of the split.
        seed: Seed of the order of the train batches.
    """

    name: ClassVar[str]

    def __init__(
        self,
        root: str | None = None,
        download: bool = False,
        transform: Callable[[Tensor], Tensor] | None = None,
        batch_size: int = 32,
        workers: int = 0,
        split: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(transform, batch_size, workers, split, seed)
        self.root = root
        self.download = download

    @property
    @abstractmethod
    def source(self) -> Any:
        """TorchGeo's class: url, filename, md5, base_dir, split_filenames and split_md5s."""

    def prepare_data(self) -> None:
        """Unpack the images if that was not done yet, and download what root lacks.

        Of several processes one does it, and the others wait for it.

        Raises:
            FileNotFoundError: Something is missing and cannot or may not be downloaded.
            ValueError: The archive in root is not the published one.
        """
        root, source = data_root(self.root, self.name), self.source
        if not (root / source.base_dir).is_dir():
            images = f"images (looked for {source.base_dir} and {source.filename})"
            self._obtain(root, source.filename, source.md5, images, "give data.root=FOLDER")
            with alone(root / source.filename):
                if not (root / source.base_dir).is_dir():  # by another process, since we looked
                    _unpack(root / source.filename, source.md5)
        if self.split == 0:
            for split, filename in source.split_filenames.items():
                what = f"published split (looked for {filename})"
                way_out = "take a split by hash, data.split=1"
                self._obtain(root, filename, source.split_md5s[split], what, way_out)
            lists = [(root / source.split_filenames[s], source.split_md5s[s]) for s in SPLITS]
            if not all(_torchgeo().utils.check_integrity(path, md5) for path, md5 in lists):
                logger.warning(
                    "the split files in %s are not the published ones; say so beside a number", root
                )

    @cached_property
    def listing(self) -> Listing:
        """All images, downloaded if root lacks them."""
        self.prepare_data()
        folder = data_root(self.root, self.name) / self.source.base_dir
        listing = list_images(folder)
        if not listing.ids:
            raise FileNotFoundError(
                f"no image in {folder} (looked for <class>/*); remove the folder and set "
                "data.download=true, or give data.root=FOLDER"
            )
        return listing

    def own_split(self) -> dict[str, list[int]]:
        """Return the published split.

        Raises:
            FileNotFoundError: A list names images that root lacks.
            ValueError: The lists name an image twice.
        """
        # Lists may name JPEGs where the images are GeoTIFFs; the stem is unique in a data set.
        indices = {Path(name).stem: i for i, name in enumerate(self.listing.ids)}
        split: dict[str, list[int]] = {}
        for name in SPLITS:
            path = data_root(self.root, self.name) / self.source.split_filenames[name]
            stems = [Path(line).stem for line in path.read_text().split()]
            missing = [stem for stem in stems if stem not in indices]
            if missing:
                raise FileNotFoundError(
                    f"{path} names {len(missing)} images that {self.listing.root} lacks, as "
                    f"{missing[0]}; remove that folder and set data.download=true, or mend the list"
                )
            split[name] = sorted(indices[stem] for stem in stems)
        counts = Counter(index for part in split.values() for index in part)
        twice = [self.listing.ids[index] for index, count in counts.items() if count > 1]
        if twice:
            raise ValueError(
                f"the lists in {path.parent} name {twice[0]} more than once, an image is in one "
                "split; mend the lists, or remove them and set data.download=true"
            )
        return split

    def _obtain(self, root: Path, filename: str, md5: str, what: str, way_out: str) -> None:
        """Download a file if root lacks it."""
        if (root / filename).is_file():
            return
        if not self.download:
            raise FileNotFoundError(f"{root} has no {what}; set data.download=true, or {way_out}")
        root.mkdir(parents=True, exist_ok=True)
        with alone(root / filename):
            if not (root / filename).is_file():  # by another process, since we looked
                _download(self.source.url + filename, root / filename, md5)


class UCMerced(PublishedImages):
    """UC Merced land use: 2,100 aerial images at 1 ft, RGB, 21 classes.

    44 of the images are not 256 × 256 and stay as they are.
    """

    name = "ucmerced"
    type = PixelType(3, "uint8")

    @property
    def source(self) -> Any:
        """TorchGeo's class."""
        return _torchgeo().UCMerced


class EuroSAT(PublishedImages):
    """EuroSAT: 27,000 Sentinel-2 images of 64 × 64, 13 bands in TorchGeo's order, 10 classes."""

    name = "eurosat"
    type = PixelType(13, "uint16")

    @property
    def source(self) -> Any:
        """TorchGeo's class."""
        return _torchgeo().EuroSAT


def _torchgeo() -> ModuleType:
    # Takes up to eight seconds to import, with torchvision; a config is checked without it.
    return import_module("torchgeo.datasets")


def _download(url: str, path: Path, md5: str) -> None:
    """Download a file; it appears whole or not at all."""
    with TemporaryDirectory(dir=path.parent, prefix=".download-") as part:
        try:
            _torchgeo().utils.download_url(url, part, md5=md5)
        except (OSError, RuntimeError) as error:
            raise FileNotFoundError(
                f"{url} cannot be downloaded ({error}); try again, or put it into {path.parent}"
            ) from error
        os.replace(Path(part, path.name), path)


def _unpack(archive: Path, md5: str) -> None:
    """Unpack an archive beside itself; its top folders appear whole or not at all."""
    if not _torchgeo().utils.check_integrity(archive, md5):
        raise ValueError(
            f"{archive} is not the published archive, whose md5 is {md5}; remove it and set "
            "data.download=true"
        )
    with TemporaryDirectory(dir=archive.parent, prefix=".unpack-") as part:
        _torchgeo().utils.extract_archive(archive, part)
        for folder in Path(part).iterdir():
            os.replace(folder, archive.parent / folder.name)
