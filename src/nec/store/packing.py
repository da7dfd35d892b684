"""Symbols of a fixed size as bytes: unchanged, or compressed with zstd."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numcodecs import Zstd as Compressor
from numpy.typing import NDArray

from nec.coding import CorruptStreamError
from nec.store.base import Symbols, stack_streams

# zstd's highest level below those that take gigabytes of memory.
LEVEL = 19
# Bytes of an image before compression; up to this size, frames of that level begin with `_header`.
LARGEST_IMAGE = 1 << 23
MAGIC = bytes.fromhex("28b52ffd")


class Packing(ABC):
    """How a row of symbols of a fixed size becomes a stream."""

    header: ClassVar[Mapping[str, Any]]  # its entry in a codec's configuration

    @abstractmethod
    def pack(self, values: NDArray[Any]) -> list[bytes]:
        """Values (N, L), little-endian -> N streams."""

    @abstractmethod
    def unpack(self, streams: Sequence[bytes], dtype: np.dtype[Any], length: int) -> Symbols:
        """N streams -> values (N, length) int32; CorruptStreamError if a stream is not valid."""


@dataclass(frozen=True)
class Plain(Packing):
    """Stores the values' bytes unchanged, one value after the other."""

    header: ClassVar[Mapping[str, Any]] = {}

    def pack(self, values: NDArray[Any]) -> list[bytes]:
        """Values (N, L) -> their bytes, one stream per row."""
        return [row.tobytes() for row in values]

    def unpack(self, streams: Sequence[bytes], dtype: np.dtype[Any], length: int) -> Symbols:
        """N streams of bytes -> values (N, length) int32."""
        return stack_streams(streams, dtype, length)


@dataclass(frozen=True)
class Zstd(Packing):
    """Compresses each image with zstd: the first byte of all values, then the second, ....

    A byte resembles bytes at the same place of other values more than its neighbours in its own.
    The header of a zstd frame is the same for all images, so it is left off.
    """

    header: ClassVar[Mapping[str, Any]] = {"packing": "zstd"}

    def pack(self, values: NDArray[Any]) -> list[bytes]:
        """Values (N, L) -> zstd frames without their headers."""
        size = values.shape[1] * values.itemsize
        head, compress = _header(size), Compressor(level=LEVEL).encode
        planes = values.view(np.uint8).reshape(*values.shape, values.itemsize).swapaxes(1, 2)
        return [compress(np.ascontiguousarray(row)).removeprefix(head) for row in planes]

    def unpack(self, streams: Sequence[bytes], dtype: np.dtype[Any], length: int) -> Symbols:
        """N frames -> values (N, length) int32; a stream never inflates to more than its row."""
        size = length * dtype.itemsize
        head = _header(size)
        planes = np.empty((len(streams), size), np.uint8)
        for stream, row in zip(streams, planes, strict=True):
            try:
                Compressor().decode(head + stream, out=row)
            except (RuntimeError, ValueError) as error:
                raise CorruptStreamError(
                    f"a stream of {len(stream)} bytes is not zstd's of {size}: {error}"
                ) from None
        values = planes.reshape(len(streams), dtype.itemsize, length).swapaxes(1, 2)
        return np.ascontiguousarray(values).view(dtype)[..., 0].astype(np.int32)


PLAIN = Plain()
PACKINGS: dict[str, Packing] = {"zstd": Zstd()}


def packing_of(header: Mapping[str, Any]) -> Packing:
    """Return the packing that a codec's configuration names; PLAIN if it names none."""
    return PACKINGS[header["packing"]] if "packing" in header else PLAIN


def _header(size: int) -> bytes:
    """Header of a single-segment zstd frame without checksum and dictionary (RFC 8878, 3.1.1.1)."""
    if size > LARGEST_IMAGE:
        raise ValueError(
            f"an image has {size} bytes; zstd packs at most {LARGEST_IMAGE}, store them plain"
        )
    if size < 256:
        return MAGIC + b"\x20" + size.to_bytes(1, "little")
    if size < 256 + (1 << 16):
        return MAGIC + b"\x60" + (size - 256).to_bytes(2, "little")
    return MAGIC + b"\xa0" + size.to_bytes(4, "little")
