"""What `nec inspect` says of a codec."""

import hashlib
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

from nec.coding import Tables
from nec.store.codec import (
    Codec,
    LinearCodec,
    ProductCodec,
    SumCodec,
    TransformCodec,
    VectorCodec,
)

SHOWN_BANDS = 3


def described(codec: Codec) -> dict[str, Any]:
    """Return what a codec says of itself, except its shape and data."""
    config = codec.to_config()
    told = {name: value for name, value in config.items() if name not in ("shape", "data")}
    if isinstance(codec, VectorCodec):
        neighbours = codec.neighbours
        told["tables"] = _tables(neighbours.left, neighbours.plain)  # `up` has as many contexts
    elif isinstance(codec, LinearCodec | ProductCodec | TransformCodec):
        told["tables"] = codec.tables and _tables(codec.tables, codec.tables.plain)
    return told


def _tables(tables: Tables, plain: bytes) -> dict[str, Any]:
    """Return how large tables are, and the size and hash of the plain bytes a codec has of them."""
    contexts, columns = tables.frequencies.shape
    return {
        "contexts": contexts,
        "symbols": columns - 1,  # the last column is the escape
        "metadata_bytes": -(-len(zlib.compress(plain, 9)) // 3) * 4,  # in base64
        "sha256": hashlib.sha256(plain).hexdigest(),
    }


def codec_rows(found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the rows of a table on a codec, its parts and its tables."""
    codec = found["codec"]
    kind = " ".join([codec["kind"], *(codec[key] for key in ("dtype", "packing") if key in codec)])
    symbols = f"{found['symbols_per_image']:,} symbols per image"
    yield "codec", f"{kind}, {symbols}, sha256 {codec['sha256'][:12]}"
    _, rows, columns = found["shape"]
    if "bands" in codec:
        bands = [
            f"{counted(band['latents'], 'latent')} "
            + ("pooled" if band["pooled"] else f"at {rows} x {columns} positions")
            + (", with a basis" if band["basis"] else ", no basis")
            for band in codec["bands"]
        ]
        more = f"; {len(bands) - SHOWN_BANDS} more" if len(bands) > SHOWN_BANDS else ""
        yield "bands", "; ".join(bands[:SHOWN_BANDS]) + more
    yield from _form(codec, f"{rows} x {columns} positions")
    if codec.get("tables"):
        tables = codec["tables"]
        size = f"{counted(tables['contexts'], 'context')}, {counted(tables['symbols'], 'symbol')}"
        if codec["kind"] == VectorCodec.kind:
            size = f"by the left and by the upper neighbour, each of {size}"
        stored = f"{tables['metadata_bytes']:,} bytes of the metadata"
        yield "tables", f"{size}, {stored}, sha256 {tables['sha256'][:12]}"
    elif "tables" in codec:
        yield "tables", "none: a symbol is a byte"


def _form(codec: Mapping[str, Any], grid: str) -> Iterator[tuple[str, str]]:
    """Yield a row on the form that a codec other than a linear one gives an embedding."""
    if codec["kind"] == ProductCodec.kind:
        size = f"{codec['width']} wide, {counted(codec['centroids'], 'centroid')} each"
        yield "parts", f"{counted(codec['parts'], 'part')} at {grid}, {size}"
    elif codec["kind"] == VectorCodec.kind:
        latents = counted(codec["latents"], "latent")
        yield "codes", f"one of {codec['codes']:,} at {grid}, of {latents}, filtered over 3 x 3"
    elif codec["kind"] == SumCodec.kind:
        yield "parts", ", then ".join(part["header"]["kind"] for part in codec["parts"])
    elif codec["kind"] == TransformCodec.kind:
        yield "latents", f"{counted(codec['latents'], 'latent')}, by a DCT over {grid}"


def counted(number: int, noun: str) -> str:
    """Return a number and its noun, plural if need be."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
