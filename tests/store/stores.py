"""Codecs and symbols that the tests of the store start from."""

import numpy as np

from nec.coding import Neighbours, Tables
from nec.store.codec import (
    Band,
    Codec,
    LinearCodec,
    ProductCodec,
    RawCodec,
    SumCodec,
    TransformCodec,
    VectorCodec,
)
from nec.store.packing import PLAIN, Packing
from nec.store.transform import ACTIVITIES

SHAPE = (6, 3, 2)


def linear(tables: bool, pooled: bool = False, packing: Packing = PLAIN) -> LinearCodec:
    """A coarse band with a basis beside a full band without one."""
    rng = np.random.default_rng(5)
    channels = SHAPE[0]
    coarse = Band(
        steps=rng.uniform(0.5, 2, 3),
        offsets=rng.normal(size=3),
        basis=rng.normal(size=(3, channels)),
        pooled=pooled,
    )
    fine = Band(
        steps=rng.uniform(0.1, 1, channels), offsets=np.zeros(channels), basis=None, pooled=False
    )
    contexts = 3 + channels
    counts = rng.integers(1, 100, size=(contexts, 21))
    frozen = Tables.from_counts(counts, np.full(contexts, -10)) if tables else None
    return LinearCodec(SHAPE, (coarse, fine), rng.normal(size=channels), frozen, packing)


def product() -> ProductCodec:
    """Three parts of four latents, five centroids each."""
    rng = np.random.default_rng(6)
    tables = Tables.from_counts(rng.integers(1, 100, size=(3, 5)), np.zeros(3, int))
    basis, bias = rng.normal(size=(12, SHAPE[0])), rng.normal(size=SHAPE[0])
    return ProductCodec(SHAPE, rng.normal(size=(3, 5, 4)), basis, bias, tables)


def vector() -> VectorCodec:
    """Seven codes in three classes, of four latents."""
    rng = np.random.default_rng(7)
    counts = rng.integers(1, 100, size=(2, 4, 7))
    neighbours = Neighbours.from_counts(*counts, np.array([0, 0, 1, 1, 2, 2, 2]))
    numbers = {
        "mean": rng.normal(size=(SHAPE[1] * SHAPE[2], SHAPE[0])),
        "centres": rng.normal(size=(7, 4)),
        "filters": rng.normal(size=(9, 4, 4)),
        "basis": rng.normal(size=(4, SHAPE[0])),
    }
    return VectorCodec(SHAPE, 1.7, **numbers, neighbours=neighbours)


def transform(latents: int = 10) -> TransformCodec:
    """Two groups of latents, three bands, five classes, two levels that are shrunk apart."""
    rng = np.random.default_rng(8)
    positions = SHAPE[1] * SHAPE[2]
    classes = np.arange(3 * latents).reshape(latents, 3) % 5
    counts = rng.integers(1, 100, size=(ACTIVITIES * 5, 7))
    return TransformCodec(
        SHAPE,
        scale=0.6,
        mean=rng.normal(size=(positions, SHAPE[0])),
        basis=rng.normal(size=(latents, SHAPE[0])),
        steps=np.array([0.5, 1.25, 2.0]),
        classes=classes,
        expected=rng.integers(0, 900, (1, positions)),
        shrinkage=rng.uniform(0, 0.3, (5, 3)),
        tables=Tables.from_counts(counts, np.full(len(counts), -3)),
    )


def summed() -> SumCodec:
    """Codes, what a transform adds to them, and what a linear codec adds to both."""
    return SumCodec((vector(), transform(), linear(tables=True)))


def symbols_of(codec: Codec, images: int) -> np.ndarray:
    """(images, L) int32 that the codec can store."""
    rng = np.random.default_rng(images)
    if isinstance(codec, RawCodec):
        floats = rng.normal(size=(images, codec.length)).astype(codec.dtype)
        return floats.view("<u2" if codec.dtype == "float16" else "<i4").astype(np.int32)
    if isinstance(codec, ProductCodec):
        return rng.integers(0, codec.centroids.shape[1], (images, codec.length), np.int32)
    if isinstance(codec, SumCodec):
        return np.concatenate([symbols_of(part, images) for part in codec.parts], axis=1)
    if isinstance(codec, VectorCodec):
        return rng.integers(0, len(codec.centres), (images, codec.length), np.int32)
    return rng.integers(-12, 13, size=(images, codec.length)).astype(np.int32)
