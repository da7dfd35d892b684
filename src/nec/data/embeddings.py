"""Batches read back from an EmbeddingStore: what a head learns from."""

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from os import PathLike
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from nec.data.images import ImageDataModule
from nec.data.masks import count_cells
from nec.data.splits import SPLITS, SplitDataModule
from nec.store import EmbeddingStore

# Images decoded at once; only their features are kept.
READ_SIZE = 64
# Images in a step that trains a head.
BATCH_SIZE = 128


class StoredEmbeddings(Dataset):
    """A store, or one split of it, decoded on demand; for a DataLoader of your own.

    An item is dict(embedding (D, h, w) float32, label () int64, id str). A loader asks for a whole
    batch at once, which is decoded together.

    Args:
        store: Path or URL of an `EmbeddingStore`, or one that is open.
        split: Split to read; None for all images.

    Raises:
        ValueError: If the store has no such split.
    """

    def __init__(
        self, store: str | PathLike[str] | EmbeddingStore, split: str | None = None
    ) -> None:
        self.store = store if isinstance(store, EmbeddingStore) else EmbeddingStore.open(store)
        if split is not None and split not in self.store.split_names:
            raise ValueError(f"split {split!r} is not one of {self.store.split_names}")
        chosen = self.store.splits == split if split else np.ones(len(self.store), bool)
        self.indices = np.flatnonzero(chosen)

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return one image."""
        (item,) = self.__getitems__([index])
        return item

    def __getitems__(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        """Return the images of a batch, decoded together."""
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
        counts: Pixels of each class in every cell of the images' masks, (N, K, R, C) int32; batches
            then hold `counts` (B, K, R, C) float32.
    """

    def __init__(
        self, features: Tensor, labels: Tensor, ids: Sequence[str], counts: Tensor | None = None
    ) -> None:
        self.features = features
        self.labels = labels
        self.ids = list(ids)
        self.counts = counts

    def __len__(self) -> int:
        return len(self.ids)

    def __getitems__(self, indices: Sequence[int]) -> dict[str, Any]:
        """Return a whole batch at once, so that no item is copied by itself."""
        rows = torch.as_tensor(indices)
        ids = [self.ids[index] for index in indices]
        batch = {"embedding": self.features[rows], "label": self.labels[rows], "id": ids}
        return batch if self.counts is None else {**batch, "counts": self.counts[rows].float()}


class Reader(Protocol):
    """The part of a head that is needed here."""

    def read(self, store: Any, rows: np.ndarray) -> Tensor:
        """Read what the head learns from, (n, ...); the same for all heads of a kind."""


class EmbeddingDataModule(SplitDataModule):
    """Batches of a store's embeddings: embedding (B, ...) float32, label (B,) int64, id.

    Every split is read once, and only what a head learns from is kept.

    Args:
        store: Path or URL of an `EmbeddingStore` with the splits train, val and test.
        batch_size: Images in a batch, over all devices.
        seed: Seed of the order of the train batches.
        images: Images that the store was made of, if masks are needed; they are found by id.
    """

    def __init__(
        self,
        store: str,
        batch_size: int = BATCH_SIZE,
        seed: int = 0,
        images: ImageDataModule | None = None,
    ) -> None:
        super().__init__(batch_size, workers=0, seed=seed)
        self.store = store
        self.images = images
        self._read: Callable[[EmbeddingStore, np.ndarray], Tensor] = _decoded
        self._kind: type | None = None
        self._scale = 0  # cells that a token's side is cut into; 0: no counts
        self._counts: dict[int, Tensor] = {}  # by scale, of all images (N, K, R, C)

    @cached_property
    def stored(self) -> EmbeddingStore:
        """The store, opened."""
        return EmbeddingStore.open(self.store)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape (D, h, w) of an embedding."""
        return self.stored.codec.shape

    @property
    def classes(self) -> list[str]:
        """Name of every class, in the order of the labels."""
        return self.stored.classes

    @property
    def mask_classes(self) -> Sequence[str]:
        """Name of every class of pixels; empty unless images with masks were given."""
        return self.images.mask_classes if self.images else ()

    def keep(self, head: Reader) -> None:
        """Keep, of every embedding, what this kind of head learns from."""
        if type(head) is not self._kind:
            self._kind, self._read = type(head), head.read
            self._datasets = None  # read for this kind

    def keep_counts(self, scale: int) -> None:
        """Add to every embedding the number of pixels of each class in its cells.

        Args:
            scale: Number of cells along the side of a token.
        """
        if scale != self._scale:
            self._scale, self._datasets = scale, None

    def load_splits(self) -> dict[str, Dataset]:
        """Read every split, block by block."""
        return {split: self._split(np.flatnonzero(self.stored.splits == split)) for split in SPLITS}

    def _split(self, indices: np.ndarray) -> Embeddings:
        values = torch.empty(0)
        for start in range(0, len(indices), READ_SIZE):
            block = self._read(self.stored, indices[start : start + READ_SIZE])
            if start == 0:  # whole at once: a list of blocks would be held beside what it becomes
                values = torch.empty(len(indices), *block.shape[1:], dtype=block.dtype)
            values[start : start + len(block)] = block
        labels = torch.from_numpy(self.stored.labels[indices].astype(np.int64))
        ids = [str(self.stored.ids[i]) for i in indices]
        counts = self._counted(self._scale)[torch.from_numpy(indices)] if self._scale else None
        return Embeddings(values, labels, ids, counts)

    def _counted(self, scale: int) -> Tensor:
        """Count for all images of the store, (N, K, R, C) int32; each mask is read once."""
        if scale not in self._counts:
            masks = _Masks(self.images, self.store)
            size, classes = _input_size(self.stored), len(self.mask_classes)
            cells = (scale * self.shape[1], scale * self.shape[2])
            self._counts[scale] = torch.stack(
                [count_cells(masks[name], size, cells, classes) for name in self.stored.ids]
            )
        return self._counts[scale]

    def _loader(self, dataset: Dataset, **arguments: Any) -> DataLoader:
        return super()._loader(dataset, collate_fn=_whole, **arguments)


def _whole(batch: dict[str, Any]) -> dict[str, Any]:
    """Return a batch as it is: `__getitems__` has made it already."""
    return batch


def _decoded(store: EmbeddingStore, rows: np.ndarray) -> Tensor:
    """Return y_hat (n, D, h, w) float32."""
    return torch.from_numpy(store.read(rows))


def _input_size(store: EmbeddingStore) -> int:
    """Return the side S of the encoder's input, pixels."""
    encoder = store.attrs.get("encoder")  # anything, in a store of another's
    size = encoder.get("image_size") if isinstance(encoder, Mapping) else None
    if type(size) is not int or size < 1:
        raise ValueError(
            f"{store.url} does not say which size its encoder saw, so masks cannot be brought to "
            "it; give it the attribute encoder: {image_size: PIXELS}"
        )
    return size


class _Masks:
    """Masks by the id of their image."""

    def __init__(self, images: ImageDataModule | None, store: str) -> None:
        if images is None or not images.mask_classes:
            raise ValueError(
                f"{store} holds no masks; give the images that it was made of, which have masks, "
                "as in --data.images Dubai"
            )
        splits = [dataset.images for dataset in images.datasets.values()]
        self._places = {name: (split, i) for split in splits for i, name in enumerate(split.ids)}

    def __getitem__(self, name: str) -> Tensor:
        if name not in self._places:
            raise ValueError(
                f"image {name!r} of the store is not among the images that masks are taken from; "
                "give those that the store was made of"
            )
        split, index = self._places[name]
        return split.read_mask(index)
