import os
import pickle
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from stores import SHAPE, linear, symbols_of

from nec.store import CorruptStreamError, EmbeddingStore
from nec.store.chunks import pack_chunk, pack_shard
from nec.store.codec import Codec, RawCodec

Write = Callable[..., tuple[Path, np.ndarray]]


def files_below(path: Path) -> list[Path]:
    return [file for file in path.rglob("*") if file.is_file()]


def test_a_store_reads_what_was_written(codec: Codec, write: Write) -> None:
    path, symbols = write(codec, origin={"name": "vit", "mean": (0.5, 1e-9)}, note="é")
    store = EmbeddingStore.open(path)
    assert np.array_equal(store.read_symbols(np.arange(40)), symbols)
    assert np.array_equal(store.read(np.arange(40)), codec.dequantize(symbols), equal_nan=True)
    assert store.ids.tolist() == [f"ort/bild-{i}é" for i in range(40)]
    assert store.splits.tolist() == [("train", "val", "test")[i % 3] for i in range(40)]
    assert store.labels.tolist() == [i % 2 for i in range(40)]
    assert store.labels.dtype == np.int64
    assert store.classes == ["a", "b"]
    assert store.attrs == {"origin": {"name": "vit", "mean": [0.5, 1e-9]}, "note": "é"}
    assert store.codec.sha256 == codec.sha256
    assert len(store) == 40
    store.verify()


def test_images_are_read_in_the_order_they_are_asked_for(codec: Codec, write: Write) -> None:
    path, symbols = write(codec)
    store = EmbeddingStore.open(path)
    y_hat = codec.dequantize(symbols)
    chosen = [39, 3, 3, -40, 17, -1]
    assert np.array_equal(store.read(chosen), y_hat[chosen])
    assert np.array_equal(store.read(store.splits == "val"), y_hat[1::3])
    assert store.read([]).shape == (0, *SHAPE)
    assert np.array_equal(store[-2], y_hat[-2])
    for index in (
        slice(0, 2),
        slice(-3, None),
        slice(30, 1, -7),
        slice(9, 3),
        chosen,
        y_hat[:, 0, 0, 0] > 0,
    ):
        assert np.array_equal(store[index], y_hat[index])
    assert len(list(store)) == 40


@pytest.mark.parametrize("index", [40, -41])
def test_an_image_outside_the_store_is_an_index_error(write: Write, index: int) -> None:
    store = EmbeddingStore.open(write(linear(tables=True))[0])
    with pytest.raises(IndexError, match=f"{index} is outside a store of 40"):
        store.read([0, index])


@pytest.mark.parametrize("index", [(0, 1), (slice(None), 0), 0.5, "0", None])
def test_a_store_is_indexed_by_images_alone(write: Write, index: object) -> None:
    store = EmbeddingStore.open(write(linear(tables=True), images=3)[0])
    with pytest.raises(ValueError, match=r"images alone|give integers"):
        store[index]


def test_a_path_may_begin_with_the_home_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    codec = RawCodec((1, 1, 1), "float32")
    with EmbeddingStore.create("~/s", codec, {}, classes=["a"]) as new:
        new.append(np.zeros((1, 1), np.int32), ["x"], ["train"], [0])
    with EmbeddingStore.extend("~/s") as more:
        more.append(np.ones((1, 1), np.int32), ["y"], ["train"], [0])
    store = EmbeddingStore.open("~/s")
    assert store.url == str(tmp_path / "s")
    assert store.verify().images == 2


@pytest.mark.parametrize("indices", [[0.5], [[1, 2]], [True, False], 3])
def test_what_is_no_index_is_refused(write: Write, indices: object) -> None:
    store = EmbeddingStore.open(write(linear(tables=True))[0])
    with pytest.raises(ValueError, match="indices are"):
        store.read(indices)


def test_plain_zarr_reads_the_same_values(codec: Codec, write: Write) -> None:
    path, symbols = write(codec)
    y_hat = codec.dequantize(symbols)
    group = zarr.open_group(path, mode="r")
    array = group["embedding"]
    rows = np.array([39, 3, 3, 20])
    assert np.array_equal(array[:], y_hat)
    for selection in (
        np.s_[7],
        np.s_[-1],
        np.s_[3:30:7],
        np.s_[5, 3],
        np.s_[:, 2],
        np.s_[10:20, :, 1, 1:],
        np.s_[..., 0],
        np.s_[5, 3, 2, 1],
    ):
        assert np.array_equal(array[selection], y_hat[selection])
    assert np.array_equal(array.oindex[rows], y_hat[rows])
    assert np.array_equal(array.oindex[rows, :, [1]], y_hat[rows][:, :, [1]])
    assert np.array_equal(array.vindex[rows, 1, 2, 0], y_hat[rows, 1, 2, 0])
    assert group["id"][3] == "ort/bild-3é"
    assert [group["split"].attrs["names"][i] for i in group["split"][:3]] == [
        "train",
        "val",
        "test",
    ]
    assert group["label"][:3].tolist() == [0, 1, 0]


def test_xarray_reads_the_same_values(write: Write) -> None:
    xarray = pytest.importorskip("xarray")
    codec = linear(tables=True)
    path, symbols = write(codec, note="n")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        dataset = xarray.open_zarr(path, consolidated=False)
    assert dataset.embedding.dims == ("image", "channel", "row", "column")
    assert np.array_equal(dataset.embedding[5:9].values, codec.dequantize(symbols[5:9]))
    assert dataset.label.dtype == np.int32
    assert dataset.id[2].item() == "ort/bild-2é"
    assert dataset.attrs["note"] == "n"


def test_opening_and_reading_warn_of_nothing(write: Write) -> None:
    path, _ = write(linear(tables=True))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        store = EmbeddingStore.open(path)
        assert store.ids[0] == zarr.open_group(path, mode="r")["id"][0]
        assert np.array_equal(store[0], zarr.open_group(path, mode="r")["embedding"][0])


def test_one_image_decodes_only_itself(write: Write) -> None:
    codec = RawCodec(SHAPE, "float16")
    path, symbols = write(codec, images=3)
    good = codec.encode(symbols)
    broken = pack_chunk(0, [b"no stream of this codec", good[1], b""])
    shard = path / "embedding/c/0/0/0/0"
    shard.write_bytes(pack_shard([broken], slots=EmbeddingStore.open(path).layout.shard))
    expected = codec.dequantize(symbols[1:2])[0]
    assert np.array_equal(EmbeddingStore.open(path)[1], expected)
    assert np.array_equal(zarr.open_group(path, mode="r")["embedding"][1], expected)
    with pytest.raises(ValueError, match="bytes"):
        EmbeddingStore.open(path)[2]


def test_values_cannot_be_assigned_by_plain_zarr(write: Write) -> None:
    path, _ = write(linear(tables=True))
    with pytest.raises(NotImplementedError, match=r"EmbeddingStore\.create"):
        zarr.open_group(path, mode="r+")["embedding"][0] = 0.0


def test_bytes_per_image_adds_up_to_the_files_on_disk(codec: Codec, tmp_path: Path) -> None:
    symbols = symbols_of(codec, 50)
    with EmbeddingStore.create(tmp_path / "s", codec, {}, splits=["test"], classes=["a"]) as new:
        new.append(symbols, [str(i) for i in range(50)], ["test"] * 50, np.zeros(50, np.int64))
    store = EmbeddingStore.open(tmp_path / "s")
    on_disk = {file: os.stat(file).st_size for file in files_below(tmp_path / "s")}
    metadata = sum(size for file, size in on_disk.items() if file.name == "zarr.json")
    embedding = sum(size for file, size in on_disk.items() if "embedding/c" in str(file))
    assert store.side_bytes == metadata
    assert store.bytes_per_image * 50 == pytest.approx(embedding, abs=1e-6)
    assert store.index_bytes_per_image * 50 == pytest.approx(
        sum(on_disk.values()) - metadata - embedding, abs=1e-6
    )
    assert store.size_bytes == sum(on_disk.values())
    assert store.stream_bytes().tolist() == [len(stream) for stream in codec.encode(symbols)]


def test_bytes_per_image_takes_the_streams_of_test_images(write: Write) -> None:
    codec = linear(tables=True)
    path, symbols = write(codec)
    store = EmbeddingStore.open(path)
    streams = np.array([len(stream) for stream in codec.encode(symbols)])
    shards = sum(os.stat(file).st_size for file in files_below(path / "embedding/c"))
    rest = (shards - streams.sum()) / 40
    assert store.bytes_per_image == pytest.approx(streams[2::3].mean() + rest)
    for measured in (False, True):
        cost = store.cost(measured)
        assert (cost.bytes_per_image, cost.split) == (store.bytes_per_image, "test")
        assert np.array_equal(cost.streams, streams[2::3])


def test_an_image_of_a_store_without_test_images_costs_its_share_of_the_shards(
    write: Write,
) -> None:
    codec = linear(tables=True)
    path, symbols = write(codec, images=2)  # of train and val
    store = EmbeddingStore.open(path)
    shards = sum(os.stat(file).st_size for file in files_below(path / "embedding/c"))
    assert (store.bytes_per_image, len(store.cost().streams)) == (shards / 2, 0)
    rate, split, streams = store.cost(measured=True)
    assert (rate, split) == (pytest.approx(shards / 2), None)
    assert streams.tolist() == [len(stream) for stream in codec.encode(symbols)]


def test_a_store_of_many_shards_reads_as_one(tmp_path: Path) -> None:
    codec = RawCodec((64, 16, 16), "float32")  # 64 KiB an image, so 64 images a shard
    images = 130
    symbols = np.random.default_rng(0).integers(-9, 9, (images, codec.length)).astype(np.int32)
    with EmbeddingStore.create(tmp_path / "s", codec, {}, classes=["a"]) as new:
        for start in range(0, images, 50):
            ids = [str(i) for i in range(images)[start : start + 50]]
            part = symbols[start : start + 50]
            new.append(part, ids, ["train"] * len(ids), [0] * len(ids))
    store = EmbeddingStore.open(tmp_path / "s")
    assert len(list((tmp_path / "s/embedding/c").iterdir())) == 3
    assert np.array_equal(store.read_symbols([129, 0, 64, 63]), symbols[[129, 0, 64, 63]])
    assert (store.stream_bytes() == 65536).all()
    assert store.bytes_per_image < 65536 * 1.001
    store.verify()


def test_a_store_opens_by_url_and_travels_to_workers(write: Write) -> None:
    pytest.importorskip("fsspec")
    codec = linear(tables=True)
    path, symbols = write(codec)
    store = EmbeddingStore.open(f"file://{path}")
    assert np.array_equal(store[4], codec.dequantize(symbols[4:5])[0])
    store.verify()
    travelled = pickle.loads(pickle.dumps(EmbeddingStore.open(path)))
    assert np.array_equal(travelled[4], store[4])


def test_the_same_images_give_the_same_bytes_for_every_batch_size(tmp_path: Path) -> None:
    codec = linear(tables=True)
    symbols = symbols_of(codec, 30)
    contents = []
    for size in (1, 7, 30):
        path = tmp_path / f"by{size}"
        with EmbeddingStore.create(path, codec, {}, classes=["a"]) as new:
            for start in range(0, 30, size):
                ids = [str(i) for i in range(30)[start : start + size]]
                part = symbols[start : start + size]
                new.append(part, ids, ["train"] * len(ids), [0] * len(ids))
        files = sorted(files_below(path))
        contents.append([(file.relative_to(path), file.read_bytes()) for file in files])
    assert contents[0] == contents[1] == contents[2]


def test_a_store_is_read_where_torch_is_absent(write: Write) -> None:
    path, _ = write(linear(tables=True))
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "import zarr; from nec.store import EmbeddingStore\n"
        f"store = EmbeddingStore.open({str(path)!r}); store.verify()\n"
        f"assert (zarr.open_group({str(path)!r})['embedding'][3] == store[3]).all()\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("size", [1, 7, 40, 64])
def test_batches_are_what_reading_gives(write: Write, size: int) -> None:
    path, _ = write(linear(tables=True))
    store = EmbeddingStore.open(path)
    assert np.array_equal(np.concatenate(list(store.batches(size))), store.read(range(40)))
    chosen = [7, 3, -1, 3]
    assert np.array_equal(np.concatenate(list(store.batches(size, chosen))), store.read(chosen))


def test_batches_may_be_left_early_and_name_what_is_damaged(write: Write) -> None:
    path, _ = write(linear(tables=True))
    store = EmbeddingStore.open(path)
    assert next(store.batches(4)).shape == (4, *SHAPE)
    with pytest.raises(ValueError, match="at least one image"):
        next(store.batches(0))
    (path / "embedding/c/0/0/0/0").unlink()
    with pytest.raises(CorruptStreamError, match="is missing"):
        next(EmbeddingStore.open(path).batches(4))


NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30)
SYMBOLS = st.one_of(st.integers(-15, 15), st.integers(-(2**31), 2**31 - 1))


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_any_symbols_ids_and_attributes_come_back(data: st.DataObject) -> None:
    codec = linear(tables=True, pooled=data.draw(st.booleans()))
    ids = data.draw(st.lists(NAMES, min_size=1, max_size=9, unique=True))
    symbols = data.draw(arrays(np.int32, (len(ids), codec.length), elements=SYMBOLS))
    attrs = data.draw(st.dictionaries(NAMES.filter(lambda name: name != "nec"), NAMES, max_size=3))
    cut = data.draw(st.integers(0, len(ids)))
    with TemporaryDirectory() as folder:
        with EmbeddingStore.create(f"{folder}/s", codec, attrs, classes=["a"]) as store:
            for part in (slice(0, cut), slice(cut, None)):
                size = len(ids[part])
                store.append(symbols[part], ids[part], ["val"] * size, np.zeros(size, int))
        found = EmbeddingStore.open(f"{folder}/s")
        found.verify()
        assert found.ids.tolist() == ids
        assert found.attrs == attrs
        assert np.array_equal(found.read_symbols(range(len(ids))), symbols)
        values = zarr.open_group(f"{folder}/s", mode="r")["embedding"][:]
        assert np.array_equal(values, codec.dequantize(symbols))
