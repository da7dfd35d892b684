"""What W&B was shown, read back from the offline run that it wrote."""

import json
import struct

import numpy as np
import pytest
from small import small

from nec.cli import main
from nec.jobs.pictures import side_by_side

EPOCHS = ["trainer.max_epochs=2", "trainer.check_val_every_n_epoch=1"]
EPOCHS += ["trainer.log_every_n_steps=1"]
BLOCK_BYTES, HEADER_BYTES = 32768, 7  # of the log format that W&B takes from LevelDB


def records(path):
    """Every record of a .wandb file."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, position, pending = path.read_bytes(), HEADER_BYTES, b""
    while position + HEADER_BYTES <= len(data):
        left = BLOCK_BYTES - position % BLOCK_BYTES
        if left < HEADER_BYTES:
            position += left
            continue
        _, length, kind = struct.unpack_from("<IHB", data, position)
        position += HEADER_BYTES
        pending += data[position : position + length]
        position += length
        if kind in (1, 4):  # whole, or the last part
            record = Record()
            record.ParseFromString(pending)
            yield record
            pending = b""


class Shown:
    """A run as W&B will show it."""

    def __init__(self, path):
        self.config, self.summary, self.history, self.artifacts = {}, {}, {}, []
        for record in records(path):
            kind = record.WhichOneof("record_type")
            if kind == "run":
                self.run = record.run
                updates = record.run.config.update
                self.config |= {u.key: json.loads(u.value_json) for u in updates}
            elif kind == "config":
                for u in record.config.update:
                    self.config[u.key or "/".join(u.nested_key)] = json.loads(u.value_json)
            elif kind == "summary":
                for u in record.summary.update:
                    self.summary[u.key or "/".join(u.nested_key)] = json.loads(u.value_json)
            elif kind == "history":
                for item in record.history.item:
                    name = item.key or "/".join(item.nested_key)
                    self.history.setdefault(name, []).append(json.loads(item.value_json))
            elif kind == "request" and record.request.WhichOneof("request_type") == "log_artifact":
                self.artifacts.append(record.request.log_artifact.artifact)
            elif kind == "artifact":
                self.artifacts.append(record.artifact)


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """A sweep of one learned and one raw run, shown to W&B as it went."""
    here = tmp_path_factory.mktemp("swept")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(here)
        patch.delenv("WANDB_API_KEY", raising=False)
        patch.delenv("WANDB_MODE", raising=False)
        patch.setenv("HOME", str(here))  # where a key might lie
        words = ["lmbda=1", "bottleneck=factorized,identity", "logger=wandb"]
        assert main(["run", "-m", *small(*EPOCHS), *words]) == 0
        yield here / "runs" / "scenes"


def shown(place, folder):
    (path,) = place.glob(f"wandb/*-run-*/run-scenes-{folder.name.rsplit('-', 1)[1]}.wandb")
    return Shown(path)


def test_a_learned_run_shows_losses_rates_gradients_speed_and_its_result(swept):
    (folder,) = swept.glob("factorized-*")
    run = shown(swept, folder)
    assert run.run.run_group == "scenes"
    assert run.config["lmbda"] == 1
    for phase in ("train", "val"):
        for name in ("loss", "bpp", "distortion"):
            assert len(run.history[f"{phase}/{name}"]) == 2
    for name in ("gradient_norm/density", "lr-AdamW/density", "train/images_per_second"):
        assert len(run.history[name]) == 4  # steps
        assert all(np.isfinite(run.history[name]))
    assert run.history["trainer/global_step"] == sorted(run.history["trainer/global_step"])
    assert run.run.display_name.startswith("λ=1 · factorized")
    assert 0 <= run.summary["linear/test/accuracy_low"] <= run.summary["linear/test/accuracy"]
    assert run.summary["adapter/share"] == 0
    assert run.config["bottleneck"]["latents"] == 128  # a default


@pytest.mark.parametrize("variant", ["factorized", "identity"])
def test_a_run_shows_the_bytes_that_its_record_holds(swept, variant):
    (folder,) = swept.glob(f"{variant}-*")
    lines = (folder / "metrics.csv").read_text().splitlines()
    recorded = [line for line in lines if ",test/bytes_per_image," in line]
    run = shown(swept, folder)
    assert run.summary["test/bytes_per_image"] == pytest.approx(
        float(recorded[0].rsplit(",", 1)[1])
    )
    (artifact,) = {a.name: a for a in run.artifacts}.values()
    size = sum(p.stat().st_size for p in (folder / "store.zarr").rglob("*") if p.is_file())
    assert json.loads(artifact.metadata)["bytes"] == size
    store = (folder / "store.zarr").resolve().as_uri()
    assert all(entry.ref.startswith(store) for entry in artifact.manifest.contents)
    assert f"{store}/zarr.json" in {entry.ref for entry in artifact.manifest.contents}


def test_a_run_shows_images_beside_their_decoded_tokens(swept):
    (folder,) = swept.glob("identity-*")
    history = shown(swept, folder).history
    told = {key: history[f"val/decoded/{key}"][0] for key in ("width", "height", "captions")}
    assert (told["width"], told["height"]) == (64, 32)
    assert len(told["captions"]) == 8
    assert all(caption.startswith("val/") for caption in told["captions"])


def test_a_sweep_shows_table_and_figure_in_the_group_of_its_runs(swept):
    run = Shown(next(swept.glob("wandb/*-run-*/run-scenes-report.wandb")))
    assert (run.run.run_group, run.run.job_type) == ("scenes", "report")
    assert run.history["linear/table/nrows"] == [2]
    assert run.history["linear/rate_utility/_type"] == ["image-file"]


def test_a_report_shows_what_was_not_shown_and_nothing_twice(swept, capfd):
    before = set(swept.glob("wandb/*/*.wandb"))
    assert main(["report", str(swept), "--wandb"]) == 0
    assert "wandb sync" in capfd.readouterr().out
    added = set(swept.glob("wandb/*/*.wandb")) - before
    assert {path.name for path in added} <= {"run-scenes-report.wandb"}
    assert len([*swept.glob("wandb/offline-*/run-scenes-report.wandb")]) == 1


def test_curves_are_in_the_folder_whatever_shows_them(swept):
    (folder,) = swept.glob("factorized-*")
    (curves,) = folder.glob("lightning_logs/*/metrics.csv")
    assert "gradient_norm/density" in curves.read_text().splitlines()[0]


def test_a_training_free_run_shows_no_lambda(swept):
    (folder,) = swept.glob("identity-*")
    assert "lmbda" not in shown(swept, folder).config


def test_a_run_without_a_display_is_shown_after_the_fact(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert main(["run", *small(*EPOCHS), "lmbda=1"]) == 0
    place = tmp_path / "runs" / "scenes"
    assert main(["report", str(place), "--wandb"]) == 0
    (folder,) = place.glob("factorized-*")
    run = shown(place, folder)
    assert run.config["lmbda"] == 1
    assert len(run.history["train/loss"]) == 2
    assert {"test/bytes_per_image", "linear/test/accuracy"} <= run.summary.keys()
    assert len(run.history["gradient_norm/density"]) == 4
    assert "trainer/global_step" in run.history


def test_tensorboard_shows_curves_pictures_and_result(tmp_path, monkeypatch):
    event = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    monkeypatch.chdir(tmp_path)
    assert main(["run", *small(*EPOCHS), "lmbda=1", "logger=tensorboard"]) == 0
    (folder,) = (tmp_path / "runs" / "scenes").glob("factorized-*/tensorboard")
    found = event.EventAccumulator(str(folder)).Reload().Tags()
    expected = {"train/loss", "val/bpp", "test/bytes_per_image", "linear/test/accuracy"}
    assert expected <= set(found["scalars"])
    assert len(found["images"]) == 8


def test_a_picture_is_the_image_and_right_of_it_its_tokens():
    image = np.random.default_rng(0).integers(0, 256, (4, 8, 8)).astype(np.uint8)
    tokens = np.zeros((1, 5, 2, 2), np.float32)
    tokens[0, 0, 0] = 1  # the upper row differs from the lower
    (picture,) = side_by_side([image], tokens)
    assert picture.shape == (8, 16, 3)
    assert np.array_equal(picture[:, :8], image[:3].transpose(1, 2, 0))
    assert (picture[:4, 8:] == picture[0, 8]).all()
    assert (picture[4:, 8:] == picture[7, 8]).all()
    assert (picture[0, 8] != picture[7, 8]).any()
