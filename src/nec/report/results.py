"""Tidy rows, one measurement each: written by runs, collected by reports, read by anybody."""

import csv
import json
import math
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import ZIP_DEFLATED, BadZipFile, ZipFile, ZipInfo
from zipfile import Path as PathInZip

import numpy as np


class Row(NamedTuple):
    """One measurement, or what all runs of a point or all points of a curve say together."""

    experiment: str
    run: str
    seed: str
    split: str  # number of the data split
    variant: str  # the curve
    setting: str  # the point on it
    task: str  # "" where no head is needed
    metric: str
    unit: str
    value: float
    data: str = ""
    encoder: str = ""
    commit: str = ""


# Variant and setting: runs of a point differ by seed and split only.
Point = tuple[str, str]
RESULT_COLUMNS = Row._fields
METRIC_COLUMNS = RESULT_COLUMNS[: RESULT_COLUMNS.index("value") + 1]
# Row.run of what was computed from all runs of a point, and from all points of a curve.
ALL_RUNS, ALL_POINTS = "all", "curve"
# What the names of a metric and of the bounds of its interval end in.
BOUNDS = {"value": "", "low": "_low", "high": "_high"}


# Where the runs of a record are packed, and what of a run is.
PACKED = "runs.zip"
RUN_FILES = ("run.json", "config.yaml", "metrics.csv", "predictions.npz")
# The folders of a path in a config.
FOLDERS = re.compile(rb"(?m)^(  (?:root|checkpoint): )\S*/(?=\S+$)")


class Run(NamedTuple):
    """A finished run: its folder, its run.json, its rows."""

    folder: Path | PathInZip
    about: dict[str, Any]
    rows: list[Row]

    def predictions(self) -> Mapping[str, Any]:
        """Read predictions.npz; arrays by name, none of which is read before it is asked for."""
        loaded: Mapping[str, Any] = np.load(BytesIO((self.folder / "predictions.npz").read_bytes()))
        return loaded

    @property
    def point(self) -> Point:
        """Its variant and setting."""
        return str(self.about["variant"]), str(self.about["setting"])

    def renamed(self, variant: str) -> "Run":
        """Return the run as one of another curve."""
        rows = [row._replace(variant=variant) for row in self.rows]
        return self._replace(about={**self.about, "variant": variant}, rows=rows)


class Collected(NamedTuple):
    """The runs found below some folders."""

    runs: list[Run]
    unfinished: int


def write_metrics(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write a run's metrics.csv; a row has the keys METRIC_COLUMNS."""
    write_rows(path, [Row(**row) for row in rows], METRIC_COLUMNS)


def write_rows(path: Path, rows: Iterable[Row], columns: Sequence[str] = RESULT_COLUMNS) -> None:
    """Write rows as CSV, values with ten significant digits."""
    records = (row._replace(value=f"{row.value:.10g}") for row in rows)
    write_csv(path, columns, ([getattr(each, column) for column in columns] for each in records))


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Write a header and rows of text."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)


def number(value: float) -> str:
    """Format what was computed from rows: five digits, as the last bits differ from build to build.

    NaN is empty.
    """
    return "" if math.isnan(value) else f"{value:.5g}"


def read_rows(path: Path) -> list[Row]:
    """Read what `write_rows` wrote.

    Raises:
        ValueError: A column is missing, or a value is not a number.
    """
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        missing = [c for c in METRIC_COLUMNS if c not in (reader.fieldnames or [])]
        if missing:
            raise ValueError(
                f"{path} has no column {', '.join(missing)}; tidy rows have "
                f"{', '.join(METRIC_COLUMNS)}: write it again with nec run or nec report"
            )
        return [_parse(record, f"{path}:{reader.line_num}") for record in reader]


def _parse(record: dict[str, str], place: str) -> Row:
    known = {column: record[column] for column in RESULT_COLUMNS if column in record}
    try:
        value = float(known["value"])
    except (TypeError, ValueError):
        said = repr(known["value"])
        raise ValueError(f"{place}: value {said} is not a number; mend the row") from None
    return Row(**{**known, "value": value})


def collect(folders: Sequence[Path]) -> Collected:
    """Read every finished run in or below folders, each once, in the order of their names.

    Raises:
        ValueError: A folder does not exist, or two folders hold the same run.
    """
    runs: dict[str, Run] = {}
    unfinished: set[Path] = set()
    for folder in dict.fromkeys(path.resolve() for path in folders):
        if not folder.is_dir():
            raise ValueError(f"{folder} is not a folder; give folders that nec run wrote")
        for found in _run_folders(folder):
            if not _finished(found):
                unfinished.add(found)
                continue
            run = _read_run(found)
            other = runs.setdefault(run.about["run"], run)
            if other.folder != found:
                raise ValueError(
                    f"{other.folder} and {found} hold the same run {run.about['run']!r}, which "
                    "would count twice; give only one of them"
                )
    return Collected(list(runs.values()), len(unfinished))


def pack(path: Path, runs: Iterable[Run]) -> None:
    """Write what reports read of runs into one file, to be reported on with others later.

    Of paths to images and weights the last part is kept: no more of them is compared.
    """
    with ZipFile(path, "w") as packed:
        for run in sorted(runs, key=lambda run: str(run.about["run"])):
            for name in RUN_FILES:
                content = (run.folder / name).read_bytes()
                if name == "config.yaml":
                    content = FOLDERS.sub(rb"\1", content)
                # Of no date: equal runs, equal bytes.
                member = ZipInfo(f"{run.about['run']}/{name}")
                packed.writestr(member, content, ZIP_DEFLATED)


def packed_runs(folder: Path) -> list[Run]:
    """Read the runs that an earlier report packed into a folder; none if it packed none.

    Raises:
        ValueError: The file is damaged.
    """
    path = folder / PACKED
    if not path.is_file():
        return []
    try:
        with ZipFile(path) as packed:
            whole = packed.testzip() is None
            names = set(packed.namelist())
        runs = [*PathInZip(path).iterdir()] if whole else []
    except (BadZipFile, zlib.error):
        whole = False
    if not whole or any(f"{run.name}/{name}" not in names for run in runs for name in RUN_FILES):
        raise ValueError(f"{path} is cut short or damaged; pack it again from its runs")
    return [_read_run(run) for run in runs]


def beside(folders: Sequence[Path]) -> list[Path]:
    """Given runs of one folder, return all finished runs in it that are of the same data."""
    ours = {folder.resolve() for folder in folders}
    found = {
        Path(str(run.folder)): run.about.get("data") for run in collect([folders[0].parent]).runs
    }
    data = {of_run for folder, of_run in found.items() if folder.resolve() in ours}
    return [folder for folder, of_run in found.items() if of_run in data]


def _run_folders(folder: Path) -> Iterator[Path]:
    """Folders of runs, finished or not; what lies inside a run or a store is not searched."""
    names = {"run.json", "config.yaml"}
    if folder.name.endswith(".part") or any((folder / name).is_file() for name in names):
        yield folder
        return
    for child in sorted(folder.iterdir()):
        hidden = child.name.startswith(".") and not child.name.endswith(".part")
        if child.is_dir() and not hidden and child.suffix != ".zarr":
            yield from _run_folders(child)


def _finished(folder: Path) -> bool:
    return not folder.name.startswith(".") and (folder / "run.json").is_file()


def _read_run(folder: Path | PathInZip) -> Run:
    about = _mapping(folder / "run.json", json.loads, ValueError)
    missing = [
        key for key in ("experiment", "run", "variant", "setting", "tasks") if key not in about
    ]
    if missing:
        raise ValueError(
            f"{folder / 'run.json'} has no {', '.join(missing)}; it was not written by nec run, "
            "move it away or run again"
        )
    origin = {
        "data": str(about.get("data", "")),
        "encoder": str(about.get("encoder", "")),
        # Code that no commit holds is marked, as git describe does.
        "commit": str(about.get("commit", "")) + ("-dirty" if about.get("dirty") else ""),
    }
    rows = [row._replace(**origin) for row in read_rows(folder / "metrics.csv")]
    if not rows:
        raise ValueError(_damaged(folder / "metrics.csv"))
    template = rows[0]._replace(task="", unit="1")
    extra = [template._replace(metric="bottleneck/learned", value=float(about.get("learned", 0)))]
    if "images" in about:
        images = float(about["images"]["test"])
        extra.append(template._replace(metric="test/images", unit="image", value=images))
    if "seconds" in about:
        extra.append(template._replace(metric="run/seconds", unit="s", value=about["seconds"]))
    return Run(folder, about, rows + extra)


def _mapping(
    path: Path | PathInZip, parse: Callable[[str], Any], error: type[Exception]
) -> dict[str, Any]:
    """Read a run's file of keys and values; `error` is what parse raises at malformed text."""
    try:
        found = parse(path.read_bytes().decode())
    except (error, UnicodeDecodeError):
        found = None
    if not isinstance(found, dict):
        raise ValueError(_damaged(path))
    return found


def _damaged(path: Path | PathInZip) -> str:
    return f"{path} is cut short or damaged; remove {path.parent} and make that run again"


def check_points(runs: Sequence[Run]) -> None:
    """Runs of a point may differ by seed and split only; a mean over others would mean nothing.

    Raises:
        ValueError: Two runs of a point differ in another option.
    """
    firsts: dict[tuple[str, str], tuple[Run, dict[str, Any]]] = {}
    for run in runs:
        config = _config(run)
        first, other = firsts.setdefault(run.point, (run, config))
        if config == other:  # nearly always: the options behind the text take long to find
            continue
        ours, theirs = _options(other), _options(config)
        for key in sorted({*ours, *theirs}):
            if ours.get(key) != theirs.get(key):
                raise ValueError(
                    f"{first.folder.name} and {run.folder.name} are both {' '.join(run.point)!r} "
                    f"but {key} is {ours.get(key)} in one and {theirs.get(key)} in the other; runs "
                    "of a point differ by seed and split only, report them apart"
                )


def _config(run: Run) -> dict[str, Any]:
    """What a run's config.yaml holds, except its seeds and its split."""
    import yaml

    config = _mapping(run.folder / "config.yaml", yaml.safe_load, yaml.YAMLError)
    for place in ("seed", "data.seed", "data.split"):
        group, _, leaf = place.rpartition(".")
        (config[group] if group else config).pop(leaf, None)
    return config


def _options(config: dict[str, Any]) -> dict[str, Any]:
    """The options of a config that can change what is measured, by their dotted paths."""
    from omegaconf import OmegaConf

    from nec.config import comparable

    return dict(_flat(comparable(OmegaConf.create(config))))


def _flat(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Leaves of nested mappings, with their dotted paths."""
    if not isinstance(node, dict):
        yield path, node
        return
    for key, child in node.items():
        yield from _flat(child, f"{path}.{key}".lstrip("."))
