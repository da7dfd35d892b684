"""Names, dtypes, metadata and version of a store, and the hash over its metadata."""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

# One number for all that nec writes: codec configurations, chunk payloads, stores.
FORMAT_VERSION = 1

EMBEDDING, ID, SPLIT, LABEL = "embedding", "id", "split", "label"
DIMENSIONS = ("image", "channel", "row", "column")

# Values that an index array yields where its file is lost; append() refuses them.
LOST_ID = ""
LOST_SPLIT = 255
LOST_LABEL = -(2**31)

LARGEST_COUNT = 1 << 48  # bound on images, channels, rows
INDEX_CHUNK = 65536  # images in one chunk of an index array
INDEX_ARRAYS = (ID, SPLIT, LABEL)

# Allowed names for a layer's array.
LAYER_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")

# The group attribute that is nec's own; all others are the user's.
RESERVED = "nec"


class Extent(NamedTuple):
    """Extent of a store or layer."""

    images: int
    chunks: int
    shards: int  # one file each


class Layout(NamedTuple):
    """How images are grouped into chunks, and chunks into shards."""

    chunk: int  # images per chunk
    shard: int  # chunks per shard

    @property
    def images(self) -> int:
        """Images per shard."""
        return self.chunk * self.shard

    def extent(self, images: int) -> Extent:
        """Return the extent of this many images; the last chunk and shard may be shorter."""
        return Extent(images, -(-images // self.chunk), -(-images // self.images))


class Cost(NamedTuple):
    """What an image of a store costs, ids and metadata aside, and what that consists of."""

    bytes_per_image: float  # mean of `streams`, plus an image's share of all else in the shards
    split: str | None  # whose images were measured; None: of all splits
    streams: NDArray[np.int64]  # (n,) bytes of each of these images; none where they were not read


class LayerStructure(NamedTuple):
    """Structure of one layer (an array of embeddings), as its metadata give it."""

    shape: tuple[int, int, int]  # (D, h, w) of one embedding
    layout: Layout
    codec: dict[str, Any]  # its configuration


class Structure(NamedTuple):
    """Structure of a store, as the metadata of its arrays give it."""

    images: int
    layers: dict[str, LayerStructure]  # by name of their arrays, `embedding` first
    splits: list[str]
    classes: list[str]


def check_version(version: object, what: str) -> None:
    """Raise an error for a format version that this nec does not read.

    Raises:
        ValueError: If version is not FORMAT_VERSION.
    """
    if type(version) is not int or version != FORMAT_VERSION:
        raise ValueError(
            f"{what} has format version {version!r}, this nec reads {FORMAT_VERSION}; "
            "install the nec that wrote it, or a later one"
        )


def canonical(value: object) -> bytes:
    """JSON with sorted keys and no spaces, UTF-8: the same bytes for the same content.

    Raises:
        ValueError: If the value holds what JSON cannot express: NaN, an infinity, an object.
    """
    try:
        text = json.dumps(
            value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
        )
        return text.encode()
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{error}; metadata holds what JSON has: texts, finite numbers, true, false, null, "
            "lists, and dicts with texts as keys"
        ) from error


def metadata_hash(group: Mapping[str, Any], arrays: Mapping[str, Any]) -> str:
    """Hash the metadata of a store.

    Args:
        group: The zarr.json of the group, parsed; the hash inside it is left out.
        arrays: Name of each array -> its zarr.json, parsed.

    Returns:
        sha256, 64 hexadecimal digits.
    """
    attributes = group["attributes"]
    own = {k: v for k, v in attributes[RESERVED].items() if k != "sha256"}
    covered = {**group, "attributes": {**attributes, RESERVED: own}}
    return hashlib.sha256(canonical({"group": covered, "arrays": dict(arrays)})).hexdigest()


def group_metadata(
    attributes: Mapping[str, Any], arrays: Mapping[str, Any], complete: bool
) -> dict[str, Any]:
    """Return the zarr.json of the group: the user's attributes, the version and the hash.

    Args:
        attributes: The user's attributes, JSON values.
        arrays: Name of each array -> its zarr.json, parsed.
        complete: Whether the writer marked the store as complete.
    """
    own: dict[str, Any] = {"version": FORMAT_VERSION, "complete": complete}
    layers = [name for name in arrays if name not in INDEX_ARRAYS]
    if layers != [EMBEDDING]:
        own["layers"] = layers
    group = {
        "zarr_format": 3,
        "node_type": "group",
        "attributes": {**attributes, RESERVED: own},
    }
    own["sha256"] = metadata_hash(group, arrays)
    return group


def checked_layers(names: Iterable[object]) -> list[str]:
    """Return the names of layers, `embedding` first.

    Raises:
        ValueError: If a name is not valid or occurs twice, or `embedding` is missing.
    """
    found = sorted(names, key=lambda name: name != EMBEDDING)  # the others keep their order
    for name in found:
        if not isinstance(name, str) or not LAYER_NAME.fullmatch(name) or name in INDEX_ARRAYS:
            raise ValueError(
                f"layer {name!r} is not a name for an array of embeddings; give one of a-z, 0-9 "
                f"and _ that begins with a letter and is not one of {', '.join(INDEX_ARRAYS)}"
            )
    if EMBEDDING not in found or len(set(found)) < len(found):
        raise ValueError(
            f"layers are {found}; give different names, and {EMBEDDING!r} to what is read first"
        )
    return [str(name) for name in found]


def layer_metadata(
    name: str, images: int, shape: Sequence[int], layout: Layout, codec: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the zarr.json of one layer of embeddings.

    Args:
        name: Name of the layer; layers other than `embedding` get their own dimension names, since
            xarray requires dimensions of the same name to have the same size.
        images: N, number of images.
        shape: (D, h, w) of one embedding.
        layout: Images per chunk, chunks per shard.
        codec: Configuration of the codec.
    """
    sharding = {
        "chunk_shape": [layout.chunk, *shape],
        "codecs": [{"name": "nec", "configuration": dict(codec)}],
        "index_codecs": [
            {"name": "bytes", "configuration": {"endian": "little"}},
            {"name": "crc32c"},
        ],
        "index_location": "end",
    }
    return _array_metadata(
        shape=[images, *shape],
        chunk=[layout.images, *shape],
        data_type="float32",
        fill_value="NaN",
        codecs=[{"name": "sharding_indexed", "configuration": sharding}],
        dimensions=layer_dimensions(name),
    )


def layer_dimensions(name: str) -> tuple[str, ...]:
    """Return the names of a layer's dimensions: image, channel, row, column."""
    image, *own = DIMENSIONS
    return DIMENSIONS if name == EMBEDDING else (image, *(f"{name}_{word}" for word in own))


def index_metadata(
    images: int, splits: Sequence[str], classes: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """Return the zarr.json of ids, splits and labels; the latter two are indices into names."""
    little: dict[str, Any] = {"name": "bytes", "configuration": {"endian": "little"}}
    # The checksum is last in the chain, so it is verified before anything else reads the bytes.
    packed: list[dict[str, Any]] = [
        {"name": "zstd", "configuration": {"level": 9, "checksum": False}},
        {"name": "crc32c"},
    ]
    shape, chunk = [images], [min(images, INDEX_CHUNK)]
    text = [{"name": "vlen-utf8"}, *packed]
    numbers = [little, *packed]
    return {
        ID: _array_metadata(shape, chunk, "string", LOST_ID, text),
        SPLIT: _array_metadata(shape, chunk, "uint8", LOST_SPLIT, numbers, list(splits)),
        LABEL: _array_metadata(shape, chunk, "int32", LOST_LABEL, numbers, list(classes)),
    }


def read_structure(arrays: Mapping[str, Any]) -> Structure:
    """Read the structure of a store from the metadata of its arrays.

    Args:
        arrays: Name of each array -> its zarr.json, parsed.

    Raises:
        ValueError: If they differ in anything from what `layer_metadata` and `index_metadata`
            return.
    """
    try:
        found = _structure(arrays)
        images, layers, splits, classes = found
        counts = [images, *(n for one in layers.values() for n in (*one.shape, *one.layout))]
        expected = {
            **{name: layer_metadata(name, images, *one) for name, one in layers.items()},
            **index_metadata(images, splits, classes),
        }
        good = canonical(expected) == canonical(dict(arrays))
        good &= all(type(count) is int and 0 < count < LARGEST_COUNT for count in counts)
        good &= _are_names(splits) and _are_names(classes)
    except (LookupError, TypeError, ArithmeticError):
        good = False
    if not good:
        raise ValueError("its arrays are not those of a store; copy it anew")
    return found


def _are_names(names: object) -> bool:
    """Whether names is a nonempty list of different, nonempty texts."""
    texts = isinstance(names, list) and all(isinstance(name, str) and name for name in names)
    return texts and 0 < len(set(names)) == len(names)  # type: ignore[arg-type, call-overload]


def _structure(arrays: Mapping[str, Any]) -> Structure:
    return Structure(
        arrays[EMBEDDING]["shape"][0],
        {name: _layer(array) for name, array in arrays.items() if name not in INDEX_ARRAYS},
        arrays[SPLIT]["attributes"]["names"],
        arrays[LABEL]["attributes"]["names"],
    )


def _layer(array: Mapping[str, Any]) -> LayerStructure:
    _, channels, rows, columns = array["shape"]
    sharding = array["codecs"][0]["configuration"]
    chunk = sharding["chunk_shape"][0]
    shard = array["chunk_grid"]["configuration"]["chunk_shape"][0] // chunk
    codec = sharding["codecs"][0]["configuration"]
    return LayerStructure((channels, rows, columns), Layout(chunk, shard), codec)


def _array_metadata(
    shape: list[int],
    chunk: list[int],
    data_type: str,
    fill_value: str | int,
    codecs: list[dict[str, Any]],
    names: list[str] | None = None,
    dimensions: Sequence[str] = DIMENSIONS[:1],
) -> dict[str, Any]:
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": shape,
        "data_type": data_type,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": chunk}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": fill_value,
        "codecs": codecs,
        "dimension_names": list(dimensions),
        "attributes": {} if names is None else {"names": names},
    }
