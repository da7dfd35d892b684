"""What every set of images has in common: splits, loaders, an identity."""

import hashlib
import math
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, SequentialSampler, Subset

from nec.data.batches import SeededShuffle, SharedBatches

SPLITS = ("train", "val", "test")
# Images that an encoder sees at once wherever bytes follow from it. Fixed, and the last block is
# padded to it: a product may round otherwise for another shape, and bytes must not depend on a
# batch size.
BLOCK_SIZE = 16
# Images that a bottleneck is fitted to, at most: enough for second moments and tables.
FIT_IMAGES = 2048


class ImageError(ValueError):
    """An image that cannot be used, in one line.

    A worker process sends its errors with a traceback in front; only what it says is kept.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message.rpartition("ImageError: ")[2].strip())


class Whole(NamedTuple):
    """A larger image, and where in it one was cut out."""

    name: str
    pixels: Tensor  # (C, H, W), shared: copy what is changed
    top: int
    left: int


class Images(Dataset, ABC):
    """The images of one split, in a fixed order; an item is a dict(image, label, id).

    Where the set has masks, an item also holds `mask`.

    Args:
        ids: Name of every image, unique in the whole data set.
        labels: Class of every image, 0 to classes - 1.
        groups: What every image is a part of; images of a group are no independent samples. None:
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
        """Pixels of an image as they are: (C, H, W) uint8, uint16, int16 or float32."""

    @abstractmethod
    def stamp(self, index: int) -> str:
        """What changes when the pixels behind an id change: a file's size and time, a seed."""

    def read_mask(self, index: int) -> Tensor | None:
        """Class of every pixel, (H, W) uint8, 255 where it is ignored; None without masks."""
        return None

    def whole(self, index: int) -> Whole | None:
        """What an image was cut out of; None where it is whole itself."""
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


class SplitDataModule(LightningDataModule, ABC):
    """Batches of the splits train, val and test, of whatever `load_splits` gives.

    With several ranks each gets its share of every batch (`SharedBatches`), so a trainer must not
    put a sampler of its own in: `use_distributed_sampler=False`.

    Args:
        batch_size: Items in a batch at most, over all ranks; none is dropped.
        workers: Processes that load; 0 loads in this one.
        seed: Of the order of the train batches.
    """

    def __init__(self, batch_size: int, workers: int, seed: int) -> None:
        super().__init__()
        self.prepare_data_per_node = False  # all nodes see one folder
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}; a batch holds an image or more, set 32")
        self.batch_size = batch_size
        self.workers = workers
        self.seed = seed
        self._datasets: dict[str, Dataset] | None = None
        self._epoch, self._first = 0, 0  # where training goes on, and at which of its batches

    @abstractmethod
    def load_splits(self) -> dict[str, Dataset]:
        """The data set of each split; called once."""

    @property
    def datasets(self) -> dict[str, Dataset]:
        """The data set of each split, as batches are made from it.

        Raises:
            ValueError: A split is empty.
        """
        if self._datasets is None:
            datasets = self.load_splits()
            counts = {split: len(datasets.get(split, ())) for split in SPLITS}
            empty = [split for split, count in counts.items() if count == 0]
            if empty:
                raise ValueError(
                    f"{type(self).__name__}: split {' and '.join(empty)} is empty, of "
                    + ", ".join(f"{count} {split}" for split, count in counts.items())
                    + "; every split needs an image: give 4 or more per class, or a fuller root"
                )
            self._datasets = datasets
        return self._datasets

    def loader(self, split: str, batch_size: int | None = None) -> DataLoader:
        """All of a split, in its order, on one process.

        Args:
            split: "train", "val" or "test".
            batch_size: Instead of the data module's.
        """
        return self._loader(self.datasets[split], batch_size=batch_size or self.batch_size)

    def sample(self, seed: int) -> DataLoader:
        """Train items to fit a bottleneck to: all, or FIT_IMAGES drawn by a seed."""
        train = self.datasets["train"]
        chosen = np.random.default_rng(seed).permutation(len(train))[:FIT_IMAGES]
        return self._loader(Subset(train, sorted(chosen.tolist())), batch_size=BLOCK_SIZE)

    def train_dataloader(self) -> DataLoader:
        """This rank's share of the train split, in another order every epoch."""
        dataset = self.datasets["train"]
        order = SeededShuffle(dataset, self.seed)
        order.set_epoch(self._epoch)  # workers may read ahead before Lightning announces it
        batches = self._shared(order)
        batches.first, self._first = self._first, 0
        return self._loader(dataset, batch_sampler=batches)

    def val_dataloader(self) -> DataLoader:
        """This rank's share of the val split, in its order."""
        return self._in_order("val")

    def test_dataloader(self) -> DataLoader:
        """This rank's share of the test split, in its order."""
        return self._in_order("test")

    def predict_dataloader(self) -> list[DataLoader]:
        """All of each split, in its order, on one process."""
        return [self.loader(split) for split in SPLITS]

    def state_dict(self) -> dict[str, int]:
        """For a checkpoint: the epoch, and how many of its batches are done."""
        if math.isinf(self.trainer.num_training_batches):  # no training
            return {}
        done = self.trainer.fit_loop.epoch_loop.batch_progress.total.processed
        epoch, batches = divmod(done, int(self.trainer.num_training_batches))
        return {"epoch": epoch, "batches": batches}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on behind them."""
        self._epoch, self._first = state["epoch"], state["batches"]

    def _in_order(self, split: str) -> DataLoader:
        dataset = self.datasets[split]
        return self._loader(dataset, batch_sampler=self._shared(SequentialSampler(dataset)))

    def _shared(self, sampler: Sampler[int]) -> SharedBatches:
        if self.trainer is None:
            return SharedBatches(sampler, self.batch_size)
        rank, ranks = self.trainer.global_rank, self.trainer.world_size
        return SharedBatches(sampler, self.batch_size, rank, ranks)

    def _loader(self, dataset: Dataset, **arguments: Any) -> DataLoader:
        return DataLoader(
            dataset,
            num_workers=self.workers,
            persistent_workers=self.workers > 0,
            **arguments,
        )


class ImageDataModule(SplitDataModule):
    """Images in splits; batches are image (B, C, S, S), label (B,) int64 and id, a list of B str.

    Of a set with masks they also hold mask (B, H, W) uint8, of the images before the transform.

    A subclass gives `load_splits`, which returns `Images`, and the four attributes (or properties).

    Attributes:
        classes: Name of every class, in the order of the labels.
        mask_classes: Name of every class of pixels, in the order of a mask's numbers; none where
            images have no masks.
        bands: Channels C of every image.
        raw_bytes_per_pixel: Bands × bytes of the source's type.
        native_pixels: H · W of an image as it lies on disk; the subclass says how where it varies.

    Args:
        transform: What an encoder does to pixels, native (C, H, W) -> (C, S, S); None: nothing.
        batch_size: Images in a batch, over all devices.
        workers: Processes that read images.
        split: Number of the split; 0 is the data set's own where it has one.
        seed: Of the order of the train batches.
    """

    classes: list[str]
    mask_classes: Sequence[str] = ()
    bands: int
    raw_bytes_per_pixel: int
    native_pixels: int

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

    def prepare_data(self) -> None:
        """List the images, and download them where that is asked for, on one process first."""
        _ = self.datasets

    @property
    def datasets(self) -> dict[str, Dataset]:
        """The images of each split, transformed."""
        if self._datasets is None:
            native = super().datasets
            self._datasets = {k: Transformed(v, self.transform) for k, v in native.items()}
        return self._datasets


def hash_split(paths: Sequence[str], labels: Sequence[int], salt: int = 0) -> dict[str, list[int]]:
    """Split 60/20/20 per class, in the order of the sha256 of each relative path.

    The rule depends on no order, machine or library, so a split can be named by its number.

    Args:
        paths: Relative path of every image, unique within a class.
        labels: Class of every image.
        salt: Number of the split; 0 hashes the path alone, n hashes "n:path".

    Returns:
        Indices of each split, ascending.
    """
    prefix = f"{salt}:" if salt else ""
    members: dict[int, list[int]] = defaultdict(list)
    for index, label in enumerate(labels):
        members[label].append(index)
    split: dict[str, list[int]] = {name: [] for name in SPLITS}
    for indices in members.values():
        indices.sort(key=lambda i: hashlib.sha256((prefix + paths[i]).encode()).digest())
        first, second = round(0.6 * len(indices)), round(0.8 * len(indices))
        split["train"] += indices[:first]
        split["val"] += indices[first:second]
        split["test"] += indices[second:]
    return {name: sorted(indices) for name, indices in split.items()}
