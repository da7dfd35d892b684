"""Folder: class folders of images, read as they lie on disk."""

import os
import pickle
import re

import numpy as np
import pytest
import torch
from PIL import Image
from rasters import write

from nec.data.folder import Folder
from nec.data.splits import hash_split


def pixels(shape, dtype="uint8", seed=0):
    return np.random.default_rng(seed).integers(0, 255, shape).astype(dtype)


def write_classes(root, count=10, names=("b", "a"), suffix=".png"):
    for label, name in enumerate(names):
        for i in range(count):
            write(
                root / name / f"{name}{i}{suffix}", pixels((3, 6, 5 + i % 3), seed=10 * label + i)
            )


def all_images(data):
    return {
        item["id"]: item["image"]
        for dataset in data.datasets.values()
        for item in (dataset[i] for i in range(len(dataset)))
    }


def read_one(root, **arguments):
    """The first image as a batch would have it."""
    data = Folder(str(root), **arguments)
    return all_images(data)[data.listing.ids[0]]


def test_native_sizes_and_values_are_preserved(tmp_path):
    write_classes(tmp_path)
    images = all_images(Folder(str(tmp_path)))
    assert len(images) == 20
    for i in range(10):
        assert np.array_equal(images[f"b/b{i}.png"], pixels((3, 6, 5 + i % 3), seed=i))


@pytest.mark.parametrize("suffix", [".png", ".tif", ".tiff", ".TIF"])
@pytest.mark.parametrize(("bands", "dtype"), [(1, "uint8"), (3, "uint8"), (3, "uint16")])
def test_every_lossless_kind_of_file_gives_its_values(tmp_path, suffix, bands, dtype):
    array = pixels((bands, 7, 5), dtype) * (200 if dtype == "uint16" else 1)
    for i in range(8):
        write(tmp_path / "ab"[i % 2] / f"{i}{suffix}", array)
    image = read_one(tmp_path)
    assert image.dtype == getattr(torch, dtype)
    assert np.array_equal(image.numpy(), array)


@pytest.mark.parametrize(("dtype", "size_bytes"), [("uint16", 2), ("int16", 2), ("float32", 4)])
def test_a_geotiff_has_any_number_of_bands_and_their_type(tmp_path, dtype, size_bytes):
    array = -pixels((13, 4, 6), dtype) if dtype != "uint16" else pixels((13, 4, 6), dtype)
    for i in range(8):
        write(tmp_path / "ab"[i % 2] / f"{i}.tif", array)
    data = Folder(str(tmp_path))
    assert np.array_equal(read_one(tmp_path).numpy(), array)
    assert (data.bands, data.raw_bytes_per_pixel) == (13, 13 * size_bytes)


@pytest.mark.parametrize("shape", [(3, 16, 24), (1, 16, 24)])
def test_a_jpeg_has_the_values_that_pillow_gives(tmp_path, shape):
    for i in range(8):
        write(tmp_path / "ab"[i % 2] / f"{i}.jpg", pixels(shape, seed=i))
    with Image.open(tmp_path / "a" / "0.jpg") as image:
        expected = np.atleast_3d(np.asarray(image)).transpose(2, 0, 1)
    assert np.array_equal(read_one(tmp_path).numpy(), expected)


def test_classes_are_the_sorted_folders_that_hold_an_image(tmp_path):
    write_classes(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "a" / "notes.txt").write_text("no image")
    (tmp_path / "a" / ".hidden.png").write_text("no image")
    (tmp_path / "readme.png").write_text("not in a class")
    data = Folder(str(tmp_path))
    assert data.classes == ["a", "b"]
    assert len(data.listing.ids) == 20
    for dataset in data.datasets.values():
        assert [data.classes[label] for label in dataset.labels] == [i[0] for i in dataset.ids]


def test_images_lie_at_any_depth_below_their_class(tmp_path):
    for i in range(5):
        write(tmp_path / "a" / "deep" / f"{i}.png", pixels((1, 2, 2)))
    write(tmp_path / "b" / "0.png", pixels((1, 2, 2)))
    data = Folder(str(tmp_path))
    assert data.listing.ids[0] == "a/deep/0.png"
    assert data.classes == ["a", "b"]


def test_pixels_are_the_mean_over_test_images_each_up_to_a_limit(tmp_path):
    write_classes(tmp_path)
    data = Folder(str(tmp_path))
    sizes = [image.shape[1] * image.shape[2] for image in
             (data.datasets["test"][i]["image"] for i in range(4))]  # fmt: skip
    assert data.pixels_up_to(10**6) == round(sum(sizes) / 4)
    limit = sorted(sizes)[1]
    assert data.pixels_up_to(limit) == round(sum(min(size, limit) for size in sizes) / 4)


@pytest.mark.parametrize("split", [0, 2])
def test_splits_hash_the_path_within_the_class_folder(tmp_path, split):
    write_classes(tmp_path)
    names = [f"{name}{i}.png" for name in "ab" for i in range(10)]
    expected = hash_split(names, [0] * 10 + [1] * 10, split)
    for name, dataset in Folder(str(tmp_path), split=split).datasets.items():
        assert [i.split("/")[1] for i in dataset.ids] == [names[i] for i in expected[name]]


def test_splits_and_order_do_not_depend_on_the_order_of_creation(tmp_path):
    names = [f"{'ab'[i % 2]}/{i}.png" for i in range(10)]
    for root, ordered in (("one", names), ("two", names[::-1])):
        for name in ordered:
            write(tmp_path / root / name, pixels((1, 2, 2)))
    one, two = (Folder(str(tmp_path / root)).datasets for root in ("one", "two"))
    assert all(one[split].ids == two[split].ids for split in one)


def test_loaders_go_by_id_and_worker_processes_change_nothing(tmp_path):
    for i in range(10):
        write(tmp_path / "ab"[i % 2] / f"{i}.tif", pixels((2, 3, 3), "uint16", seed=i))
    one = list(Folder(str(tmp_path), batch_size=4).loader("train"))
    two = list(Folder(str(tmp_path), batch_size=4, workers=2).loader("train"))
    ids = [name for batch in one for name in batch["id"]]
    assert ids == sorted(ids)
    assert all(torch.equal(x["image"], y["image"]) for x, y in zip(one, two, strict=True))


def test_data_sets_pickle(tmp_path):
    write_classes(tmp_path)
    dataset = Folder(str(tmp_path)).datasets["test"]
    again = pickle.loads(pickle.dumps(dataset))
    assert torch.equal(again[1]["image"], dataset[1]["image"])


def write_own_split(root):
    for split, count in {"train": 5, "val": 2, "test": 3}.items():
        write_classes(root / split, count)


def test_split_folders_are_split_0(tmp_path):
    write_own_split(tmp_path)
    data = Folder(str(tmp_path))
    assert data.classes == ["a", "b"]
    assert {s: len(d) for s, d in data.datasets.items()} == {"train": 10, "val": 4, "test": 6}
    for split, dataset in data.datasets.items():
        assert all(name.startswith(f"{split}/") for name in dataset.ids)


def test_another_split_of_split_folders_hashes_all_images(tmp_path):
    write_own_split(tmp_path)
    splits = Folder(str(tmp_path), split=1).datasets
    ids = [name for dataset in splits.values() for name in dataset.ids]
    assert len(set(ids)) == 20
    assert {name.split("/")[0] for name in splits["train"].ids} >= {"train", "test"}


def test_the_stamp_changes_with_a_file(tmp_path):
    def stamps():
        datasets = Folder(str(tmp_path)).datasets.values()
        return {n: d.images.stamp(i) for d in datasets for i, n in enumerate(d.ids)}

    write_classes(tmp_path)
    before = stamps()
    assert stamps() == before
    os.utime(tmp_path / "a" / "a0.png", ns=(1, 1))
    assert {name for name, stamp in stamps().items() if stamp != before[name]} == {"a/a0.png"}


def test_root_is_below_nec_data_where_none_is_given(tmp_path, monkeypatch):
    monkeypatch.setenv("NEC_DATA", str(tmp_path))
    write_classes(tmp_path / "folder")
    assert len(Folder().listing.ids) == 20


def error_of(call, kind=ValueError):
    with pytest.raises(kind) as caught:
        call()
    text = str(caught.value)
    assert "\n" not in text
    assert "; " in text, "an error ends with a way out"
    return text


def test_no_root_at_all_is_an_error(monkeypatch):
    monkeypatch.delenv("NEC_DATA", raising=False)
    text = error_of(lambda: Folder().datasets)
    assert "data.root is not set and neither is NEC_DATA" in text


@pytest.mark.parametrize("made", [True, False])
def test_a_root_without_images_says_what_was_looked_for_and_where(tmp_path, made):
    root = tmp_path / "root"
    if made:
        root.mkdir()
    text = error_of(lambda: Folder(str(root)).datasets, FileNotFoundError)
    assert f"no image in {root} (looked for <class>/* with .jpg" in text


def test_a_root_that_is_a_file_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    text = error_of(lambda: Folder(str(tmp_path / "file")).datasets)
    assert f"{tmp_path / 'file'} is a file, data.root must be a folder" in text


def test_two_of_three_split_folders_are_not_taken_for_classes(tmp_path):
    write_classes(tmp_path / "train")
    write_classes(tmp_path / "test")
    assert "has the folders train and test but not all" in error_of(
        lambda: Folder(str(tmp_path)).datasets
    )


def test_one_class_folder_is_an_error(tmp_path):
    write_classes(tmp_path / "images")
    text = error_of(lambda: Folder(str(tmp_path)).classes)
    assert f"{tmp_path} holds one class folder 'images'; classification needs two or more" in text


def test_too_few_images_leave_a_split_empty(tmp_path):
    write_classes(tmp_path, count=2)
    assert "split test is empty" in error_of(lambda: Folder(str(tmp_path)).datasets)


@pytest.mark.parametrize(
    ("array", "found"),
    [(pixels((4, 6, 6)), "4 bands of uint8"), (pixels((3, 6, 6), "uint16"), "3 bands of uint16"),
     (pixels((1, 6, 6)), "1 band of uint8")],
)  # fmt: skip
def test_an_image_of_another_type_is_named_with_what_was_expected(tmp_path, array, found):
    write_classes(tmp_path)
    write(tmp_path / "b" / "b3.png", array)
    text = error_of(lambda: all_images(Folder(str(tmp_path))))
    assert f"{tmp_path / 'b' / 'b3.png'} has {found}, the data set has 3 bands of uint8" in text


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif"])
@pytest.mark.parametrize("kept", [0, 30, 0.5])
def test_a_broken_file_is_named(tmp_path, suffix, kept):
    for i in range(8):
        write(tmp_path / "ab"[i % 2] / f"{i}{suffix}", pixels((3, 64, 64), seed=i))
    path = tmp_path / "a" / f"4{suffix}"
    whole = path.read_bytes()
    path.write_bytes(whole[: kept if kept != 0.5 else len(whole) // 2])
    text = error_of(lambda: all_images(Folder(str(tmp_path))))
    assert re.match(f"{re.escape(str(path))} cannot be read as an image \\(.+\\); ", text)


def test_a_file_that_is_no_image_is_named(tmp_path):
    write_classes(tmp_path, suffix=".jpg")
    (tmp_path / "b" / "b1.jpg").write_text("hello")
    text = error_of(lambda: all_images(Folder(str(tmp_path))))
    assert f"{tmp_path / 'b' / 'b1.jpg'} cannot be read as an image" in text


def test_a_worker_process_names_a_broken_file_in_one_line(tmp_path):
    write_classes(tmp_path, suffix=".jpg")
    (tmp_path / "a" / "a1.jpg").write_text("hello")
    data = Folder(str(tmp_path), batch_size=100, workers=1)
    text = error_of(lambda: [list(data.loader(split)) for split in data.datasets])
    assert text.startswith(f"{tmp_path / 'a' / 'a1.jpg'} cannot be read as an image")


@pytest.mark.parametrize("dtype", ["float64", "int32", "uint32", "complex64"])
def test_pixels_of_an_unknown_type_are_an_error(tmp_path, dtype):
    for name in "ab":
        write(tmp_path / name / "0.tif", pixels((2, 3, 3), dtype))
    text = error_of(lambda: Folder(str(tmp_path)).datasets)
    assert f"has pixels of {dtype}, nec reads uint8, uint16, int16, float32" in text


def test_a_palette_is_an_error(tmp_path):
    write(tmp_path / "b" / "0.png", pixels((1, 8, 8)))
    (tmp_path / "a").mkdir()
    Image.fromarray(pixels((8, 8))).convert("P").save(tmp_path / "a" / "0.png")
    assert "0.png has a palette" in error_of(lambda: Folder(str(tmp_path)).datasets)
