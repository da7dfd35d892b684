"""The bytes of format 1. If a test here fails, the format changed: raise FORMAT_VERSION, say so.

The golden stores were written by `python tests/store/test_golden.py`, deliberately and once.
"""

from pathlib import Path

import numpy as np
import zarr

from nec.coding import Neighbours, Tables
from nec.store import EmbeddingStore
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
from nec.store.packing import Zstd

GOLDEN = Path(__file__).parents[1] / "golden/store_format_1.zarr"
SYMBOLS = np.array([[0, 1, 2, 3], [-4, 5, -6, 7], [127, -128, 0, 0]], np.int32)
Y_HAT = [
    [[[1.25, 1.75]], [[3.0, 5.0]]],
    [[[-0.75, 3.75]], [[-13.0, 13.0]]],
    [[[64.75, -62.75]], [[-1.0, -1.0]]],
]
IDS = ["forest/1.tif", "forest/2.tif", "küste/1.tif"]
SHARD = "embedding/c/0/0/0/0"


def write(path: Path) -> None:
    band = Band(np.array([0.5, 2.0]), np.array([0.25, 0.0]), None, False)
    codec = LinearCodec((2, 1, 2), (band,), np.array([1.0, -1.0]), None)
    attrs = {"encoder": "none", "numbers": [1, 0.5, None, True]}
    with EmbeddingStore.create(path, codec, attrs, classes=["forest", "coast"]) as store:
        store.append(SYMBOLS, IDS, ["train", "val", "test"], [0, 0, 1])


CODED = GOLDEN.with_name("coded_store_format_1.zarr")


def coded() -> tuple[LinearCodec, np.ndarray]:
    """A codec with tables, a basis and a pooled band, and symbols, some of them escaped."""
    tables = Tables.from_counts([[1, 50, 3], [9, 9, 9], [0, 0, 0], [1, 200, 1]], [-1, -1, 0, -1])
    pooled = Band(np.array([4.0]), np.array([0.5]), np.array([[0.6, 0.8, 0.0]]), True)
    grid = Band(np.array([0.5, 1.0, 2.0]), np.zeros(3), None, False)
    codec = LinearCodec((3, 2, 2), (pooled, grid), np.array([1.0, -1.0, 0.25]), tables)
    symbols = np.arange(40 * codec.length).reshape(40, -1) % 3 - 1
    symbols[::9, ::4] = [7, -(2**31), 2**31 - 1, 0]
    return codec, symbols.astype(np.int32)


PRODUCT = GOLDEN.with_name("product_store_format_1.zarr")
ZSTD = GOLDEN.with_name("zstd_store_format_1.zarr")


def product() -> tuple[ProductCodec, np.ndarray]:
    """Two parts of a latent each, three centroids each, and codes of all of them."""
    tables = Tables.from_counts([[1, 50, 3], [9, 9, 9]], [0, 0])
    centroids, basis = np.arange(6).reshape(2, 3, 1) / 4, np.arange(8).reshape(2, 4) / 2
    codec = ProductCodec((4, 2, 2), centroids, basis, np.array([1.0, -1.0, 0.25, 0.0]), tables)
    symbols = np.arange(40 * codec.length).reshape(40, -1) % 7 % 3
    return codec, symbols.astype(np.int32)


def zstd() -> tuple[RawCodec, np.ndarray]:
    """Halves in two byte planes: the second compresses, the first does not."""
    codec = RawCodec((4, 6, 6), "float16", Zstd())
    symbols = np.arange(40 * codec.length).reshape(40, -1) * 40503 % 256 + (60 << 8)
    return codec, symbols.astype(np.int32)


VECTOR = GOLDEN.with_name("vector_store_format_1.zarr")
TRANSFORM = GOLDEN.with_name("transform_store_format_1.zarr")


def vector() -> tuple[VectorCodec, np.ndarray]:
    """Five codes in three classes, two latents, and codes of all of them, in runs and apart."""
    counts = np.arange(40).reshape(2, 4, 5) ** 2 % 23 * 10 + 1
    tables = [Tables.from_counts(each, np.zeros(4, int)) for each in counts]
    arrays = {
        "mean": np.arange(24).reshape(6, 4) / 8,
        "centres": np.arange(10).reshape(5, 2) % 7 - 3.5,
        "filters": np.arange(36).reshape(9, 2, 2) % 5 / 4,
        "basis": np.arange(8).reshape(2, 4) / 2 - 1,
    }
    neighbours = Neighbours(*tables, np.array([0, 1, 1, 2, 0]))
    codec = VectorCodec((4, 2, 3), 0.5, **arrays, neighbours=neighbours)
    symbols = np.arange(40 * codec.length).reshape(40, -1) // 3 * 7 % 11 % 5
    return codec, symbols.astype(np.int32)


def transform() -> tuple[TransformCodec, np.ndarray]:
    """Nine latents in two groups, three bands, three classes, and some levels by escape."""
    counts = np.arange(18 * 5).reshape(18, 5) ** 3 % 31
    codec = TransformCodec(
        (4, 2, 3),
        scale=2.0,
        mean=np.arange(24).reshape(6, 4) / 8,
        basis=np.arange(36).reshape(9, 4) % 11 / 4 - 1,
        steps=np.array([0.25, 0.5, 1.0]),
        classes=np.arange(27).reshape(9, 3) % 4 % 3,
        expected=np.arange(6)[None] * 100,
        shrinkage=np.arange(12).reshape(3, 4) / 32,
        tables=Tables.from_counts(counts, np.full(18, -2)),
    )
    symbols = np.arange(40 * codec.length).reshape(40, -1) ** 2 % 37 % 5 - 2
    symbols[::9, ::11] = [7, -(2**20), 2**20, -3, 9]
    return codec, symbols.astype(np.int32)


SUM = GOLDEN.with_name("sum_store_format_1.zarr")


def summed() -> tuple[SumCodec, np.ndarray]:
    """The codes of `vector`, and a second field of them for what they leave."""
    codec, symbols = vector()
    return SumCodec((codec, codec)), np.concatenate([symbols, symbols[::-1]], axis=1)


def write_coded(path: Path) -> None:
    write_symbols(path, *coded())


def write_symbols(path: Path, codec: Codec, symbols: np.ndarray) -> None:
    with EmbeddingStore.create(path, codec, {}, classes=["a"]) as store:
        store.append(symbols, [f"image {i}" for i in range(40)], ["test"] * 40, [0] * 40)


def test_coded_stores_of_format_1_stay_readable_and_are_written_alike(tmp_path: Path) -> None:
    codec, symbols = coded()
    store = EmbeddingStore.open(CODED)
    store.verify()
    assert np.array_equal(store.read_symbols(range(40)), symbols)
    assert store.codec.sha256 == codec.sha256
    # The arithmetic of one reader; docs/format.md allows 1e-5 of a channel's spread.
    assert np.allclose(store.read(range(40)), codec.dequantize(symbols), rtol=1e-5)
    write_coded(tmp_path / "s")
    assert (tmp_path / "s" / SHARD).read_bytes() == (CODED / SHARD).read_bytes()


def test_product_stores_of_format_1_stay_readable_and_are_written_alike(tmp_path: Path) -> None:
    codec, symbols = product()
    check_readable(PRODUCT, codec, symbols)
    write_symbols(tmp_path / "s", codec, symbols)
    assert (tmp_path / "s" / SHARD).read_bytes() == (PRODUCT / SHARD).read_bytes()


def test_vector_stores_of_format_1_stay_readable_and_are_written_alike(tmp_path: Path) -> None:
    codec, symbols = vector()
    check_readable(VECTOR, codec, symbols)
    write_symbols(tmp_path / "s", codec, symbols)
    assert (tmp_path / "s" / SHARD).read_bytes() == (VECTOR / SHARD).read_bytes()


def test_transform_stores_of_format_1_stay_readable_and_are_written_alike(tmp_path: Path) -> None:
    codec, symbols = transform()
    check_readable(TRANSFORM, codec, symbols)
    write_symbols(tmp_path / "s", codec, symbols)
    assert (tmp_path / "s" / SHARD).read_bytes() == (TRANSFORM / SHARD).read_bytes()


def test_sum_stores_of_format_1_stay_readable_and_are_written_alike(tmp_path: Path) -> None:
    codec, symbols = summed()
    check_readable(SUM, codec, symbols)
    write_symbols(tmp_path / "s", codec, symbols)
    assert (tmp_path / "s" / SHARD).read_bytes() == (SUM / SHARD).read_bytes()


def test_zstd_stores_of_format_1_stay_readable() -> None:
    """Another zstd may write other bytes; what they decode to stays."""
    check_readable(ZSTD, *zstd())


def check_readable(path: Path, codec: Codec, symbols: np.ndarray) -> None:
    store = EmbeddingStore.open(path)
    store.verify()
    assert store.codec.sha256 == codec.sha256
    assert np.array_equal(store.read_symbols(range(40)), symbols)
    assert np.array_equal(store.read(range(40)), codec.dequantize(symbols))


def test_stores_of_format_1_stay_readable() -> None:
    store = EmbeddingStore.open(GOLDEN)
    store.verify()
    assert store.read_symbols(range(3)).tolist() == SYMBOLS.tolist()
    assert store.read(range(3)).tolist() == Y_HAT
    assert store.ids.tolist() == IDS
    assert store.splits.tolist() == ["train", "val", "test"]
    assert store.labels.tolist() == [0, 0, 1]
    assert store.attrs == {"encoder": "none", "numbers": [1, 0.5, None, True]}
    assert zarr.open_group(GOLDEN, mode="r")["embedding"][:].tolist() == Y_HAT


def test_shards_of_format_1_are_written_byte_by_byte(tmp_path: Path) -> None:
    write(tmp_path / "s")
    assert (tmp_path / "s" / SHARD).read_bytes() == (GOLDEN / SHARD).read_bytes()


def test_hashes_of_format_1_do_not_move(tmp_path: Path) -> None:
    write(tmp_path / "s")
    golden, ours = EmbeddingStore.open(GOLDEN), EmbeddingStore.open(tmp_path / "s")
    assert ours.codec.sha256 == golden.codec.sha256


def test_a_shard_is_what_its_description_says() -> None:
    """docs/format.md prints these bytes."""
    shard = (GOLDEN / SHARD).read_bytes()
    chunk = bytes.fromhex("01 00 03 04 00 e0 00010203 fc05fa07 7f800000")
    assert shard[:18] == chunk
    assert shard[22:38] == bytes.fromhex("0000000000000000 1600000000000000")
    assert len(shard) == 18 + 4 + 16 + 4


if __name__ == "__main__":
    write(GOLDEN)
    write_coded(CODED)
    write_symbols(PRODUCT, *product())
    write_symbols(ZSTD, *zstd())
    write_symbols(VECTOR, *vector())
    write_symbols(TRANSFORM, *transform())
    write_symbols(SUM, *summed())
