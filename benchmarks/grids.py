"""Speed and rate of grids coded given their neighbours, beside other coders, all in one run.

python benchmarks/grids.py [--images 512]

Fields of 16 x 16 codes, of which most are their left or upper neighbour's, of 64, 256 and 1024
codes; tables are counted on as many other images. Every coder gives back what it was given, or the
run stops. Seconds are the best of three, after a round that compiles and warms up, on one core.

  nec, neighbours      `encode_grids` and `decode_grids`
  nec, static table    `encode` and `decode` by how often each code occurs: as fast as codes can be
                       had, and what neighbours save
  constriction         the same probabilities as nec, neighbours: the weights of all symbols of an
                       image by numpy, then one ANS coder; it decodes symbol by symbol, as it must,
                       since a symbol tells the next one's weights. The first 16 images only
"""

import argparse
import os
from collections.abc import Iterator
from typing import NamedTuple

import constriction
import numpy as np
from coding import Coder, timed

from nec.coding import Neighbours, Tables, decode, decode_grids, encode, encode_grids

SIDE = 16
CODES = (64, 256, 1024)
CLASSES = 32
COPIED = 0.35  # from the left; as much again from above
COMPETITOR_IMAGES = 16
LINE = "{:<7} {:<20} {:>6} {:>9.2f} {:>9.2f} {:>9.3f} {:>9.3f}"
HEAD = "{:<7} {:<20} {:>6} {:>9} {:>9} {:>9} {:>9}".format(
    *("codes", "coder", "images", "B/image", "B ideal", "enc MS/s", "dec MS/s")
)


class Row(NamedTuple):
    """One coder of fields of so many codes."""

    codes: int
    coder: str
    images: int
    bytes_per_image: float
    ideal_bytes: float
    encode_megasymbols_per_s: float
    decode_megasymbols_per_s: float


def fields(images: int, codes: int, seed: int) -> np.ndarray:
    """(images, SIDE, SIDE) codes: a neighbour's, or one by a law of Zipf."""
    rng = np.random.default_rng(seed)
    shares = 1 / np.arange(1, codes + 1)
    found = rng.choice(codes, (images, SIDE, SIDE), p=shares / shares.sum())
    choice = rng.random(found.shape)
    for row, column in np.ndindex(SIDE, SIDE):
        here, own = choice[:, row, column], found[:, row, column]
        if column:
            own[:] = np.where(here < COPIED, found[:, row, column - 1], own)
        if row:
            above = (here >= COPIED) & (here < 2 * COPIED)
            own[:] = np.where(above, found[:, row - 1, column], own)
    return found.astype(np.int32)


def beside(grids: np.ndarray, classes: np.ndarray, axis: int) -> np.ndarray:
    """The class of each symbol's neighbour on the left (axis 2) or above (axis 1)."""
    border = int(classes.max()) + 1
    before = np.full_like(grids, border)
    stop = [slice(None)] * 3
    stop[axis], start = slice(0, -1), list(stop)
    start[axis] = slice(1, None)
    before[tuple(start)] = classes[grids[tuple(stop)]]
    return before


def counted(grids: np.ndarray, codes: int) -> Neighbours:
    """How often each code occurs beside each class; classes are codes that are alike in rank."""
    classes = np.arange(codes) * CLASSES // codes
    counts = []
    for axis in (2, 1):
        cells = beside(grids, classes, axis).astype(np.int64) * codes + grids
        size = (CLASSES + 1) * codes
        counts.append(np.bincount(cells.ravel(), minlength=size).reshape(-1, codes) + 0.1)
    return Neighbours.from_counts(*counts, classes)


def neighbours_coder(grids: np.ndarray, model: Neighbours) -> Coder:
    grid = grids.shape[1:]
    return Coder(
        "nec, neighbours",
        grids,
        lambda: encode_grids(grids, model),
        lambda streams: decode_grids(streams, model, grid),
    )


def static_coder(grids: np.ndarray, tables: Tables) -> Coder:
    rows = grids.reshape(len(grids), -1)
    contexts = np.zeros(rows.shape[1], dtype=np.int64)
    return Coder(
        "nec, static table",
        rows,
        lambda: encode(rows, tables, contexts),
        lambda streams: decode(streams, tables, contexts, rows.shape[1]),
    )


def constriction_coder(grids: np.ndarray, model: Neighbours) -> Coder:
    """One range coder an image; probabilities are products, as nec's, but floats."""
    queue = constriction.stream.queue
    family = constriction.stream.model.Categorical(perfect=False)
    left, up = (weights.astype(np.float32) for weights in model.weights)
    classes, border = model.places, model.border
    lefts, ups = (beside(grids, classes, axis).reshape(len(grids), -1) for axis in (2, 1))
    rows = grids.reshape(len(grids), -1)

    def probabilities(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        weights = left[a] * up[b] + 1
        return weights / weights.sum(axis=-1, keepdims=True)

    def encoded(image: int) -> np.ndarray:
        coder = queue.RangeEncoder()
        coder.encode(rows[image], family, probabilities(lefts[image], ups[image]))
        return coder.get_compressed()

    def decoded(stream: np.ndarray) -> np.ndarray:
        coder, out = queue.RangeDecoder(stream), np.empty(rows.shape[1], np.int32)
        for place in range(len(out)):
            a = classes[out[place - 1]] if place % SIDE else border
            b = classes[out[place - SIDE]] if place >= SIDE else border
            out[place] = coder.decode(family, probabilities(np.array([a]), np.array([b])))[0]
        return out

    return Coder(
        "constriction",
        rows,
        lambda: [encoded(image) for image in range(len(rows))],
        lambda streams: [decoded(stream) for stream in streams],
    )


def measured(codes: int, images: int) -> Iterator[Row]:
    """A row for each coder."""
    train, grids = fields(images, codes, 0), fields(images, codes, 1)
    model = counted(train, codes)
    tables = Tables.from_counts(np.bincount(train.ravel(), minlength=codes)[None], [0])
    few, flat = grids[:COMPETITOR_IMAGES], grids.reshape(images, -1)
    static = tables.code_length(flat, np.zeros(flat.shape[1], dtype=np.int64))
    given = model.code_length(grids)
    for coder, bits in (
        (neighbours_coder(grids, model), given),
        (static_coder(grids, tables), static),
        (constriction_coder(few, model), given[: len(few)]),
    ):
        found = timed(coder)
        size = float(np.mean([memoryview(stream).nbytes for stream in found.streams]))
        speeds = [coder.rows.size / 1e6 / s for s in (found.encode_s, found.decode_s)]
        yield Row(codes, coder.name, len(coder.rows), size, float(bits.mean()) / 8, *speeds)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=512, help="that nec codes (512)")
    args = parser.parse_args()
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    print(HEAD)
    for codes in CODES:
        rows = list(measured(codes, args.images))
        print(*(LINE.format(*row) for row in rows), sep="\n")
        ours, *others = rows
        for other in others:
            encodes, decodes = np.divide(ours[-2:], other[-2:])
            print(f"{ours.coder} / {other.coder}: {encodes:.3g}x, {decodes:.3g}x as fast")


if __name__ == "__main__":
    main()
