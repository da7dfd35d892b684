import subprocess
import sys

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from nec.data.scenes import CLASSES, Scenes, draw_scene
from nec.data.terrain import Canvas, Cover

COUNTS = {"train_per_class": 2, "val_per_class": 1, "test_per_class": 1}


def items(split: str, /, **arguments) -> list[dict]:
    images = Scenes(**COUNTS, **arguments).datasets[split]
    return [images[i] for i in range(len(images))]


def test_an_item_is_four_bands_of_uint8_with_its_land_cover() -> None:
    item = items("train")[0]
    assert item["image"].shape == (4, 96, 96) and item["image"].dtype == torch.uint8
    assert item["mask"].shape == (96, 96) and item["mask"].dtype == torch.uint8
    assert int(item["mask"].max()) < len(Cover)


def test_batches_hold_what_the_contract_says() -> None:
    batch = next(iter(Scenes(**COUNTS, batch_size=5).train_dataloader()))
    assert batch["image"].shape == (4, 4, 96, 96)
    assert batch["label"].dtype == torch.int64
    assert len(batch["id"]) == len(batch["mask"]) == 4


def test_a_scene_does_not_depend_on_what_was_drawn_before() -> None:
    images = Scenes(**COUNTS).datasets["train"]
    backwards = [images[i]["image"] for i in reversed(range(len(images)))][::-1]
    for item, image in zip(items("train"), backwards, strict=True):
        assert torch.equal(item["image"], image)


def test_another_process_draws_the_same_scene() -> None:
    code = (
        "import sys; from nec.data.scenes import draw_scene; "
        "sys.stdout.buffer.write(b''.join(a.tobytes() for a in draw_scene(8, (0, 0, 0, 8), 96)))"
    )
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout
    assert there == b"".join(a.tobytes() for a in draw_scene(8, (0, 0, 0, 8), 96))


def test_what_a_caller_does_to_an_image_does_not_come_back() -> None:
    images = Scenes(**COUNTS).datasets["val"].images
    images.read(0).zero_()
    assert images.read(0).any()


def test_classes_are_balanced_in_every_split() -> None:
    data = Scenes(**COUNTS)
    for split, count in data.per_class.items():
        assert np.bincount(data.datasets[split].labels).tolist() == [count] * len(CLASSES)


def test_splits_share_neither_ids_nor_pixels() -> None:
    parts = [items(split) for split in ("train", "val", "test")]
    ids = [item["id"] for part in parts for item in part]
    pixels = [item["image"].numpy().tobytes() for part in parts for item in part]
    assert len(set(ids)) == len(set(pixels)) == 4 * len(CLASSES)


def stamps(**options) -> list[str]:
    images = Scenes(**COUNTS, **options).datasets["val"].images
    return [images.stamp(index) for index in range(len(images))]


@pytest.mark.parametrize("other", [{"generator_seed": 1}, {"split": 1}])
def test_another_seed_or_split_gives_other_scenes(other: dict) -> None:
    for ours, theirs in zip(items("val"), items("val", **other), strict=True):
        assert not torch.equal(ours["image"], theirs["image"])
    assert not set(stamps()) & set(stamps(**other))


def test_the_seed_of_the_order_leaves_the_scenes_alone() -> None:
    assert stamps() == stamps(seed=7)


def test_vegetation_is_brighter_than_water_in_the_infrared() -> None:
    ndvi: dict[int, list[float]] = {Cover.WATER: [], Cover.TREES: []}
    for item in items("train"):
        red, infrared = item["image"][0].float(), item["image"][3].float()
        index = (infrared - red) / (infrared + red + 1)
        for cover, values in ndvi.items():
            values += index[item["mask"] == cover].tolist()
    assert np.mean(ndvi[Cover.TREES]) > np.mean(ndvi[Cover.WATER]) + 0.2


@pytest.mark.parametrize("size", [32, 64, 130])
def test_scenes_of_every_class_can_have_another_size(size: int) -> None:
    for label in range(len(CLASSES)):
        image, mask = draw_scene(label, (3, label), size)
        assert image.shape == (4, size, size) and mask.shape == (size, size)


def test_a_seed_of_the_generator_is_no_negative_number() -> None:
    with pytest.raises(ValueError, match=r"seed is -1; .* set data\.generator_seed=0"):
        Scenes(generator_seed=-1)


def test_a_scene_of_too_few_pixels_is_refused() -> None:
    with pytest.raises(ValueError, match="size is 16; a scene needs 32 pixels"):
        Scenes(size=16)


def test_cells_hold_every_pixel_within_their_borders() -> None:
    canvas = Canvas(np.random.default_rng(0), 96)
    cells = canvas.cells(*canvas.frame(0.7), 20, 13, 0.4)
    assert (cells.edge > -0.01).all()
    assert cells.index.min() >= 0 and cells.index.max() < cells.count
    parts = cells.divided(7, 7)
    assert (parts.edge > -0.01).all() and parts.index.max() < parts.count


def test_colours_do_not_give_the_class_away() -> None:
    data = Scenes(train_per_class=25, val_per_class=1, test_per_class=10)
    features = {
        split: np.stack([colour_histogram(data.datasets[split].images.read(i).numpy()) for i in n])
        for split, n in (("train", range(300)), ("test", range(120)))
    }
    probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.003, max_iter=200))
    probe.fit(features["train"], data.datasets["train"].labels)
    assert probe.score(features["test"], data.datasets["test"].labels) < 0.6


def colour_histogram(image: np.ndarray) -> np.ndarray:
    """Joint histogram of the four bands, 5 bins each."""
    bins = np.ravel_multi_index(tuple(image // 52), (5, 5, 5, 5))
    return np.sqrt(np.bincount(bins.ravel(), minlength=625))
