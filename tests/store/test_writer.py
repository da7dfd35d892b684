import errno
import resource
import threading
from pathlib import Path

import numpy as np
import pytest
import zarr
from stores import SHAPE, linear, symbols_of

from nec.store import EmbeddingStore, StoreWriter, columns, contents, schema, writer
from nec.store.codec import RawCodec
from nec.store.schema import Layout

CODEC = RawCodec(SHAPE, "float16")


def create(path: Path, **attrs: object) -> StoreWriter:
    return EmbeddingStore.create(path, CODEC, attrs, classes=["a", "b"])


def append(store: StoreWriter, ids: list[str], split: str = "train", label: int = 0) -> None:
    store.append(symbols_of(CODEC, len(ids)), ids, [split] * len(ids), np.full(len(ids), label))


def test_every_append_is_complete_when_it_returns(tmp_path: Path) -> None:
    with create(tmp_path / "s") as store:
        for n in range(3):
            append(store, [f"{n}a", f"{n}b"])
            opened = EmbeddingStore.open(tmp_path / "s")
            opened.verify()
            assert len(opened) == 2 * n + 2
            assert not opened.complete
    assert EmbeddingStore.open(tmp_path / "s").complete
    hidden = [entry for entry in (tmp_path / "s").iterdir() if entry.name.startswith(".")]
    assert not hidden


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_error_keeps_what_was_appended(tmp_path: Path, error: type[BaseException]) -> None:
    with pytest.raises(error), create(tmp_path / "s") as store:
        append(store, ["x"])
        raise error
    with EmbeddingStore.extend(tmp_path / "s") as store:
        assert "x" in store
        assert "y" not in store
        append(store, ["y"])
    assert EmbeddingStore.open(tmp_path / "s").ids.tolist() == ["x", "y"]


def test_an_error_before_the_first_image_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyError), create(tmp_path / "s"):
        raise KeyError
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("batches", [[1] * 9, [4, 1, 4], [9]])
@pytest.mark.parametrize("tables", [False, True])
def test_a_store_does_not_depend_on_how_it_was_appended(
    tmp_path: Path, batches: list[int], tables: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Shards of two chunks, so that appends fill some and leave one.
    monkeypatch.setattr(contents, "choose_layout", lambda mean: Layout(2, 2))
    codec = linear(tables)
    symbols, names = symbols_of(codec, 9), [f"bild-{i}" * (i + 1) for i in range(9)]
    start = 0
    for number, size in enumerate(batches):
        part = slice(start, start + size)
        if number == 0:
            new = EmbeddingStore.create(tmp_path / "s", codec, {"a": 1}, classes=["a", "b"])
        else:
            new = EmbeddingStore.extend(tmp_path / "s")
        with new:
            new.append(symbols[part], names[part], ["val"] * size, np.arange(9)[part] % 2)
        start += size
    store = EmbeddingStore.open(tmp_path / "s")
    store.verify()
    assert store.layout == (2, 2)
    assert store.ids.tolist() == names
    assert store.attrs == {"a": 1}
    assert store.labels.tolist() == [0, 1] * 4 + [0]
    assert np.array_equal(store.read_symbols(range(9)), symbols)
    values = zarr.open_group(tmp_path / "s", mode="r")["embedding"][:]
    assert np.array_equal(values, codec.dequantize(symbols))


def test_a_second_writer_is_told_of_the_first(tmp_path: Path) -> None:
    with create(tmp_path / "s") as store:
        append(store, ["x"])
        with pytest.raises(RuntimeError, match="another process is at work"):
            EmbeddingStore.extend(tmp_path / "s")
        append(store, ["y"])
    with EmbeddingStore.extend(tmp_path / "s"):
        pass


def test_what_is_no_store_is_not_extended(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"EmbeddingStore.create"):
        EmbeddingStore.extend(tmp_path / "s")
    (tmp_path / "s").mkdir()
    with pytest.raises(FileNotFoundError, match="holds no image"):
        EmbeddingStore.extend(tmp_path / "s")
    (tmp_path / "s/mine").write_text("")
    with pytest.raises(ValueError, match="not a store of nec"):
        EmbeddingStore.extend(tmp_path / "s")
    assert [file.name for file in (tmp_path / "s").iterdir()] == ["mine"]


@pytest.mark.parametrize("end", ["close", "release"])
def test_a_closed_writer_writes_no_more(tmp_path: Path, end: str) -> None:
    store = create(tmp_path / "s")
    append(store, ["x"])
    getattr(store, end)()
    with EmbeddingStore.extend(tmp_path / "s") as other:
        append(other, ["y"])
    for call in (lambda: append(store, ["z"]), store.close):
        with pytest.raises(ValueError, match="was closed by this writer"):
            call()
    assert EmbeddingStore.open(tmp_path / "s").ids.tolist() == ["x", "y"]


def test_a_folder_of_the_user_stays(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    create(tmp_path / "s").release()
    assert (tmp_path / "s").is_dir()


def test_what_a_writer_left_before_its_first_image_is_begun_again(tmp_path: Path) -> None:
    (tmp_path / "s/.prepared").mkdir(parents=True)
    (tmp_path / "s/.lock").write_text("")
    with create(tmp_path / "s") as store:
        append(store, ["x"])
    assert EmbeddingStore.open(tmp_path / "s").ids.tolist() == ["x"]


def test_ids_of_any_length_fill_several_chunks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (writer, columns, schema):
        monkeypatch.setattr(module, "INDEX_CHUNK", 5)
    names = ["x", "y" * 5000, "é", "日本/1.tif", "z" * 70_000, *"abcdefgh"]
    with create(tmp_path / "s") as store:
        for name in names:
            append(store, [name])
    opened = EmbeddingStore.open(tmp_path / "s")
    opened.verify()
    assert opened.ids.tolist() == names
    assert (opened.splits == "train").all()


def test_a_store_without_images_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no image"), create(tmp_path / "s"):
        pass
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_an_existing_path_is_never_overwritten(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "s"
    if kind == "folder":
        path.mkdir()
        (path / "mine").write_text("")
    else:
        path.write_text("mine")
    with pytest.raises(FileExistsError, match="remove it or choose another path"):
        create(path)
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_one_line_and_keeps_what_was_complete(tmp_path: Path) -> None:
    codec = RawCodec((64, 32, 32), "float32")  # 256 KiB an image
    symbols = np.zeros((16, codec.length), np.int32)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with EmbeddingStore.create(tmp_path / "s", codec, {}, classes=["a"]) as store:
        store.append(symbols[:2], ["x", "y"], ["train"] * 2, [0] * 2)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))
        try:
            with pytest.raises(OSError) as caught:
                store.append(symbols, list("abcdefghijklmnop"), ["train"] * 16, [0] * 16)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert caught.value.errno == errno.EFBIG
        assert caught.value.filename == str(tmp_path / "s")
        assert "2 images are complete" in str(caught.value)
        assert "make room" in str(caught.value)
        EmbeddingStore.open(tmp_path / "s").verify()
        store.append(symbols[:1], ["z"], ["train"], [0])  # there is room again
    assert EmbeddingStore.open(tmp_path / "s").ids.tolist() == ["x", "y", "z"]


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file/s"):
        create(tmp_path / "file" / "s")


def test_a_url_is_not_written_to() -> None:
    with pytest.raises(ValueError, match="local path"):
        create("s3://bucket/s")


@pytest.mark.parametrize("ids", [["x", "x"], ["old", "y"], [""], [7], ["\ud800"]])
def test_ids_are_different_names(tmp_path: Path, ids: list[str]) -> None:
    with pytest.raises(ValueError, match="id "), create(tmp_path / "s") as store:
        append(store, ["old"])
        append(store, ids)


@pytest.mark.parametrize("label", [-1, 2, -(2**31), 0.5])
def test_labels_are_places_among_the_classes(tmp_path: Path, label: float) -> None:
    with pytest.raises(ValueError, match="label"), create(tmp_path / "s") as store:
        append(store, ["x"], label=label)


def test_a_split_is_one_that_the_store_was_created_with(tmp_path: Path) -> None:
    with (
        pytest.raises(ValueError, match="'holdout' is not one of"),
        create(tmp_path / "s") as store,
    ):
        append(store, ["x"], split="holdout")


def test_one_id_split_and_label_come_with_each_image(tmp_path: Path) -> None:
    with (
        pytest.raises(ValueError, match="2 images came with 1 ids"),
        create(tmp_path / "s") as store,
    ):
        store.append(symbols_of(CODEC, 2), ["x"], ["train"] * 2, np.zeros(2, np.int64))


def test_a_refused_batch_adds_nothing(tmp_path: Path) -> None:
    with create(tmp_path / "s") as store:
        append(store, ["x"])
        with pytest.raises(ValueError, match="label"):
            append(store, ["y", "z"], label=5)
        with pytest.raises(ValueError, match="symbols"):
            store.append(np.zeros((1, 3), np.int32), ["y"], ["train"], [0])
        append(store, ["y"])
    assert EmbeddingStore.open(tmp_path / "s").ids.tolist() == ["x", "y"]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), np.float32(1), {1, 2}])
def test_attributes_that_json_has_no_word_for_are_refused(tmp_path: Path, value: object) -> None:
    with pytest.raises(ValueError, match="JSON") as caught:
        create(tmp_path / "s", value=value)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_the_attribute_of_nec_is_not_the_users(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nec's own"):
        create(tmp_path / "s", nec=1)


@pytest.mark.parametrize("classes", [[], ["a", "a"], [""], [3], "abcd"])
def test_classes_have_different_names(tmp_path: Path, classes: list[str]) -> None:
    with pytest.raises(ValueError, match="classes"):
        EmbeddingStore.create(tmp_path / "s", CODEC, {}, classes=classes)


def test_small_streams_share_chunks_and_a_small_store_has_a_small_index(tmp_path: Path) -> None:
    codec = linear(tables=False)
    with EmbeddingStore.create(tmp_path / "s", codec, {}, classes=["a"]) as store:
        ids = [str(i) for i in range(400)]
        store.append(symbols_of(codec, 400), ids, ["test"] * 400, [0] * 400)
    opened = EmbeddingStore.open(tmp_path / "s")
    assert opened.layout == (256, 2)
    assert opened.bytes_per_image < codec.length + 0.5


def test_readers_beside_a_writer_see_whole_appends_and_disturb_none(tmp_path: Path) -> None:
    failures: list[BaseException] = []
    done = threading.Event()

    def look() -> None:
        try:
            while not done.is_set():
                opened = EmbeddingStore.open(tmp_path / "s")
                assert len(opened) % 3 == 0
        except BaseException as error:
            failures.append(error)

    with create(tmp_path / "s") as store:
        append(store, ["a", "b", "c"])
        readers = [threading.Thread(target=look) for _ in range(2)]
        for reader in readers:
            reader.start()
        for n in range(40):
            append(store, [f"{n}a", f"{n}b", f"{n}c"])
        done.set()
        for reader in readers:
            reader.join()
    assert not failures
    assert len(EmbeddingStore.open(tmp_path / "s")) == 123


def test_an_append_that_is_written_but_not_in_place_is_there_when_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = create(tmp_path / "s")
    append(store, ["x"])
    with monkeypatch.context() as broken:
        broken.setattr(Path, "replace", _io_error)
        with pytest.raises(OSError, match="written but not yet in its place"):
            append(store, ["y"])
    with pytest.raises(ValueError, match="closed by this writer"):
        append(store, ["z"])
    store.release()
    opened = EmbeddingStore.open(tmp_path / "s")
    opened.verify()
    assert opened.ids.tolist() == ["x", "y"]


def _io_error(*_: object) -> None:
    raise OSError(errno.EIO, "Input/output error")


def test_closing_keeps_the_layout_that_is_on_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with create(tmp_path / "s") as store:
        append(store, list("abcdefgh"))
    before = EmbeddingStore.open(tmp_path / "s").layout
    monkeypatch.setattr(contents, "choose_layout", lambda mean: Layout(2, 2))  # of another version
    EmbeddingStore.extend(tmp_path / "s").close()
    opened = EmbeddingStore.open(tmp_path / "s")
    opened.verify()
    assert opened.layout == before


def test_nothing_is_appended_by_an_empty_batch(tmp_path: Path) -> None:
    with create(tmp_path / "s") as store:
        append(store, ["x"])
        store.append(np.zeros((0, CODEC.length), np.int32), [], [], [])
        assert len(store) == 1


def test_what_lies_among_a_commit_and_is_none_of_it_is_named(tmp_path: Path) -> None:
    with create(tmp_path / "s") as store:
        append(store, ["a"])
    (tmp_path / "s" / ".complete").mkdir()
    (tmp_path / "s" / ".complete" / ".nfs01").touch()
    with pytest.raises(OSError, match=r"\.complete holds what no commit put there; remove it"):
        EmbeddingStore.open(tmp_path / "s")
