import json
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import zarr
from stores import SHAPE, linear

from nec.store import CorruptStreamError, EmbeddingStore
from nec.store.chunks import checksum, index_bytes, pack_chunk, pack_shard
from nec.store.codec import RawCodec
from nec.store.packing import Zstd
from nec.store.schema import group_metadata, index_metadata, layer_metadata

Write = Callable[..., tuple[Path, np.ndarray]]
SHARD = "embedding/c/0/0/0/0"
INDEX_FILES = ("id/c/0", "split/c/0", "label/c/0")


def check(path: Path) -> None:
    EmbeddingStore.open(path).verify()


@pytest.mark.parametrize("name", [SHARD, *INDEX_FILES])
def test_a_flipped_byte_is_noticed_and_its_file_named(write: Write, name: str) -> None:
    path, _ = write(linear(tables=True), images=5)
    content = (path / name).read_bytes()
    for position in range(0, len(content), 1 + len(content) // 60):
        flipped = bytearray(content)
        flipped[position] ^= 1 + position % 255
        (path / name).write_bytes(flipped)
        with pytest.raises(CorruptStreamError, match=name.split("/")[0]):
            check(path)
    (path / name).write_bytes(content)
    check(path)


@pytest.mark.parametrize("name", [SHARD, *INDEX_FILES])
@pytest.mark.parametrize("damage", ["missing", "empty", "short", "long"])
def test_a_file_of_another_length_is_noticed(write: Write, name: str, damage: str) -> None:
    path, _ = write(linear(tables=True), images=5)
    content = (path / name).read_bytes()
    changed = {"empty": b"", "short": content[:-1], "long": content + b"\0"}
    (path / name).unlink() if damage == "missing" else (path / name).write_bytes(changed[damage])
    with pytest.raises(CorruptStreamError, match=name.split("/")[0]):
        check(path)


@pytest.mark.parametrize("name", ["", "embedding/", "id/", "split/", "label/"])
def test_tampered_metadata_are_refused_on_opening(write: Write, name: str) -> None:
    path, _ = write(linear(tables=True), images=5, note="n")
    file = path / name / "zarr.json"
    content = file.read_bytes()
    for position in range(0, len(content), 17):
        flipped = bytearray(content)
        flipped[position] ^= 1
        file.write_bytes(flipped)
        with pytest.raises(ValueError) as caught:
            EmbeddingStore.open(path)
        assert "\n" not in str(caught.value)
        assert str(path) in str(caught.value)


def test_tampered_tables_are_refused_by_plain_zarr_too(write: Write) -> None:
    path, _ = write(linear(tables=True), images=5)
    file = path / "embedding/zarr.json"
    metadata = json.loads(file.read_text())
    config = metadata["codecs"][0]["configuration"]["codecs"][0]["configuration"]
    config["sha256"] = config["sha256"][::-1]
    file.write_text(json.dumps(metadata))
    with pytest.raises(ValueError, match="it was changed"):
        zarr.open_group(path, mode="r")["embedding"]


def test_a_codec_that_cannot_be_is_named_with_its_array(write: Write) -> None:
    path, _ = write(linear(tables=True), images=5)
    file = path / "embedding/zarr.json"
    file.write_text(file.read_text().replace('"kind":"linear"', '"kind":"later"'))
    names = ("embedding", "id", "split", "label")
    arrays = {name: json.loads((path / name / "zarr.json").read_text()) for name in names}
    (path / "zarr.json").write_text(json.dumps(group_metadata({}, arrays, complete=True)))
    with pytest.raises(ValueError, match=f"{path}/embedding: .*'later'.*upgrade nec"):
        EmbeddingStore.open(path)


def test_metadata_may_be_indented_anew(write: Write) -> None:
    path, _ = write(linear(tables=True), images=5)
    for file in path.rglob("zarr.json"):
        file.write_text(json.dumps(json.loads(file.read_text()), indent=2, sort_keys=True))
    check(path)


def test_a_damaged_chunk_spoils_no_other(write: Write) -> None:
    codec = RawCodec((64, 8, 8), "float32")  # a chunk of its own for each image
    path, symbols = write(codec, images=5)
    content = bytearray((path / SHARD).read_bytes())
    content[100] ^= 1
    (path / SHARD).write_bytes(content)
    store = EmbeddingStore.open(path)
    with pytest.raises(CorruptStreamError, match=f"{SHARD} chunk 0"):
        store.read([0])
    assert np.array_equal(store.read_symbols([4]), symbols[4:])
    with pytest.raises(ValueError, match="checksum"):
        zarr.open_group(path, mode="r")["embedding"][0]


def test_a_lost_shard_is_an_error_and_in_plain_zarr_no_number(write: Write) -> None:
    path, _ = write(linear(tables=True), images=5)
    (path / SHARD).unlink()
    store = EmbeddingStore.open(path)
    for read in (lambda: store[0], store.stream_bytes, lambda: store.bytes_per_image):
        with pytest.raises(CorruptStreamError, match=f"{SHARD} is missing"):
            read()
    assert np.isnan(zarr.open_group(path, mode="r")["embedding"][:]).all()


@pytest.mark.parametrize("name", ["ids", "splits", "labels"])
def test_a_lost_index_file_is_an_error_and_no_filling(write: Write, name: str) -> None:
    path, _ = write(linear(tables=True), images=5)
    (path / name.rstrip("s") / "c/0").unlink()
    with pytest.raises(CorruptStreamError, match="c/0 is missing"):
        getattr(EmbeddingStore.open(path), name)


def test_a_chunk_that_lacks_an_image_is_noticed(write: Write) -> None:
    codec = RawCodec(SHAPE, "float16")
    path, symbols = write(codec, images=3)
    slots = EmbeddingStore.open(path).layout.shard
    (path / SHARD).write_bytes(pack_shard([pack_chunk(0, codec.encode(symbols[:2]))], slots))
    with pytest.raises(CorruptStreamError, match="2 images instead of 3"):
        check(path)
    with pytest.raises(CorruptStreamError, match="2 images instead of 3"):
        EmbeddingStore.open(path).read([0])


@pytest.mark.parametrize("size", [1 << 40, 2**63 - 1])
def test_an_index_that_claims_more_than_a_file_can_hold_is_noticed(write: Write, size: int) -> None:
    codec = RawCodec((64, 64, 64), "float32")  # a chunk of its own for each image
    path, _ = write(codec, images=2)
    content = (path / SHARD).read_bytes()
    packed = bytearray(content[-index_bytes(EmbeddingStore.open(path).layout.shard) : -4])
    packed[:32] = np.array([0, size, size, 5], "<u8").tobytes()
    chunks = content[: -len(packed) - 4]
    (path / SHARD).write_bytes(b"".join([chunks, packed, checksum(bytes(packed))]))
    store = EmbeddingStore.open(path)
    for read in (lambda: store[0], store.stream_bytes, store.verify):
        with pytest.raises(CorruptStreamError, match="ends before its chunks do"):
            read()


def test_shards_in_each_others_place_are_noticed(write: Write) -> None:
    codec = RawCodec((64, 64, 64), "float32")  # 1 MiB: a shard holds four images
    path, _ = write(codec, images=8)
    first, second = (path / f"embedding/c/{n}/0/0/0" for n in (0, 1))
    one, other = first.read_bytes(), second.read_bytes()
    first.write_bytes(other)
    second.write_bytes(one)
    with pytest.raises(CorruptStreamError, match="is chunk 4 of a store, in the place of 0"):
        EmbeddingStore.open(path)[0]
    with pytest.raises(CorruptStreamError, match="in the place of"):
        check(path)


def test_a_store_that_was_written_to_meanwhile_is_to_be_opened_again(write: Write) -> None:
    codec = linear(tables=True)
    path, symbols = write(codec, images=30)
    fresh, known = EmbeddingStore.open(path), EmbeddingStore.open(path)
    known.read([0])  # so that it knows where images lay
    append(path, np.tile(symbols, (30, 1)))
    for store in (fresh, known):
        for read in (
            lambda store=store: store.read([0]),
            store.stream_bytes,
            lambda store=store: store.bytes_per_image,
            lambda store=store: store.index_bytes_per_image,
            lambda store=store: store.ids,
            lambda store=store: store.labels,
        ):
            with pytest.raises(ValueError, match="written to since it was opened; open it again"):
                read()
        assert store.verify().images == 930  # opens it again


def append(path: Path, symbols: np.ndarray) -> None:
    with EmbeddingStore.extend(path) as store:
        names = [f"new {i}" for i in range(len(symbols))]
        store.append(symbols, names, ["train"] * len(names), [0] * len(names))


def test_an_append_that_moves_images_gives_no_reader_others_for_them(write: Write) -> None:
    codec = RawCodec((270, 1, 1), "float32", Zstd())
    path, _ = write(codec, images=16)
    before = EmbeddingStore.open(path)
    append(path, np.zeros((8, 270), np.int32))
    after = EmbeddingStore.open(path)
    # Images 8 to 15 and 16 to 23 are the second of two chunks, then and now.
    assert (before.layout, after.layout) == ((8, 2), (16, 2))
    with pytest.raises(ValueError, match="open it again"):
        before.read_symbols([8])


def test_an_append_that_is_being_put_in_place_is_no_damage(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, symbols = write(linear(tables=True), images=5)
    before = EmbeddingStore.open(path)
    replace = Path.replace

    def stopped(file: Path, target: Path) -> Path:
        if file.name == "zarr.json":
            raise OSError
        return replace(file, target)

    with monkeypatch.context() as broken, pytest.raises(OSError):
        broken.setattr(Path, "replace", stopped)
        append(path, symbols)
    with pytest.raises(ValueError, match="open it again"):
        before.read([0])
    assert len(EmbeddingStore.open(path)) == 10


def test_closing_a_store_concerns_no_reader(write: Write) -> None:
    path, symbols = write(linear(tables=True), images=5)
    with EmbeddingStore.extend(path) as store:
        store.append(symbols[:1], ["new"], ["train"], [0])
        before = EmbeddingStore.open(path)
    assert np.array_equal(before.read_symbols(range(5)), symbols)
    assert before.bytes_per_image == EmbeddingStore.open(path).bytes_per_image


def test_a_path_without_anything_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere does not exist"):
        EmbeddingStore.open(tmp_path / "nowhere")


@pytest.mark.parametrize("content", [None, "group", "array", "text", "list"])
def test_what_is_no_store_is_named(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "x"
    path.mkdir()
    if content == "group":
        zarr.create_group(path)
    elif content == "array":
        zarr.create_array(path, shape=(3,), dtype="int32", overwrite=True)
    elif content:
        (path / "zarr.json").write_text({"text": "no JSON", "list": "[1]"}[content])
    with pytest.raises(ValueError, match=str(path)) as caught:
        EmbeddingStore.open(path)
    assert "\n" not in str(caught.value)


def test_a_later_format_asks_for_a_later_nec(write: Write) -> None:
    path, _ = write(linear(tables=True), images=5)
    file = path / "zarr.json"
    file.write_text(file.read_text().replace('"version":1', '"version":2'))
    with pytest.raises(ValueError, match="format version 2, this nec reads 1"):
        EmbeddingStore.open(path)


def test_metadata_that_claim_images_without_end_take_no_memory(write: Write) -> None:
    path, _ = write(linear(tables=True), images=5)
    store, images = EmbeddingStore.open(path), 1 << 47
    layer = layer_metadata("embedding", images, SHAPE, store.layout, store.codec.to_config())
    arrays = {"embedding": layer, **index_metadata(images, store.split_names, store.classes)}
    for name, metadata in arrays.items():
        (path / name / "zarr.json").write_text(json.dumps(metadata))
    group = group_metadata({}, arrays, complete=True)
    (path / "zarr.json").write_text(json.dumps(group))
    store = EmbeddingStore.open(path)
    assert len(store) == images
    for read in (store.verify, store.stream_bytes, lambda: store.ids, lambda: store.labels):
        with pytest.raises(CorruptStreamError, match=r"c/\d+(/0/0/0)? is missing"):
            read()


def test_nothing_is_unpickled_to_read_a_store(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, _ = write(linear(tables=True), images=5)
    EmbeddingStore.open(path).read([0])  # numba unpickles the machine code that it keeps

    def refused(*_: object, **__: object) -> None:
        raise AssertionError("unpickled")

    for name in ("load", "loads", "Unpickler"):
        monkeypatch.setattr(pickle, name, refused)
    store = EmbeddingStore.open(path)
    store.verify()
    assert len(store.ids) == len(store.labels) == len(store.splits) == 5
    assert np.array_equal(store[3], zarr.open_group(path, mode="r")["embedding"][3])
