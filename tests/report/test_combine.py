"""Reports on runs of several tasks, of images that are parts of tiles, tested fold by fold."""

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import t

from nec.jobs.report import report
from nec.report.bootstrap import Trial, compare
from nec.report.kinds import KINDS
from nec.report.results import read_rows, write_metrics
from nec.report.table import tabulate

CLASSES = ["land", "water"]
TASKS = {
    "linear": {"kind": "classification", "classes": ["a", "b"]},
    "segmentation": {"kind": "segmentation", "classes": CLASSES},
}
PARTS = 3


def measure(sums, whole):
    return KINDS["segmentation"].measure(sums, whole, CLASSES)


def confusions(*rows: list[int], heads: int = 1) -> np.ndarray:
    """Row-major confusions (heads, n, 4) of n images."""
    return np.tile(np.array(rows, np.int64), (heads, 1, 1))


def trial(point: str, fold: int, statistics: np.ndarray) -> Trial:
    ids = np.array([f"tile{fold}/{part}" for part in range(statistics.shape[1])])
    truth = statistics[0].reshape(len(ids), 2, 2).sum(axis=2)
    return Trial(point, str(fold), 0, statistics, ids, np.full(len(ids), f"tile{fold}"), truth, 9.0)


def test_pooled_mean_iou_by_pencil() -> None:
    # Land 6 of 10 hit, 2 of water called land; then 2 of 2 hit, nothing else. Together: land hits 8
    # of a union of 14, water 8 of 14.
    folds = [trial("a", 0, confusions([6, 4, 2, 8])), trial("a", 1, confusions([2, 0, 0, 0]))]
    found = compare(folds, {}, measure)["a"].metrics
    assert found["miou"].interval.value == pytest.approx((8 / 14 + 8 / 14) / 2)
    assert found["accuracy"].interval.value == pytest.approx(16 / 22)
    assert found["iou/water"].interval.value == pytest.approx(8 / 14)
    mean_of_folds = ((6 / 12 + 8 / 14) / 2 + 1) / 2
    assert found["miou"].interval.value != pytest.approx(mean_of_folds)


def test_heads_are_pooled_and_their_number_changes_nothing() -> None:
    one, five = (
        compare([trial("a", 0, confusions([6, 4, 2, 8], heads=n))], {}, measure)["a"].metrics
        for n in (1, 5)
    )
    assert one["miou"].interval.value == pytest.approx(five["miou"].interval.value)


def test_a_draw_without_a_class_is_no_mean_over_the_others() -> None:
    """Water is in one tile of four, and codecs differ there alone: without it none is better."""
    raw = [trial("raw", k, confusions([9, 1, 0, 0])) for k in range(3)]
    other = [each._replace(point="a") for each in raw]
    raw += [trial("raw", 3, confusions([5, 0, 0, 5]))]
    other += [trial("a", 3, confusions([5, 0, 4, 1]))]
    difference = compare([*raw, *other], {"a": "raw"}, measure)["a"].metrics["miou"].difference
    assert difference.low <= difference.value <= difference.high < -0.2


def test_what_is_drawn_is_the_tile_and_not_its_parts() -> None:
    """Parts of a tile that are alike are one observation: their number narrows no interval."""
    shares = (9, 8, 7, 6, 5, 4, 3, 2)
    widths = []
    for parts in (1, 20):
        folds = [
            trial("a", fold, confusions(*[[share, 10 - share, 10 - share, share]] * parts))
            for fold, share in enumerate(shares)
        ]
        interval = compare(folds, {}, measure)["a"].metrics["accuracy"].interval
        widths.append(interval.high - interval.low)
    assert widths[0] == pytest.approx(widths[1], abs=1e-9)
    # The mean of eight: as many standard errors to either side as Student's t has.
    error = np.std(shares, ddof=1) / 10 / np.sqrt(8)
    assert widths[0] == pytest.approx(2 * t.ppf(0.975, 7) * error, rel=0.1)


def test_folds_that_raw_lacks_are_no_part_of_a_difference() -> None:
    raw = [trial("raw", 0, confusions([8, 2, 2, 8])), trial("raw", 1, confusions([9, 1, 1, 9]))]
    more = [one._replace(point="a") for one in raw] + [trial("a", 2, confusions([1, 9, 9, 1]))]
    found = compare([*raw, *more], {"a": "raw"}, measure)["a"].metrics["accuracy"]
    assert found.difference == (0.0, 0.0, 0.0)
    assert found.interval.value == pytest.approx((16 + 18 + 2) / 60)


def test_a_class_that_only_some_tiles_have_does_not_undo_the_interval() -> None:
    folds = [trial("a", fold, confusions([8, fold, 0, 0])) for fold in range(2)]
    folds.append(trial("a", 2, confusions([8, 1, 1, 5])))
    interval = compare(folds, {}, measure)["a"].metrics["iou/water"].interval
    assert 0 <= interval.low <= interval.value <= interval.high <= 1


def write_fold(folder: Path, variant: str, size: float, share: int, fold: int, **sizes) -> None:
    """A finished run of two tasks on a fold: `share` of 10 are right in both."""
    folder.mkdir(parents=True)
    about = {"experiment": "folds", "run": folder.name, "seed": 0, "split": fold}
    about |= {"variant": variant, "setting": f"step={size:g}" if variant != "identity" else ""}
    rows = {"test/bytes_per_image": size, "store/side_bytes": 1000, "encode/images_per_second": 50}
    rows |= {"store/index_bytes_per_image": 2} | sizes
    metrics = [{"task": "", "metric": m, "unit": "", "value": v} for m, v in rows.items()]
    metrics.append({"task": "segmentation", "metric": "test/majority", "unit": "", "value": 0.25})
    write_metrics(folder / "metrics.csv", [about | row for row in metrics])
    ids = np.array([f"tile{fold}/{part}" for part in range(10)])
    right = (np.arange(10) < share).astype(np.int64)
    np.savez(
        folder / "predictions.npz",
        **{"id": ids, "group": np.full(10, f"tile{fold}"), "label": np.zeros(10, np.int64)},
        **{"linear/statistics": right[None, :, None]},
        **{"segmentation/statistics": confusions(*[[share, 10 - share, 10 - share, share]] * 10)},
    )
    (folder / "config.yaml").write_text(f"seed: 0\ndata: {{split: {fold}}}\n")
    done = {**about, "status": "done", "data": "tiles", "tasks": TASKS}
    (folder / "run.json").write_text(json.dumps(done))


def write_folds(place: Path) -> Path:
    """Runs of three codecs on three folds."""
    for fold in range(3):
        write_fold(place / f"raw{fold}", "identity", 4000, 9, fold)
        for k, share in enumerate((6, 7, 9)):
            write_fold(place / f"t{k}{fold}", "transform", 50 * 2.0**k, share, fold)
            payload = {"test/payload_bytes_per_image": 50 * 2.0**k}
            write_fold(place / f"p{k}{fold}", "avif", 700 * 2.0**k, share, fold, **payload)
    return place


@pytest.fixture
def folds(tmp_path: Path) -> Path:
    return write_folds(tmp_path)


def test_tasks_of_a_run_are_rows_of_one_report_each_with_its_utility(folds: Path) -> None:
    table = {(line.variant, line.setting, line.task): line for line in report([folds], folds).table}
    assert len(table) == 14
    line = table["transform", "step=100", "segmentation"]
    assert (line.metric, line.value) == ("miou", pytest.approx(7 / 13))
    assert line.difference == pytest.approx(7 / 13 - 9 / 11)
    assert line.further == pytest.approx({"accuracy": 0.7, "iou/land": 7 / 13, "iou/water": 7 / 13})
    assert line.majority == 0.25
    line = table["transform", "step=100", "linear"]
    assert (line.metric, line.value, line.further) == ("accuracy", pytest.approx(0.7), {})
    for task in TASKS:
        assert (folds / f"rate_utility_{task}.svg").is_file()
    assert "test mean IoU" in (folds / "rate_utility_segmentation.svg").read_text()


def test_the_majority_class_is_measured_on_all_folds_together(folds: Path) -> None:
    for fold, pixels in enumerate(
        [[6, 0, 4, 0], [30, 0, 10, 0], [0, 5, 0, 5]]
    ):  # true by predicted
        path = folds / f"raw{fold}" / "predictions.npz"
        with np.load(path) as arrays:
            kept = dict(arrays)
        np.savez(path, **kept, **{"segmentation/majority": np.array([[pixels]])})
    table = {(line.variant, line.task): line for line in report([folds], folds).table}
    # Land: 36 of 55 pixels that are land or so named; water: 5 of 24.
    pooled = (36 / (36 + 5 + 14) + 5 / (5 + 14 + 5)) / 2
    assert table["identity", "segmentation"].majority == pytest.approx(pooled)
    # Images are the same for all, so runs that did not keep it have it too.
    assert table["transform", "segmentation"].majority == pytest.approx(pooled)
    assert "majority" not in table["identity", "segmentation"].further


def test_bytes_of_a_point_are_a_mean_over_all_its_images(tmp_path: Path) -> None:
    for fold, (images, size) in enumerate([(30, 100.0), (10, 200.0)]):
        payload = {"test/payload_bytes_per_image": size / 2, "test/bpp": size / 1000}
        write_fold(tmp_path / f"p{fold}", "avif", size, 6, fold, **payload)
        path = tmp_path / f"p{fold}" / "run.json"
        about = json.loads(path.read_text()) | {"setting": "q", "images": {"test": images}}
        path.write_text(json.dumps(about))
        text = (tmp_path / f"p{fold}" / "metrics.csv").read_text()
        (tmp_path / f"p{fold}" / "metrics.csv").write_text(text.replace(f"step={size:g}", "q"))
    (line,) = [one for one in report([tmp_path], tmp_path).table if one.task == "linear"]
    assert (line.bytes_per_image, line.payload_bytes_per_image) == (125, 62.5)
    assert line.payload_bpp == pytest.approx(0.0625)
    assert line.encode_images_per_second == 50


def test_side_bytes_are_a_share_that_falls_as_the_store_grows(folds: Path) -> None:
    line = next(line for line in report([folds], folds).table if line.setting == "step=50")
    assert line.store_bytes_per_image == 52 and line.encode_images_per_second == 50
    assert line.side_share_1e3 == pytest.approx(1000 / (1000 + 52_000))
    assert line.side_share_1e7 == pytest.approx(1000 / (1000 + 52e7))


def test_pixel_codecs_are_compared_by_payload(folds: Path) -> None:
    result = report([folds], folds, baseline="transform")
    avif = [delta for delta in result.deltas if delta.variant == "avif"]
    assert [delta.value for delta in avif] == pytest.approx([0] * 4, abs=1e-9)
    close = {(one.task, one.variant, one.points): one.bytes_per_image for one in result.within}
    assert close["linear", "avif", 2.0] == pytest.approx(close["linear", "transform", 2.0])
    line = next(line for line in result.table if line.variant == "avif")
    assert (line.pixels, line.bytes_per_image, line.payload_bytes_per_image) == (1, 700, 50)


def test_results_alone_say_the_same_as_runs(folds: Path, tmp_path_factory) -> None:
    paths = report([folds], folds).paths
    record = tmp_path_factory.mktemp("record")
    (record / "results.csv").write_bytes((folds / "results.csv").read_bytes())
    report([record], record)
    for path in paths:
        assert (record / path.name).read_bytes() == path.read_bytes(), path.name


def test_an_untrained_encoder_is_no_raw_and_is_compared_with_raw(folds: Path) -> None:
    for fold in range(3):
        name = "identity · encoder.checkpoint=random"
        write_fold(folds / f"random{fold}", name, 4000, 5, fold)
    table = [line for line in report([folds], folds).table if line.task == "linear"]
    random = next(line for line in table if "random" in line.variant)
    assert random.difference == pytest.approx(0.5 - 0.9)
    assert table[-1].variant == "identity" and table[-1].difference == 0


def test_runs_of_other_classes_are_refused(folds: Path) -> None:
    path = folds / "raw0" / "run.json"
    path.write_text(path.read_text().replace('"water"', '"road"'))
    with pytest.raises(ValueError, match="only runs on the same question"):
        report([folds], folds)


def test_a_record_without_newer_columns_is_still_reported(folds: Path) -> None:
    report([folds], folds)
    new = ("speed", "images_per_second", "payload", "index", "majority", "iou/", "/accuracy_")
    rows = [
        row for row in read_rows(folds / "results.csv") if not any(n in row.metric for n in new)
    ]
    line = next(line for line in tabulate(rows) if line.variant == "transform")
    assert np.isnan(line.encode_images_per_second) and line.store_bytes_per_image == 50
