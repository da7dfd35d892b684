"""The page of a report: one HTML file with figure, tables and words, that needs no other."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path

from nec.report.curves import is_raw
from nec.report.looks import FAMILIES, RAW, Look, looks_of
from nec.report.page_style import SCRIPT, STYLE
from nec.report.page_tables import (
    class_table,
    delta_matrix,
    marks,
    point_table,
    split_table,
    within_table,
)
from nec.report.summary import About, Summary
from nec.report.table import TableRow, by_task
from nec.report.texts import NAMES, size, with_interval, within_text
from nec.report.within import Within

# Test images of which one is more than half a point of accuracy.
FEW = 200
# Curves that the first sentence of a task names.
NAMED = 3
READING = """
<details class="card"><summary>What was measured, and how to read it</summary>
<p>An encoder turns every image into an embedding; a codec stores it in a few bytes; heads are
trained and tested on what was <em>decoded</em> from those bytes, and on nothing else. What a codec
or a head learns, it learns on train images; it chooses on validation images; every number here is
of test images. Pixel codecs store the image instead, and the same encoder sees what they
decode to.</p>
<p><b>Bytes per image</b> are counted on disk, over the test images: streams, checksums, lengths and
an image's share of everything else in the files of the embeddings. Of pixel codecs the container of
the file is not counted. <b>In the store</b> adds ids, labels and splits, or that container;
<b>estimated</b> are the streams as their probabilities price them. <b>Side bytes</b> (tables,
codebooks, transforms) are paid once per store; their share of all bytes falls as the store grows,
here to 10³, 10⁵ and 10⁷ images. What one can <b>encode</b> and <b>decode</b> a second are
embeddings in memory, by all cores: neither the encoder nor the disk is timed. Of pixel codecs they
are images written to files and read again, by one; the encoder that a consumer then needs is not
timed.</p>
<p><b>Utility</b> is the share of test images named rightly (accuracy), or the mean over classes of
intersection over union of all test pixels (mean IoU). Brackets hold 95 % intervals: a bootstrap
over test images (over whole tiles, where images are parts of them), over the heads' seeds and over
runs, widened where tiles are few. They do not cover what other train images or another fit of a
codec would change; <b>minus raw on each split</b> shows how far that goes. <b>Minus raw</b> is the
difference to the embeddings as they were (all 32 bits of every number), in percentage points, drawn
on the same images: negative is worse. Where its interval holds 0, these images cannot tell the two
apart, which does not make them equal.</p>
<p><b>Within 0.5 to 2 points</b> is the smallest size at which a curve is at most that far below
raw, interpolated between its points and never beyond, with what the bootstrap makes of it; points
of other splits than raw are left out. –: not reached; ≤: its smallest point is already as close.
Below it stands how many times as many bytes pixels take, the best of all, by the same draws.
<b>BD-rate</b> is the mean difference in bytes at equal utility, in percent: negative takes fewer.
<b>BD-utility</b> is the mean difference in utility at equal bytes, in percentage points. Neither
has an interval, and neither counts side bytes.</p>
<p>A curve is, in these three, the best of its points up to each size, as measured on test images.
<b>Pixels, the best of all</b> are the points of all formats and resolutions together, drawn as a
concave hull: nobody stores it, and no format may reach it. <b>codec=…</b> names a codec that was
fitted to other data and taken over as it was.</p>
<p>Point at a row or a curve to see it alone; click a heading to sort, a family to hide it.</p>
</details>
"""


def write_page(path: Path, summary: Summary, figures: Mapping[str, Path]) -> None:
    """Write the page.

    Args:
        path: Path of the HTML file.
        summary: Content of the page.
        figures: An SVG file of each task, as `draw` wrote it.
    """
    looks = looks_of(summary.points)
    tasks = by_task(summary.points)
    sections = [
        _section(task, lines, summary, looks, figures[task].read_text(encoding="utf-8"))
        for task, lines in tasks.items()
    ]
    links = "".join(f'<a href="#{escape(task)}">{escape(task)}</a>' for task in tasks)
    title = escape(summary.about.experiment or "report")
    text = "\n".join(
        (
            f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<style>{STYLE}</style></head><body>",
            f"<header><h1>{title}</h1>",
            f'<p class="lead">What every stored byte of {_of(summary)} buys downstream.</p>',
            _facts(summary),
            f"<nav>{links}</nav></header>" if len(tasks) > 1 else "</header>",
            READING,
            *sections,
            "<footer><p>Made by <code>nec report</code> from results.csv beside this file; "
            "table.csv, within.csv, bd.csv and report.json hold the same numbers.</p></footer>",
            f"<script>{SCRIPT}</script></body></html>",
        )
    )
    path.write_text(text + "\n", encoding="utf-8")


def _of(summary: Summary) -> str:
    named = [
        f"<b>{escape(text)}</b>" for text in (summary.about.data, summary.about.encoder) if text
    ]
    return ", seen by ".join(named) or "embeddings"


def _facts(summary: Summary) -> str:
    about = summary.about
    facts = {
        "codecs": len({line.variant for line in summary.points}),
        "points": len({(line.variant, line.setting) for line in summary.points}),
        "runs": about.runs,
        "splits": about.splits,
        "test images": _images(about),
        "commit" if len(about.commits) == 1 else "commits": ", ".join(about.commits),
    }
    shown = "".join(
        f"<div><dt>{k}</dt><dd>{escape(str(v))}</dd></div>" for k, v in facts.items() if v
    )
    return f'<dl class="facts">{shown}</dl>'


def _section(
    task: str, lines: list[TableRow], summary: Summary, looks: Mapping[str, Look], svg: str
) -> str:
    name = NAMES.get(lines[0].metric, lines[0].metric)
    close = [one for one in summary.within if one.task == task]
    found = [delta for delta in summary.deltas if delta.task == task]
    return "\n".join(
        (
            f'<section id="{escape(task)}"><h2>{escape(task)}<small>{name}</small></h2>',
            _answer(lines, close, name, summary.about.answers),
            _chips(lines, looks),
            f'<div class="card figure">{_inline(svg, task, looks)}</div>',
            "<h3>Bytes per image to come close to raw</h3>",
            f'<div class="card">{within_table(close, looks)}</div>',
            "<h3>All points</h3>",
            f'<div class="card scroll">{point_table(lines, looks)}</div>',
            split_table(lines, looks),
            class_table(lines, looks),
            delta_matrix(found, "bd_rate", "BD-rate: percent of bytes at equal utility"),
            delta_matrix(found, "bd_utility", "BD-utility: percentage points at equal bytes"),
            "</section>",
        )
    )


def _images(about: About) -> str:
    """Number of test images, and how often they are asked for where splits share some."""
    if about.answers == about.test_images:
        return f"{about.test_images:,}" if about.answers else ""
    return f"{about.test_images:,}, asked {about.answers:,} times"


def _answer(lines: Sequence[TableRow], close: Iterable[Within], name: str, answers: int) -> str:
    """The task's result in a sentence or two."""
    raws = [line for line in lines if is_raw(line.variant)]
    if not raws:
        return ""
    raw = raws[0]
    level = with_interval(raw.value, raw.low, raw.high)
    said = f"Raw embeddings reach {level} % {name} at {size(raw.bytes_per_image)} an image."
    reached = [
        one
        for one in close
        if one.points == 1 and not math.isnan(one.bytes_per_image) and not is_raw(one.variant)
    ]
    reached.sort(key=lambda one: one.bytes_per_image)
    if reached:
        best = ", ".join(f"<b>{escape(o.variant)}</b> {within_text(o)}" for o in reached[:NAMED])
        said += f" The fewest bytes within one point of that: {best}."
    else:
        said += " No curve comes within one point of that."
    if lines[0].metric == "accuracy" and 0 < answers < FEW:
        said += f" One test image is {100 / answers:.1f} points: nothing closer can be told."
    return f'<p class="answer">{said}</p>'


def _chips(lines: Sequence[TableRow], looks: Mapping[str, Look]) -> str:
    present = {looks[line.variant].family for line in lines}
    chips = [
        f'<button class="chip" data-of="{number}" style="--c:{family.colour}">'
        f'<span class="dot"></span>{family.name}</button>'
        for number, family in enumerate(FAMILIES)
        if family in present and family is not RAW
    ]
    return f'<div class="chips">{"".join(chips)}</div>' if len(chips) > 1 else ""


def _inline(svg: str, task: str, looks: Mapping[str, Look]) -> str:
    """A figure as a part of the page: without outside namespaces, and with ids of its own."""
    head, _, body = svg[svg.index("<svg") :].partition(">")
    head = re.sub(r'\s(xmlns(:\w+)?|width|height)="[^"]*"', "", head)
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    for name, look in looks.items():
        own = f"<g {marks(look)}><title>{escape(name)}</title>".replace("\\", r"\\")
        body = re.sub(rf'<g id="curve-{look.number}-[^"]*">', own, body)
    prefix = re.sub(r"\W", "-", task)
    body = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{prefix}-", body)
    return f"{head}>{body.replace('xlink:href', 'href')}"
