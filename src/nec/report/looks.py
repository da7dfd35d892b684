"""How curves look, on paper and on a page: families by colour, members by marker."""

from collections.abc import Sequence
from typing import NamedTuple

from nec.report.curves import is_raw, is_untrained, parts
from nec.report.table import TableRow, compared

MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "h", "*", "p")
# Strong curves of one family differ by their line too, others where markers run out.
DASHES = ("-", (0, (5, 1.5)), (0, (2, 1.5)), (0, (6, 1.5, 1.5, 1.5)))


class Family(NamedTuple):
    """Curves that share a colour and a column of the legend."""

    name: str
    colour: str
    strong: bool = False  # drawn thick and on top


# Okabe and Ito 2008, distinct to colour-blind eyes too, with darker greys for mere references.
LEARNED = Family("learned", "#CC79A7", strong=True)
VECTORS = Family("pooled vectors", "#56B4E9")
PIXELS = Family("pixel codecs", "#E69F00")
TOKENS = Family("token quantizers", "#5F5F5F")
UNTRAINED = Family("untrained encoder", "#9A9A9A")
RAW = Family("raw embeddings", "#000000")
# Codecs that nec fits without training, by the first word of their bottleneck.
FITTED = {
    "transform": Family("transform", "#0072B2", strong=True),
    "vq": Family("vq", "#D55E00", strong=True),
    "layered": Family("layered", "#009E73", strong=True),
}
FAMILIES = (*FITTED.values(), LEARNED, VECTORS, TOKENS, PIXELS, UNTRAINED, RAW)


class Look(NamedTuple):
    """How a curve is drawn."""

    family: Family
    marker: str
    dashes: str | tuple[int, tuple[float, ...]]
    number: int  # among all curves of a report


def looks_of(table: Sequence[TableRow]) -> dict[str, Look]:
    """A look for each curve, the same in every figure of a report; families in their order."""
    curves = compared(table)
    families = {name: family_of(curve[0]) for name, curve in curves.items()}
    ordered = sorted(curves, key=lambda name: FAMILIES.index(families[name]))  # stable
    seen: dict[Family, int] = {}
    looks = {}
    for number, name in enumerate(ordered):
        k = seen.get(families[name], 0)
        seen[families[name]] = k + 1
        dashes = DASHES[(k if families[name].strong else k // len(MARKERS)) % len(DASHES)]
        looks[name] = Look(families[name], MARKERS[k % len(MARKERS)], dashes, number)
    return looks


def family_of(line: TableRow) -> Family:
    """The family of a point's curve."""
    kind = parts(line.variant)[0].split("_")[0]
    if is_raw(line.variant):
        return RAW
    if is_untrained(line.variant):
        return UNTRAINED
    if kind in FITTED:
        return FITTED[kind]
    if line.learned:
        return LEARNED
    if line.pixels:
        return PIXELS
    return VECTORS if kind == "pooled" else TOKENS
