"""The whole way through `nec run`, on a few scenes and an untrained encoder."""

import csv
import json
import re
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
from small import SMALL, only_run, small

from nec.cli import main
from nec.config import compose
from nec.jobs.names import is_finished, lock_file, run_folder, work_folder
from nec.jobs.run import run
from nec.store import EmbeddingStore


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def nec(*words):
    return main(["run", *SMALL, *words])


def metrics(folder):
    with (folder / "metrics.csv").open() as file:
        return {row["metric"]: float(row["value"]) for row in csv.DictReader(file)}


@pytest.mark.parametrize(
    "overrides",
    [
        ["lmbda=1"],
        ["lmbda=1", "adapter=last_blocks", "adapter.ratio=0.5"],
        ["lmbda=1", "adapter=full", "distortion=masked_pixels"],
        ["bottleneck=identity"],
        ["bottleneck=float16"],
        ["bottleneck=int8"],
        ["bottleneck=uniform"],
        ["bottleneck=pooled", "bottleneck.components=8"],
        ["bottleneck=int8_zstd"],
        ["bottleneck=pooled_product", "bottleneck.vector.parts=8", "bottleneck.vector.bits=2"],
    ],
    ids=" ".join,
)
def test_a_run_leaves_what_its_record_says(here, overrides):
    assert nec(*overrides) == 0
    folder = only_run(here)
    found, record = metrics(folder), json.loads((folder / "run.json").read_text())
    store = EmbeddingStore.open(folder / "store.zarr")
    store.verify()
    assert store.complete
    assert found["store/side_bytes"] == store.side_bytes
    assert record["decoded_equals_quantized"] == len(store) == sum(record["images"].values())
    assert found["test/bytes_per_image"] == pytest.approx(store.bytes_per_image)
    assert found["test/bpp"] == pytest.approx(8 * store.bytes_per_image / 32**2)
    assert found["test/ratio"] == pytest.approx(4 * 32**2 / store.bytes_per_image)
    predictions = np.load(folder / "predictions.npz")
    assert found["encode/images_per_second"] > 0 and found["decode/images_per_second"] > 0
    right = (predictions["linear/predicted"] == predictions["label"]).mean(axis=1)
    assert right[-1] == pytest.approx(found["test/accuracy"])
    assert list(predictions["id"]) == list(store.ids[store.splits == "test"])
    assert (folder / "config.yaml").is_file()
    assert json.loads((folder / "codec" / "codec.json").read_text())["codec"]["sha256"]


def test_a_run_of_two_layers_counts_and_checks_both(here):
    words = ["tokens.codes=16", "tokens.rate_weight=0.1", "pooled.components=16"]
    assert nec("bottleneck=layered", *(f"bottleneck.{word}" for word in words)) == 0
    folder = only_run(here)
    found, store = metrics(folder), EmbeddingStore.open(folder / "store.zarr")
    assert list(store.layers) == ["embedding", "pooled"]
    for name in store.layers:
        alone = EmbeddingStore.open(folder / "store.zarr", layers=name).bytes_per_image
        assert found[f"test/bytes_per_image/{name}"] == pytest.approx(alone)
    assert found["test/bytes_per_image"] == pytest.approx(store.bytes_per_image)
    assert found["test/coded_bytes_per_image"] == pytest.approx(
        found["test/estimated_bytes_per_image"], rel=0.02, abs=2
    )
    record = json.loads((folder / "codec" / "codec.json").read_text())
    codecs = {"embedding": record["codec"], **record["layers"]}
    assert {name: codec["sha256"] for name, codec in codecs.items()} == {
        name: codec.sha256 for name, codec in store.layers.items()
    }


def test_a_run_whose_second_layer_decodes_to_other_symbols_fails(here, capsys, monkeypatch):
    from nec.store.linear import LinearCodec  # of the vector; codes are of another one

    decode = LinearCodec.decode
    monkeypatch.setattr(LinearCodec, "decode", lambda self, streams: decode(self, streams) + 1)
    words = ["tokens.codes=16", "pooled.components=16"]
    assert nec("bottleneck=layered", *(f"bottleneck.{word}" for word in words)) == 1
    assert "decodes to other symbols" in capsys.readouterr().err


def test_a_run_on_coded_pixels_counts_their_files(here):
    pytest.importorskip("imagecodecs")
    from nec.data.pixels import AVIF
    from nec.data.scenes import Scenes

    words = ["bottleneck=identity", "pixels=avif", "pixels.quality=20", "pixels.resolution=0.5"]
    assert nec(*words, f"store={here / 'coded.zarr'}") == 0
    folder = only_run(here)
    found = metrics(folder)
    scenes = Scenes(train_per_class=4, val_per_class=2, test_per_class=2, size=32)
    images = scenes.datasets["test"].images
    coded = [AVIF(20, 0.5).code(images.read(index)) for index in range(len(images))]
    size = np.mean([image.file for image in coded])
    assert found["test/bytes_per_image"] == pytest.approx(size)
    assert found["test/payload_bytes_per_image"] == pytest.approx(
        np.mean([image.payload for image in coded])
    )
    assert found["test/bpp"] == pytest.approx(8 * size / 32**2)
    assert found["test/ratio"] == pytest.approx(4 * 32**2 / size)
    assert "test/estimated_bytes_per_image" not in found  # it would be of the embeddings
    assert min(found[f"{way}/images_per_second"] for way in ("encode", "decode")) > 0
    store = EmbeddingStore.open(here / "coded.zarr")
    assert store.attrs["pixels"] == AVIF(20, 0.5).describe()
    assert nec("bottleneck=identity", "name=native") == 0
    native = EmbeddingStore.open(only_run(here, "native") / "store.zarr")
    assert native.ids.tolist() == store.ids.tolist()
    assert all(not np.allclose(native[i], store[i]) for i in range(len(store)))  # train as well


def test_what_coded_pixels_are_embedded_to_is_kept_only_where_it_is_asked_for(here):
    pytest.importorskip("imagecodecs")
    assert nec("bottleneck=identity", "pixels=avif") == 0
    folder = only_run(here)
    assert (folder / "predictions.npz").is_file()
    assert not [
        path for name in ("store.zarr", "lightning*.yaml", "codec") for path in folder.glob(name)
    ]


def test_a_pixel_codec_and_one_of_embeddings_are_two_runs(here, capfd):
    pytest.importorskip("imagecodecs")
    for words in (["bottleneck=float16"], ["lmbda=1"]):
        assert nec(*words, "pixels=avif") == 1
        assert "set bottleneck=identity or pixels=none" in capfd.readouterr().err


def test_a_sweep_is_completed_by_the_same_command_and_finished_jobs_are_skipped(here, capfd):
    command = ["-m", "bottleneck=identity,float16", "name=sweep"]
    assert nec("bottleneck=float16", "name=sweep") == 0
    first = only_run(here, "sweep")
    stamp = (first / "run.json").stat().st_mtime_ns
    assert nec(*command) == 0
    out = capfd.readouterr().out
    assert "2 jobs in runs/sweep, 1 of them finished" in out
    assert (first / "run.json").stat().st_mtime_ns == stamp
    assert len(list((here / "runs" / "sweep").glob("*/run.json"))) == 2
    for name in ("results.csv", "table.csv", "rate_utility_linear.png"):
        assert (here / "runs" / "sweep" / name).is_file()
        assert name in out
    assert nec("-m", "bottleneck=int8", "name=sweep") == 0
    table = (here / "runs" / "sweep" / "table.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in table[1:]] == ["float16", "int8", "identity"]
    (first / "metrics.csv").write_text("no table")  # of a run that is not one of the next sweep
    assert nec("-m", "bottleneck=int8,identity", "name=sweep") == 0
    assert "the report is of this sweep's runs alone" in capfd.readouterr().out


def test_the_same_run_gives_the_same_bytes_for_every_batch_size(here):
    for batch, name in ((4, "one"), (32, "two")):
        assert nec("bottleneck=uniform", f"data.batch_size={batch}", f"name={name}") == 0
    stores = [only_run(here, name) / "store.zarr" for name in ("one", "two")]
    one, two = (EmbeddingStore.open(store) for store in stores)
    every = np.arange(len(one))
    assert np.array_equal(one.read_symbols(every), two.read_symbols(every))


def test_an_adapted_run_is_the_same_twice(here):
    for name in ("one", "two"):
        assert nec("lmbda=1", "adapter=last_blocks", "adapter.ratio=0.5", f"name={name}") == 0
    one, two = (EmbeddingStore.open(only_run(here, n) / "store.zarr") for n in ("one", "two"))
    every = np.arange(len(one))
    assert np.array_equal(one.read_symbols(every), two.read_symbols(every))


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        ([], 1, "lmbda is missing"),
        (["lmbda=0"], 1, "lmbda is 0"),
        (["lmbda=-1"], 1, "lmbda is -1"),
        (["lmbda=1", "adapter=last_blocks", "adapter.ratio=0.001"], 1, "set adapter.ratio="),
        (["bottleneck=uniform", "adapter=full"], 1, "set adapter=none"),
        (["lmbda=1", "encoder.in_chans=3"], 1, "has 4 bands, encoder .* takes 3"),
        (["lmbda=1", "data.val_per_class=0"], 1, "split val is empty|val_per_class is 0"),
        (["lmbda=1", "encoder.checkpoint=nec:scenes_vit.safetensors"], 1, "is not of vit_tiny"),
        (["lmbda=1", "data=ucmerced", "data.root=absent"], 1, "absent"),
        (["lmbda=1", "bottleneck=pooled", "bottleneck.components=900"], 1, "components is 900"),
        (["lmbda=1", "task=attention", "task.attention.head.heads=5"], 1, "heads is 5"),
        (["lmbda=1", "trainer.accelerator=foo"], 1, "accelerator is foo; .* cpu or gpu"),
        (["lmbda=1", "trainer.gradient_clip_val=-1"], 1, "clip_val is -1; .* or 0 for any, set"),
        (["lmbda=1", "trainer.max_epochs=-1"], 1, "max_epochs is -1; .* set trainer.max_epochs=8"),
        (["lmbda=1", "adaptation.lr=-1"], 1, "^nec: error: lr is -1; .* adaptation.lr=0.001"),
        (["seed=-1"], 2, "seed is -1"),
        (["lmbda=1", "bottleneck.channels=3"], 2, "the encoder sets it"),
        (["-m", "lmbda=1,"], 2, "'lmbda=1,' is not an override"),
        (["+foo=1"], 2, "unknown key"),
        (["bottleneck._target_=nec.bottlenecks.Absent"], 1, "Absent"),
        (["lmda=1"], 2, "did you mean 'lmbda'"),
        (["lmbda=1", "bottleneck.latent=1"], 2, "did you mean 'latents'"),
        (["experiment=dem"], 2, "did you mean 'demo'"),
        (["--lmbda", "3"], 2, None),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(here, capfd, words, status, message):
    given = small(*words)
    if "data=ucmerced" in words:
        given = [o for o in given if not o.startswith("data.") or o in words]
    if "task=attention" in words:
        given = [o for o in given if not o.startswith("task.") or o in words]
    try:
        found = main(["run", *given])
    except SystemExit as stop:
        found = stop.code
    error = capfd.readouterr().err.splitlines()
    assert found == status
    if message:
        (line,) = error  # progress bars are of stdout
        assert re.search(message, line)
        assert line.startswith("nec: error: ")
    assert not list((here / "runs").rglob("run.json"))
    assert not [*here.rglob("*.part"), *here.rglob("*.lock")]


def test_an_error_is_one_line_although_libraries_warn_as_they_are_imported(here):
    command = [sys.executable, "-m", "nec.cli", "run", "lmbda=1", "bottleneck.latent=1"]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.stderr.startswith(
        "nec: error: nec.bottlenecks.factorized.Factorized has no option"
    )
    assert ended.stderr.count("\n") == 1


def test_cfg_of_a_sweep_prints_its_jobs_and_runs_none(here, capsys):
    assert (
        main(["run", "-m", "--cfg", "bottleneck=identity,uniform", "sweep=seed", "seed=0,1"]) == 0
    )
    assert capsys.readouterr().out.splitlines() == [
        f"bottleneck={name} sweep=seed seed={seed}"
        for name in ("identity", "uniform")
        for seed in (0, 1)
    ]
    assert not list(here.iterdir())


@pytest.mark.parametrize(
    "command", [["run", "--multi"], ["report", "--wan", "."], ["inspect", "--js", "."]]
)
def test_an_abbreviated_option_is_a_usage_error(command):
    with pytest.raises(SystemExit, match="2"):
        main(command)


def test_a_folder_without_a_finished_run_is_not_overwritten(here, capfd):
    assert nec("bottleneck=identity") == 0
    folder = only_run(here)
    (folder / "run.json").unlink()
    assert nec("bottleneck=identity") == 1
    assert "holds no finished run" in capfd.readouterr().err
    assert (folder / "store.zarr").is_dir()


HOLD = """
import sys
from pathlib import Path
from nec.store.lock import locked
with locked(Path(sys.argv[1]), "it"):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_run_that_is_under_way_is_left_alone_and_one_that_was_killed_blocks_nobody(here, capfd):
    words = [*SMALL, "bottleneck=identity"]
    folder = run_folder(compose(words))
    part, lock = work_folder(folder), lock_file(folder)
    part.mkdir(parents=True)
    (part / "work").write_text("")
    command = [sys.executable, "-c", HOLD, str(lock)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout.readline() == b"held\n"
        assert main(["run", *words]) == 1
        (line,) = capfd.readouterr().err.splitlines()
        assert line.startswith(f"nec: error: another process is at work on {folder};")
        assert (part / "work").is_file()
        holder.kill()
    assert lock.is_file()
    assert main(["run", *words]) == 0
    assert is_finished(folder)
    assert not part.exists()
    assert not lock.exists()
    run(compose(words), folder.with_name(f"typed-otherwise-{folder.name}"))  # and looked before
    assert only_run(here) == here / folder


def test_a_store_that_exists_is_not_overwritten(here, capfd):
    (here / "mine.zarr").mkdir()
    (here / "mine.zarr" / "kept").write_text("")
    assert nec("bottleneck=identity", "store=mine.zarr") == 1
    assert "mine.zarr" in capfd.readouterr().err
    assert (here / "mine.zarr" / "kept").is_file()


def test_a_finished_run_says_that_a_store_was_not_written(here, capfd):
    assert nec("bottleneck=int8") == 0
    folder = only_run(here).relative_to(here)
    assert nec("bottleneck=int8", "store=mine.zarr") == 1
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith(f"nec: error: store=mine.zarr is not there, and {folder}, the same run,")
    assert f"copy {folder}/store.zarr there, or remove that folder to run again" in line
    shutil.copytree(folder / "store.zarr", "mine.zarr")
    assert nec("bottleneck=int8", "store=mine.zarr") == 0
    assert "is finished" in capfd.readouterr().out


def test_a_run_that_fails_after_encoding_leaves_no_store(here, monkeypatch):
    def full(**options):
        assert len(EmbeddingStore.open("mine.zarr"))
        raise OSError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr("nec.jobs.evaluate.Trainer", full)
        assert nec("bottleneck=identity", "store=mine.zarr") == 1
    assert not (here / "mine.zarr").exists()
    assert nec("bottleneck=identity", "store=mine.zarr") == 0
    assert (here / "mine.zarr" / "zarr.json").is_file()


KILLED = """
import os, signal, sys
from unittest.mock import patch
from nec.cli import main
with patch(sys.argv[1], lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)):
    main(sys.argv[2:])
"""


@pytest.mark.parametrize(
    "moment",
    [
        "nec.jobs.evaluate.Trainer",  # when heads begin
        "nec.jobs.record.finish",  # when the run is recorded
        "nec.jobs.stores.complete",  # when it is
        "pathlib.Path.rename",  # in a commit of the store
    ],
)
def test_a_run_with_a_store_elsewhere_is_completed_after_kill_9(here, moment):
    words = ["run", *small("bottleneck=int8", "store=mine.zarr")]
    killed = subprocess.run([sys.executable, "-c", KILLED, moment, *words], capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert main(words) == 0
    folder, store = only_run(here), EmbeddingStore.open("mine.zarr")
    assert store.complete
    assert metrics(folder)["store/side_bytes"] == store.side_bytes
    assert json.loads((folder / "run.json").read_text())["decoded_equals_quantized"] == len(store)
    assert not [*here.glob("runs/scenes/.*")]


def test_a_run_that_is_stopped_before_it_has_its_name_gets_it_next_time(here, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    words = ["bottleneck=int8", "store=mine.zarr"]
    with monkeypatch.context() as patch:
        patch.setattr("nec.store.EmbeddingStore.extend", stop)
        assert nec(*words) == 130
    (part,) = here.glob("runs/scenes/.*.part")
    recorded = (part / "run.json").read_text()
    assert nec(*words) == 0
    assert (only_run(here) / "run.json").read_text() == recorded
    assert EmbeddingStore.open("mine.zarr").complete


def test_help_names_groups_and_their_files_without_torch():
    code = (
        "import sys; from nec.cli import main\n"
        "try: main(['run', '--help'])\n"
        "except SystemExit: pass\n"
        "assert 'torch' not in sys.modules and 'compressai' not in sys.modules"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert shown.returncode == 0, shown.stderr
    for word in ("bottleneck", "uniform", "ucmerced_lmbda", "last_blocks", "-m"):
        assert word in shown.stdout


def test_a_store_that_was_left_unfinished_is_gone_on_with(here, capsys):
    assert nec("bottleneck=int8", "store=mine.zarr") == 0
    shutil.rmtree(only_run(here))
    (here / "mine.zarr").rename(here / "whole.zarr")
    whole = EmbeddingStore.open("whole.zarr")
    begun = EmbeddingStore.create("mine.zarr", whole.codec, whole.attrs, classes=whole.classes)
    columns = (values[:7] for values in (whole.ids, whole.splits, whole.labels))
    begun.append(whole.read_symbols(range(7)), *columns)
    begun.release()  # without closing it, as a killed run leaves it
    assert nec("bottleneck=uniform", "store=mine.zarr") == 1
    assert "unfinished store of another codec" in capsys.readouterr().err
    assert nec("bottleneck=int8", "store=mine.zarr") == 0
    again = EmbeddingStore.open("mine.zarr")
    assert again.complete
    assert again.ids.tolist() == whole.ids.tolist()
    everything = range(len(whole))
    assert np.array_equal(again.read_symbols(everything), whole.read_symbols(everything))


def test_a_rank_above_0_refuses_what_rank_0_does(here, capfd, monkeypatch):
    words = ["lmbda=1", "task=attention", "task.attention.head.heads=5"]
    given = [word for word in small(*words) if not word.startswith("task.") or word in words]
    lines = []
    for rank in ("0", "1"):
        monkeypatch.setenv("LOCAL_RANK", rank)
        assert main(["run", *given]) == 1
        lines.append(capfd.readouterr().err.splitlines()[-1])
    assert lines[0] == lines[1]
    assert "heads is 5" in lines[1]
