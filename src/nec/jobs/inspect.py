"""`nec inspect`: what is in a store, what it costs, and how it looks, without torch."""

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from nec.jobs.codecs import described
from nec.jobs.draw import draw
from nec.jobs.listing import PER_PIXEL, table
from nec.store import EmbeddingStore

DESCRIPTION = """\
Show what is in a store and what an image of it costs; --verify checks every byte.

  nec inspect runs/demo/RUN                             what is in the store of a run
  nec inspect STORE                                     what is in this one
  nec inspect STORE --verify                            read through every chunk and index array
  nec inspect STORE --json | jq .bytes_per_image        all of it for programs, unrounded
  nec inspect STORE --picture p.png                     the first embedding as colours
  nec inspect STORE --picture p.png --image 17          another one, by its place (-1: the last)
  nec inspect STORE --picture p.png --image forest/3.jpg --source DATA
                                                        by its id, beside DATA/forest/3.jpg
"""
EPILOG = """\
bytes per image  mean stream of the test images (of all, where there are none), plus an image's
                 share of lengths, checksums and shard indices; what every rate and ratio is of
streams          of these images, from the header of every chunk; of a store without test images
                 they are read by --verify alone, since the mean takes no more than its size
index bytes      ids, splits and labels of an image
side bytes       paid once per store: metadata with tables and transforms

A picture's red, green and blue are the first three principal components over the tokens of 64
images all over the store, from the 2nd to the 98th percentile: a colour means the same in every
picture of a store. Of the source, the first three bands are shown. --picture takes Pillow, for
TIFF sources rasterio: pip install pillow rasterio. Nothing else here does.
"""
# Seconds between reports of progress: in a terminal, where a line is rewritten, and elsewhere.
TERMINAL_PAUSE_S, FILE_PAUSE_S = 0.5, 10.0


def main(argv: list[str]) -> int:
    """Parse, inspect one store, print."""
    parser = _parser()
    args = parser.parse_args(argv[1:])
    if args.picture is None and not args.image is args.source is None:
        parser.error("--image and --source are of a picture; add --picture FILE.png")
    inside = Path(args.store, "store.zarr")  # of a run
    store = EmbeddingStore.open(inside if inside.is_dir() else args.store)
    drawn = {}
    if args.picture is not None:
        drawn = {"picture": draw(store, args.picture, args.image, args.source)}
    found = {**inspect(store, args.verify), **drawn}
    if args.json:
        print(json.dumps(found, indent=1, ensure_ascii=False))
    else:
        print("\n".join(table(found, store.layers)))
    return 0


def inspect(store: EmbeddingStore, verify: bool) -> dict[str, Any]:
    """Describe a store (JSON).

    Args:
        store: An open store, whose metadata were checked when it was opened.
        verify: Whether to check every chunk and index array, too, counting on stderr, and to
            measure streams also where there are no test images.

    Raises:
        CorruptStreamError: A file is missing or damaged; the message names it.
    """
    checked = None
    if verify:
        with counter(sys.stderr) as progress:
            checked = store.verify(progress)._asdict()
    return {
        "store": store.url,
        "complete": store.complete,
        "images": len(store),
        "splits": {name: int((store.splits == name).sum()) for name in store.split_names},
        "classes": store.classes,
        **_layer(store),
        "layers": {name: _layer_alone(store.layer(name)) for name in store.layers},
        **_bytes(store, verify),
        "verified": verify,
        "checked": checked,
        "attributes": store.attrs,
    }


def _layer(store: EmbeddingStore) -> dict[str, Any]:
    """Describe the first layer of a store."""
    extent = store.layout.extent(len(store))
    return {
        "shape": list(store.codec.shape),
        "symbols_per_image": store.codec.length,
        "codec": described(store.codec),
        "layout": store.layout._asdict(),
        "chunks": extent.chunks,
        "shards": extent.shards,
    }


def _layer_alone(store: EmbeddingStore) -> dict[str, Any]:
    """Describe the only layer of a store, and the bytes it takes."""
    return {**_layer(store), "bytes_per_image": store.bytes_per_image}


def _bytes(store: EmbeddingStore, measured: bool) -> dict[str, Any]:
    """Return what an image costs, what that consists of if measured, and the size of all files."""
    rate, split, streams = store.cost(measured)
    stream = None
    if len(streams):
        stream = {
            "images": len(streams),
            "split": split,
            "min": int(streams.min()),
            "median": float(np.median(streams)),
            "mean": float(streams.mean()),
            "max": int(streams.max()),
        }
    return {
        "bytes_per_image": rate,
        "stream_bytes": stream,
        "overhead_bytes_per_image": stream and rate - stream["mean"],
        "index_bytes_per_image": store.index_bytes_per_image,
        "side_bytes": store.side_bytes,
        "size_bytes": store.size_bytes,
        **_per_pixel(store.attrs, rate),
    }


def _per_pixel(attrs: Mapping[str, Any], rate: float) -> dict[str, float]:
    """Return what a rate means for images whose size the store knows."""
    pixels, raw_bytes = (_size(attrs.get(key)) for key in PER_PIXEL)
    found = {}
    if pixels:
        found["bpp"] = 8 * rate / pixels
    if raw_bytes:
        found["ratio"] = raw_bytes / rate
    return found


def _size(value: Any) -> float:
    """Return a positive number as it is, and 0 for whatever else an attribute holds."""
    return value if type(value) in (int, float) and 0 < value <= sys.float_info.max else 0


@contextmanager
def counter(
    stream: TextIO, clock: Callable[[], float] = time.monotonic
) -> Iterator[Callable[[int, int], None]]:
    """Count shards on a stream: one line rewritten in a terminal, a line now and then elsewhere.

    What finishes quickly is not counted.
    """
    terminal = stream.isatty()
    pause = TERMINAL_PAUSE_S if terminal else FILE_PAUSE_S
    last, shown = clock(), False

    def progress(done: int, total: int) -> None:
        nonlocal last, shown
        if clock() - last < pause:
            return
        last, shown = clock(), True
        text = f"verify: {done:,} of {total:,} shards"
        stream.write(f"\r{text}" if terminal else f"{text}\n")
        stream.flush()

    try:
        yield progress
    finally:
        if terminal and shown:
            stream.write("\r\033[K")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="nec inspect",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("store", metavar="STORE", help="local path (of a run, too) or fsspec URL")
    parser.add_argument("--verify", action="store_true", help="check every byte of the store")
    parser.add_argument("--json", action="store_true", help="print JSON, numbers unrounded")
    parser.add_argument("--picture", type=Path, metavar="FILE.png", help="draw one embedding, too")
    parser.add_argument("--image", metavar="ID_OR_PLACE", help="which; without it the first")
    parser.add_argument(
        "--source", type=Path, metavar="FOLDER", help="what ids are relative to: shows the image"
    )
    return parser
