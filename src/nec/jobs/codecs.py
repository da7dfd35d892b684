"""What `nec inspect` says of every codec; what is of its kind alone, it says itself."""

import hashlib
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

from nec.coding.plain import plain_size
from nec.store.base import Codec, counted


def described(codec: Codec) -> dict[str, Any]:
    """Return what a codec says of itself, except its shape and data."""
    config = codec.to_config()
    told = {name: value for name, value in config.items() if name not in ("shape", "data")}
    if codec.tables is not None or "tables" in told:
        told["tables"] = codec.tables and _tables(codec.tables.plain)
    return told


def _tables(plain: bytes) -> dict[str, Any]:
    """Return how large tables are, and the size and hash of the plain bytes a codec has of them."""
    contexts, symbols = plain_size(plain)
    return {
        "contexts": contexts,
        "symbols": symbols,
        "metadata_bytes": -(-len(zlib.compress(plain, 9)) // 3) * 4,  # in base64
        "sha256": hashlib.sha256(plain).hexdigest(),
    }


def codec_rows(codec: Codec, told: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the rows of a table on a codec, its form and its tables."""
    kind = " ".join(told[key] for key in ("kind", "dtype", "packing") if key in told)
    yield "codec", f"{kind}, {codec.length:,} symbols per image, sha256 {codec.sha256[:12]}"
    yield from codec.rows()
    if codec.tables is not None:
        tables = told["tables"]
        size = f"{counted(tables['contexts'], 'context')}, {counted(tables['symbols'], 'symbol')}"
        stored = f"{tables['metadata_bytes']:,} bytes of the metadata"
        yield "tables", f"{size}, {stored}, sha256 {tables['sha256'][:12]}"
