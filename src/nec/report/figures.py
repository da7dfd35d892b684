"""The rate–utility figure of a task: utility over bytes per image, one line per curve."""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from nec.report.curves import is_raw
from nec.report.deltas import best_of
from nec.report.looks import RAW, Look, looks_of
from nec.report.table import BEST_PIXELS, TableRow, by_task, compared, curves_of, of_all_splits
from nec.report.texts import NAMES, size

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

RAW_LINES = ("--", ":", "-.")
# Size of a panel; a figure of two is as wide as a page of two columns.
PANEL_INCHES = (3.5, 2.9)
LEGEND_ROW_INCHES = 0.125
LEGEND_COLUMNS = 2  # per panel
# Percentage points that the view of differences shows, below raw and above the best.
CLOSE = (6.0, 1.5)
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
    "lines.markersize": 3.2,
    "lines.markeredgewidth": 0.7,
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "nec",  # the same figure is the same file
}
# Nothing that only a reader of metadata sees, and no date.
NO_METADATA = dict.fromkeys(("Date", "Creator", "Format", "Type"))


def draw(table: Sequence[TableRow], title: str, folder: Path) -> dict[str, list[Path]]:
    """Draw each measured task and write rate_utility_TASK.png and .svg.

    Args:
        table: All points.
        title: Data set and encoder, or "".
        folder: Where the files go.

    Returns:
        Paths of the files, by task.
    """
    import matplotlib

    looks = looks_of(table)
    found = {}
    for task, lines in by_task(table).items():
        with matplotlib.rc_context(STYLE):
            figure = _compose(lines, looks, " · ".join(filter(None, (title, task))))
            paths = [folder / f"rate_utility_{task}{suffix}" for suffix in (".png", ".svg")]
            shape = {"bbox_inches": "tight", "pad_inches": 0.03}
            figure.savefig(paths[0], dpi=300, **shape)
            figure.savefig(paths[1], metadata=NO_METADATA, **shape)
        found[task] = paths
    return found


class View(NamedTuple):
    """What a panel shows of points."""

    title: str
    utility: Callable[[TableRow], float]
    bounds: Callable[[TableRow], tuple[float, float]]


ALL = View("all", lambda line: line.value, lambda line: (line.low, line.high))
PAIRED = View(
    "minus raw, by the same images",
    lambda line: line.difference,
    lambda line: (line.difference_low, line.difference_high),
)


def _compose(lines: Sequence[TableRow], looks: Mapping[str, Look], title: str) -> "Figure":
    from matplotlib.figure import Figure

    apart = [line.difference for line in lines if not is_raw(line.variant)]
    views = [ALL] if all(map(math.isnan, apart)) else [ALL, PAIRED]
    rows = math.ceil((len(curves_of(lines)) + 2) / (LEGEND_COLUMNS * len(views)))
    width, height = PANEL_INCHES
    figure = Figure(
        figsize=(width * len(views), height + LEGEND_ROW_INCHES * rows), layout="constrained"
    )
    handles: dict[str, object] = {}
    for number, view in enumerate(views):
        axes = figure.add_subplot(1, len(views), number + 1)
        handles = _draw(axes, lines, looks, view) | handles
        _label(axes, lines, view)
        for artist in axes.get_children():
            if artist.get_gid():
                artist.set_gid(f"{artist.get_gid()}-{number}")
        if len(views) > 1:
            axes.set_title(view.title)
        if view is PAIRED:
            best = max(100 * x for x in (0, *apart) if not math.isnan(x))
            axes.set_ylim(-CLOSE[0], best + CLOSE[1])
    figure.suptitle(title, fontsize=STYLE["axes.titlesize"])
    figure.legend(
        list(handles.values()),
        list(handles),
        loc="outside lower center",
        ncols=LEGEND_COLUMNS * len(views),
        frameon=False,
        handlelength=2.2,
        handletextpad=0.6,
        columnspacing=1.2,
        labelspacing=0.35,
    )
    return figure


def _draw(
    axes: "Axes", lines: Sequence[TableRow], looks: Mapping[str, Look], view: View
) -> dict[str, object]:
    """Draw all curves and bounds; return the entries of the legend, in the order of families."""
    whole = of_all_splits(lines)
    curves = compared(line for line in whole if not math.isnan(view.utility(line)))
    handles: dict[str, object] = {}
    raws = [name for name in looks if name in curves and is_raw(name)]
    for name in (name for name in looks if name in curves):
        if is_raw(name):
            dashes = RAW_LINES[raws.index(name) % len(RAW_LINES)]
            label, handle = _draw_raw(axes, curves[name][0], looks[name], dashes, view)
        elif name == BEST_PIXELS:
            label, handle = name, _draw_hull(axes, curves[name], looks[name], view)
        else:
            label, handle = name, _draw_curve(axes, curves[name], looks[name], view)
        handles[label] = handle
    if view is ALL:
        handles |= _draw_majority(axes, lines)
        if len(whole) < len(lines):
            left_out = len(lines) - len(whole)
            handles[f"{left_out} of other splits, not drawn"] = axes.plot([], [], " ")[0]
    return handles


def _draw_majority(axes: "Axes", lines: Sequence[TableRow]) -> dict[str, object]:
    """The bound from below, if it is known; below the axis where it would press all together."""
    bounds = [100 * line.majority for line in lines if not math.isnan(line.majority)]
    if not bounds:
        return {}
    level = max(bounds)
    style = {"color": RAW.colour, "linestyle": (0, (1, 3)), "linewidth": 0.7}
    lowest, highest = _extent(lines)
    if level < 2 * lowest - highest:
        return {f"majority class, {level:.1f} %, below": axes.plot([], [], **style)[0]}
    return {f"majority class, {level:.1f} %": axes.axhline(level, **style)}


def _extent(lines: Sequence[TableRow]) -> tuple[float, float]:
    """What the axis of utilities spans, in percent: values and their intervals."""
    values = [value for line in lines for value in (line.value, line.low, line.high)]
    defined = [100 * value for value in values if not math.isnan(value)]
    return min(defined), max(defined)


def _draw_curve(axes: "Axes", curve: list[TableRow], look: Look, view: View) -> object:
    family = look.family
    x = [line.payload_bytes_per_image for line in curve]
    y = [100 * view.utility(line) for line in curve]
    low, high = zip(*([100 * bound for bound in view.bounds(line)] for line in curve), strict=True)
    over = 4 if family.strong else 3
    if len(curve) == 1:
        # Bounds, not distances: a bootstrap interval need not hold its value in the middle.
        axes.vlines(x, low, high, color=family.colour, linewidth=0.7, alpha=0.7, gid=_band(look))
    else:
        shade = 0.14 if family.strong else 0.06
        axes.fill_between(
            x, low, high, color=family.colour, alpha=shade, linewidth=0, gid=_band(look)
        )
    (handle,) = axes.plot(
        x,
        y,
        color=family.colour,
        marker=look.marker,
        markerfacecolor=family.colour if family.strong else "white",
        linestyle=look.dashes if len(curve) > 1 else "",
        linewidth=1.6 if family.strong else 0.8,
        zorder=over,
        gid=f"curve-{look.number}-line",
    )
    return handle


def _draw_hull(axes: "Axes", curve: list[TableRow], look: Look, view: View) -> object:
    """The best of all pixels, which is no codec's: a line without points or interval."""
    best = best_of(curve, view.utility)
    (handle,) = axes.plot(
        [line.payload_bytes_per_image for line in best],
        [100 * view.utility(line) for line in best],
        color=look.family.colour,
        linewidth=3,
        alpha=0.45,
        zorder=2.5,
        gid=f"curve-{look.number}-line",
    )
    return handle


def _band(look: Look) -> str:
    """Id of a curve's interval in an SVG file, like that of its line."""
    return f"curve-{look.number}-band"


def _draw_raw(
    axes: "Axes", line: TableRow, look: Look, dashes: str, view: View
) -> tuple[str, object]:
    """Raw embeddings as a level over the whole width, far left of where they lie."""
    low, high = (100 * bound for bound in view.bounds(line))
    if low < high:
        axes.axhspan(low, high, color=RAW.colour, alpha=0.06, linewidth=0, gid=_band(look))
    level = 100 * view.utility(line)
    handle = axes.axhline(level, color=RAW.colour, linestyle=dashes, linewidth=0.9, zorder=2)
    handle.set_gid(f"curve-{look.number}-line")
    return f"raw ({line.variant}), {size(line.bytes_per_image)}", handle


def _label(axes: "Axes", lines: Sequence[TableRow], view: View) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.set_xscale("log")
    sizes = [line.payload_bytes_per_image for line in lines if not is_raw(line.variant)]
    narrow = not sizes or max(sizes) < 30 * min(sizes)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if narrow else (1,)))
    axes.xaxis.set_minor_locator(LogLocator(subs=range(2, 10)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: size(value)))
    axes.xaxis.set_minor_formatter(NullFormatter())
    bare = any(line.pixels for line in lines)
    axes.set_xlabel(
        "bytes per image" + (", pixel codecs without container" if bare else " on disk")
    )
    name = NAMES.get(lines[0].metric, lines[0].metric)
    axes.set_ylabel(f"test {name} (%)" if view is ALL else f"test {name} minus raw (points)")
    axes.grid(axis="y", linewidth=0.3, alpha=0.5)
    axes.set_axisbelow(True)
