"""The Lightning CLI: the same classes, the same training, what one may do with it."""

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from small import finish, only_run, small, start
from test_tracking import Shown

from nec.cli import main
from nec.config import compose
from nec.jobs import translate
from nec.store import EmbeddingStore
from nec.tasks import RateDistortionAdaptation

EXAMPLE = Path(__file__).parents[2] / "examples" / "fit.yaml"
SHORT = ["--data.train_per_class=2", "--data.val_per_class=1", "--data.test_per_class=1"]
SHORT += ["--data.size=32", "--trainer.accelerator=cpu"]
QUIET = ["--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"]
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def checkpoint(folder):
    return torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)


def logs(here, version=0):
    return here / "lightning_logs" / f"version_{version}"


@pytest.mark.parametrize(
    "words",
    [
        ["adapter=last_blocks", "adapter.ratio=0.5", "bottleneck.latents=16"],
        ["distortion=masked_pixels", "adaptation.lr=0.002", "seed=3"],
        [
            "+adaptation.optimizer._target_=torch.optim.SGD",
            "+adaptation.optimizer._partial_=true",
            "+adaptation.optimizer.momentum=0.5",
            "encoder.mean=[0.1,0.2,0.3,0.4]",
        ],
    ],
    ids=["adapted", "masked", "another optimizer"],
)
def test_a_run_and_its_lightning_yaml_train_the_same(here, words):
    epochs = ["trainer.max_epochs=2", "trainer.check_val_every_n_epoch=1"]
    assert main(["run", *small("lmbda=3", *epochs, *words)]) == 0
    run = only_run(here)
    given = ["--trainer.logger=lightning.pytorch.loggers.CSVLogger", "--trainer.logger.save_dir=."]
    assert main(["fit", "-c", str(run / "lightning.yaml"), *QUIET, *given]) == 0
    expected, found = checkpoint(run)["state_dict"], checkpoint(logs(here))["state_dict"]
    assert expected.keys() == found.keys()
    assert all(torch.equal(found[name], value) for name, value in expected.items())

    def losses(folder):
        with (folder / "metrics.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        return [(r["train/loss"], r["val/loss"]) for r in rows if r["train/loss"] or r["val/loss"]]

    assert losses(logs(here)) == losses(run / "lightning_logs" / "version_0")
    assert len(losses(logs(here))) == 4


def test_a_head_is_trained_as_the_run_trained_its_first(here):
    assert main(["run", *small("bottleneck=uniform", "task.linear.epochs=3")]) == 0
    run = only_run(here)
    config = str(run / "lightning.yaml")
    assert main(["fit", "-c", config, *QUIET]) == 0
    given = ["--ckpt_path", str(logs(here) / "checkpoints" / "best.ckpt")]
    assert main(["predict", "-c", config, *QUIET, *given]) == 0
    with (logs(here, 1) / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    store = EmbeddingStore.open(run / "store.zarr")
    assert [row["id"] for row in rows] == list(store.ids)
    recorded = np.load(run / "predictions.npz")["linear/predicted"][0]
    said = [row["predicted"] for row in rows if row["split"] == "test"]
    assert said == [store.classes[index] for index in recorded]


@pytest.mark.parametrize("task", ["linear_codes", "linear_histogram", "attention"])
def test_a_head_that_was_fitted_is_measured(here, capsys, task):
    words = ["bottleneck=vq", "bottleneck.codes=8", "bottleneck.latents=4"]
    words += [f"task=[linear,{task}]", f"task.{task}.epochs=2", f"task.{task}.seeds=1"]
    assert main(["run", *small(*words)]) == 0
    config = ["-c", str(only_run(here) / f"lightning-{task}.yaml"), *QUIET]
    assert main(["fit", *config]) == 0
    best = ["--ckpt_path", str(logs(here) / "checkpoints" / "best.ckpt")]
    capsys.readouterr()
    assert main(["test", *config, *best]) == 0
    assert "test/accuracy" in capsys.readouterr().out


def test_the_example_is_fitted_measured_and_stored(here, capsys):
    assert main(["fit", "-c", str(EXAMPLE), *SHORT, *QUIET, "--trainer.max_epochs=1"]) == 0
    assert f"trained: {logs(here)}" in capsys.readouterr().out
    config = str(logs(here) / "config.yaml")
    given = ["-c", config, "--ckpt_path", str(logs(here) / "checkpoints" / "last.ckpt")]
    for command, split in (("validate", "val"), ("test", "test")):
        assert main([command, *given]) == 0
        assert f"{split}/bpp" in capsys.readouterr().out
    assert main(["predict", *given]) == 0
    store = EmbeddingStore.open(logs(here, 3) / "store.zarr")
    assert store.complete
    store.verify()
    assert len(store) == 12 * 4
    assert set(store.splits) == {"train", "val", "test"}
    assert main(["fit", *given, "--trainer.max_epochs=2"]) == 0
    assert checkpoint(logs(here, 4))["epoch"] == 1


def test_a_fit_that_stopped_within_an_epoch_ends_where_it_would_have(here, monkeypatch):
    monkeypatch.setattr("nec.jobs.adapt.SAVED_EVERY_STEPS", 1)
    words = ["fit", "-c", str(EXAMPLE), *SHORT, *QUIET, "--data.batch_size=5"]
    words += ["--trainer.max_epochs=2"]
    step = RateDistortionAdaptation.training_step

    def fails(task, batch, batch_idx):
        if batch_idx == 2:
            raise RuntimeError("the machine stops")
        return step(task, batch, batch_idx)

    with monkeypatch.context() as patch:
        patch.setattr(RateDistortionAdaptation, "training_step", fails)
        assert main(words) == 1
    assert checkpoint(logs(here))["ActivationDataModule"] == {"epoch": 0, "batches": 2}
    given = f"--ckpt_path={logs(here) / 'checkpoints' / 'last.ckpt'}"
    assert main([*words, given]) == 0
    assert main(words) == 0
    again, whole = (checkpoint(logs(here, version)) for version in (1, 2))
    assert again["global_step"] == whole["global_step"] == 2 * 5  # 24 images
    expected = whole["state_dict"].items()
    assert all(torch.equal(again["state_dict"][name], value) for name, value in expected)


def test_both_front_ends_have_the_same_classes_and_options():
    words = ["data.workers=0", "trainer.max_epochs=8", "trainer.check_val_every_n_epoch=4"]
    config = compose(["lmbda=3", *words]).config
    ours, example = translate.adaptation(config), yaml.safe_load(EXAMPLE.read_text())
    model, expected = ours["model"]["init_args"], example["model"]["init_args"]
    for part in ("encoder", "adapter", "bottleneck", "distortion"):
        assert model[part]["class_path"] == expected[part]["class_path"]
        assert model[part].get("init_args", {}) == expected[part].get("init_args", {})
    assert ours["data"]["class_path"] == example["data"]["class_path"]


def test_help_teaches(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["fit", "--help"])
    first = capsys.readouterr().out.splitlines()[:20]
    assert first[0] == "usage: nec fit [-c FILE.yaml] [--KEY VALUE ...]"
    assert any(line.startswith("  nec fit -c examples/fit.yaml") for line in first)


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["--model.lmda=3"], 2, "Option 'lmda' is not accepted"),
        (["--model.lmbda=-1"], 1, "lmbda is -1.0; it weighs the distortion and must be > 0"),
        (["--model.encoder.checkpoint=absent.pt"], 1, "checkpoint absent.pt is not a file"),
        (["--model.encoder.block=99"], 1, "block is 99; vit_tiny_patch16_224 has 1 to 4"),
        (["--data.size=-3"], 1, "size is -3; a scene needs 32 pixels or more"),
        (["--trainer.max_epochs=-5"], 1, "`max_epochs` must be"),
        (["--data.train_per_class=0"], 1, "split train is empty"),
        (["--ckpt_path=absent.ckpt"], 1, "absent.ckpt"),
    ],
)
def test_bad_input_is_said(here, capsys, words, status, message):
    try:
        found = main(["fit", "-c", str(EXAMPLE), *SHORT, *QUIET, *words])
    except SystemExit as stop:
        found = stop.code
    (line,) = [text for text in capsys.readouterr().err.splitlines() if "nec: error" in text]
    assert found == status
    assert message in line and len(line) < 250


def test_what_was_never_trained_is_not_measured(here, capsys):
    assert main(["validate", "-c", str(EXAMPLE), *SHORT]) == 1
    assert "give a checkpoint, as in --ckpt_path FILE" in capsys.readouterr().err
    assert main(["predict", "-c", str(EXAMPLE), *SHORT]) == 1
    assert "give --ckpt_path FILE" in capsys.readouterr().err


def test_two_processes_are_fitted_and_said_where(tmp_path):
    words = ["--trainer.max_epochs=1", "--trainer.devices=2", "--trainer.strategy=ddp"]
    finish(start(tmp_path, "fit", "-c", str(EXAMPLE), *SHORT, *QUIET, *words), tmp_path)
    assert (tmp_path / "log.txt").read_text().count("next: nec predict -c") == 1
    assert checkpoint(logs(tmp_path))["global_step"] == 1


def test_wandb_is_offline_without_a_key_and_is_shown_the_config(here, monkeypatch):
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    given = ["--trainer.logger=WandbLogger", "--trainer.max_epochs=1"]
    words = ["fit", "-c", str(EXAMPLE), *SHORT, *QUIET, *given]
    finish(start(here, *words, HOME=str(here)), here)
    (path,) = here.glob("wandb/offline-run-*/run-*.wandb")
    assert Shown(path).config["model"]["init_args"]["lmbda"] == 3
    (saved,) = here.rglob("last.ckpt")
    assert (saved.parents[1] / "config.yaml").is_file()


@pytest.mark.parametrize(
    "words",
    [
        ["--model.help=RateDistortionAdaptation"],
        ["--model.bottleneck.help=Factorized"],
        ["--data.help=Folder"],
    ],
)
def test_what_help_names_is_there(capsys, words):
    with pytest.raises(SystemExit, match="0"):
        main(["fit", *words])
    assert "usage" in capsys.readouterr().out
