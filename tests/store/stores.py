"""Codecs and symbols that the tests of the store start from."""

import numpy as np

from nec.coding import Tables
from nec.store.codec import Band, Codec, LinearCodec, RawCodec

SHAPE = (6, 3, 2)


def linear(tables: bool, pooled: bool = False) -> LinearCodec:
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
    return LinearCodec(SHAPE, (coarse, fine), rng.normal(size=channels), frozen)


def symbols_of(codec: Codec, images: int) -> np.ndarray:
    """(images, L) int32 that the codec can store."""
    rng = np.random.default_rng(images)
    if isinstance(codec, RawCodec):
        floats = rng.normal(size=(images, codec.length)).astype(codec.dtype)
        return floats.view("<u2" if codec.dtype == "float16" else "<i4").astype(np.int32)
    return rng.integers(-12, 13, size=(images, codec.length)).astype(np.int32)
