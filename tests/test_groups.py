"""Every option of every group runs: a few images, one batch, a store, a head."""

from pathlib import Path

import nec.conf
import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image

from nec.cli import main
from nec.config import compose
from nec.jobs.sweep import expand, jobs_of

CONF = Path(next(iter(nec.conf.__path__)))
ONE_BATCH = [
    "name=groups",
    "lmbda=1",
    "trainer.max_epochs=1",
    "trainer.limit_train_batches=1",
    "trainer.limit_val_batches=1",
]
SCENES = [f"data.{split}_per_class=1" for split in ("train", "val", "test")] + ["data.size=32"]
ENCODER = ["encoder.checkpoint=random", "encoder.image_size=32"]
TINY = [*ENCODER, *(f"encoder.architecture.{k}=2" for k in ("depth", "num_heads"))]
TINY += ["encoder.architecture.embed_dim=32"]
ONE_HEAD = ["task.linear.epochs=1", "task.linear.seeds=1"]
BASE = [*ONE_BATCH, *SCENES, *TINY, *ONE_HEAD]
# Of ViTs that a file names; their weights are downloaded, so untrained ones stand in.
LARGE = [*ONE_BATCH, *ONE_HEAD, "encoder.pretrained=false", "encoder.checkpoint=random"]
LARGE += ["encoder.block=1"]
# Of bottlenecks that want more channels or tokens than a tiny run has.
FEW = {
    "layered": ["tokens.codes=16", "pooled.components=16"],
    "pca": ["components=16"],
    "pca_coded": ["components=16"],
    "pooled_product": ["vector.parts=8", "vector.bits=2"],
    "product": ["parts=8", "bits=2"],
    "vq": ["codes=16"],
    "vq_transform": ["coarse.codes=16"],
}
CHOICES = sorted(
    (path.parent.name, path.stem)
    for path in CONF.glob("*/*.yaml")
    if path.parent.name not in ("experiment", "launcher", "sweep")
)
DEFAULTS = {
    group: name
    for entry in OmegaConf.load(CONF / "config.yaml").defaults
    if entry != "_self_"
    for group, name in entry.items()
}


@pytest.fixture(autouse=True)
def offline(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "offline")


def class_folders(root, bands, suffix):
    """20 images of 32 px in two classes."""
    import rasterio

    rng = np.random.default_rng(0)
    for name in ("beach", "forest"):
        (root / name).mkdir(parents=True)
        for index in range(10):
            pixels = rng.integers(0, 255, (bands, 32, 32)).astype("uint8")
            path = root / name / f"{name}{index:02d}{suffix}"
            if bands == 3:
                Image.fromarray(pixels.transpose(1, 2, 0)).save(path)
                continue
            place = rasterio.Affine(10, 0, 0, 0, -10, 640)
            with rasterio.open(
                path,
                "w",
                driver="GTiff",
                count=bands,
                height=32,
                width=32,
                dtype="uint16",
                crs="EPSG:32632",
                transform=place,
            ) as file:
                file.write(pixels.astype("uint16") * 40)


def tiles(root):
    """Three tiles of an image of 70 x 40 px with its mask, in Dubai's colours."""
    rng = np.random.default_rng(0)
    colours = np.array([[0x84, 0x29, 0xF6], [0xE2, 0xA9, 0x29], [0, 0, 0]], np.uint8)
    for tile in range(3):
        for kind, pixels in (
            ("images", rng.integers(0, 255, (70, 40, 3), np.uint8)),
            ("masks", colours[rng.integers(0, 3, (70, 40))]),
        ):
            (root / f"Tile {tile}" / kind).mkdir(parents=True)
            Image.fromarray(pixels).save(root / f"Tile {tile}" / kind / "part.png")


def of_data(name, here):
    """Overrides that give a data set what it needs, made here."""
    split = ["data.split=1", f"data.root={here}/data"]  # by hash, which needs no published lists
    if name == "folder":
        class_folders(here / "data", 3, ".png")
        return [*split, "encoder.in_chans=3"]
    if name == "ucmerced":
        class_folders(here / "data" / "UCMerced_LandUse" / "Images", 3, ".tif")
        return [*split, "encoder.in_chans=3"]
    if name == "eurosat":
        inner = "ds/images/remote_sensing/otherDatasets/sentinel_2/tif"
        class_folders(here / "data" / inner, 13, ".tif")
        return [*split, "encoder.in_chans=13"]
    if name in ("dubai", "crops"):
        tiles(here / "data")
        legend = ["data.legend={land: '#8429F6', water: '#E2A929'}", "data.ignored=['#000000']"]
        cut = [f"data.root={here}/data", "data.crop=32", "encoder.in_chans=3"]
        return cut + (legend if name == "crops" else [])
    return SCENES


# Tasks whose heads are not trained epoch by epoch.
SOLVED = ("knn", "segmentation_ridge", "segmentation_ridge_neighbours")


def words_for(group, name, here):
    """Overrides that make a choice run in seconds."""
    if group == "data" and name in ("dubai", "crops"):  # which have masks, no scenes to tell apart
        head = ["task=segmentation", "task.segmentation.epochs=1", "task.segmentation.seeds=1"]
        return [*ONE_BATCH, *TINY, *head, *of_data(name, here)]
    if group == "data":
        return [*ONE_BATCH, *TINY, *ONE_HEAD, *of_data(name, here)]
    if group == "encoder" and name != "scenes_vit":
        patch = 14 if "dinov2" in name else 16
        size = f"encoder.image_size={2 * patch}"
        if name.endswith("_s2"):
            return [*LARGE, size, "data=eurosat", *of_data("eurosat", here)[:2]]
        return [*LARGE, size, "data=folder", *of_data("folder", here)[:2]]
    if group == "pixels" and name != "none":
        return [*BASE, "bottleneck=identity"]
    if group == "bottleneck":
        return [*BASE, *(f"bottleneck.{word}" for word in FEW.get(name, ()))]
    if group == "adapter" and name == "last_blocks":
        return [*BASE, "adapter.ratio=0.5"]
    if group == "task" and name != "linear":
        learned = [f"task.{name}.epochs=1", f"task.{name}.seeds=1"]
        return [*ONE_BATCH, *SCENES, *TINY, *(learned if name not in SOLVED else [])]
    return BASE


def test_the_defaults_run(tmp_path):
    """All at once, as the one run that each of them alone would be."""
    chosen = [f"{group}={name}" for group, name in CHOICES if DEFAULTS[group] == name]
    assert len(chosen) == len({group for group, _ in CHOICES})
    assert main(["run", *BASE, *chosen]) == 0
    assert len([*tmp_path.glob("runs/groups/*/run.json")]) == 1


@pytest.mark.parametrize(("group", "name"), [c for c in CHOICES if c not in DEFAULTS.items()])
@pytest.mark.filterwarnings("ignore")
def test_every_choice_runs(group, name, tmp_path):
    trainer = compose([f"{group}={name}"]).config.trainer
    gpus = trainer.devices * trainer.num_nodes if trainer.accelerator == "gpu" else 0
    if torch.cuda.device_count() < gpus:
        pytest.skip(f"needs {gpus} GPUs")
    assert main(["run", *words_for(group, name, tmp_path), f"{group}={name}"]) == 0
    assert len([*tmp_path.glob("runs/groups/*/run.json")]) == 1


@pytest.mark.parametrize("name", sorted(path.stem for path in (CONF / "sweep").glob("*.yaml")))
@pytest.mark.filterwarnings("ignore")
def test_a_job_of_every_sweep_runs(name, tmp_path):
    deep = [word for word in BASE if "depth" not in word] + ["encoder.architecture.depth=4"]
    jobs = [job for product in expand([*deep, f"sweep={name}"]) for job in jobs_of(product)]
    assert main(["run", *jobs[-1]]) == 0
    assert len([*tmp_path.glob("runs/groups/*/run.json")]) == 1


def test_sweeps_combine_freely():
    words = ["sweep=[lmbda,adapter_ratio,seed]"]
    (product,) = expand(words)
    jobs = jobs_of(product)
    axes = [OmegaConf.load(CONF / "sweep" / f"{n}.yaml").axes for n in ("lmbda", "adapter_ratio")]
    assert len(jobs) == len(axes[0].lmbda) * len(axes[1]["adapter.ratio"]) * 5
    assert len({tuple(sorted(job)) for job in jobs}) == len(jobs)
