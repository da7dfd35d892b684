import json
from pathlib import Path

import numpy as np
import pytest

from nec.cli import main
from nec.store import EmbeddingStore
from nec.store.codec import RawCodec

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
        "raw, 16 symbols per image",
        "metadata match their sha256; chunks were not read through",
    ):
        assert said in shown


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
