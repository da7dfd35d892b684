"""docs/format.md is enough to read what nec writes: a second reader of it finds the same."""

from pathlib import Path

import numpy as np
import pytest
from second_codecs import parse_streams
from second_coder import Stream, parse_tables
from second_reader import parse_index, parse_metadata, parse_store
from stores import SHAPE, product, summed, symbols_of, transform, vector

from nec.coding import CorruptStreamError, Neighbours, Tables, decode
from nec.store import EmbeddingStore, chunks
from nec.store.codec import Band, LinearCodec, RawCodec, TransformCodec, VectorCodec
from nec.store.packing import PLAIN
from nec.store.packing import Zstd as Packed

KINDS = ["product", "vector", "transform", "sum"]
REFUSALS = (AssertionError, IndexError, StopIteration)  # of the second reader
GOLDEN = Path(__file__).parents[1] / "golden"


def test_the_golden_stream():
    data = Tables.from_laplace([0.1, 1.0, 3.0]).to_bytes()
    tables, identity = parse_tables(data)
    assert data[:1] + bytes.fromhex(identity) == (GOLDEN / "tables_format_1.bin").read_bytes()
    stream, contexts = (GOLDEN / "stream_format_1.bin").read_bytes(), np.arange(500) % 3
    expected = decode([stream], Tables.from_bytes(data), contexts, 500)[0].tolist()
    assert Stream(stream).read([tables[k] for k in contexts]) == expected


def test_any_bytes_are_the_same_symbols_or_refused_by_both():
    frozen, contexts = Tables.from_laplace([0.6, 3.0]), np.arange(8) % 2
    tables = [parse_tables(frozen.to_bytes())[0][k] for k in contexts]
    rng, accepted = np.random.default_rng(0), 0
    for stream in map(rng.bytes, rng.integers(0, 6, 1000)):
        try:
            expected = decode([stream], frozen, contexts, 8)[0].tolist()
        except CorruptStreamError:
            with pytest.raises(AssertionError):
                Stream(stream).read(tables)
        else:
            assert Stream(stream).read(tables) == expected
            accepted += 1
    assert accepted > 10


@pytest.mark.parametrize("codec", [product(), vector(), transform(), summed()], ids=KINDS)
def test_damaged_streams_of_codecs_are_the_same_symbols_or_refused_by_both(codec):
    rng, accepted = np.random.default_rng(1), 0
    config = codec.to_config()
    for stream in codec.encode(symbols_of(codec, 150)):
        damaged = bytearray(stream[: rng.integers(1, len(stream) + 1)])
        damaged[rng.integers(len(damaged))] ^= rng.integers(1, 256)
        try:
            expected = codec.decode([bytes(damaged)])
        except CorruptStreamError:
            with pytest.raises(REFUSALS):
                parse_streams([bytes(damaged)], dict(config))
        else:
            symbols, y_hat = parse_streams([bytes(damaged)], dict(config))
            assert symbols == expected.tolist()
            largest = np.abs(y_hat).max()
            np.testing.assert_allclose(y_hat, codec.dequantize(expected), atol=1e-5 * largest)
            accepted += 1
    assert 0 < accepted < 150


def test_a_store_of_many_chunks_and_escapes(tmp_path, monkeypatch):
    monkeypatch.setattr(chunks, "SHARD_BYTES", 20_000)
    rng, images = np.random.default_rng(0), 600
    pooled = Band(rng.uniform(0.5, 2, 2), rng.normal(size=2), rng.normal(size=(2, 3)), True)
    full = Band(rng.uniform(0.1, 1, 3), rng.normal(size=3), None, False)
    counts = rng.integers(0, 2 ** rng.integers(1, 30, (5, 13)))
    counts[1] = 0  # nothing but escapes
    tables = Tables.from_counts(counts, [-6] * 5)
    codec = LinearCodec((3, 2, 2), (pooled, full), rng.normal(size=3), tables)
    symbols = np.rint(rng.laplace(0, 3, (images, codec.length))).astype(np.int32)
    symbols[rng.random(symbols.shape) < 0.02] = -(2**31)
    symbols[rng.random(symbols.shape) < 0.02] = 2**31 - 1
    attrs = {"key \x7f\x1f\n": [1.0, 1e16, 1e-5, 0.1, -0.0, "é"]}
    with EmbeddingStore.create(tmp_path / "s", codec, attrs, classes=["a"]) as store:
        for part in np.split(np.arange(images), [150, 400]):
            store.append(symbols[part], [f"ü{i}" for i in part], ["test"] * len(part), 0 * part)
    found, y_hat, total, slots = parse_store(tmp_path / "s")
    assert total > slots > 1
    assert found == symbols.tolist()
    expected = EmbeddingStore.open(tmp_path / "s").read(range(images))
    np.testing.assert_allclose(y_hat, expected, rtol=1e-5, atol=1e-5)


def test_layers_have_chunks_and_shards_of_their_own(tmp_path, monkeypatch):
    monkeypatch.setattr(chunks, "SHARD_BYTES", 4_000)
    codecs, images = (
        {"embedding": vector(), "rest_2": summed(), "raw": RawCodec(SHAPE, "float32")},
        500,
    )
    given = {name: symbols_of(codec, images) for name, codec in codecs.items()}
    with EmbeddingStore.create(tmp_path / "s", codecs, {}, classes=["a", "b"]) as store:
        for part in np.split(np.arange(images), [50, 110]):
            own = {name: symbols[part] for name, symbols in given.items()}
            store.append(own, [f"ü{i}" for i in part], ["val"] * len(part), part % 2)
    found = {name: parse_store(tmp_path / "s", name) for name in codecs}
    assert len({(layer.chunks, layer.slots) for layer in found.values()}) == 3
    assert max(layer.chunks // layer.slots for layer in found.values()) > 1
    for name, codec in codecs.items():
        assert found[name].symbols == given[name].tolist()
        expected = codec.dequantize(given[name])
        np.testing.assert_allclose(found[name].y_hat, expected, rtol=1e-5, atol=1e-4)
    labels = ["a", "b"] * (images // 2)
    assert parse_index(tmp_path / "s") == (
        [f"ü{i}" for i in range(images)],
        ["val"] * images,
        labels,
    )


@pytest.mark.parametrize("packing", [PLAIN, Packed()])
@pytest.mark.parametrize("channels", [1, 90, 20_000])  # so that zstd's headers differ
def test_stores_without_tables(tmp_path, packing, channels):
    rng = np.random.default_rng(channels)
    band = Band(rng.uniform(0.5, 2, channels), rng.normal(size=channels), None, False)
    bias = rng.normal(size=channels)
    codecs = [RawCodec((channels, 2, 2), dtype, packing) for dtype in ("float16", "float32")]
    for number, codec in enumerate(
        [*codecs, LinearCodec((channels, 2, 2), (band,), bias, None, packing)]
    ):
        symbols = rng.integers(0, 60, (5, codec.length), np.int32)
        with EmbeddingStore.create(tmp_path / f"{number}", codec, {}, classes=["a"]) as store:
            store.append(symbols, [f"{i}" for i in range(5)], ["test"] * 5, [0] * 5)
        found, y_hat, *_ = parse_store(tmp_path / f"{number}")
        assert found == symbols.tolist()
        np.testing.assert_allclose(y_hat, codec.dequantize(symbols), rtol=1e-5, atol=1e-5)


def sparse_counts(rng, *shape):
    return rng.integers(0, 2 ** rng.integers(1, 20, shape))


@pytest.mark.parametrize(("codes", "grid"), [(2, (1, 1)), (7, (5, 7)), (40, (3, 4))])
def test_stores_of_codes_given_their_neighbours(tmp_path, codes, grid):
    rng = np.random.default_rng(codes)
    classes = rng.permutation(np.arange(codes) % 5)
    size = int(classes.max()) + 2
    tables = [Tables.from_counts(sparse_counts(rng, size, codes), [0] * size) for _ in range(2)]
    numbers = [(grid[0] * grid[1], 4), (codes, 3), (9, 3, 3), (3, 4)]
    arrays = [rng.normal(size=shape) for shape in numbers]
    codec = VectorCodec((4, *grid), 2.5, *arrays, Neighbours(*tables, classes))
    check_second_reader(tmp_path / "s", codec, rng.integers(0, codes, (6, codec.length)))


@pytest.mark.parametrize(
    ("latents", "grid", "bands"), [(2, (1, 1), 1), (9, (5, 7), 6), (33, (2, 3), 3), (1, (18, 1), 8)]
)
def test_stores_of_transforms(tmp_path, latents, grid, bands):
    rng, p = np.random.default_rng(latents), grid[0] * grid[1]
    classes = rng.integers(0, 4, (latents, bands))
    classes[0, 0] = 3
    groups = sum(edge < latents for edge in (8, 32, 96))
    arrays = {
        "mean": rng.normal(size=(p, 4)),
        "basis": rng.normal(size=(latents, 4)),
        "steps": rng.uniform(0.1, 2, bands),
        "classes": classes,
        "expected": rng.integers(0, 2000, (groups, p)),
        "shrinkage": rng.uniform(0, 0.4, (4, 3)),
        "tables": Tables.from_counts(sparse_counts(rng, 24, 9), [-4] * 24),
    }
    codec = TransformCodec((4, *grid), 0.3, **arrays)
    symbols = np.rint(rng.laplace(0, 1.5, (6, codec.length))).astype(np.int32)
    symbols[0, :2] = [-(2**20), 2**20]
    check_second_reader(tmp_path / "s", codec, symbols)


def test_stores_of_sums(tmp_path):
    codec = summed()
    check_second_reader(tmp_path / "s", codec, symbols_of(codec, 6))


def check_second_reader(path, codec, symbols):
    with EmbeddingStore.create(path, codec, {}, classes=["a"]) as store:
        count = len(symbols)
        store.append(symbols, [f"{i}" for i in range(count)], ["test"] * count, [0] * count)
    found, y_hat, *_ = parse_store(path)
    assert found == symbols.tolist()
    expected = EmbeddingStore.open(path).read(range(count))
    scale = np.abs(expected).max(axis=(1, 2, 3), keepdims=True)
    assert (np.abs(y_hat - expected) < 1e-5 * scale).all()


@pytest.mark.parametrize(
    "name", ["", "coded_", "product_", "zstd_", "vector_", "transform_", "sum_", "layered_"]
)
def test_the_golden_stores(name):
    path = GOLDEN / f"{name}store_format_1.zarr"
    opened = EmbeddingStore.open(path)
    layers, images = parse_metadata(path)[0], range(len(opened))
    assert layers == list(opened.layers)
    for layer in layers:
        found, store = parse_store(path, layer), opened.layer(layer)
        assert found.symbols == store.read_symbols(images).tolist()
        np.testing.assert_allclose(found.y_hat, store.read(images), rtol=1e-5, atol=1e-5)
    ids, splits, labels = parse_index(path)
    assert ids == opened.ids.tolist() and splits == opened.splits.tolist()
    assert labels == [opened.classes[label] for label in opened.labels]
