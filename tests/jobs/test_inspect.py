import io
import json
import os
import subprocess
import sys
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from nec.cli import main
from nec.coding import Neighbours, Tables
from nec.jobs.inspect import counter
from nec.store import EmbeddingStore
from nec.store.codec import (
    Band,
    Codec,
    LinearCodec,
    ProductCodec,
    RawCodec,
    TransformCodec,
    VectorCodec,
)
from nec.store.packing import Zstd

ENCODER = {"name": "vit_small", "block": 8, "image_size": 252, "weights_sha256": "ab" * 32}


@pytest.fixture
def store(tmp_path: Path) -> Path:
    codec = RawCodec((4, 2, 2), "float32")
    attrs = {"encoder": ENCODER, "pixels_per_image": 4096, "raw_bytes_per_image": 12288}
    path = tmp_path / "s.zarr"
    with EmbeddingStore.create(path, codec, attrs, classes=[f"class {i}" for i in range(9)]) as new:
        symbols = np.arange(96).reshape(6, 16)
        splits = ["train"] * 3 + ["val"] + ["test"] * 2
        new.append(symbols, list("abcdef"), splits, np.arange(6))
    return path


def test_the_table_says_what_is_in_a_store(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(store)]) == 0
    shown = capsys.readouterr().out
    for said in (
        "6 (train 3, val 1, test 2)",
        "9 (class 0, class 1, class 2, class 3, class 4, class 5, ...)",
        "4 channels, 2 x 2 positions",
        "vit_small, block 8, 252 px, weights sha256 abababababab",
        "raw float32, 16 symbols per image",
        "metadata match their sha256; chunks were not read through",
        "complete",
    ):
        assert said in shown


def test_the_store_in_the_folder_of_a_run_is_found(
    store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = store.parent / "run"
    run.mkdir()
    assert main(["inspect", str(run)]) == 1
    assert "store.zarr where it is a run's" in capsys.readouterr().err
    store.rename(run / "store.zarr")
    assert found_in(run, capsys) == found_in(run / "store.zarr", capsys)


def test_json_holds_the_stores_own_numbers(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(store), "--json", "--verify"]) == 0
    found = json.loads(capsys.readouterr().out)
    opened = EmbeddingStore.open(store)
    assert found["bytes_per_image"] == opened.bytes_per_image
    assert found["index_bytes_per_image"] == opened.index_bytes_per_image
    assert found["side_bytes"] == opened.side_bytes
    assert found["bpp"] == pytest.approx(8 * opened.bytes_per_image / 4096)
    assert found["ratio"] == pytest.approx(12288 / opened.bytes_per_image)
    assert found["codec"]["sha256"] == opened.codec.sha256
    assert found["attributes"]["encoder"] == ENCODER
    assert found["verified"] is True
    assert found["checked"] == {"images": 6, "chunks": found["chunks"], "shards": 1}


def test_layers_are_shown_priced_and_verified_each(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    codecs = {"embedding": RawCodec((4, 2, 2), "float32"), "pooled": RawCodec((8, 1, 1), "float16")}
    path = tmp_path / "s.zarr"
    with EmbeddingStore.create(path, codecs, {}, classes=["a"]) as new:
        symbols = {"embedding": np.arange(48).reshape(3, 16), "pooled": np.ones((3, 8), int)}
        new.append(symbols, list("abc"), ["test"] * 3, [0] * 3)
    assert main(["inspect", str(path), "--verify"]) == 0
    shown = capsys.readouterr().out
    for said in (
        "embedding        4 channels, 2 x 2 positions",
        "pooled           8 channels, 1 x 1 positions",
        "pooled codec     raw float16, 8 symbols per image",
        "3 images in 2 chunks in 2 shards, and index arrays match their checksums",
    ):
        assert said in shown
    assert main(["inspect", str(path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    sizes = {name: layer["bytes_per_image"] for name, layer in found["layers"].items()}
    store = EmbeddingStore.open(path)
    assert sizes == {name: store.layer(name).bytes_per_image for name in codecs}
    assert sum(sizes.values()) == pytest.approx(found["bytes_per_image"])
    files = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    assert found["size_bytes"] == files
    shard = path / "pooled/c/0/0/0/0"
    shard.write_bytes(shard.read_bytes()[:-1] + b"?")
    assert main(["inspect", str(path), "--verify"]) == 1
    assert str(shard) in capsys.readouterr().err


def test_verify_names_the_damaged_file(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shard = store / "embedding/c/0/0/0/0"
    content = bytearray(shard.read_bytes())
    content[30] ^= 1
    shard.write_bytes(content)
    assert main(["inspect", str(store)]) == 0
    assert main(["inspect", str(store), "--verify"]) == 1
    error = capsys.readouterr().err
    assert "embedding/c/0/0/0/0 chunk 0" in error
    assert error.count("\n") == 1


def test_a_store_that_knows_nothing_of_its_images_is_shown_without_rates(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with EmbeddingStore.create(
        tmp_path / "s", RawCodec((1, 1, 1), "float32"), {}, splits=["all"], classes=["a"]
    ) as new:
        new.append(np.zeros((1, 1), np.int32), ["x"], ["all"], [0])
    assert main(["inspect", str(tmp_path / "s")]) == 0
    shown = capsys.readouterr().out
    assert "bytes per image" in shown
    assert "bpp" not in shown
    assert "encoder" not in shown


@pytest.mark.parametrize("size", ["many", None, [], {"x": 1}, True, 0, -4096, 10**400])
def test_attributes_that_mean_something_else_are_shown_as_they_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], size: object
) -> None:
    attrs = {"encoder": "dino", "pixels_per_image": size, "raw_bytes_per_image": 12288}
    with EmbeddingStore.create(
        tmp_path / "s", RawCodec((1, 1, 1), "float32"), attrs, classes=["a"]
    ) as new:
        new.append(np.zeros((1, 1), np.int32), ["x"], ["test"], [0])
    assert main(["inspect", str(tmp_path / "s")]) == 0
    shown = capsys.readouterr().out
    assert "dino" in shown and "ratio" in shown
    assert "bpp" not in shown
    assert json.dumps({"pixels_per_image": size})[:100] in shown


def linear(pooled: bool = False, tables: bool = True) -> LinearCodec:
    """Two latents with a basis, pooled; three without one, at every position or pooled, too."""
    rng = np.random.default_rng(0)
    few = Band(np.ones(2), np.zeros(2), rng.normal(size=(2, 3)), pooled=True)
    all_ = Band(np.full(3, 0.1), np.zeros(3), None, pooled=pooled)
    frozen = Tables.from_laplace(np.full(5, 2.0)) if tables else None
    return LinearCodec((3, 4, 5), (few, all_), np.zeros(3), frozen)


def written(path: Path, codec: Codec, ids: list[str], split: str = "train") -> Path:
    """A store of random symbols."""
    rng = np.random.default_rng(1)
    with EmbeddingStore.create(path, codec, {}, classes=["a"]) as new:
        symbols = rng.integers(-9, 9, (len(ids), codec.length)).astype(np.int32)
        new.append(symbols, ids, [split] * len(ids), [0] * len(ids))
    return path


def found_in(path: Path, capsys: pytest.CaptureFixture[str], *options: str) -> dict[str, Any]:
    assert main(["inspect", str(path), "--json", *options]) == 0
    return json.loads(capsys.readouterr().out)


def test_bytes_add_up_to_the_files_on_disk(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(tmp_path / "s", linear(), [f"i/{n}" for n in range(300)], "test")
    found = found_in(path, capsys)
    stream = found["stream_bytes"]
    sizes = [file.stat().st_size for file in path.rglob("*") if file.is_file()]
    shards = sum(file.stat().st_size for file in (path / "embedding/c").rglob("*/0/0/0"))
    assert found["size_bytes"] == sum(sizes)
    assert found["bytes_per_image"] * 300 == pytest.approx(shards)
    assert stream["mean"] + found["overhead_bytes_per_image"] == pytest.approx(shards / 300)
    assert stream["min"] <= stream["median"] <= stream["max"]
    assert found["overhead_bytes_per_image"] > 0


def test_streams_are_of_the_images_that_the_mean_is_of(
    tmp_path: Path, store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert found_in(store, capsys)["stream_bytes"]["images"] == 2
    trained = written(tmp_path / "t", linear(), ["x", "y", "z"])
    stream = found_in(trained, capsys, "--verify")["stream_bytes"]
    assert (stream["images"], stream["split"]) == (3, None)


def test_a_store_without_test_images_is_priced_by_its_size_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(tmp_path / "s", linear(), [f"{n}" for n in range(300)])
    exact = found_in(path, capsys, "--verify")
    shard = path / "embedding/c/0/0/0/0"
    os.truncate(shard, 0)  # as large as it was, but there is nothing to read in it
    os.truncate(shard, round(300 * exact["bytes_per_image"]))
    found = found_in(path, capsys)
    unread = {"stream_bytes": None, "overhead_bytes_per_image": None}
    unread |= {"verified": False, "checked": None}
    assert found == {**exact, **unread}
    assert main(["inspect", str(path)]) == 0
    assert "lengths were not read; --verify does that" in capsys.readouterr().out


def test_the_parts_of_a_linear_codec_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    codec = linear()
    path = written(tmp_path / "s", codec, ["x"])
    told = found_in(path, capsys)["codec"]
    assert told["bands"] == [
        {"latents": 2, "pooled": True, "basis": True},
        {"latents": 3, "pooled": False, "basis": False},
    ]
    assert codec.tables is not None
    assert told["tables"]["contexts"] == 5
    assert told["tables"]["symbols"] == codec.tables.frequencies.shape[1] - 1
    assert told["tables"]["sha256"] == codec.tables.sha256
    without = linear(tables=False).to_config()["data"]
    saved = len(codec.to_config()["data"]) - len(without)
    assert told["tables"]["metadata_bytes"] == pytest.approx(saved, abs=40)
    assert main(["inspect", str(path)]) == 0
    shown = capsys.readouterr().out
    assert "2 latents pooled, with a basis; 3 latents at 4 x 5 positions, no basis" in shown
    assert "5 contexts" in shown


def test_a_codec_without_tables_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(tmp_path / "s", linear(tables=False), ["x"])
    assert found_in(path, capsys)["codec"]["tables"] is None
    assert main(["inspect", str(path)]) == 0
    assert "none: a symbol is a byte" in capsys.readouterr().out


def product() -> ProductCodec:
    tables = Tables.from_counts(np.ones((2, 4), int), np.zeros(2, int))
    centroids, basis = np.arange(8.0).reshape(2, 4, 1), np.eye(2, 3)
    return ProductCodec((3, 4, 5), centroids, basis, np.zeros(3), tables)


def vector() -> VectorCodec:
    rng = np.random.default_rng(0)
    neighbours = Neighbours.from_counts(*rng.integers(1, 9, (2, 4, 5)), np.array([0, 1, 2, 0, 1]))
    shapes = [(20, 3), (5, 2), (9, 2, 2), (2, 3)]
    arrays = [rng.normal(size=shape) for shape in shapes]
    return VectorCodec((3, 4, 5), 1.0, *arrays, neighbours)


def transform() -> TransformCodec:
    rng = np.random.default_rng(0)
    mean, basis, steps = rng.normal(size=(20, 3)), rng.normal(size=(2, 3)), np.ones(5)
    classes, expected, shrinkage = np.zeros((2, 5), int), np.zeros((0, 20), int), np.zeros((1, 1))
    tables = Tables.from_laplace(np.full(6, 2.0))
    fixed = (mean, basis, steps, classes, expected, shrinkage)
    return TransformCodec((3, 4, 5), 1.0, *fixed, tables)


@pytest.mark.parametrize(
    ("codec", "largest", "plain", "said"),
    [
        (product(), 3, product().tables.plain, ["2 parts at 4 x 5", "2 contexts, 4 symbols"]),
        (
            vector(),
            4,
            vector().neighbours.plain,
            ["vector, 20 symbols", "one of 5 at 4 x 5 positions, of 2 latents", "4 contexts, 5 sy"],
        ),
        (
            transform(),
            9,
            transform().tables.plain,
            ["transform, 40 symbols", "2 latents, by a DCT over 4 x 5 positions", "6 contexts"],
        ),
    ],
    ids=["product", "vector", "transform"],
)
def test_codecs_of_other_kinds_are_told_and_drawn(
    tmp_path: Path,
    codec: Codec,
    largest: int,
    plain: bytes,
    said: list[str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "s"
    with EmbeddingStore.create(path, codec, {}, classes=["a"]) as new:
        symbols = np.random.default_rng(1).integers(0, largest + 1, (3, codec.length))
        new.append(symbols.astype(np.int32), list("xyz"), ["test"] * 3, [0] * 3)
    assert found_in(path, capsys)["codec"]["tables"]["sha256"] == sha256(plain).hexdigest()
    assert drawn(path).shape == (412, 515, 3)
    assert np.ptp(drawn(path)) > 0
    shown = capsys.readouterr().out
    for words in said:
        assert words in shown


def test_a_store_is_unfinished_until_its_writer_closes_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "s"
    with EmbeddingStore.create(path, RawCodec((1, 1, 1), "float32"), {}, classes=["a"]) as new:
        new.append(np.zeros((1, 1), np.int32), ["x"], ["train"], [0])
        assert found_in(path, capsys)["complete"] is False
        assert main(["inspect", str(path), "--verify"]) == 0
        assert "unfinished: its writer has not closed it" in capsys.readouterr().out
    assert found_in(path, capsys)["complete"] is True


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("stream", "lines"), [(io.StringIO(), 2), (Terminal(), 40)])
def test_what_takes_long_is_counted(stream: io.StringIO, lines: int) -> None:
    with counter(stream, iter(np.arange(0, 100, 0.51)).__next__) as progress:
        for done in range(1, 41):
            progress(done, 4000)
    said = [part for part in stream.getvalue().replace("\r", "\n").split("\n") if "verify" in part]
    assert len(said) == pytest.approx(lines, abs=lines // 2)
    assert said[-1].endswith(" of 4,000 shards")


def test_what_is_quick_is_not_counted() -> None:
    stream = io.StringIO()
    with counter(stream, lambda: 0.0) as progress:
        progress(1, 1)
    assert not stream.getvalue()


def test_verify_counts_every_shard(store: Path) -> None:
    calls = []
    opened = EmbeddingStore.open(store)
    checked = opened.verify(lambda done, total: calls.append((done, total)))
    assert calls == [(n + 1, checked.shards) for n in range(checked.shards)]
    assert checked == opened.layout.extent(6)


@pytest.fixture
def scenes(tmp_path: Path) -> Path:
    """Three embeddings whose left and right differ, and the source of the first."""
    codec = RawCodec((3, 2, 2), "float32")
    halves = np.zeros((3, 3, 2, 2), np.float32)
    halves[0, 0, :, 0], halves[1, 0, :, 1], halves[2, 1] = 1, 1, 1
    with EmbeddingStore.create(tmp_path / "s", codec, {}, classes=["a"]) as new:
        symbols = halves.reshape(3, -1).view(np.int32)
        new.append(symbols, ["a/0.png", "a/1.tif", "../2.png"], ["test"] * 3, [0] * 3)
    (tmp_path / "data/a").mkdir(parents=True)
    Image.new("RGB", (20, 10), (255, 0, 0)).save(tmp_path / "data/a/0.png")
    return tmp_path / "s"


def drawn(store: Path, *options: str) -> np.ndarray:
    file = store.parent / "p.png"
    assert main(["inspect", str(store), "--picture", str(file), *options]) == 0
    return np.asarray(Image.open(file))


def test_a_picture_enlarges_each_token_to_a_block(scenes: Path) -> None:
    picture = drawn(scenes)
    assert picture.shape == (512, 512, 3)
    assert (picture[:, :256] == picture[0, 0]).all()
    assert (picture[:, 256:] == picture[0, -1]).all()
    assert (picture[0, 0] != picture[0, -1]).any()


def test_a_colour_means_the_same_in_all_pictures_of_a_store(scenes: Path) -> None:
    first, second = drawn(scenes, "--image", "0"), drawn(scenes, "--image", "a/1.tif")
    assert np.array_equal(first, second[:, ::-1])
    assert np.array_equal(drawn(scenes, "--image", "-1"), drawn(scenes, "--image", "2"))


def test_a_source_lies_left_of_its_embedding_in_its_own_shape(
    scenes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = drawn(scenes, "--source", str(scenes.parent / "data"))
    assert f"right of {scenes.parent / 'data/a/0.png'}" in capsys.readouterr().out
    assert picture.shape[0] == 512
    assert (picture[:, :1024] == (255, 0, 0)).all()
    assert (picture[:, -1024:-512] == drawn(scenes)[0, 0]).all()
    assert "alone; --source FOLDER" in capsys.readouterr().out


def test_a_source_of_many_bands_is_a_tiff(scenes: Path) -> None:
    rasterio = pytest.importorskip("rasterio")
    bands = np.arange(4 * 8 * 8, dtype=np.uint16).reshape(4, 8, 8)
    path = scenes.parent / "data/a/1.tif"
    about = {"height": 8, "width": 8, "count": 4, "dtype": "uint16"}
    transform = rasterio.Affine.scale(2)
    with rasterio.open(path, "w", driver="GTiff", transform=transform, **about) as file:
        file.write(bands)
    picture = drawn(scenes, "--image", "a/1.tif", "--source", str(scenes.parent / "data"))
    assert picture[0, 0].max() == 0
    assert picture[511, 511].min() == 255


def test_what_is_drawn_is_in_the_json(scenes: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = str(scenes.parent / "p.png")
    picture = found_in(scenes, capsys, "--picture", file, "--image", "1")["picture"]
    assert picture["variance_share"] == pytest.approx(1)
    del picture["variance_share"]
    about = {"file": file, "image": 1, "id": "a/1.tif", "source": None, "fitted_images": 3}
    assert picture == about


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--picture", "p.jpg"], "p.jpg is not a PNG; give a name that ends in .png"),
        (["--picture", "none/p.png"], "none is not a folder; make it"),
        (
            ["--picture", "p.png", "--image", "b"],
            "there are 'a/0.png', 'a/1.tif', '../2.png': give",
        ),
        (["--picture", "p.png", "--image", "1.t"], "there are 'a/1.tif': give an id, or a place"),
        (["--picture", "p.png", "--image", "3"], "image 3 is outside"),
        (["--picture", "p.png", "--image", "-4"], "give a place from 0 to 2, or an id"),
        (["--picture", "p.png", "--image", "1", "--source", "data"], "1.tif does not exist; give"),
        (["--picture", "p.png", "--image", "2", "--source", "data"], "not a path below --source"),
        (["--picture", "p.png", "--source", "broken"], "a/0.png cannot be read as an image"),
    ],
)
def test_a_picture_that_cannot_be_made_is_an_error_in_one_line(
    scenes: Path,
    options: list[str],
    said: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(scenes.parent)
    (scenes.parent / "broken/a").mkdir(parents=True)
    (scenes.parent / "broken/a/0.png").write_bytes(b"no image")
    assert main(["inspect", "s", *options]) == 1
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not (scenes.parent / "p.png").exists()


def test_what_packs_the_bytes_of_a_codec_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(tmp_path / "s", RawCodec((4, 1, 1), "float32", Zstd()), ["x"])
    assert found_in(path, capsys)["codec"]["packing"] == "zstd"
    assert main(["inspect", str(path)]) == 0
    assert "raw float32 zstd, 4 symbols per image" in capsys.readouterr().out


@pytest.mark.parametrize("codec", [RawCodec((4, 1, 1), "float32"), linear(pooled=True)])
def test_pooled_embeddings_have_no_picture(
    tmp_path: Path, codec: Codec, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(tmp_path / "s", codec, ["x"])
    assert main(["inspect", str(path), "--picture", str(tmp_path / "p.png")]) == 1
    assert "pooled embeddings, which have no grid" in capsys.readouterr().err


def test_image_and_source_are_of_a_picture(scenes: Path) -> None:
    for option in ("--image", "--source"):
        with pytest.raises(SystemExit) as stopped:
            main(["inspect", str(scenes), option, "x"])
        assert stopped.value.code == 2


def test_a_picture_without_pillow_says_what_to_install(
    scenes: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "PIL"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "PIL", None)
    assert main(["inspect", str(scenes), "--picture", str(scenes.parent / "p.png")]) == 1
    error = capsys.readouterr().err
    assert error == (
        "nec: error: pictures need Pillow, which is not installed; pip install pillow\n"
    )


def test_a_tiff_without_rasterio_says_what_to_install(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(tmp_path / "s", RawCodec((4, 1, 2), "float32"), ["x.tif"])
    (tmp_path / "x.tif").touch()
    monkeypatch.setitem(sys.modules, "rasterio", None)
    words = ["inspect", str(path), "--picture", str(tmp_path / "p.png"), "--source", str(tmp_path)]
    assert main(words) == 1
    assert capsys.readouterr().err == (
        "nec: error: TIFF sources need rasterio, which is not installed; pip install rasterio\n"
    )


def test_a_picture_takes_no_torch(scenes: Path) -> None:
    code = (
        "import sys\n"
        "for name in ('torch', 'lightning', 'rich'): sys.modules[name] = None\n"
        "import nec.cli\n"
        f"sys.exit(nec.cli.main(['inspect', {str(scenes)!r}, '--picture', "
        f"{str(scenes.parent / 'p.png')!r}, '--source', {str(scenes.parent / 'data')!r}]))\n"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert shown.returncode == 0, shown.stderr
