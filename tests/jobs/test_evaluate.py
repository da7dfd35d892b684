"""What heads say of a store: statistics that add up, and choices made on val alone."""

import csv
import json
import math
import re

import numpy as np
import pytest
import torch
from small import only_run, small

from nec.cli import main
from nec.data.images import ImageDataModule, Images
from nec.data.scenes import CLASSES, COVERS, Scenes
from nec.data.splits import SPLITS
from nec.jobs.evaluate import ClosedForm, Probe, SegmentationProbe
from nec.scores import mean_iou, overall_accuracy
from nec.store import EmbeddingStore
from nec.store.codec import RawCodec
from nec.tasks import LinearHead, NearestNeighbours, TokenLinear

KINDS = ("linear", "knn", "segmentation")
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Where a run has been that has a task of each kind."""
    place = tmp_path_factory.mktemp("home")
    words = small("bottleneck=identity", f"task=[{','.join(KINDS)}]")
    words += ["task.segmentation.seeds=2", "task.segmentation.epochs=1"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        assert main(["run", *words]) == 0
    return place


@pytest.fixture
def run(home, monkeypatch):
    """The run's folder; its configs name it as one does from where it has been."""
    monkeypatch.chdir(home)
    return only_run(home)


def rows(folder, task):
    with (folder / "metrics.csv").open() as file:
        found = [row for row in csv.DictReader(file) if row["task"] == task]
    assert {row["unit"] for row in found} == {"fraction"}
    names = dict.fromkeys(row["metric"] for row in found)
    return {n: [float(row["value"]) for row in found if row["metric"] == n] for n in names}


def test_a_run_leaves_statistics_that_add_up_to_its_metrics(run):
    arrays, about = np.load(run / "predictions.npz"), json.loads((run / "run.json").read_text())
    store = EmbeddingStore.open(run / "store.zarr")
    assert arrays["id"].tolist() == arrays["group"].tolist()  # every scene by itself
    assert arrays["id"].tolist() == store.ids[store.splits == "test"].tolist()
    assert about["tasks"] == {
        "linear": {"kind": "classification", "classes": CLASSES},
        "knn": {"kind": "classification", "classes": CLASSES},
        "segmentation": {"kind": "segmentation", "classes": COVERS},
    }
    for task, seeds in (("linear", 2), ("knn", 1)):
        right = arrays[f"{task}/statistics"]
        assert right.dtype == np.int64 and right.shape == (seeds, 24, 1)
        assert np.array_equal(right[..., 0], arrays[f"{task}/predicted"] == arrays["label"])
        found = rows(run, task)
        assert found.pop("test/majority") == [pytest.approx(1 / 12)]  # as many scenes of each class
        assert found == {"test/accuracy": pytest.approx(right.mean(axis=(1, 2)))}
    confusion = arrays["segmentation/statistics"]
    assert confusion.dtype == np.int64 and confusion.shape == (2, 24, 49)
    assert (confusion.sum(axis=2) == 32 * 32).all()
    found, summed = rows(run, "segmentation"), confusion.sum(axis=1).reshape(2, 7, 7)
    assert found["test/miou"] == pytest.approx(mean_iou(summed))
    assert found["test/accuracy"] == pytest.approx(overall_accuracy(summed))
    assert {f"test/iou/{cover}" for cover in COVERS} <= set(found)
    assert "segmentation/predicted" not in arrays


def test_true_classes_are_those_of_the_masks(run):
    confusion = np.load(run / "predictions.npz")["segmentation/statistics"][0].reshape(-1, 7, 7)
    scenes = Scenes(train_per_class=4, val_per_class=2, test_per_class=2, size=32)
    images = scenes.datasets["test"].images
    for index, counts in enumerate(confusion):
        expected = np.bincount(images.read_mask(index).flatten(), minlength=7)
        assert np.array_equal(counts.sum(axis=1), expected)


@pytest.mark.filterwarnings("ignore")
def test_the_lightning_cli_trains_the_same_head_on_places(run, tmp_path, capfd):
    assert sorted(path.name for path in run.glob("lightning*.yaml")) == [
        "lightning-segmentation.yaml",
        "lightning.yaml",
    ]
    words = ["-c", str(run / "lightning-segmentation.yaml")]
    words += ["--trainer.default_root_dir", str(tmp_path)]
    assert main(["fit", *words]) == 0
    (best,) = tmp_path.glob("**/best.ckpt")
    ours = np.load(run / "predictions.npz")["segmentation/statistics"][0].sum(axis=0)
    capfd.readouterr()
    assert main(["test", *words, "--ckpt_path", str(best)]) == 0
    (said,) = re.findall(r"test/miou\W+([\d.]+)", capfd.readouterr().out)
    assert float(said) == pytest.approx(mean_iou(ours.reshape(7, 7)))
    assert main(["predict", *words, "--ckpt_path", str(best)]) == 1
    assert "nec test says its mean IoU" in capfd.readouterr().err


class Blank(Images):
    """40 images of a split, of given classes, that hold nothing."""

    def __init__(self, split, labels):
        super().__init__([f"{split} {n}" for n in range(40)], labels)

    def read(self, index):
        return torch.zeros(1, 8, 8, dtype=torch.uint8)

    def stamp(self, index):
        return ""


class Blanks(ImageDataModule):
    """Of two classes, which splits share or do not."""

    classes = ("a", "b")
    bands, raw_bytes_per_pixel, native_pixels = 1, 1, 64

    def __init__(self, apart=False):
        super().__init__()
        self.apart = apart

    def load_splits(self):
        mixed = {split: [n % 2 for n in range(40)] for split in SPLITS}
        alone = {"train": [0] * 40, "val": [0] * 40, "test": [1] * 40}
        labels = alone if self.apart else mixed
        return {split: Blank(split, labels[split]) for split in SPLITS}


def stored(path, flipped=""):
    """Embeddings of Blanks' images, which tell their classes; the labels of a split are flipped."""
    rng = np.random.default_rng(0)
    codec = RawCodec((2, 1, 2), "float32")
    with EmbeddingStore.create(path, codec, {}, classes=["a", "b"]) as store:
        for split, dataset in Blanks().datasets.items():
            labels = np.array(dataset.labels)
            y = rng.standard_normal((40, 4)) + 1.5 * labels[:, None]
            labels = 1 - labels if split == flipped else labels
            symbols = y.astype(np.float32).view(np.int32)
            store.append(symbols, dataset.ids, [split] * 40, labels)
    return path


def probe(weight_decay=0.01, seeds=2):
    return Probe(LinearHead, 0.05, weight_decay, epochs=8, batch_size=8, seeds=seeds)


@pytest.mark.parametrize(
    ("number", "message"),
    [
        ({"epochs": 0}, "epochs is 0; it is 1 or more"),
        ({"seeds": 0}, "seeds is 0"),
        ({"batch_size": -1}, "batch_size is -1"),
        ({"lr": 0.0}, "lr is 0.0; it is a number > 0"),
        ({"lr": math.inf}, "lr is inf"),
        ({"weight_decay": []}, r"weight_decay is \[\]"),
        ({"weight_decay": [0.1, -1]}, r"weight_decay is \[0.1, -1\]"),
    ],
)
def test_numbers_that_train_nothing_are_refused_before_any_work(number, message):
    with pytest.raises(ValueError, match=message):
        Probe(LinearHead, **{"lr": 0.05, "weight_decay": 0.01, **number})


@pytest.mark.filterwarnings("ignore")
def test_weight_decay_is_chosen_on_val(tmp_path):
    right, wrong = stored(tmp_path / "a"), stored(tmp_path / "b", flipped="val")

    def utilities(store, weight_decay):
        found = probe(weight_decay, seeds=1)(store, "linear", CPU, Blanks())
        return found.metrics["accuracy"].tolist()

    none, much = utilities(right, 0.0), utilities(right, 1e38)
    assert none != much  # a decay that leaves no number in a head: always the same answer
    assert utilities(right, [1e38, 0.0]) == utilities(right, [0.0, 1e38]) == none
    assert utilities(wrong, [1e38, 0.0]) == utilities(wrong, 1e38) != utilities(wrong, 0.0)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("ask", [probe(), ClosedForm(NearestNeighbours)], ids=["linear", "knn"])
def test_answers_do_not_depend_on_the_labels_of_test(tmp_path, ask):
    right = ask(stored(tmp_path / "a"), "task", CPU, Blanks())
    wrong = ask(stored(tmp_path / "b", flipped="test"), "task", CPU, Blanks())
    assert np.array_equal(right.predicted, wrong.predicted)
    accuracy = right.metrics["accuracy"]
    assert (accuracy > 0.7).all()
    assert wrong.metrics["accuracy"] == pytest.approx(1 - accuracy)


def test_scenes_are_not_asked_where_folds_leave_their_classes_out():
    with pytest.raises(ValueError, match=r"no class of the test images of Blanks is in train"):
        probe().check((4, 2, 2), Blanks(apart=True), 8)


@pytest.mark.parametrize(
    ("probe", "message"),
    [
        (SegmentationProbe(LinearHead, 1, 0), "gives one answer an image"),
        (Probe(TokenLinear, 1, 0), "answers for places of an image"),
    ],
)
def test_a_head_of_the_other_kind_is_refused(probe, message):
    images = Scenes(train_per_class=1, val_per_class=1, test_per_class=1, size=32)
    with pytest.raises(ValueError, match=message):
        probe.check((4, 2, 2), images, 8)


@pytest.mark.parametrize("epochs", [1, 8, 20, 25, 30, 59, 60, 100])
def test_the_last_epoch_is_validated_and_as_many_as_there_may_be(epochs):
    options = Probe(LinearHead, lr=0.1, weight_decay=0, epochs=epochs).trainer_options()
    validations, rest = divmod(epochs, options["check_val_every_n_epoch"])
    assert rest == 0 and validations >= min(epochs, 12)
