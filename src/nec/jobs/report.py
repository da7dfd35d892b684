"""`nec report`: runs to tidy rows, a table, a figure, and how far apart the curves lie."""

import argparse
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from nec.report.combine import combine
from nec.report.deltas import Delta, check_baseline, deltas, write_deltas
from nec.report.figures import draw
from nec.report.page import write_page
from nec.report.results import (
    PACKED,
    Collected,
    Row,
    Run,
    collect,
    pack,
    packed_runs,
    read_rows,
    write_rows,
)
from nec.report.summary import Summary, about, write_json
from nec.report.table import TableRow, tabulate, write_table
from nec.report.within import NO_RAW, OTHER_SPLITS, Within, within, write_within
from nec.store.lock import locked

HELP = """\
Put runs together: every measurement in one tidy CSV, one row of a table per point of a curve, the
figure of utility over bytes, what it costs to come close to raw embeddings, Bjøntegaard deltas
between curves, and all of it on one page.

  nec report runs/demo                       all finished runs below a folder
  nec report runs/demo --baseline pooled     deltas against one curve
  nec report runs/demo --wandb               show it to W&B after the fact
  nec report runs/a runs/b --out both        runs of one experiment that lie apart
  nec report experiments/ucmerced_lmbda      table and figure from results.csv, without the runs
  nec report runs/demo --pack                keep what the report read of the runs in one file
  nec report experiments/x runs/x --out y    runs beside those that a record has packed
"""
EPILOG = """\
writes into OUT (by default the first DIR):
  results.csv      tidy, one measurement a row; run "all" holds what all say together
  table.csv        one row per point and task; accuracy and mean IoU are fractions of 1
  within.csv       fewest bytes at which a curve is within 0.5 to 2 points of raw embeddings, with
                   95 % intervals (inf: not reached), and how many times as many pixels take;
                   points of other splits than raw are left out
  bd.csv           BD-rate (percent of bytes) and BD-utility on the overlap of curves;
                   points no better than one of fewer bytes are left out and counted
  rate_utility_TASK.png, rate_utility_TASK.svg
  runs.zip         with --pack: the runs without codec and store, 10 to 40 kB each
  report.html      all of it on one page that needs no other file; report.json: the same as data

A point's runs differ by seed and split only; what all runs override is in no
curve's name, but for codec=RUN.
A point's utility is that of all its test images together, and its bytes are a mean over them; bpp
is of these bytes and of the pixels that the encoder gets, or the image has, if fewer. Images that
are encoded and decoded a second are embeddings or pixels in memory, by one core, without the
encoder. Intervals: paired bootstrap over test images, or over the tiles that they are parts of
(each drawn once for all splits that test it), head seeds and runs of a split. Differences are to
raw embeddings (identity) of the same overrides on the same images. Bytes of pixel codecs are
without the container of their files; where there are several formats or resolutions, the best of
all their points is one more curve.
"""
# Characters per line where no terminal sets them.
FILE_WIDTH = 160


class Report(NamedTuple):
    """What a report found, computed and wrote."""

    rows: list[Row]
    table: list[TableRow]
    within: list[Within]
    deltas: list[Delta]
    figures: dict[str, list[Path]]  # by task
    unfinished: int
    paths: list[Path]  # of all files


def main(argv: list[str]) -> int:
    """Parse, report, print."""
    args = _parser().parse_args(argv[1:])
    out = args.out or args.folders[0]
    result = report(args.folders, out, args.baseline, args.pack)
    print_report(result)
    if args.wandb:
        show_wandb(result, args.folders, out)
    return 0


def report(
    folders: Sequence[Path], out: Path, baseline: str | None = None, packed: bool = False
) -> Report:
    """Report on runs, or on the results.csv that an earlier report wrote.

    Files take their places when all are written, results.csv as the last, and figures of tasks that
    are gone are removed; of several reports in a folder one waits.

    Args:
        folders: Runs, folders that hold runs at any depth, records that packed theirs, or one
            folder with a results.csv. A run that lies there counts, and not the packed one.
        out: Folder to write into; made if missing.
        baseline: Variant that deltas are taken against; by default every training-free curve and
            the first learned one.
        packed: Write runs.zip too, as is done where there is one.

    Raises:
        ValueError: Nothing to report on, a damaged run, runs that must not be compared, or a
            baseline that is not a curve; nothing is written then.
    """
    collected = collect(folders)
    runs = _with_packed(folders, collected.runs) if len(folders) > 1 or packed else collected.runs
    packed = packed or (bool(runs) and (out / PACKED).is_file())  # which is of the same runs
    source = folders[0] / "results.csv"
    if runs:
        rows = combine(runs)
    elif len(folders) == 1 and source.is_file():
        rows = read_rows(source)
        if not rows:
            raise ValueError(f"{source} has a header and no row; write it again from its runs")
    else:
        raise ValueError(_nothing(folders, collected))
    _check_comparable(rows)
    if baseline is not None:
        check_baseline(tabulate(rows), baseline)
    out.mkdir(parents=True, exist_ok=True)
    part = out / ".report"
    with locked(out / ".report.lock", f"a report in {out}", wait=True):
        shutil.rmtree(part, ignore_errors=True)  # a killed report's
        part.mkdir()
        if runs or out.resolve() != folders[0].resolve():
            write_rows(part / source.name, rows)
            source = part / source.name
        if packed:
            pack(part / PACKED, runs)
        made = _write(part, read_rows(source), baseline)
        for path in sorted(part.iterdir(), key=lambda path: path.name == source.name):
            path.replace(out / path.name)
        drawn = {path.name for path in made.paths}
        for path in out.glob("rate_utility_*"):
            if path.name not in drawn:
                path.unlink()
        part.rmdir()
    figures = {task: [out / path.name for path in own] for task, own in made.figures.items()}
    paths = [out / path.name for path in made.paths] + [out / PACKED] * packed
    return made._replace(figures=figures, paths=paths, unfinished=collected.unfinished)


def _with_packed(folders: Sequence[Path], runs: Sequence[Run]) -> list[Run]:
    """Add the runs that records have packed, except those that lie in a folder as well.

    Raises:
        ValueError: A folder has results alone, which cannot be put together with runs.
    """
    found: dict[str, Run] = {}
    lie = [Path(str(run.folder)) for run in runs]
    for folder in folders:
        if any(path.is_relative_to(folder.resolve()) for path in lie):
            continue  # some of its runs may have been removed since they were packed
        own = packed_runs(folder)
        if not own and (folder / "results.csv").is_file():
            raise ValueError(
                f"{folder} has a results.csv without {PACKED}, which cannot be joined: intervals "
                "follow from the answers of runs; report on it alone, or make its runs again"
            )
        found |= {str(run.about["run"]): run for run in own}
    return list((found | {str(run.about["run"]): run for run in runs}).values())


def _write(folder: Path, rows: list[Row], baseline: str | None) -> Report:
    """Write all that follows from rows; as only those of results.csv count, it is the record."""
    table = tabulate(rows)
    close, found = within(table, rows), deltas(table, baseline)
    write_table(folder / "table.csv", table)
    write_within(folder / "within.csv", close)
    write_deltas(folder / "bd.csv", found)
    figures = draw(table, _title(rows), folder)
    summary = Summary(about(rows), table, close, found)
    write_json(folder / "report.json", summary)
    write_page(folder / "report.html", summary, {task: own[1] for task, own in figures.items()})
    tables = ("results.csv", "table.csv", "within.csv", "bd.csv")
    drawn = [path.name for own in figures.values() for path in own]
    names = (*tables, *drawn, "report.html", "report.json")
    return Report(rows, table, close, found, figures, 0, [folder / name for name in names])


def show_wandb(
    result: Report, folders: Sequence[Path], out: Path, project: str | None = None
) -> None:
    """Show W&B tables, figures, and each run below folders that it was not shown yet."""
    from nec.jobs import tracking

    figures = {task: paths[0] for task, paths in result.figures.items()}
    runs = collect(folders).runs
    experiment = result.rows[0].experiment
    where = tracking.publish(experiment, result.table, figures, runs, out, project)
    print(f"shown to W&B: {where}")


def preview(folder: Path) -> Report:
    """Return the rows and the table of one run; nothing is written."""
    rows = combine(collect([folder]).runs)
    return Report(rows, tabulate(rows), [], [], {}, 0, [folder])


def _check_comparable(rows: Sequence[Row]) -> None:
    """Refuse several experiments or data sets: their rows are not points of one figure."""
    for column in ("experiment", "data"):
        values = sorted({getattr(row, column) for row in rows})
        if len(values) > 1:
            raise ValueError(
                f"{column} is {' and '.join(map(repr, values))}; a report is on one {column}, give "
                "the runs of one at a time"
            )


def _nothing(folders: Sequence[Path], collected: Collected) -> str:
    places = ", ".join(str(folder) for folder in folders)
    unfinished = f" ({collected.unfinished} unfinished)" if collected.unfinished else ""
    return (
        f"no finished run in {places}{unfinished}: looked for run.json in it and below, and for "
        "results.csv in a single folder; nec run makes runs"
    )


def _title(rows: Sequence[Row]) -> str:
    """Data set and encoder, where one of each is known."""
    known = about(rows)
    return " · ".join(filter(None, (known.data, known.encoder)))


def print_report(result: Report) -> None:
    """Print table, deltas, what was skipped and what was written."""
    from rich.console import Console

    from nec.report.render import print_deltas, print_points, within_table

    console = Console(highlight=False, markup=False)
    if not console.is_terminal:
        console = Console(highlight=False, markup=False, width=max(console.width, FILE_WIDTH))
    for task in dict.fromkeys(line.task for line in result.table):
        print_points(console, [line for line in result.table if line.task == task], task)
        close = [one for one in result.within if one.task == task]
        if any(one.note not in (NO_RAW, OTHER_SPLITS) for one in close):
            console.print(within_table(close, f"{task}: bytes to come within … points of raw"))
        found = [delta for delta in result.deltas if delta.task == task]
        print_deltas(console, found, f"{task}: Bjøntegaard deltas")
    if result.unfinished:
        console.print(f"{result.unfinished} unfinished runs were skipped")
    for path in result.paths:
        console.print(f"wrote {path}", soft_wrap=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="nec report",
        description=HELP,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("folders", nargs="+", type=Path, metavar="DIR", help="runs, or results.csv")
    parser.add_argument("--out", type=Path, help="folder to write into (default: the first DIR)")
    parser.add_argument(
        "--baseline",
        metavar="CURVE",
        help="curve that deltas are taken against (default: every training-free curve and one "
        "learned curve; of two such curves, the one of more bytes)",
    )
    parser.add_argument(
        "--pack",
        action="store_true",
        help="write runs.zip too, to which a later report can add runs",
    )
    parser.add_argument(
        "--wandb",
        action="store_true",
        help="show runs, table and figure to W&B too; offline where there is no key",
    )
    return parser
