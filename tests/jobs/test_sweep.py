"""Sweeps: jobs are processes of their own, and what was stopped is completed."""

import os
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image
from small import PATIENCE_S, kill, small, start, wait_for

from nec.cli import main
from nec.config import UsageError
from nec.jobs import ranks
from nec.jobs.sweep import expand, jobs_of


def test_a_sweep_of_ddp_jobs_is_completed_after_kill_9(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    words = ["run", "-m", *small("strategy=ddp", "trainer.devices=2", "sweep=lmbda", "name=sweep")]
    words += ["sweep.axes.lmbda=[0.3,3]", "trainer.max_epochs=10"]
    place = tmp_path / "runs" / "sweep"
    killed = start(tmp_path, *words)
    wait_for(lambda: [*place.glob(".*.part/checkpoints/last.ckpt")], killed)
    kill(killed)  # the sweep alone: its job and that one's other rank follow by themselves
    assert main(words) == 0
    assert len([*place.glob("*/run.json")]) == 2
    assert (place / "table.csv").is_file()
    out, err = capfd.readouterr()
    log = (tmp_path / "log.txt").read_text() + out + err
    assert log.count("goes on from") == 1
    assert "another process" not in log


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ("encoder.checkpoint=null", "has no weights"),
        ("encoder.checkpoint=absent.pt", "not a file"),
    ],
)
def test_missing_weights_are_said_once_and_no_job_begins(
    weights, message, tmp_path, monkeypatch, capfd
):
    monkeypatch.chdir(tmp_path)
    jobs = "bottleneck=int8,absent"  # the second is no config, which takes composing it to know
    assert main(["run", "-m", jobs, "data=folder", weights]) == 1
    said, error = capfd.readouterr().err.splitlines()
    assert said == "composing 2 jobs"
    assert message in error
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize(
    ("dtype", "words", "message"),
    [
        ("uint16", ["pixels=jpegxl,avif"], "pixels of uint16 are none that avif codes"),
        ("uint8", ["pixels=avif", "pixels.whole=true"], "set pixels.whole=false"),
    ],
)
def test_images_that_a_pixel_codec_does_not_code_stop_a_sweep_before_its_jobs(
    dtype, words, message, tmp_path, monkeypatch, capfd
):
    pytest.importorskip("imagecodecs")
    monkeypatch.chdir(tmp_path)
    for index in range(8):
        (tmp_path / "data" / "ab"[index % 2]).mkdir(parents=True, exist_ok=True)
        image = Image.fromarray(np.full((4, 4), index, dtype))
        image.save(tmp_path / "data" / "ab"[index % 2] / f"{index}.png")
    data = ["data=folder", "data.root=data", "bottleneck=identity", "pixels.quality=9,10"]
    assert main(["run", "-m", *data, *words]) == 1
    assert capfd.readouterr().err.count(message) == 1
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["data=folder", "data.root=absent", "seed=0,1"], "no image in absent"),
        (["data=folder", "data.root=data", "seed=0,1"], "is empty"),
        (["data=crops", "data.root=tiles", "data.crop=4", "data.split=0,3"], "have folds 0 to 2"),
    ],
)
def test_missing_images_and_splits_are_said_once_and_no_job_begins(
    words, message, tmp_path, monkeypatch, capfd
):
    monkeypatch.chdir(tmp_path)
    image = Image.fromarray(np.zeros((4, 4), np.uint8))
    places = ["data/a/0.png", "data/b/0.png"]
    places += [f"tiles/{tile}/{kind}/0.png" for tile in "abc" for kind in ("images", "masks")]
    for place in places:
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        image.save(tmp_path / place)
    legend = "data.legend={land: 0, water: 1}"
    words += [legend, "task=segmentation"] if "data=crops" in words else []
    assert main(["run", "-m", "bottleneck=int8", *words]) == 1
    assert capfd.readouterr().err.count(message) == 1
    assert not (tmp_path / "runs").exists()


def test_two_sets_of_one_last_name_are_no_sweep(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b"):
        (tmp_path / name / "u8").mkdir(parents=True)
    assert main(["run", "-m", "bottleneck=int8", "data=folder", "data.root=a/u8,b/u8"]) == 1
    assert "data.root is b/u8, but a/u8 in runs/scenes/" in capfd.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_each_is_an_axis_of_all_products_and_what_is_typed_wins():
    words = ["+sweep.each={seed: [0, 1]}", "sweep.axes={bottleneck: identity}"]
    words += ["+sweep.also=[{bottleneck: uniform, bottleneck.bits: [2, 3]}]"]
    products = [product[len(words) :] for product in expand(words)]
    options = "bottleneck=uniform", "bottleneck.bits=2,3"
    assert products == [["seed=0,1", "bottleneck=identity"], ["seed=0,1", *options]]
    assert not any("seed=0,1" in product for product in expand([*words, "seed=5"]))


def test_an_axis_that_dots_made_a_group_is_not_passed_over():
    words = ["+sweep.each={data.split: [0, 1]}", "+sweep.each.data.split=[0]", "data=folder"]
    with pytest.raises(UsageError, match=r"'sweep\.each={data\.split: \[0\]}'"):
        expand([*words, "+sweep.axes={bottleneck: identity}"])
    products = expand([words[0], "sweep.axes={bottleneck: identity}", "data=folder"])
    assert products[0][-2:] == ["data.split=0,1", "bottleneck=identity"]


def test_a_list_in_an_axis_is_one_value():
    words = ["+sweep.axes={task: [[linear, knn], attention], bottleneck: vq}"]
    jobs = [job for product in expand(words) for job in jobs_of(product)]
    assert [job[-2] for job in jobs] == ["task=[linear,knn]", "task=attention"]


def test_a_job_inherits_no_rank_and_ends_with_its_sweep(monkeypatch):
    ours = ("RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE")
    ours += ("MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_RUN_ID")
    for name in (*ours, "SLURM_PROCID"):
        monkeypatch.setenv(name, "1")
    environment = ranks.environment_of_job()
    assert not environment.keys() & set(ours)
    assert environment["SLURM_PROCID"] == "1"  # of the machine, not of a launcher
    assert environment[ranks.PARENT] == str(os.getpid())


FOLLOWER = """
import os, subprocess, sys, time
from nec.jobs import ranks
if sys.argv[1:]:
    ranks.follow_parent()
    time.sleep(60)
code = [sys.executable, __file__, "child"]
child = subprocess.Popen(code, env=ranks.environment_of_job())
print(child.pid, flush=True)
time.sleep(60)
"""


def test_a_job_follows_its_sweep_however_that_ends(tmp_path):
    script = tmp_path / "follower.py"
    script.write_text(FOLLOWER)
    with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE) as parent:
        child = int(parent.stdout.readline())
        assert _lives(child)
        parent.kill()
    end = time.monotonic() + PATIENCE_S
    while _lives(child):
        assert time.monotonic() < end
        time.sleep(0.05)


def _lives(pid):
    """Whether a process runs; one that nobody waited for does not."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize(
    ("variables", "leads"),
    [
        ({}, True),
        ({"LOCAL_RANK": "0", "NODE_RANK": "0"}, True),
        ({"LOCAL_RANK": "1"}, False),
        ({"LOCAL_RANK": "0", "NODE_RANK": "1"}, False),
        ({"RANK": "8", "LOCAL_RANK": "0"}, False),
        ({"SLURM_PROCID": "3"}, False),
        ({"RANK": "0", "SLURM_PROCID": "1"}, True),  # torchrun, which SLURM started
        ({"RANK": "8", "SLURM_PROCID": "0"}, False),
        ({"LOCAL_RANK": "1", "SLURM_PROCID": "0"}, False),  # Lightning, in an interactive job
        ({"NODE_RANK": "1"}, False),
    ],
)
def test_one_process_of_a_job_leads(monkeypatch, variables, leads):
    for name in (*ranks.OF_LAUNCHERS, "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert ranks.leads() == leads


def test_jobs_run_under_submitit(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["launcher=submitit", "hydra/launcher=submitit_local", "hydra.launcher.cpus_per_task=1"]
    assert main(["run", "-m", *small(*words, "bottleneck=identity,float16", "name=sub")]) == 0
    assert len([*(tmp_path / "runs" / "sub").glob("*/run.json")]) == 2


HIDDEN = """
import sys
from importlib.metadata import Distribution
sys.modules["hydra_plugins.hydra_submitit_launcher"] = None
from nec.cli import main
sys.exit(main(["run", "-m", "launcher=submitit", "bottleneck=identity,float16"]))
"""


def test_submitit_that_is_not_installed_is_one_line(tmp_path):
    command = [sys.executable, "-c", HIDDEN]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    (line,) = ended.stderr.splitlines()
    assert ended.returncode == 2
    assert "launcher=submitit needs hydra-submitit-launcher" in line
    assert "pip install 'nec[slurm]'" in line
