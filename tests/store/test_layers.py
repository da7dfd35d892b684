"""Stores of several layers: each decoded by itself, all written together."""

import errno
import warnings
from pathlib import Path

import numpy as np
import pytest
import zarr
from stores import SHAPE, symbols_of, vector
from test_golden import vector as golden_vector

from nec.store import CorruptStreamError, EmbeddingStore, StoreWriter, contents
from nec.store.codec import Band, Codec, LinearCodec, RawCodec
from nec.store.schema import Layout

GOLDEN = Path(__file__).parents[1] / "golden/layered_store_format_1.zarr"


def pooled() -> LinearCodec:
    """Mean and deviation of four channels, in halves."""
    band = Band(np.full(8, 0.5), np.zeros(8), None, False)
    return LinearCodec((8, 1, 1), (band,), np.arange(8) / 4, None)


CODECS: dict[str, Codec] = {"embedding": vector(), "pooled": pooled()}


def symbols(images: int) -> dict[str, np.ndarray]:
    return {name: symbols_of(codec, images) for name, codec in CODECS.items()}


def write(path: Path, images: int = 40, step: int = 16) -> dict[str, np.ndarray]:
    given = symbols(images)
    splits = [("train", "val", "test")[i % 3] for i in range(images)]
    with EmbeddingStore.create(path, CODECS, {"a": 1}, classes=["a", "b"]) as store:
        for start in range(0, images, step):
            part = slice(start, start + step)
            ids = [f"image {i}" for i in range(images)[part]]
            own = {name: rows[part] for name, rows in given.items()}
            store.append(own, ids, splits[part], np.arange(images)[part] % 2)
    return given


def files_of(path: Path, name: str) -> list[Path]:
    return [file for file in (path / name / "c").rglob("*") if file.is_file()]


def test_every_layer_reads_what_was_written(tmp_path: Path) -> None:
    given = write(tmp_path / "s")
    store = EmbeddingStore.open(tmp_path / "s")
    assert list(store.layers) == ["embedding", "pooled"]
    for name, codec in CODECS.items():
        for opened in (store.layer(name), EmbeddingStore.open(tmp_path / "s", layers=name)):
            assert list(opened.layers) == [name]
            assert np.array_equal(opened.read_symbols(range(40)), given[name])
            assert np.array_equal(opened[3], codec.dequantize(given[name])[3])
            assert np.array_equal(
                np.concatenate(list(opened.batches(7))), codec.dequantize(given[name])
            )
            assert opened.ids[3] == "image 3"
            opened.verify()
    assert np.array_equal(store.read_symbols(range(40)), given["embedding"])
    assert store.verify().images == 40


def test_plain_zarr_and_xarray_read_every_layer(tmp_path: Path) -> None:
    xarray = pytest.importorskip("xarray")
    given = write(tmp_path / "s")
    group = zarr.open_group(tmp_path / "s", mode="r")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        dataset = xarray.open_zarr(tmp_path / "s", consolidated=False)
    for name, codec in CODECS.items():
        expected = codec.dequantize(given[name])
        assert np.array_equal(group[name][:], expected)
        assert np.array_equal(dataset[name][5:9].values, expected[5:9])


@pytest.mark.parametrize("name, other", [("pooled", "embedding"), ("embedding", "pooled")])
def test_a_layer_is_read_where_the_others_shards_are_gone(
    tmp_path: Path, name: str, other: str
) -> None:
    given = write(tmp_path / "s")
    for file in files_of(tmp_path / "s", other):
        file.unlink()
    store = EmbeddingStore.open(tmp_path / "s", layers=[name])
    assert np.array_equal(store.read_symbols(range(40)), given[name])
    assert store.bytes_per_image > 0
    store.verify()
    with pytest.raises(CorruptStreamError, match=f"{other}/c/0/0/0/0 is missing"):
        EmbeddingStore.open(tmp_path / "s").verify()


def test_bytes_are_those_of_the_layers_that_are_read(tmp_path: Path) -> None:
    given = write(tmp_path / "s")
    store = EmbeddingStore.open(tmp_path / "s")
    alone = {name: EmbeddingStore.open(tmp_path / "s", layers=name) for name in CODECS}
    streams = {name: list(map(len, CODECS[name].encode(given[name]))) for name in CODECS}
    for name, opened in alone.items():
        assert opened.stream_bytes().tolist() == streams[name]
        rest = sum(file.stat().st_size for file in files_of(tmp_path / "s", name))
        rest -= sum(streams[name])
        test = np.mean(streams[name][2::3])
        assert opened.bytes_per_image == pytest.approx(test + rest / 40)
        assert opened.side_bytes == store.side_bytes
    assert store.stream_bytes().tolist() == np.sum(list(streams.values()), axis=0).tolist()
    assert store.bytes_per_image == pytest.approx(sum(o.bytes_per_image for o in alone.values()))
    metadata = sum(file.stat().st_size for file in (tmp_path / "s").rglob("zarr.json"))
    assert store.side_bytes == metadata


@pytest.mark.parametrize("layers", ["embeddings", ["pooled", "id"], [], ""])
def test_what_is_no_layer_is_refused(tmp_path: Path, layers: str | list[str]) -> None:
    write(tmp_path / "s")
    with pytest.raises(ValueError, match="s has embedding, pooled; name some of these"):
        EmbeddingStore.open(tmp_path / "s", layers=layers)
    with pytest.raises(ValueError, match="has pooled"):
        EmbeddingStore.open(tmp_path / "s", layers="pooled").layer("embedding")


@pytest.mark.parametrize("name", ["id", "split", "../x", "Pooled", "", "2d", ".lock", "c/0"])
def test_a_layer_has_a_name_of_its_own(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="is not a name for an array"):
        EmbeddingStore.create(tmp_path / "s", {**CODECS, name: pooled()}, {}, classes=["a"])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("codecs", [{}, {"pooled": pooled()}])
def test_one_layer_is_what_is_read_first(tmp_path: Path, codecs: dict[str, Codec]) -> None:
    with pytest.raises(ValueError, match="give different names, and 'embedding'"):
        EmbeddingStore.create(tmp_path / "s", codecs, {}, classes=["a"])


def test_images_come_with_symbols_of_every_layer(tmp_path: Path) -> None:
    given = symbols(2)
    end = (["x", "y"], ["test"] * 2, [0, 0])
    with EmbeddingStore.create(tmp_path / "s", CODECS, {}, classes=["a"]) as store:
        with pytest.raises(ValueError, match=r"layers \['embedding'\]; give those of"):
            store.append(given["embedding"], *end)
        with pytest.raises(ValueError, match="1 images came with 2 ids"):
            store.append({**given, "pooled": given["pooled"][:1]}, *end)
        with pytest.raises(ValueError, match="symbols"):
            store.append({**given, "pooled": given["pooled"][:, :3]}, *end)
        assert len(store) == 0
        store.append(given, *end)
    EmbeddingStore.open(tmp_path / "s").verify()


@pytest.mark.parametrize("step", [1, 4, 9])
def test_layers_do_not_depend_on_how_they_were_appended(
    tmp_path: Path, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Layers of different layouts, of which one stays within a shard while the other fills several.
    large = RawCodec(SHAPE, "float16")
    monkeypatch.setattr(
        contents, "choose_layout", lambda mean: Layout(2, 2) if mean > 20 else Layout(8, 2)
    )
    codecs = {"small": pooled(), "embedding": large}
    given = {name: symbols_of(codec, 9) for name, codec in codecs.items()}
    for start in range(0, 9, step):
        part = slice(start, start + step)
        if start == 0:
            new = EmbeddingStore.create(tmp_path / "s", codecs, {}, classes=["a"])
        else:
            new = EmbeddingStore.extend(tmp_path / "s")
        with new:
            ids = [str(i) for i in range(9)[part]]
            own = {name: rows[part] for name, rows in given.items()}
            new.append(own, ids, ["val"] * len(ids), [0] * len(ids))
    store = EmbeddingStore.open(tmp_path / "s")
    assert list(store.layers) == ["embedding", "small"]
    assert store.layout == (2, 2)
    assert store.layer("small").layout.chunk == 8
    assert store.verify().shards == 3 + 1
    for name, rows in given.items():
        assert np.array_equal(store.layer(name).read_symbols(range(9)), rows)


def test_an_append_is_in_all_layers_or_in_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = symbols(3)

    def append(store: StoreWriter, image: int) -> None:
        own = {name: rows[image : image + 1] for name, rows in given.items()}
        store.append(own, [str(image)], ["train"], [0])

    def check(images: int) -> None:
        opened = EmbeddingStore.open(tmp_path / "s")
        opened.verify()
        assert len(opened) == images
        for name, rows in given.items():
            assert np.array_equal(opened.layer(name).read_symbols(range(images)), rows[:images])

    store = EmbeddingStore.create(tmp_path / "s", CODECS, {}, classes=["a"])
    append(store, 0)
    with monkeypatch.context() as broken:  # before the commit is complete: it did not happen
        broken.setattr(Path, "rename", _io_error)
        with pytest.raises(OSError, match="nothing further was kept"):
            append(store, 1)
    check(1)
    append(store, 1)
    check(2)
    replace, moved = Path.replace, []

    def interrupted(file: Path, target: Path) -> Path:
        if moved:
            _io_error()
        moved.append(target)
        return replace(file, target)

    with monkeypatch.context() as broken:  # after it, between the layers: it did
        broken.setattr(Path, "replace", interrupted)
        with pytest.raises(OSError, match="written but not yet in its place"):
            append(store, 2)
    assert len(moved) == 1
    store.release()
    check(3)


def _io_error(*_: object) -> None:
    raise OSError(errno.EIO, "Input/output error")


@pytest.mark.parametrize("name", CODECS)
def test_the_hash_of_the_metadata_covers_every_layer(tmp_path: Path, name: str) -> None:
    write(tmp_path / "s")
    file = tmp_path / "s" / name / "zarr.json"
    file.write_text(file.read_text().replace("channel", "channels"))
    for layers in (None, *CODECS):
        with pytest.raises(ValueError, match="metadata do not match their sha256"):
            EmbeddingStore.open(tmp_path / "s", layers=layers)


def test_a_store_of_one_layer_is_written_as_it_was_before_there_were_layers(tmp_path: Path) -> None:
    codec, rows = vector(), symbols_of(vector(), 5)
    end = (list("abcde"), ["test"] * 5, [0] * 5)
    for name, codecs, given in (
        ("alone", codec, rows),
        ("named", {"embedding": codec}, {"embedding": rows}),
    ):
        with EmbeddingStore.create(tmp_path / name, codecs, {}, classes=["a"]) as store:
            store.append(given, *end)
    found = [
        {file.relative_to(path): file.read_bytes() for file in path.rglob("*") if file.is_file()}
        for path in (tmp_path / "alone", tmp_path / "named")
    ]
    assert found[0] == found[1]
    assert b"layers" not in found[0][Path("zarr.json")]


def test_layered_stores_of_format_1_stay_readable_and_are_written_alike(tmp_path: Path) -> None:
    write_golden(tmp_path / "s")
    store = EmbeddingStore.open(GOLDEN)
    store.verify()
    for name, (codec, rows) in golden().items():
        alone = store.layer(name)
        assert alone.codec.sha256 == codec.sha256
        assert np.array_equal(alone.read_symbols(range(40)), rows)
        ours, frozen = files_of(tmp_path / "s", name), files_of(GOLDEN, name)
        assert [file.read_bytes() for file in ours] == [file.read_bytes() for file in frozen]


def golden() -> dict[str, tuple[Codec, np.ndarray]]:
    """A grid of codes, and a vector beside it."""
    vectors = np.arange(40 * 8).reshape(40, 8) ** 2 % 251 - 125
    return {"embedding": golden_vector(), "pooled": (pooled(), vectors.astype(np.int32))}


def write_golden(path: Path) -> None:
    layers = golden()
    codecs = {name: codec for name, (codec, _) in layers.items()}
    with EmbeddingStore.create(path, codecs, {}, classes=["a"]) as store:
        given = {name: rows for name, (_, rows) in layers.items()}
        store.append(given, [f"image {i}" for i in range(40)], ["test"] * 40, [0] * 40)


if __name__ == "__main__":
    write_golden(GOLDEN)
