"""Crops: large images with masks, cut to squares; folds leave groups out."""

import numpy as np
import pytest
import torch
from PIL import Image
from rasters import write

from nec.data.crops import Crops, Dubai
from nec.data.images import IGNORED
from nec.tasks import SemanticSegmentation
from nec.tasks.maps import TokenLinear

SIDE = 8
NUMBERS = {"low": 0, "high": 1}


def pixels(shape, seed, bands=3):
    return np.random.default_rng(seed).integers(0, 255, (bands, *shape)).astype(np.uint8)


def lay_out(root, groups=4, bands=3, suffix=".png", shape=(17, 27)):
    """Two images a group, the second a pixel larger; a pixel's class says if band 0 is high."""
    for group in range(groups):
        for part in range(2):
            image = pixels((shape[0] + part, shape[1] + part), 10 * group + part, bands)
            name = f"part{part}"
            write(root / f"tile {group}" / "images" / f"{name}{suffix}", image)
            mask = root / f"tile {group}" / "masks" / f"{name}.png"
            mask.parent.mkdir(exist_ok=True)
            Image.fromarray((image[0] > 127).astype(np.uint8)).save(mask)
    return root


def crops(root, **options):
    return Crops(NUMBERS, str(root), crop=SIDE, **options)


def items(data, split):
    dataset = data.datasets[split]
    return [dataset[index] for index in range(len(dataset))]


@pytest.mark.parametrize(("bands", "suffix"), [(3, ".png"), (4, ".tif"), (1, ".png"), (13, ".tif")])
def test_crops_tile_every_image_from_the_upper_left(tmp_path, bands, suffix):
    data = crops(lay_out(tmp_path, bands=bands, suffix=suffix))
    found = items(data, "test")
    assert len(found) == 2 * 2 * 3
    assert [item["id"] for item in found[:4]] == [
        f"tile 0/part0/{top:05d}_{left:05d}" for top, left in ((0, 0), (0, 8), (0, 16), (8, 0))
    ]
    first, second = pixels((17, 27), 0, bands), pixels((18, 28), 1, bands)
    assert np.array_equal(found[5]["image"], first[:, 8:16, 16:24])
    assert np.array_equal(found[-1]["image"], second[:, 8:16, 16:24])
    assert (data.bands, data.native_pixels, data.raw_bytes_per_pixel) == (bands, 64, bands)


def test_a_mask_is_cut_as_its_image(tmp_path):
    for item in items(crops(lay_out(tmp_path)), "test"):
        assert item["mask"].dtype == torch.uint8
        assert torch.equal(item["mask"], (item["image"][0] > 127).byte())


@pytest.mark.parametrize("fold", range(4))
def test_a_fold_tests_on_one_group_and_validates_on_the_next(tmp_path, fold):
    data = crops(lay_out(tmp_path), split=fold)
    groups = {split: set(data.datasets[split].images.groups) for split in data.datasets}
    assert groups["test"] == {f"tile {fold}"}
    assert groups["val"] == {f"tile {(fold + 1) % 4}"}
    others = {f"tile {group}" for group in range(4)} - groups["test"] - groups["val"]
    assert groups["train"] == others
    every = [name for dataset in data.datasets.values() for name in dataset.ids]
    assert len(set(every)) == len(every) == 4 * 2 * 6


@pytest.mark.parametrize(
    ("fold", "use"), [(2, "of test are ignored.*test on"), (1, "of val .*choose by"), (0, None)]
)
def test_a_split_without_a_pixel_that_counts_is_refused_before_work(tmp_path, fold, use):
    for path in (lay_out(tmp_path) / "tile 2" / "masks").iterdir():
        Image.fromarray(np.full(Image.open(path).size[::-1], IGNORED, np.uint8)).save(path)
    data = crops(tmp_path, split=fold)
    head = TokenLinear((4, 2, 2), 2)
    if use is None:  # other tiles are in train beside it
        SemanticSegmentation.check(head, data, SIDE)
        return
    with pytest.raises(ValueError, match=use):
        SemanticSegmentation.check(head, data, SIDE)


def test_a_crops_label_is_its_group(tmp_path):
    data = crops(lay_out(tmp_path), split=2)
    assert data.classes == [f"tile {group}" for group in range(4)]
    assert {item["label"] for item in items(data, "test")} == {2}
    assert list(data.mask_classes) == ["low", "high"]


def test_batches_of_several_workers_hold_images_and_masks(tmp_path):
    data = crops(lay_out(tmp_path), workers=2, batch_size=5)
    batches = list(data.loader("test"))
    assert torch.equal(torch.cat([batch["mask"] for batch in batches]),
                       torch.stack([item["mask"] for item in items(data, "test")]))  # fmt: skip
    assert batches[0]["image"].shape == (5, 3, SIDE, SIDE)


def test_what_a_caller_does_to_a_crop_does_not_come_back(tmp_path):
    images = crops(lay_out(tmp_path)).datasets["test"].images
    images.read(0).zero_()
    images.read_mask(0).fill_(9)
    assert images.read(0).any() and int(images.read_mask(0).max()) == 1


def test_another_side_is_another_stamp(tmp_path):
    lay_out(tmp_path)
    stamps = [
        Crops(NUMBERS, str(tmp_path), crop=side).datasets["test"].images.stamp(0) for side in (4, 8)
    ]
    assert stamps[0] != stamps[1]


def test_a_fold_that_there_is_not_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"data\.split=4, but 4 groups have folds 0 to 3"):
        _ = crops(lay_out(tmp_path), split=4).datasets


def test_two_groups_are_too_few(tmp_path):
    with pytest.raises(ValueError, match=r"2 groups of images \(tile 0, tile 1\)"):
        _ = crops(lay_out(tmp_path, groups=2)).datasets


def test_an_image_smaller_than_a_crop_is_named(tmp_path):
    lay_out(tmp_path)
    write(tmp_path / "tile 1" / "images" / "part1.png", pixels((7, 30), 0))
    with pytest.raises(ValueError, match=r"part1\.png has 7 x 30 pixels, a crop 8 x 8.*crop=7"):
        _ = crops(tmp_path).datasets


def test_a_mask_of_another_size_is_named(tmp_path):
    lay_out(tmp_path)
    write(tmp_path / "tile 1" / "images" / "part1.png", pixels((18, 29), 0))
    with pytest.raises(ValueError, match=r"part1\.png has 18 x 28 pixels, its image 18 x 29"):
        _ = crops(tmp_path).datasets


def test_an_image_without_a_mask_is_named(tmp_path):
    lay_out(tmp_path)
    (tmp_path / "tile 2" / "masks" / "part0.pgw").write_text("1\n0\n0\n-1\n0\n0\n")
    crops(tmp_path).setup("fit")  # a world file is not a mask
    (tmp_path / "tile 2" / "masks" / "part0.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"tile 2/images/part0\.png has 0 masks"):
        _ = crops(tmp_path).datasets


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif"])
def test_images_and_masks_may_be_larger_than_pillow_opens_unasked(tmp_path, monkeypatch, suffix):
    lay_out(tmp_path, suffix=suffix)
    for path in tmp_path.glob("*/masks/*.png"):
        with Image.open(path) as mask:
            mask.save(path.with_suffix(suffix.replace("jpg", "png")))
        if suffix == ".tif":
            path.unlink()
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    data = crops(tmp_path)
    batch = next(iter(data.loader("train")))
    assert batch["image"].shape[2:] == batch["mask"].shape[1:] == (SIDE, SIDE)
    assert Image.MAX_IMAGE_PIXELS == 10  # for what is not nec's to open


def test_two_images_of_one_name_are_refused(tmp_path):
    lay_out(tmp_path)
    write(tmp_path / "tile 2" / "images" / "part0.tif", pixels((17, 27), 3))
    with pytest.raises(ValueError, match=r"part0\.png and .*part0\.tif have one mask"):
        _ = crops(tmp_path).datasets


def test_an_image_of_another_band_count_is_named(tmp_path):
    lay_out(tmp_path)
    write(tmp_path / "tile 3" / "images" / "part0.png", pixels((17, 27), 3, bands=1))
    with pytest.raises(ValueError, match=r"part0\.png has 1 band of uint8, .* 3 bands of uint8"):
        _ = crops(tmp_path).datasets


def test_an_empty_root_says_what_was_looked_for(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"looked for <group>/images/\*"):
        _ = crops(tmp_path).datasets


def test_dubai_knows_the_colours_of_its_masks(tmp_path):
    every = ["#8429F6", "#E2A929", "#3C1098", "#FEDD3A", "#6EC1E4", "#9B9B9B", "#000000"]
    colours = np.array([[list(bytes.fromhex(colour[1:])) for colour in every]] * 2, np.uint8)
    for tile in range(3):
        folder = tmp_path / f"Tile {tile}"
        write(folder / "images" / "image_part_001.jpg", pixels((2, 7), tile))
        (folder / "masks").mkdir()
        mask = Image.fromarray(colours)
        if tile == 0:  # as 18 of them are
            mask = Image.fromarray(np.array([range(7)] * 2, np.uint8), "P")
            mask.putpalette(colours[0].tobytes())
        mask.save(folder / "masks" / "image_part_001.png")
    data = Dubai(str(tmp_path), crop=1)
    assert list(data.mask_classes) == ["land", "water", "building", "vegetation", "road"]
    for split in ("test", "val"):
        found = [int(item["mask"]) for item in items(data, split)]
        assert found == 2 * [0, 1, 2, 3, 4, 255, 255]
