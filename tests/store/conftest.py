from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from stores import SHAPE, linear, product, symbols_of, transform, vector

from nec.store import EmbeddingStore
from nec.store.codec import Codec, RawCodec
from nec.store.packing import Zstd

KINDS = {
    "float32": lambda: RawCodec(SHAPE, "float32"),
    "float16": lambda: RawCodec(SHAPE, "float16"),
    "bytes": lambda: linear(tables=False),
    "tables": lambda: linear(tables=True),
    "pooled": lambda: linear(tables=True, pooled=True),
    "float32_zstd": lambda: RawCodec(SHAPE, "float32", Zstd()),
    "float16_zstd": lambda: RawCodec(SHAPE, "float16", Zstd()),
    "bytes_zstd": lambda: linear(tables=False, packing=Zstd()),
    "product": product,
    "vector": vector,
    "transform": transform,
}


@pytest.fixture(params=KINDS)
def codec(request: pytest.FixtureRequest) -> Codec:
    return KINDS[request.param]()


Written = tuple[Path, np.ndarray]


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Written]:
    """Writes a store of a codec; gives back its path and the symbols in it."""

    def written(codec: Codec, images: int = 40, name: str = "s.zarr", **attrs: object) -> Written:
        symbols = symbols_of(codec, images)
        names = np.array(["train", "val", "test"])[np.arange(images) % 3]
        with EmbeddingStore.create(tmp_path / name, codec, attrs, classes=["a", "b"]) as store:
            for start in range(0, images, 16):
                part = slice(start, start + 16)
                ids = [f"ort/bild-{i}é" for i in range(images)[part]]
                store.append(symbols[part], ids, list(names[part]), np.arange(images)[part] % 2)
        return tmp_path / name, symbols

    return written
