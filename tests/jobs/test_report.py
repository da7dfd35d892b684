"""Reports on made-up runs: what is collected, refused, written and rebuilt."""

import json
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pytest
from omegaconf import OmegaConf

from nec.config import compose
from nec.jobs.report import main, preview, print_report, report
from nec.report.results import packed_runs, read_rows, write_metrics
from nec.report.table import tabulate

IMAGES = 60


@cache
def composed(bottleneck: str, *overrides: str) -> str:
    """A config as a run leaves it."""
    return OmegaConf.to_yaml(compose([f"bottleneck={bottleneck}", "lmbda=1", *overrides]).config)


def write_run(
    folder: Path,
    variant: str = "identity",
    setting: str = "",
    size: float = 4000.0,
    share: float = 0.9,
    seed: int = 0,
    split: int = 0,
    overrides: Sequence[str] = (),
    **about,
) -> Path:
    """A finished run; each of its two heads gets a share of the images right."""
    folder.mkdir(parents=True)
    identity = {"experiment": "made_up", "run": folder.name, "seed": seed, "split": split}
    about = identity | {"variant": variant, "setting": setting} | about
    columns = ("experiment", "run", "seed", "split", "variant", "setting")
    rows = [("", "test/bytes_per_image", "byte", size), ("", "test/bpp", "bit/pixel", size / 3)]
    row = {column: about[column] for column in columns}
    write_metrics(
        folder / "metrics.csv",
        [row | {"task": t, "metric": m, "unit": u, "value": v} for t, m, u, v in rows],
    )
    right = np.random.default_rng([seed, split, int(size)]).random((2, IMAGES)) < share
    ids = np.array([f"{split}/{number}" for number in range(IMAGES)])
    statistics = {"linear/statistics": right[:, :, None].astype(np.int64)}
    label = np.zeros(IMAGES, np.int64)
    np.savez(folder / "predictions.npz", id=ids, group=ids, label=label, **statistics)
    bottleneck = variant.split()[0] if variant.startswith("factorized") else "identity"
    own = (f"seed={seed}", f"data.split={split}", *overrides)
    (folder / "config.yaml").write_text(composed(bottleneck, *own))
    extra = {"learned": variant.startswith("factorized"), "commit": "1b2c3d4", "data": "scenes"}
    extra["tasks"] = {"linear": {"kind": "classification", "classes": ["a", "b"]}}
    (folder / "run.json").write_text(json.dumps({"status": "done", **about, **extra}))
    return folder


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    folder = tmp_path / "sweep"
    write_run(folder / "raw")
    for k, share in enumerate((0.5, 0.7, 0.9)):
        write_run(folder / f"u{k}", "uniform", f"bits={k + 2}", 100 * 2.0**k, share)
        write_run(folder / f"f{k}", "factorized · none", f"λ={k + 1}", 50 * 2.0**k, share)
    return folder


def test_report_writes_table_figure_and_deltas(sweep: Path) -> None:
    result = report([sweep], sweep)
    names = ["results.csv", "table.csv", "within.csv", "bd.csv"]
    names += ["rate_utility_linear.png", "rate_utility_linear.svg", "report.html", "report.json"]
    assert [path.name for path in result.paths] == names
    assert all(path.stat().st_size > 0 for path in result.paths)
    assert "test accuracy" in (sweep / "rate_utility_linear.svg").read_text()  # text stays text


def test_learned_curves_come_first_raw_comes_last_and_bytes_rise(sweep: Path) -> None:
    table = report([sweep], sweep).table
    assert [line.variant for line in table] == ["factorized · none"] * 3 + ["uniform"] * 3 + [
        "identity"
    ]
    assert [line.bytes_per_image for line in table[:3]] == [50, 100, 200]


def test_results_csv_alone_rebuilds_table_deltas_and_figure(sweep: Path, tmp_path: Path) -> None:
    report([sweep], sweep)
    record = tmp_path / "record"
    record.mkdir()
    (record / "results.csv").write_bytes((sweep / "results.csv").read_bytes())
    report([record], record)
    for name in (path.name for path in report([sweep], sweep).paths):
        assert (record / name).read_bytes() == (sweep / name).read_bytes(), name


def test_reporting_twice_changes_nothing(sweep: Path) -> None:
    first = [path.read_bytes() for path in report([sweep], sweep).paths]
    assert [path.read_bytes() for path in report([sweep], sweep).paths] == first


def test_a_report_that_fails_leaves_the_last_one_whole(sweep: Path, monkeypatch) -> None:
    before = {path: path.read_bytes() for path in report([sweep], sweep).paths}
    write_run(sweep / "u9", "uniform", "bits=9", 900, 0.9)

    def fail(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("nec.jobs.report.write_page", fail)
        with pytest.raises(KeyboardInterrupt):
            report([sweep], sweep)
    assert {path: path.read_bytes() for path in before} == before
    assert len(report([sweep], sweep).table) == 8
    assert not list(sweep.glob(".report*"))


def test_reports_on_one_folder_wait_for_each_other(sweep: Path) -> None:
    with ThreadPoolExecutor(2) as pool:
        one, other = pool.map(lambda _: repr(report([sweep], sweep).table), range(2))
    assert one == other == repr(tabulate(read_rows(sweep / "results.csv")))


def test_a_task_without_a_utility_is_refused(sweep: Path) -> None:
    rows = [row for row in report([sweep], sweep).rows if row.run == "all"]
    other = rows[0]._replace(task="biomass", metric="test/r2")
    with pytest.raises(ValueError, match=r"'biomass' has r2, none .*\(miou, accuracy\).*kinds"):
        tabulate([*rows, other])


def test_interval_is_a_row_of_the_results_and_holds_the_mean(sweep: Path) -> None:
    report([sweep], sweep)
    rows = [row for row in read_rows(sweep / "results.csv") if row.run == "all"]
    values = {row.metric: row.value for row in rows if row.variant == "uniform"}
    assert values["test/accuracy_low"] <= values["test/accuracy"] <= values["test/accuracy_high"]
    raw = [row.value for row in rows if row.variant == "identity" and "difference" in row.metric]
    assert raw == [0, 0, 0]


def test_seeds_and_splits_of_a_point_are_one_row(tmp_path: Path) -> None:
    for split in range(2):
        for seed in range(2):
            name = f"run{split}{seed}"
            write_run(tmp_path / name, size=100.0 + seed, seed=seed, split=split)
    write_run(tmp_path / "run20", size=100.5, split=1, seed=2, overrides=["store=/elsewhere"])
    (line,) = report([tmp_path], tmp_path).table
    assert (line.runs, line.splits, line.bytes_per_image) == (5, "0 1", 100.5)


def test_ratio_is_of_the_mean_bytes_of_all_folds(tmp_path: Path) -> None:
    for split, size in enumerate((1000.0, 3000.0)):
        write_run(tmp_path / f"run{split}", size=size, split=split)
        with (tmp_path / f"run{split}" / "metrics.csv").open("a") as file:
            file.write(f"made_up,run{split},0,{split},identity,,,test/ratio,1,{150528 / size}\n")
    (line,) = report([tmp_path], tmp_path).table
    assert line.payload_ratio == pytest.approx(150528 / 2000)


def test_unfinished_runs_are_skipped_and_counted(sweep: Path, capsys) -> None:
    (sweep / ".half.part").mkdir()
    (sweep / "stopped").mkdir()
    (sweep / "stopped" / "config.yaml").write_text("seed: 0\n")
    result = report([sweep], sweep)
    assert result.unfinished == 2
    print_report(result)
    assert "2 unfinished runs were skipped" in capsys.readouterr().out


def test_printed_report_shows_points_intervals_and_paths(sweep: Path, capsys) -> None:
    assert main(["report", str(sweep)]) == 0
    printed = capsys.readouterr().out
    assert "factorized · none" in printed and "λ=3" in printed and "[95 %]" in printed
    assert "against" in printed and f"wrote {sweep / 'table.csv'}" in printed


def test_one_run_without_raw_has_an_accuracy_but_no_difference(tmp_path: Path) -> None:
    (line,) = report([write_run(tmp_path / "one", "int8")], tmp_path).table
    assert line.value > 0 and np.isnan(line.difference)


def test_folder_without_runs_is_an_error_that_says_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no finished run in .*run\.json.*results\.csv"):
        report([tmp_path], tmp_path)


def test_missing_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not a folder"):
        report([tmp_path / "nowhere"], tmp_path)


def test_two_experiments_are_refused_and_nothing_is_written(tmp_path: Path) -> None:
    write_run(tmp_path / "a")
    write_run(tmp_path / "b", "int8", experiment="other")
    with pytest.raises(ValueError, match="experiment is 'made_up' and 'other'"):
        report([tmp_path], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:40])


def keep_header(path: Path) -> None:
    path.write_text(path.read_text().splitlines()[0] + "\n")


DAMAGED = [
    ("run.json", cut, r"/b/run\.json is cut short or damaged; remove .*/b and"),
    ("run.json", lambda path: path.write_text("7"), r"/b/run\.json is cut short"),
    ("run.json", lambda path: path.write_bytes(b"\0\xff"), r"/b/run\.json is cut short"),
    ("metrics.csv", keep_header, r"/b/metrics\.csv is cut short"),
    ("metrics.csv", lambda path: path.write_text(""), r"/b/metrics\.csv has no column"),
    ("config.yaml", lambda path: path.write_text("a: [1"), r"/b/config\.yaml is cut short"),
]


@pytest.mark.parametrize(("name", "damage", "message"), DAMAGED)
def test_damaged_run_is_one_line_with_its_file_and_nothing_is_written(
    name: str, damage: Callable[[Path], object], message: str, tmp_path: Path
) -> None:
    write_run(tmp_path / "a")
    damage(write_run(tmp_path / "b", seed=1) / name)
    with pytest.raises(ValueError, match=message):
        report([tmp_path], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_results_without_rows_are_refused(tmp_path: Path) -> None:
    report([write_run(tmp_path / "run")], tmp_path)
    keep_header(tmp_path / "results.csv")
    (tmp_path / "record").mkdir()
    (tmp_path / "results.csv").rename(tmp_path / "record" / "results.csv")
    with pytest.raises(ValueError, match=r"results\.csv has a header and no row"):
        report([tmp_path / "record"], tmp_path / "record")


def test_baseline_that_is_no_curve_is_refused_and_nothing_is_written(sweep: Path) -> None:
    before = sorted(sweep.rglob("*"))
    for out in (sweep, sweep / "out"):
        with pytest.raises(ValueError, match="'identity' is not a curve"):
            report([sweep], out, "identity")
    assert sorted(sweep.rglob("*")) == before


def test_point_of_two_configs_is_refused(tmp_path: Path) -> None:
    for block in (5, 3):
        write_run(tmp_path / f"{block}", overrides=[f"encoder.block={block}"])
    with pytest.raises(ValueError, match=r"block is 3.* in one and 5.* in the other"):
        report([tmp_path], tmp_path)


HARMLESS = [
    ["trainer.devices=2", "trainer.check_val_every_n_epoch=4"],
    ["data.seed=3", "data.workers=2"],
    ["logger=tensorboard", "name=other"],
    ["data.size=96"],  # the default, typed
]
OF_LEARNING = [
    ["trainer.precision=bf16-mixed"],
    ["distortion.whitened=false"],
    ["lmbda=3"],
    ["adaptation.lr=0.1"],
    ["data.batch_size=7"],
]


@pytest.mark.parametrize("overrides", HARMLESS)
def test_place_and_order_of_training_make_no_other_point(overrides, tmp_path: Path) -> None:
    write_run(tmp_path / "a", "factorized · none", "λ=1")
    write_run(tmp_path / "b", "factorized · none", "λ=1", seed=1, overrides=overrides)
    assert report([tmp_path], tmp_path).table[0].runs == 2


@pytest.mark.parametrize("overrides", OF_LEARNING)
def test_options_of_learning_count_only_where_something_learns(overrides, tmp_path: Path) -> None:
    for name, variant in (("free", "int8"), ("learned", "factorized · none")):
        write_run(tmp_path / name / "a", variant)
        write_run(tmp_path / name / "b", variant, seed=1, overrides=overrides)
    assert report([tmp_path / "free"], tmp_path).table[0].runs == 2
    with pytest.raises(ValueError, match=r"in one and .* in the other"):
        report([tmp_path / "learned"], tmp_path)


def test_published_images_may_lie_anywhere(tmp_path: Path) -> None:
    for seed, root in enumerate(("/a/ucmerced", "/b/ucm")):
        overrides = ["data=ucmerced", f"data.root={root}"]
        write_run(tmp_path / f"{seed}", seed=seed, overrides=overrides)
    assert report([tmp_path], tmp_path).table[0].runs == 2


def test_a_codec_of_other_data_is_named_where_all_runs_share_it(tmp_path: Path) -> None:
    for seed in range(2):
        write_run(tmp_path / f"{seed}", "vq · codec=elsewhere · task=knn", seed=seed)
    assert [line.variant for line in report([tmp_path], tmp_path).table] == ["vq · codec=elsewhere"]


def test_names_of_curves_are_printed_as_they_are(tmp_path: Path, capsys) -> None:
    for tasks in ("[knn]", "[/linear,knn]"):
        write_run(tmp_path / tasks.strip("[/]"), f"identity · task={tasks}")
    print_report(report([tmp_path], tmp_path))
    printed = capsys.readouterr().out
    assert "task=[knn]" in printed and "task=[/linear,knn]" in printed


def test_override_that_all_runs_share_is_in_no_name_and_hides_no_raw(tmp_path: Path) -> None:
    for name in ("identity", "uniform"):
        write_run(tmp_path / name, f"{name} · task=attention · encoder.block=6")
    uniform, raw = report([tmp_path], tmp_path).table
    assert (uniform.variant, raw.variant) == ("uniform", "identity")
    assert raw.difference == 0 and not np.isnan(uniform.difference)
    assert "raw (identity), 4 kB" in (tmp_path / "rate_utility_linear.svg").read_text()
    assert preview(tmp_path / "uniform").table[0].variant == "uniform"


def test_an_untrained_encoder_alone_is_named_and_is_compared_with_the_trained_one(
    tmp_path: Path,
) -> None:
    for name in ("identity", "uniform"):
        write_run(tmp_path / name, f"{name} · encoder.checkpoint=vit.safetensors")
    write_run(tmp_path / "bound", "identity · encoder.checkpoint=random", share=0.2)
    table = {line.variant: line for line in report([tmp_path], tmp_path).table}
    assert {*table} == {"uniform", "identity", "identity · encoder.checkpoint=random"}
    bound = table["identity · encoder.checkpoint=random"]
    assert bound.difference == pytest.approx(bound.value - table["identity"].value)
    assert table["identity"].difference == 0


def test_what_an_untrained_encoder_differs_in_beside_its_weights_is_named(tmp_path: Path) -> None:
    for name in ("identity", "uniform"):
        write_run(tmp_path / name, f"{name} · encoder.checkpoint=vit.pt · encoder.block=6")
    write_run(tmp_path / "bound", "identity · encoder.checkpoint=random", share=0.2)
    table = {line.variant: line for line in report([tmp_path], tmp_path).table}
    bound = table.pop("identity · encoder.checkpoint=random")
    assert {*table} == {"identity · encoder.block=6", "uniform · encoder.block=6"}
    assert np.isnan(bound.difference)


def test_curve_is_compared_with_the_raw_of_its_overrides_or_with_none(tmp_path: Path) -> None:
    for block, share in ((6, 0.9), (8, 0.5)):
        for name in ("identity", "uniform"):
            variant = f"{name} · encoder.block={block}"
            write_run(tmp_path / f"{name}{block}", variant, share=share, block=block)
    write_run(tmp_path / "uniform10", "uniform · encoder.block=10", block=10)
    write_run(tmp_path / "lr", "uniform · encoder.block=8 · task.linear.lr=1", share=0.5, block=8)
    write_run(tmp_path / "rate", "uniform · encoder.block=8 · adaptation.lr=1", share=0.5, block=8)
    table = {line.variant: line for line in report([tmp_path], tmp_path).table}
    # The made-up answers of a share are the same, whatever the bottleneck.
    alike = [f"{name} · encoder.block={k}" for name in ("identity", "uniform") for k in (6, 8)]
    alike.append("uniform · encoder.block=8 · adaptation.lr=1")
    assert [table[variant].difference for variant in alike] == [0] * 5
    for other in ("encoder.block=10", "encoder.block=8 · task.linear.lr=1"):
        assert np.isnan(table[f"uniform · {other}"].difference)
    assert [*table][-2:] == ["identity · encoder.block=6", "identity · encoder.block=8"]
    figure = (tmp_path / "rate_utility_linear.svg").read_text()
    assert all(f"raw (identity · encoder.block={k}), 4 kB" in figure for k in (6, 8))


def test_same_run_in_two_folders_is_refused(tmp_path: Path) -> None:
    folders = [write_run(tmp_path / "a" / "run"), write_run(tmp_path / "b" / "run")]
    with pytest.raises(ValueError, match="same run 'run'"):
        report(folders, tmp_path)


def test_folder_given_twice_counts_once(sweep: Path) -> None:
    assert len(report([sweep, sweep], sweep).table) == 7


def test_value_that_is_no_number_is_an_error_with_its_line(sweep: Path, tmp_path: Path) -> None:
    report([sweep], tmp_path)
    path = tmp_path / "results.csv"
    lines = path.read_text().splitlines()
    lines[1] = lines[1].replace(",4000,", ",many,")
    path.write_text("\n".join(lines).replace(",50,", ",many,", 1))
    with pytest.raises(ValueError, match=r"results\.csv:\d+: value 'many'"):
        read_rows(path)


def test_csv_of_another_kind_is_an_error_that_names_the_columns(tmp_path: Path) -> None:
    (tmp_path / "results.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="has no column experiment"):
        report([tmp_path], tmp_path)


def test_runs_are_added_to_those_that_a_record_packed(tmp_path: Path) -> None:
    for split in range(2):
        write_run(tmp_path / f"old/raw{split}", split=split)
        write_run(tmp_path / f"new/int8{split}", "int8", size=900.0, share=0.8, split=split)
    expected = report([tmp_path / "old", tmp_path / "new"], tmp_path / "together")
    report([tmp_path / "old"], tmp_path / "record", packed=True)
    shutil.rmtree(tmp_path / "old")
    added = report([tmp_path / "record", tmp_path / "new"], tmp_path / "record", packed=True)
    assert sorted(added.rows) == sorted(expected.rows)
    again = report([tmp_path / "record"], tmp_path / "again", packed=True)
    assert sorted(again.rows) == sorted(expected.rows)
    packed = [(tmp_path / name / "runs.zip").read_bytes() for name in ("record", "again")]
    assert packed[0] == packed[1]


def test_a_run_that_lies_there_counts_and_not_the_packed_one(tmp_path: Path) -> None:
    write_run(tmp_path / "runs/raw", share=0.5)
    report([tmp_path / "runs"], tmp_path / "record", packed=True)
    shutil.rmtree(tmp_path / "runs")
    write_run(tmp_path / "runs/raw", share=1.0)
    (line,) = report([tmp_path / "record", tmp_path / "runs"], tmp_path / "out").table
    assert line.value == 1.0 and line.runs == 1


def test_results_without_their_runs_cannot_be_joined(tmp_path: Path) -> None:
    write_run(tmp_path / "old/raw")
    write_run(tmp_path / "new/int8", "int8")
    report([tmp_path / "old"], tmp_path / "record")
    with pytest.raises(ValueError, match=r"record has a results.csv without runs.zip"):
        report([tmp_path / "record", tmp_path / "new"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_damaged_pack_is_refused_wherever_it_is_damaged(tmp_path: Path) -> None:
    write_run(tmp_path / "old/raw")
    write_run(tmp_path / "new/int8", "int8")
    report([tmp_path / "old"], tmp_path / "record", packed=True)
    packed = tmp_path / "record/runs.zip"
    whole = packed.read_bytes()
    place = whole.index(b"raw/predictions.npz") + 200
    changed = whole[:place] + bytes([whole[place] ^ 255]) + whole[place + 1 :]
    with ZipFile(tmp_path / "less.zip", "w") as less:
        less.writestr("raw/run.json", "{}")
    for content in (b"PK", whole[: len(whole) // 2], changed, (tmp_path / "less.zip").read_bytes()):
        packed.write_bytes(content)
        with pytest.raises(ValueError, match=r"runs.zip is cut short or damaged"):
            report([tmp_path / "record", tmp_path / "new"], tmp_path / "out")


def test_a_pack_follows_the_runs_that_lie_there(tmp_path: Path) -> None:
    for name in ("a/run", "b/run"):  # of one name
        write_run(tmp_path / name, split=int(name > "b"))
        about = tmp_path / name / "run.json"
        about.write_text(about.read_text().replace('"run": "run"', f'"run": "{name[0]}"'))
    report([tmp_path], tmp_path, packed=True)
    assert {run.about["run"] for run in packed_runs(tmp_path)} == {"a", "b"}
    shutil.rmtree(tmp_path / "b")
    report([tmp_path], tmp_path)
    assert {run.about["run"] for run in packed_runs(tmp_path)} == {"a"}


def test_a_figure_of_a_task_that_is_gone_does_not_stay(tmp_path: Path) -> None:
    write_run(tmp_path / "runs/raw")
    old = tmp_path / "runs/rate_utility_other.png"
    old.touch()
    report([tmp_path / "runs"], tmp_path / "runs")
    assert (tmp_path / "runs/rate_utility_linear.png").is_file() and not old.exists()
