"""Batches read back from an EmbeddingStore: what a head learns from."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from nec.data.images import SPLITS, SplitDataModule
from nec.store import EmbeddingStore

# Images decoded at once; what is kept of them is their features.
READ_SIZE = 64


class Embeddings(Dataset):
    """Features of the stored embeddings of one split; batches are dict(embedding, label, id).

    Args:
        features: (N, ...) float32.
        labels: (N,) int64.
        ids: Name of every image.
    """

    def __init__(self, features: Tensor, labels: Tensor, ids: Sequence[str]) -> None:
        self.features = features
        self.labels = labels
        self.ids = list(ids)

    def __len__(self) -> int:
        return len(self.ids)

    def __getitems__(self, indices: Sequence[int]) -> dict[str, Any]:
        """A whole batch at once: no item is copied by itself."""
        rows = torch.as_tensor(indices)
        ids = [self.ids[index] for index in indices]
        return {"embedding": self.features[rows], "label": self.labels[rows], "id": ids}


def read_splits(
    store: EmbeddingStore, features: Callable[[Tensor], Tensor]
) -> dict[str, Embeddings]:
    """Decode every split and keep the features of its embeddings.

    Args:
        store: With the splits train, val and test.
        features: y_hat (B, D, h, w) -> (B, ...), without parameters.
    """
    splits = {}
    for split in SPLITS:
        indices = np.flatnonzero(store.splits == split)
        blocks = [indices[i : i + READ_SIZE] for i in range(0, len(indices), READ_SIZE)]
        made = [features(torch.from_numpy(store.read(block))) for block in blocks]
        labels = torch.from_numpy(store.labels[indices].astype(np.int64))
        values = torch.cat(made) if made else torch.empty(0)
        splits[split] = Embeddings(values, labels, [str(store.ids[i]) for i in indices])
    return splits


class EmbeddingDataModule(SplitDataModule):
    """Batches of stored embeddings: embedding (B, ...) float32, label (B,) int64, id.

    Args:
        splits: Features by split.
        batch_size: Images in a batch.
        seed: Of the order of the train batches.
    """

    def __init__(self, splits: Mapping[str, Embeddings], batch_size: int, seed: int = 0) -> None:
        super().__init__(batch_size, workers=0, seed=seed)
        self._splits = dict(splits)

    def load_splits(self) -> dict[str, Dataset]:
        """What was given."""
        return dict(self._splits)

    def _loader(self, dataset: Dataset, **arguments: Any) -> DataLoader:
        return super()._loader(dataset, collate_fn=_whole, **arguments)


def _whole(batch: dict[str, Any]) -> dict[str, Any]:
    """`__getitems__` gives batches already."""
    return batch
