"""Batches read back from an EmbeddingStore: what a head learns from."""

from collections.abc import Callable, Sequence
from functools import cached_property
from os import PathLike
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from nec.data.images import SPLITS, SplitDataModule
from nec.store import EmbeddingStore

# Images decoded at once; what is kept of them is their features.
READ_SIZE = 64
# Of a step that trains a head.
BATCH_SIZE = 128


class StoredEmbeddings(Dataset):
    """A store, or some of its images, decoded as they are asked for; for a DataLoader of yours.

    An item is dict(embedding (D, h, w) float32, label () int64, id str). A loader asks for a whole
    batch at once, which decodes together.

    Args:
        store: Path or URL of an `EmbeddingStore`, or one that is open.
        split: Of the images; all of them where it is None.

    Raises:
        ValueError: If the store has no such split.
    """

    def __init__(
        self, store: str | PathLike[str] | EmbeddingStore, split: str | None = None
    ) -> None:
        self.store = store if isinstance(store, EmbeddingStore) else EmbeddingStore.open(store)
        if split is not None and split not in self.store.split_names:
            raise ValueError(f"split {split!r} is none of {self.store.split_names}")
        chosen = self.store.splits == split if split else np.ones(len(self.store), bool)
        self.indices = np.flatnonzero(chosen)

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """One image."""
        (item,) = self.__getitems__([index])
        return item

    def __getitems__(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        """Images of a batch, decoded together."""
        places = self.indices[np.asarray(indices)]
        embeddings = torch.from_numpy(self.store.read(places))
        labels = torch.from_numpy(self.store.labels[places])
        ids = self.store.ids[places].tolist()
        rows = zip(embeddings, labels, ids, strict=True)
        return [dict(zip(("embedding", "label", "id"), row, strict=True)) for row in rows]


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


class HasFeatures(Protocol):
    """What is needed of a head."""

    def features(self, embedding: Tensor) -> Tensor:
        """y_hat (B, D, h, w) -> (B, ...), without parameters; equal for all heads of a kind."""


class EmbeddingDataModule(SplitDataModule):
    """Batches of a store's embeddings: embedding (B, ...) float32, label (B,) int64, id.

    Every split is decoded once, and kept of an embedding is what a head begins with.

    Args:
        store: Path or URL of an `EmbeddingStore` with the splits train, val and test.
        batch_size: Images in a batch, over all devices.
        seed: Of the order of the train batches.
    """

    def __init__(self, store: str, batch_size: int = BATCH_SIZE, seed: int = 0) -> None:
        super().__init__(batch_size, workers=0, seed=seed)
        self.store = store
        self._features: Callable[[Tensor], Tensor] = torch.nn.Identity()
        self._kind: type | None = None

    @cached_property
    def stored(self) -> EmbeddingStore:
        """The store, opened."""
        return EmbeddingStore.open(self.store)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(D, h, w) of an embedding."""
        return self.stored.codec.shape

    @property
    def classes(self) -> list[str]:
        """Name of every class, in the order of the labels."""
        return self.stored.classes

    def keep_features(self, head: HasFeatures) -> None:
        """Keep of every embedding the features of a kind of head."""
        if type(head) is not self._kind:
            self._kind, self._features = type(head), head.features
            self._datasets = None  # decode for this kind

    def load_splits(self) -> dict[str, Dataset]:
        """Decoded, and made into features block by block."""
        return {split: self._read(np.flatnonzero(self.stored.splits == split)) for split in SPLITS}

    def _read(self, indices: np.ndarray) -> Embeddings:
        blocks = [indices[i : i + READ_SIZE] for i in range(0, len(indices), READ_SIZE)]
        made = [self._features(torch.from_numpy(self.stored.read(block))) for block in blocks]
        labels = torch.from_numpy(self.stored.labels[indices].astype(np.int64))
        values = torch.cat(made) if made else torch.empty(0)
        return Embeddings(values, labels, [str(self.stored.ids[i]) for i in indices])

    def _loader(self, dataset: Dataset, **arguments: Any) -> DataLoader:
        return super()._loader(dataset, collate_fn=_whole, **arguments)


def _whole(batch: dict[str, Any]) -> dict[str, Any]:
    """`__getitems__` gives batches already."""
    return batch
