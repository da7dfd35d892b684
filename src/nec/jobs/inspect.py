"""`nec inspect`: what is in a store and what it costs, without torch."""

import argparse
import json
from collections.abc import Iterator, Mapping
from typing import Any

from nec.store import EmbeddingStore

DESCRIPTION = """\
Print what is in a store: images by split, classes, shape, encoder, codec, and bytes.

  bytes per image   mean stream of the test images, plus an image's share of lengths, checksums and
                    shard indices; what every rate and ratio is made of
  index bytes       ids, splits and labels of an image
  side bytes        paid once per store: metadata with tables and transforms
"""


def main(argv: list[str]) -> int:
    """Parse, inspect one store, print."""
    args = _parser().parse_args(argv[1:])
    found = inspect(EmbeddingStore.open(args.store), args.verify)
    if args.json:
        print(json.dumps(found, indent=1, ensure_ascii=False))
    else:
        print("\n".join(table(found)))
    return 0


def inspect(store: EmbeddingStore, verify: bool) -> dict[str, Any]:
    """Describe a store (JSON).

    Args:
        store: Its metadata were checked when it was opened.
        verify: Whether to check every chunk and index array, too.

    Raises:
        CorruptStreamError: Names the file that is missing or damaged.
    """
    if verify:
        store.verify()
    rate = store.bytes_per_image
    return {
        "store": store.url,
        "images": len(store),
        "splits": {name: int((store.splits == name).sum()) for name in store.split_names},
        "classes": store.classes,
        "shape": list(store.codec.shape),
        "symbols_per_image": store.codec.length,
        "codec": {"kind": store.codec.kind, "sha256": store.codec.sha256},
        "layout": store.layout._asdict(),
        "bytes_per_image": rate,
        "index_bytes_per_image": store.index_bytes_per_image,
        "side_bytes": store.side_bytes,
        **_per_pixel(store.attrs, rate),
        "verified": verify,
        "attributes": store.attrs,
    }


def _per_pixel(attrs: Mapping[str, Any], rate: float) -> dict[str, float]:
    """What a rate means for images whose size the store knows."""
    found = {}
    if "pixels_per_image" in attrs:
        found["bpp"] = 8 * rate / attrs["pixels_per_image"]
    if "raw_bytes_per_image" in attrs:
        found["ratio"] = attrs["raw_bytes_per_image"] / rate
    return found


def table(found: Mapping[str, Any]) -> Iterator[str]:
    """The lines of a plain table of what `inspect` found."""
    rows = list(_rows(found))
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        yield f"{name:<{width}}  {value}"


def _rows(found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield "store", found["store"]
    splits = ", ".join(f"{name} {count:,}" for name, count in found["splits"].items())
    yield "images", f"{found['images']:,} ({splits})"
    yield "classes", _shortened(found["classes"])
    channels, rows, columns = found["shape"]
    yield "embedding", f"{channels} channels, {rows} x {columns} positions, float32 when read"
    yield from _origin(found["attributes"])
    codec = found["codec"]
    symbols = f"{found['symbols_per_image']:,} symbols per image"
    yield "codec", f"{codec['kind']}, {symbols}, sha256 {codec['sha256'][:12]}"
    layout = found["layout"]
    yield "layout", f"{layout['chunk']} images per chunk, {layout['shard']} chunks per shard"
    yield "bytes per image", f"{found['bytes_per_image']:,.1f}"
    yield "index bytes", f"{found['index_bytes_per_image']:,.1f} per image"
    yield "side bytes", f"{found['side_bytes']:,} once"
    if "bpp" in found:
        yield "bpp", f"{found['bpp']:.4g} bits per pixel"
    if "ratio" in found:
        yield "ratio", f"{found['ratio']:,.1f} to 1 against raw pixels"
    rest = "chunks, shard indices and index arrays match their checksums"
    unread = "chunks were not read through; --verify does that"
    yield "integrity", f"metadata match their sha256; {rest if found['verified'] else unread}"


def _origin(attributes: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Which encoder made the embeddings, where the store says so."""
    encoder = attributes.get("encoder")
    if isinstance(encoder, Mapping):
        words = [str(encoder.get("name", "unnamed"))]
        if "block" in encoder:
            words.append(f"block {encoder['block']}")
        if "image_size" in encoder:
            words.append(f"{encoder['image_size']} px")
        if "weights_sha256" in encoder:
            words.append(f"weights sha256 {str(encoder['weights_sha256'])[:12]}")
        yield "encoder", ", ".join(words)
    elif encoder is not None:
        yield "encoder", str(encoder)


def _shortened(names: list[str]) -> str:
    shown = ", ".join(names[:6])
    return f"{len(names)} ({shown}{', ...' if len(names) > 6 else ''})"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="nec inspect",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("store", metavar="STORE", help="local path or fsspec URL")
    parser.add_argument("--verify", action="store_true", help="check every byte of the store")
    parser.add_argument("--json", action="store_true", help="print JSON, numbers unrounded")
    return parser
