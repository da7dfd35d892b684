"""Stores and image sets of a task's tests: a few embeddings of known classes."""

import numpy as np
import torch

from nec.data.images import ImageDataModule, Images
from nec.data.splits import SPLITS
from nec.store import EmbeddingStore
from nec.store.codec import RawCodec


class Drawn(Images):
    """Images of one value whose masks are given."""

    def __init__(self, ids, masks):
        super().__init__(ids, [0] * len(ids), [name[:4] for name in ids])
        self.masks = masks

    def read(self, index):
        return torch.zeros(1, *self.masks[index].shape, dtype=torch.uint8)

    def read_mask(self, index):
        return torch.from_numpy(self.masks[index])

    def stamp(self, index):
        return str(index)


class Masked(ImageDataModule):
    """Image n of each split has the n-th of its masks."""

    classes = ("scene",)
    mask_classes = ("water", "land", "road")
    bands, raw_bytes_per_pixel, native_pixels = 1, 1, 64

    def __init__(self, masks):
        super().__init__()
        self.masks = masks

    def load_splits(self):
        return {
            split: Drawn([f"{split} {n}" for n in range(len(found))], found)
            for split, found in self.masks.items()
        }


def segmented(path, count=12, ignored=0.1, seed=0, **attrs):
    """Images of 8 x 8 px on a grid of 4 x 4 tokens, whose first channels tell their class.

    Returns:
        The images, and a store of embeddings (5, 4, 4) of them in another order.
    """
    rng = np.random.default_rng(seed)
    tokens = {split: rng.integers(0, 3, (count, 4, 4)) for split in SPLITS}
    masks = {s: t.repeat(2, axis=1).repeat(2, axis=2).astype(np.uint8) for s, t in tokens.items()}
    for found in masks.values():
        found[rng.random(found.shape) < ignored] = 255
    codec, attrs = RawCodec((5, 4, 4), "float32"), {"encoder": {"image_size": 8}, **attrs}
    with EmbeddingStore.create(path, codec, attrs, classes=["scene"]) as store:
        for split, found in tokens.items():
            y = 7 + 0.3 * rng.standard_normal((count, 5, 4, 4)).astype(np.float32)
            for number in range(3):
                y[:, number] += 4 * (found == number)
            ids = [f"{split} {n}" for n in range(count)]
            order = np.arange(count)[::-1]
            symbols = y.reshape(count, -1).view(np.int32)[order]
            store.append(symbols, [ids[n] for n in order], [split] * count, [0] * count)
    return Masked(masks)
