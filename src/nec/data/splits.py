"""The splits train, val and test: which image is in which, and how they are loaded."""

import hashlib
import math
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader, Dataset, Sampler, SequentialSampler, Subset

from nec.data.batches import SeededShuffle, SharedBatches

SPLITS = ("train", "val", "test")
# Images that an encoder sees at once wherever bytes follow from it. Fixed, and the last block is
# padded to it: a product may round differently for another shape, and bytes must not depend on a
# batch size.
BLOCK_SIZE = 16
# Images that a bottleneck is fitted to, at most: enough for second moments and tables.
FIT_IMAGES = 2048


class SplitDataModule(LightningDataModule, ABC):
    """Batches of the splits train, val and test, of whatever `load_splits` gives.

    With several ranks each gets its share of every batch (`SharedBatches`), so a trainer must not
    insert a sampler of its own: `use_distributed_sampler=False`.

    Args:
        batch_size: Largest number of items in a batch, over all ranks; none is dropped.
        workers: Processes that load; 0 loads in this one.
        seed: Seed of the order of the train batches.
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
        """Return the data set of each split; called once."""

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
        """Return a loader of all of a split, in its order, on one process.

        Args:
            split: "train", "val" or "test".
            batch_size: Replaces the data module's.
        """
        return self._loader(self.datasets[split], batch_size=batch_size or self.batch_size)

    def sample(self, seed: int) -> DataLoader:
        """Return train items to fit a bottleneck to: all, or FIT_IMAGES drawn by a seed."""
        train = self.datasets["train"]
        chosen = np.random.default_rng(seed).permutation(len(train))[:FIT_IMAGES]
        return self._loader(Subset(train, sorted(chosen.tolist())), batch_size=BLOCK_SIZE)

    def train_dataloader(self) -> DataLoader:
        """Return this rank's share of the train split, in another order every epoch."""
        dataset = self.datasets["train"]
        order = SeededShuffle(dataset, self.seed)
        order.set_epoch(self._epoch)  # workers may read ahead before Lightning announces it
        batches = self._shared(order)
        batches.first, self._first = self._first, 0
        return self._loader(dataset, batch_sampler=batches)

    def val_dataloader(self) -> DataLoader:
        """Return this rank's share of the val split, in its order."""
        return self._in_order("val")

    def test_dataloader(self) -> DataLoader:
        """Return this rank's share of the test split, in its order."""
        return self._in_order("test")

    def predict_dataloader(self) -> list[DataLoader]:
        """Return all of each split, in its order, on one process."""
        return [self.loader(split) for split in SPLITS]

    def state_dict(self) -> dict[str, int]:
        """Return, for a checkpoint, the epoch and how many of its batches are done."""
        if math.isinf(self.trainer.num_training_batches):  # no training
            return {}
        done = self.trainer.fit_loop.epoch_loop.batch_progress.total.processed
        epoch, batches = divmod(done, int(self.trainer.num_training_batches))
        return {"epoch": epoch, "batches": batches}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on after the batches that a checkpoint has as done."""
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
