"""`nec report`: runs to tidy rows, a table, a figure, and how far apart the curves lie."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from nec.jobs.combine import combine
from nec.jobs.deltas import Delta, check_baseline, deltas, write_deltas
from nec.jobs.figures import draw
from nec.jobs.results import Collected, Row, collect, read_rows, write_rows
from nec.jobs.table import TableRow, tabulate, write_table

HELP = """\
Put runs together: every measurement in one tidy CSV, one row of a table per point of a curve, the
figure of accuracy over bytes, and Bjøntegaard deltas between curves.

  nec report runs/demo                       all finished runs below a folder
  nec report runs/demo --baseline pooled     deltas against one curve
  nec report runs/demo --wandb               show it to W&B after the fact
  nec report runs/a runs/b --out both        runs of one experiment that lie apart
  nec report experiments/ucmerced_lmbda      table and figure from results.csv, without the runs
"""
EPILOG = """\
writes into OUT (by default the first DIR):
  results.csv      tidy, one measurement a row; run "all" holds means and 95 % intervals
  table.csv        one row per point and task; accuracies are fractions of 1
  bd.csv           BD-rate (percent of bytes) and BD-utility (accuracy) on the overlap of curves;
                   points no better than one of fewer bytes are left out and counted
  rate_utility.png, rate_utility.svg

A point's runs differ by seed and split only; what all runs override is in no curve's name.
Intervals: paired bootstrap over test images (one that several splits test weighs the same in each),
head seeds and runs of a split. Differences are to raw embeddings (identity) of the same overrides
on the same images.
"""
# Characters a line where no terminal sets them.
FILE_WIDTH = 160


class Report(NamedTuple):
    """What a report found, computed and wrote."""

    rows: list[Row]
    table: list[TableRow]
    deltas: list[Delta]
    unfinished: int
    paths: list[Path]


def main(argv: list[str]) -> int:
    """Parse, report, print."""
    args = _parser().parse_args(argv[1:])
    out = args.out or args.folders[0]
    result = report(args.folders, out, args.baseline)
    print_report(result)
    if args.wandb:
        show_wandb(result, args.folders, out)
    return 0


def report(folders: Sequence[Path], out: Path, baseline: str | None = None) -> Report:
    """Report on runs, or on the results.csv that an earlier report wrote.

    Args:
        folders: Runs, folders that hold runs at any depth, or one folder with a results.csv.
        out: Folder to write into; made if missing.
        baseline: Variant that deltas are taken against; by default every training-free curve and
            the first learned one.

    Raises:
        ValueError: Nothing to report on, a damaged run, runs that must not be compared, or a
            baseline that is no curve; nothing is written then.
    """
    collected = collect(folders)
    source = folders[0] / "results.csv"
    if collected.runs:
        rows = combine(collected.runs)
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
    if collected.runs or out.resolve() != folders[0].resolve():
        write_rows(out / "results.csv", rows)
    # From here on only what was written counts, so that the CSV alone gives the same report.
    rows = read_rows(out / "results.csv")
    table = tabulate(rows)
    found = deltas(table, baseline)
    write_table(out / "table.csv", table)
    write_deltas(out / "bd.csv", found)
    figures = draw(table, _title(rows), out / "rate_utility")
    names = ("results.csv", "table.csv", "bd.csv")
    return Report(rows, table, found, collected.unfinished, [out / n for n in names] + figures)


def show_wandb(
    result: Report, folders: Sequence[Path], out: Path, project: str | None = None
) -> None:
    """Show W&B the table, the figure, and each run below folders that it was not shown yet."""
    from nec.jobs import tracking

    figure = next(path for path in result.paths if path.suffix == ".png")
    runs = collect(folders).runs
    experiment = result.rows[0].experiment
    where = tracking.publish(experiment, result.table, figure, runs, out, project)
    print(f"shown to W&B: {where}")


def preview(folder: Path) -> Report:
    """The table's row of one run; nothing is written beside it."""
    rows = combine(collect([folder]).runs)
    return Report(rows, tabulate(rows), [], 0, [folder])


def _check_comparable(rows: Sequence[Row]) -> None:
    """One experiment on one data set: other rows are not points of the same figure."""
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
    known = ({getattr(row, column) for row in rows} for column in ("data", "encoder"))
    return " · ".join(values.pop() for values in known if len(values) == 1 and "" not in values)


def print_report(result: Report) -> None:
    """Print table, deltas, what was skipped and what was written."""
    from rich.console import Console

    from nec.jobs.render import delta_table, print_points

    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=max(console.width, FILE_WIDTH))
    for task in dict.fromkeys(line.task for line in result.table):
        lines = [line for line in result.table if line.task == task]
        print_points(console, lines, task)
        found = [delta for delta in result.deltas if delta.task == task]
        if found:
            console.print(delta_table(found, f"{task}: Bjøntegaard deltas"))
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
        help="curve that deltas are taken against (default: each training-free one, and the first "
        "learned one, of distortion embedding if there is one)",
    )
    parser.add_argument(
        "--wandb",
        action="store_true",
        help="show runs, table and figure to W&B too; offline where there is no key",
    )
    return parser
