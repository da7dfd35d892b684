"""The codecs by name, and the Zarr v3 codec that carries one: a chunk <-> embeddings."""

import base64
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from zarr.abc.codec import ArrayBytesCodec, ArrayBytesCodecPartialDecodeMixin
from zarr.abc.store import ByteGetter
from zarr.core.array_spec import ArraySpec
from zarr.core.buffer import Buffer, NDBuffer
from zarr.registry import register_codec

from nec.store.base import LARGEST_NUMBERS, Codec, Floats, Numbers, config_hash
from nec.store.chunks import read_chunk
from nec.store.linear import Band, LinearCodec
from nec.store.product import ProductCodec
from nec.store.raw import RawCodec
from nec.store.schema import check_version
from nec.store.sums import Restore, SumCodec
from nec.store.transform import TransformCodec
from nec.store.vectors import VectorCodec

__all__ = [
    "Band",
    "Codec",
    "EmbeddingCodec",
    "LinearCodec",
    "ProductCodec",
    "RawCodec",
    "SumCodec",
    "TransformCodec",
    "VectorCodec",
    "codec_from_config",
]

KINDS: dict[str, Restore] = {
    RawCodec.kind: RawCodec.restore,
    LinearCodec.kind: LinearCodec.restore,
    ProductCodec.kind: ProductCodec.restore,
    TransformCodec.kind: TransformCodec.restore,
    VectorCodec.kind: VectorCodec.restore,
    SumCodec.kind: lambda header, numbers: SumCodec.restore(header, numbers, KINDS),
}


def codec_from_config(config: Mapping[str, Any]) -> Codec:
    """Restore a codec from its configuration.

    Raises:
        ValueError: If its version or kind is not one that this nec reads, or its hash differs.
    """
    check_version(config.get("version"), "a codec")
    kind = config.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        raise ValueError(
            f"a codec is of kind {kind!r}, this nec reads {sorted(KINDS)}; upgrade nec"
        )
    header = {k: v for k, v in config.items() if k not in ("data", "sha256")}
    try:
        data = _inflated(base64.b64decode(config.get("data", ""), validate=True))
    except (TypeError, ValueError, zlib.error) as error:
        raise ValueError(
            f"the data of a codec cannot be inflated ({error}); copy it anew"
        ) from None
    if config_hash(header, data) != config.get("sha256"):
        raise ValueError(
            f"a codec hashes to {config_hash(header, data)[:12]}, its configuration says "
            f"{str(config.get('sha256'))[:12]}: it was changed; copy it anew"
        )
    numbers = Numbers(data)
    try:
        codec = KINDS[kind](header, numbers)
        numbers.end()
        codec.check_length()
    except (LookupError, TypeError, OverflowError, MemoryError) as error:
        raise ValueError(
            f"a codec of kind {kind!r} cannot be made: {error}; copy it anew"
        ) from None
    if codec.sha256 != config["sha256"]:
        raise ValueError(f"a codec of kind {kind!r} says more than its kind does; copy it anew")
    return codec


def _inflated(data: bytes) -> bytes:
    """Inflate exactly one zlib stream, up to the size limit of a codec's numbers."""
    inflate = zlib.decompressobj()
    numbers = inflate.decompress(data, LARGEST_NUMBERS)
    if not inflate.eof or inflate.unused_data:
        raise ValueError(f"it is not one stream of at most {LARGEST_NUMBERS} bytes")
    return numbers


@dataclass(frozen=True, eq=False)
class EmbeddingCodec(ArrayBytesCodec, ArrayBytesCodecPartialDecodeMixin):
    """Zarr's view of a codec: decodes chunks of embeddings, for `zarr.open_group` and xarray.

    It is the only codec inside a shard, so zarr passes selections to it: to read one image, its
    chunk is read and checked, but only that image is decoded. It does not encode: a zarr array
    takes floats, and only a bottleneck knows their symbols.

    Args:
        codec: Turns streams into y_hat.
    """

    codec: Codec
    is_fixed_size = False

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "EmbeddingCodec":
        """Restore from zarr.json."""
        return cls(codec_from_config(data["configuration"]))

    def to_dict(self) -> dict[str, Any]:
        """Return the entry of this codec in zarr.json."""
        return {"name": "nec", "configuration": self.codec.to_config()}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, EmbeddingCodec) and self.codec.sha256 == other.codec.sha256

    def __hash__(self) -> int:
        return hash(self.codec.sha256)

    def validate(self, *, shape: tuple[int, ...], **_: Any) -> None:
        """Raise ValueError if the array's images do not have the codec's shape."""
        if tuple(shape[1:]) != self.codec.shape:
            raise ValueError(f"an array of shape {shape} does not hold embeddings of {self.codec}")

    def compute_encoded_size(self, input_byte_length: int, chunk_spec: ArraySpec) -> int:
        """Raise NotImplementedError: the size is not known before encoding."""
        raise NotImplementedError("the size of an encoded chunk depends on its content")

    async def _decode_single(self, chunk_bytes: Buffer, chunk_spec: ArraySpec) -> NDBuffer:
        images = np.arange(chunk_spec.shape[0])
        values = decode_images(self.codec, chunk_bytes.to_bytes(), len(images), images)
        return chunk_spec.prototype.nd_buffer.from_numpy_array(values)

    async def _decode_partial_single(
        self, byte_getter: ByteGetter, selection: Any, chunk_spec: ArraySpec
    ) -> NDBuffer | None:
        chunk_bytes = await byte_getter.get(prototype=chunk_spec.prototype)
        if chunk_bytes is None:
            return None
        # zarr selects images by an int, a slice, or integers of any shape.
        chosen = np.arange(chunk_spec.shape[0])[selection[0]]
        images, places = np.unique(chosen, return_inverse=True)
        most = chunk_spec.shape[0]
        values = decode_images(self.codec, chunk_bytes.to_bytes(), most, images)
        place = places.reshape(np.shape(chosen)) if np.ndim(chosen) else int(places.item())
        if isinstance(selection[0], slice):
            picked = values[place][(slice(None), *selection[1:])]
        else:
            picked = values[(place, *selection[1:])]
        return chunk_spec.prototype.nd_buffer.from_numpy_array(picked)

    async def _encode_single(self, chunk_data: NDBuffer, chunk_spec: ArraySpec) -> Buffer | None:
        raise NotImplementedError(
            "values cannot be assigned to an array of nec's codec: it stores symbols, which a "
            "bottleneck makes; write a new store with EmbeddingStore.create and append"
        )


def decode_images(codec: Codec, chunk: bytes, most: int, images: NDArray[np.int64]) -> Floats:
    """Check a chunk and decode some of its images.

    Args:
        codec: Codec that wrote the streams.
        chunk: All bytes of the chunk.
        most: Largest number of images that the chunk may hold.
        images: (n,) positions in the chunk.

    Returns:
        (n, D, h, w) float32; NaN at positions where the chunk holds no image.
    """
    _, streams = read_chunk(chunk, most)  # zarr does not say which chunk this is
    held = images < len(streams)
    y_hat = np.full((len(images), *codec.shape), np.nan, dtype=np.float32)
    if held.any():
        y_hat[held] = codec.dequantize(codec.decode([streams[i] for i in images[held]]))
    return y_hat


register_codec("nec", EmbeddingCodec)
