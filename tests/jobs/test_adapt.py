"""What an adaptation learns depends on no process: how many there are, whether one was killed."""

import csv

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from small import finish, kill, only_run, small, start, wait_for

from nec.cli import main

pytestmark = pytest.mark.filterwarnings("ignore")
LEARNED = {
    "embedding": ["adapter=last_blocks", "adapter.ratio=0.5"],
    "masked_pixels": ["distortion=masked_pixels", "adapter=full"],
}


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def learn(*words):
    return ["run", *small("lmbda=3", "trainer.max_epochs=4", "data.batch_size=10", *words)]


def curve(folder, name):
    """A logged loss, epoch by epoch."""
    found = []
    for path in sorted(folder.glob("lightning_logs/*/metrics.csv")):
        with path.open(newline="") as file:
            found += [float(row[name]) for row in csv.DictReader(file) if row.get(name)]
    return found


def weights(folder):
    """All that was trained, by name."""
    files = sorted((folder / "codec").glob("*.safetensors"))
    return {f"{f.stem}/{name}": value for f in files for name, value in load_file(f).items()}


def by_lightning(here, *words):
    """Rank 0 starts the other."""
    finish(start(here, *words), here)


def by_slurm(here, *words):
    """Both ranks are started at once, as srun does."""
    job = {"SLURM_JOB_ID": "12345", "SLURM_JOB_NAME": "job", "SLURM_NODELIST": "127.0.0.1"}
    job |= {"SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "2", "SLURM_NNODES": "1"}
    tasks = [
        start(here, *words, SLURM_NODEID="0", SLURM_PROCID=rank, SLURM_LOCALID=rank, **job)
        for rank in ("0", "1")
    ]
    for task in tasks:
        finish(task, here)


@pytest.mark.parametrize(
    ("distortion", "launch"),
    [("embedding", by_slurm), ("masked_pixels", by_lightning)],
)
def test_two_processes_learn_what_one_does(here, distortion, launch):
    words = learn(*LEARNED[distortion])
    assert main([*words, "name=one"]) == 0
    launch(here, *words, "name=two", "strategy=ddp", "trainer.devices=2")
    one, two = (only_run(here, name) for name in ("one", "two"))
    assert one.name == two.name  # the same run, wherever it ran
    for name in ("train/loss", "val/loss"):
        assert curve(two, name) == pytest.approx(curve(one, name), rel=1e-5)
    expected, found = weights(one), weights(two)
    assert any(name.startswith("encoder/") for name in expected)
    for name, value in expected.items():
        # Adam makes steps of full size of a gradient that is nothing but float noise: keys' biases.
        atol = 1e-3 if name.endswith("qkv.bias") else 1e-4
        torch.testing.assert_close(found[name], value, rtol=1e-3, atol=atol)


def test_a_killed_run_goes_on_to_the_same_weights_bit_for_bit(here, capfd):
    words = learn(*LEARNED["embedding"], "trainer.max_epochs=30", "trainer.log_every_n_steps=1")
    assert main([*words, "name=whole"]) == 0
    killed = start(here, *words, "name=killed")
    wait_for(lambda: [*here.glob("runs/killed/.*.part/checkpoints/last.ckpt")], killed)
    kill(killed)
    assert not [*here.glob("runs/killed/*/run.json")]
    assert main([*words, "name=killed"]) == 0
    assert "goes on from runs/killed" in capfd.readouterr().out
    whole, again = (only_run(here, name) for name in ("whole", "killed"))
    expected, found = weights(whole), weights(again)
    assert expected.keys() == found.keys()
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    read = ((folder / "metrics.csv").read_text().splitlines() for folder in (whole, again))
    measured = [[line for line in lines if ",image/s," not in line] for lines in read]
    assert [line.replace("killed,", "whole,") for line in measured[1]] == measured[0]
    assert not [*here.glob("runs/killed/.*.part")]


def test_a_run_that_fails_after_its_training_does_not_train_again(here, capfd, monkeypatch):
    def full(**options):
        raise OSError("no space left")

    monkeypatch.setattr("nec.jobs.evaluate.Trainer", full)  # of heads
    words = learn()
    assert main(words) == 1
    (left,) = here.glob("runs/scenes/.*.part")
    kept = {"checkpoints", "lightning_logs", "commits.txt", "config.yaml"}
    assert {path.name for path in left.iterdir()} == kept
    assert main(words) == 1
    assert "goes on from" in capfd.readouterr().out
    logged = [path.read_text() for path in left.glob("lightning_logs/*/metrics.csv")]
    assert sum("train/loss" in text for text in logged) == 1


def test_a_stopped_run_does_not_go_on_with_other_images_of_one_last_name(here, capfd, monkeypatch):
    for index in range(20):
        for place in ("a", "b"):
            path = here / place / "u8" / "xy"[index % 2] / f"{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("L", (4, 4), index * 9 if place == "a" else 255 - index).save(path)

    def stop(*_):
        raise KeyboardInterrupt

    words = [w for w in learn("data=folder", "name=mine") if not w.startswith("data.")]
    words += ["encoder.in_chans=1", "data.batch_size=4"]
    with monkeypatch.context() as patch:
        patch.setattr("nec.jobs.stores.encode", stop)
        assert main([*words, "data.root=a/u8"]) == 130
    assert main([*words, "data.root=b/u8"]) == 1
    assert "data.root is b/u8, but a/u8 in runs/mine/." in capfd.readouterr().err
    assert main([*words, "data.root=a/../a/u8"]) == 0
    assert "goes on from runs/mine/." in capfd.readouterr().out
