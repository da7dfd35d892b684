"""The rate–utility figure: accuracy over bytes per image, one line per curve."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from nec.jobs.table import TableRow, curves_of, is_raw

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito 2008, without its yellow (too pale for a line) and with a grey for its black.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7A7A7A")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
# Single points need no line to be followed, so they leave the colours to the curves.
SINGLE_COLOUR = "#303030"
SINGLE_MARKERS = ("s", "D", "^", "v", "o")
RAW_LINES = ("--", ":", "-.")
COLUMN_INCHES = 3.5  # of a two-column paper
PANEL_INCHES = 2.3
LEGEND_ROW_INCHES = 0.125
STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 7,
    "axes.titlesize": 7,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.minor.width": 0.4,
    "legend.fontsize": 6,
    "lines.linewidth": 1.0,
    "lines.markersize": 3.2,
    "lines.markeredgewidth": 0.8,
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "nec",  # the same figure is the same file
}


class Look(NamedTuple):
    """How a curve is drawn: filled markers are learned, open ones training-free."""

    colour: str
    marker: str
    filled: bool


def draw(table: Sequence[TableRow], title: str, stem: Path) -> list[Path]:
    """Draw every task's panel and write stem.png and stem.svg.

    Args:
        table: All points; lines without an accuracy are left out.
        title: Data set and encoder, or "".
        stem: Path of the files without suffix.

    Returns:
        What was written: nothing if no task was measured.
    """
    measured = [line for line in table if not math.isnan(line.accuracy)]
    tasks = sorted({line.task for line in measured})
    if not tasks:
        return []
    import matplotlib

    with matplotlib.rc_context(STYLE):
        figure = _compose(measured, tasks, title)
        paths = [stem.with_suffix(suffix) for suffix in (".png", ".svg")]
        figure.savefig(paths[0], dpi=300, bbox_inches="tight", pad_inches=0.03)
        figure.savefig(paths[1], bbox_inches="tight", pad_inches=0.03, metadata={"Date": None})
    return paths


def _compose(table: Sequence[TableRow], tasks: Sequence[str], title: str) -> "Figure":
    from matplotlib.figure import Figure

    looks = _looks(table)
    rows = math.ceil(len(looks) / (2 * len(tasks)))  # of the legend
    height = PANEL_INCHES + LEGEND_ROW_INCHES * rows
    figure = Figure(figsize=(COLUMN_INCHES * len(tasks), height), layout="constrained")
    handles: dict[str, object] = {}
    for number, task in enumerate(tasks, start=1):
        axes = figure.add_subplot(1, len(tasks), number)
        for name, curve in curves_of(line for line in table if line.task == task).items():
            label, handle = _draw_curve(axes, name, curve, looks)
            handles.setdefault(label, handle)
        _label(axes, table, task if len(tasks) > 1 else "")
    if title:
        figure.suptitle(title, fontsize=STYLE["axes.titlesize"])
    figure.legend(
        list(handles.values()),
        list(handles),
        loc="outside lower center",
        ncols=2 * len(tasks),
        frameon=False,
        handlelength=1.8,
        handletextpad=0.6,
        columnspacing=1.0,
        labelspacing=0.35,
    )
    return figure


def _looks(table: Sequence[TableRow]) -> dict[str, Look]:
    looks = {}
    lengths = {name: len({line.setting for line in own}) for name, own in curves_of(table).items()}
    learned = {line.variant for line in table if line.learned}
    for k, name in enumerate(name for name, length in lengths.items() if length > 1):
        colour, marker = COLOURS[k % len(COLOURS)], MARKERS[k % len(MARKERS)]
        looks[name] = Look(colour, marker, name in learned)
    for k, name in enumerate(name for name, length in lengths.items() if length == 1):
        marker = SINGLE_MARKERS[k % len(SINGLE_MARKERS)]
        looks[name] = Look(SINGLE_COLOUR, marker, name in learned)
    return looks


def _draw_curve(
    axes: "Axes", name: str, curve: list[TableRow], looks: dict[str, Look]
) -> tuple[str, object]:
    """Draw a curve; give back its label and its handle for the legend."""
    if is_raw(name):
        number = [other for other in looks if is_raw(other)].index(name)
        return _draw_raw(axes, curve[0], RAW_LINES[number % len(RAW_LINES)])
    look = looks[name]
    x = [line.bytes_per_image for line in curve]
    y = [100 * line.accuracy for line in curve]
    low = [100 * line.accuracy_low for line in curve]
    high = [100 * line.accuracy_high for line in curve]
    face = look.colour if look.filled else "white"
    if len(curve) == 1:
        # Bounds, not distances: a bootstrap interval need not hold its mean in the middle.
        axes.vlines(x, low, high, color=look.colour, linewidth=0.9)
    else:
        axes.fill_between(x, low, high, color=look.colour, alpha=0.15, linewidth=0)
    (handle,) = axes.plot(
        x,
        y,
        color=look.colour,
        marker=look.marker,
        markerfacecolor=face,
        linestyle="-" if len(curve) > 1 else "",
        zorder=3,
    )
    return name, handle


def _draw_raw(axes: "Axes", line: TableRow, dashes: str) -> tuple[str, object]:
    """Raw embeddings as a level over the whole width, far left of where they lie."""
    axes.axhspan(
        100 * line.accuracy_low, 100 * line.accuracy_high, color="black", alpha=0.08, linewidth=0
    )
    level = 100 * line.accuracy
    handle = axes.axhline(level, color="black", linestyle=dashes, linewidth=0.9, zorder=1)
    return f"raw ({line.variant}), {size(line.bytes_per_image)}", handle


def _label(axes: "Axes", table: Sequence[TableRow], title: str) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.set_xscale("log")
    sizes = [line.bytes_per_image for line in table if not is_raw(line.variant)]
    narrow = not sizes or max(sizes) < 30 * min(sizes)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if narrow else (1,)))
    axes.xaxis.set_minor_locator(LogLocator(subs=range(2, 10)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: size(value)))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("bytes per image on disk")
    axes.set_ylabel("test accuracy (%)")
    axes.set_title(title)
    axes.grid(axis="y", linewidth=0.3, alpha=0.5)
    axes.set_axisbelow(True)


def size(count: float) -> str:
    """A number of bytes as one would print it: 40 B, 2.1 kB, 31 MB (powers of 1000)."""
    unit = 0 if count < 1 else min(int(math.log10(count)) // 3, 2)
    return f"{count / 1000**unit:.3g} {('B', 'kB', 'MB')[unit]}"
