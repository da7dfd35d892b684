"""All images below a folder, with a split and a class by where they lie."""

import os

import numpy as np
import pytest
from rasters import write

from nec.data.archive import find_archive
from nec.data.folder import Folder
from nec.data.images import ImageError
from nec.data.splits import SPLITS


def fill(root, *names, bands=3):
    for name in names:
        write(root / name, np.zeros((bands, 4, 6), np.uint8))


@pytest.mark.parametrize("parts", [[""], ["train/", "val/", "test/"]])
def test_class_folders_are_split_and_labelled_as_a_folder_does_it(tmp_path, parts):
    fill(tmp_path, *(f"{part}{c}/{part}{i}.png" for part in parts for c in "ab" for i in range(5)))
    archive, folder = find_archive(tmp_path), Folder(str(tmp_path))
    assert archive.classes == folder.classes
    assert archive.split_names == ["train", "val", "test"]
    found = zip(archive.ids, archive.splits, archive.labels, strict=True)
    expected = [
        (name, split, label)
        for split, images in folder.datasets.items()
        for name, label in zip(images.ids, images.labels, strict=True)
    ]
    assert sorted(found) == sorted(expected)


SPLIT = tuple(f"{split}/{c}/{i}.png" for split in SPLITS for c in "ab" for i in range(2))


@pytest.mark.parametrize(
    "names",
    [
        ("b.tif", "a/x.png"),
        ("a/x.png", "a/y/z.png"),
        ("x.png",),
        ("a/x.png", "b/x.png", "x.png"),
        (*SPLIT, "more/a/0.png", "more/b/1.png"),
        (*SPLIT, "train/x.png"),
        SPLIT[:8],  # no test
        tuple(f"{split}/{i}.png" for split in SPLITS for i in range(2)),  # no classes
        tuple(f"{split}/a/{i}.png" for split in SPLITS for i in range(2)),  # one class
    ],
)
def test_other_images_are_of_one_split_and_class(tmp_path, names):
    fill(tmp_path, *names, ".hidden/h.png")
    archive = find_archive(tmp_path)
    assert archive.ids == sorted(names)
    assert (archive.split_names, archive.classes) == (["all"], ["unlabelled"])
    assert (archive.pixels_up_to(100), archive.raw_bytes_per_pixel) == (24, 3)


def test_linked_class_folders_are_followed_and_none_twice(tmp_path):
    fill(tmp_path / "here", "a/0.png", "a/1.png")
    fill(tmp_path / "there", "2.png", "3.png", "deep/4.png")
    (tmp_path / "here" / "b").symlink_to(tmp_path / "there")
    (tmp_path / "there" / "deep" / "back").symlink_to(tmp_path / "there")
    archive = find_archive(tmp_path / "here")
    assert archive.classes == ["a", "b"]
    assert archive.ids == ["a/0.png", "a/1.png", "b/2.png", "b/3.png", "b/deep/4.png"]
    assert Folder(str(tmp_path / "here")).listing.ids == archive.ids


def test_class_folders_linked_from_splits_are_followed_with_and_without_labels(tmp_path):
    here = tmp_path / "here"
    fill(here, *(name for name in SPLIT if not name.startswith("train/b")))
    fill(tmp_path / "there", "0.png", "1.png")
    (here / "train" / "b").symlink_to(tmp_path / "there")
    labelled = find_archive(here)
    assert sorted(labelled.ids) == sorted(SPLIT)
    assert labelled.classes == ["a", "b"]
    fill(here, "x.png")
    assert find_archive(here).ids == sorted([*SPLIT, "x.png"])


def test_a_folder_that_cannot_be_listed_is_named(tmp_path):
    """Its path is too long for the system, which not even root is spared."""
    fill(tmp_path, "a.png")
    names = ["x" * 250] * (os.pathconf(tmp_path, "PC_PATH_MAX") // 250 + 1)
    folder = os.open(tmp_path, os.O_RDONLY)
    for name in names:
        os.mkdir(name, dir_fd=folder)
        above, folder = folder, os.open(name, os.O_RDONLY, dir_fd=folder)
        os.close(above)
    os.close(folder)
    with pytest.raises(OSError, match="so that its images would be left out; make it") as caught:
        find_archive(tmp_path)
    assert caught.value.filename.startswith(str(tmp_path / names[0]))


def test_every_header_is_looked_at(tmp_path):
    fill(tmp_path, "a.png", "b.png")
    fill(tmp_path, "c.png", bands=1)
    with pytest.raises(ImageError, match=r"c.png has 1 band of uint8, a.png has 3 bands of uint8"):
        find_archive(tmp_path).pixels_up_to(100)


def test_masks_beside_images_are_no_images(tmp_path):
    images = [f"tile {k}/images/{i}.png" for k in "ab" for i in range(3)]
    fill(tmp_path, *images, *(name.replace("images", "masks") for name in images))
    fill(tmp_path, "masks/town/1.png")  # a class of that name, say: nothing called images beside it
    archive = find_archive(tmp_path)
    assert archive.ids == sorted([*images, "masks/town/1.png"])
    assert set(archive.splits) == {"all"} and archive.classes == ["unlabelled"]
