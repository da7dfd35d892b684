"""What `nec inspect` found, as the lines of a plain table."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from nec.jobs.codecs import codec_rows
from nec.store.base import Codec, counted

COMPLETE = "complete"
UNFINISHED = "unfinished: its writer has not closed it, EmbeddingStore.extend goes on"
# Attributes that say how large an image is, and the rates that follow from them.
PER_PIXEL = {"pixels_per_image": "bpp", "raw_bytes_per_image": "ratio"}
LONGEST_LINE = 200


def table(found: Mapping[str, Any], codecs: Mapping[str, Codec]) -> Iterator[str]:
    """Yield the lines of a plain table of what `inspect` found, and of the codec of each layer."""
    rows = list(_rows(found, codecs))
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        yield f"{name:<{width}}  {value}"


def _rows(found: Mapping[str, Any], codecs: Mapping[str, Codec]) -> Iterator[tuple[str, str]]:
    yield "store", found["store"]
    yield "state", COMPLETE if found["complete"] else UNFINISHED
    splits = ", ".join(f"{name} {count:,}" for name, count in found["splits"].items())
    yield "images", f"{found['images']:,} ({splits})"
    yield "classes", _shortened(found["classes"])
    first, *further = found["layers"].items()
    yield first[0], _shape(found)
    yield from _origin(found["attributes"])
    shown = {"encoder", *(key for key, rate in PER_PIXEL.items() if rate in found)}
    others = {key: value for key, value in found["attributes"].items() if key not in shown}
    if others:
        text = json.dumps(others, ensure_ascii=False)
        yield "attributes", text if len(text) <= LONGEST_LINE else f"{text[:LONGEST_LINE]}..."
    yield from codec_rows(codecs[first[0]], found["codec"])
    yield "layout", _layout(found)
    for name, layer in further:
        yield name, f"{_shape(layer)}, a layer of its own"
        rows = codec_rows(codecs[name], layer["codec"])
        yield from ((f"{name} {row}", said) for row, said in rows)
        yield f"{name} layout", _layout(layer)
    yield from _costs(found)
    yield "integrity", _integrity(found)
    if "picture" in found:
        yield from _picture(found["picture"])


def _shape(layer: Mapping[str, Any]) -> str:
    channels, rows, columns = layer["shape"]
    return f"{channels} channels, {rows} x {columns} positions, float32 when read"


def _layout(layer: Mapping[str, Any]) -> str:
    layout = layer["layout"]
    chunks = f"{counted(layer['chunks'], 'chunk')} of {counted(layout['chunk'], 'image')}"
    shards = f"{counted(layer['shards'], 'shard')} of {counted(layout['shard'], 'chunk')}"
    return f"{chunks} at most, {shards} at most; a shard is a file"


def _costs(found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Bytes, and what they mean per pixel."""
    stream = found["stream_bytes"]
    rate = f"{found['bytes_per_image']:,.1f}"
    if stream:
        rate += (
            f" = {stream['mean']:,.1f} stream + {found['overhead_bytes_per_image']:,.1f} lengths"
        )
        rate += ", checksums, indices"
    yield "bytes per image", rate
    if len(found["layers"]) > 1:
        shares = (f"{name} {own['bytes_per_image']:,.1f}" for name, own in found["layers"].items())
        yield "layers", f"{' + '.join(shares)} bytes per image, each read without the others"
    yield "streams", _spread(stream) if stream else "lengths were not read; --verify does that"
    yield "index bytes", f"{found['index_bytes_per_image']:,.1f} per image"
    yield "side bytes", f"{found['side_bytes']:,} once"
    yield "all files", f"{found['size_bytes']:,} bytes"
    if "bpp" in found:
        yield "bpp", f"{found['bpp']:.4g} bits per pixel"
    if "ratio" in found:
        yield "ratio", f"{found['ratio']:,.1f} to 1 against raw pixels"


def _spread(stream: Mapping[str, Any]) -> str:
    median = f"{stream['median']:,.1f}".removesuffix(".0")
    spread = f"min {stream['min']:,}, median {median}, max {stream['max']:,} bytes"
    split = f"{stream['split']} " if stream["split"] else ""
    return f"{spread}, of {counted(stream['images'], split + 'image')}"


def _integrity(found: Mapping[str, Any]) -> str:
    if found["checked"] is None:
        return "metadata match their sha256; chunks were not read through; --verify does that"
    images, chunks, shards = (counted(n, name[:-1]) for name, n in found["checked"].items())
    return f"metadata, {images} in {chunks} in {shards}, and index arrays match their checksums"


def _picture(picture: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    beside = f"right of {picture['source']}"
    alone = "alone; --source FOLDER shows its source beside it"
    where = alone if picture["source"] is None else beside
    yield "picture", f"{picture['file']}: image {picture['image']}, {picture['id']}, {where}"
    share = f"{picture['variance_share']:.0%} of the variance"
    yield "colours", f"three principal components, {share} of {picture['fitted_images']} images"


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
