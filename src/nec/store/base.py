"""The contract of a codec: symbols <-> bytes and symbols -> y_hat, in numpy.

A codec is frozen: it holds every number that decoding needs, and its configuration (JSON, with a
sha256) is all that has to travel with the bytes.
"""

import base64
import hashlib
import math
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from operator import index
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from nec.coding import CorruptStreamError, Neighbours, Tables
from nec.store.schema import FORMAT_VERSION, canonical

# Bytes of a codec's numbers before deflating: bounds what a file can make us allocate.
LARGEST_NUMBERS = 1 << 28
# Values of an embedding, and symbols of an image: the same bound, whatever a shape says.
LARGEST_LENGTH = 1 << 26

Floats = NDArray[np.float32]
Symbols = NDArray[np.int32]


class Codec(ABC):
    """Symbols of images <-> streams of bytes, and symbols -> embeddings.

    Attributes:
        kind: Name of the class in a configuration.
        shape: (D, h, w) of one y_hat.
        tables: What symbols are coded by; None: they have a fixed size, or parts code them.
        length: L, symbols per image.
    """

    kind: ClassVar[str]
    shape: tuple[int, int, int]
    tables: Tables | Neighbours | None

    @property
    @abstractmethod
    def length(self) -> int:
        """L, symbols per image."""

    @abstractmethod
    def encode(self, symbols: Symbols) -> list[bytes]:
        """Symbols (N, L) int32 -> N streams."""

    @abstractmethod
    def decode(self, streams: Sequence[bytes]) -> Symbols:
        """N streams -> symbols (N, L) int32; CorruptStreamError if one is not a valid stream."""

    @abstractmethod
    def dequantize(self, symbols: Symbols) -> Floats:
        """Symbols (N, L) int32 -> y_hat (N, D, h, w) float32, the same for every batch size."""

    def code_length(self, symbols: Symbols) -> NDArray[np.float64]:
        """Bits (N,) of symbols (N, L): ideal bits under tables, else the bits of the streams."""
        return np.array([8.0 * len(stream) for stream in self.encode(symbols)])

    def code_counts(self, symbols: Symbols) -> NDArray[np.int64]:
        """Count how often each code of a token codebook occurs in images (N, L): (N, K).

        K is 0 if the symbols are not such codes.
        """
        return np.zeros((len(symbols), 0), dtype=np.int64)

    def rows(self) -> Iterator[tuple[str, str]]:
        """Yield names and values of what `nec inspect` shows of this kind of codec alone."""
        yield from ()

    @abstractmethod
    def _parts(self) -> tuple[dict[str, Any], bytes]:
        """Return what distinguishes this codec within its kind: a header (JSON) and numbers."""

    def to_config(self) -> dict[str, Any]:
        """Return the configuration (JSON) from which `codec_from_config` restores this codec."""
        return dict(self._config)

    @cached_property
    def sha256(self) -> str:
        """Identity of the codec: hash of its header and its numbers."""
        return config_hash(*self.described())

    @cached_property
    def _config(self) -> dict[str, Any]:
        header, numbers = self.described()
        if len(numbers) > LARGEST_NUMBERS:
            raise ValueError(
                f"{type(self).__name__} has {len(numbers)} bytes of numbers; a configuration holds "
                f"{LARGEST_NUMBERS}, take fewer latents or smaller tables"
            )
        self.check_length()
        data = base64.b64encode(zlib.compress(numbers, 9)).decode("ascii")
        return {**header, "data": data, "sha256": self.sha256}

    def described(self) -> tuple[dict[str, Any], bytes]:
        """Return the header (JSON) and the numbers, which define the codec completely."""
        header, numbers = self._parts()
        own = {"version": FORMAT_VERSION, "kind": self.kind, "shape": list(self.shape)}
        return {**own, **header}, numbers

    def check_length(self) -> None:
        """Raise ValueError if an image has more symbols than a reader accepts."""
        if self.length > LARGEST_LENGTH:
            raise ValueError(
                f"{type(self).__name__} has {self.length} symbols of an image; a codec has at most "
                f"{LARGEST_LENGTH}, take fewer latents or cut images into tiles"
            )

    def check(self, symbols: Symbols) -> Symbols:
        """Return symbols as C-ordered int32 (N, L).

        Raises:
            ValueError: If they are not integers, not L per image, or do not fit int32.
        """
        symbols = np.asarray(symbols)
        if symbols.ndim != 2 or symbols.shape[1] != self.length or symbols.dtype.kind not in "iu":
            raise ValueError(
                f"symbols are {symbols.dtype} {symbols.shape}; {self!r} takes integers "
                f"(N, {self.length})"
            )
        if not np.can_cast(symbols.dtype, np.int32):
            limits = np.iinfo(np.int32)
            if symbols.size and (symbols.min() < limits.min or symbols.max() > limits.max):
                raise ValueError(
                    f"symbols reach from {symbols.min()} to {symbols.max()}; a symbol is an int32"
                )
        return np.ascontiguousarray(symbols, dtype=np.int32)

    @property
    def grid(self) -> str:
        """The positions of an image, in words."""
        return f"{self.shape[1]} x {self.shape[2]} positions"

    def __repr__(self) -> str:
        return f"{type(self).__name__}(shape={self.shape}, sha256={self.sha256[:12]})"


class Numbers:
    """The numbers of a codec, to be taken in the order in which they were written.

    Args:
        data: What `Codec.described` returned beside the header.
    """

    def __init__(self, data: bytes) -> None:
        self._left = memoryview(data)

    def take(self, dtype: str, *shape: int) -> NDArray[Any]:
        """Return the next numbers, read-only; ValueError if there are fewer than the shape has."""
        size = math.prod(map(index, shape)) * np.dtype(dtype).itemsize
        if not 0 <= size <= len(self._left):
            raise self._misfit(size)
        taken, self._left = self._left[:size], self._left[size:]
        return np.frombuffer(taken, dtype).reshape(shape)

    def rest(self) -> bytes:
        """Return all bytes that are left."""
        return self.take("u1", len(self._left)).tobytes()

    def end(self) -> None:
        """Raise ValueError if bytes are left."""
        if self._left:
            raise self._misfit(0)

    def _misfit(self, size: int) -> ValueError:
        return ValueError(
            f"a codec has {len(self._left)} more bytes of numbers, its header asks for {size}; "
            "copy it anew"
        )


def config_hash(header: Mapping[str, Any], numbers: bytes) -> str:
    """Hash the header and the inflated numbers, so that no deflate implementation matters."""
    return hashlib.sha256(canonical(dict(header)) + b"\0" + numbers).hexdigest()


def checked_shape(shape: Sequence[int]) -> tuple[int, int, int]:
    """Return the shape as three ints; ValueError if it is not (D, h, w) or has too many values."""
    if len(shape) != 3 or min(shape) < 1:
        raise ValueError(f"shape is {tuple(shape)}; an embedding is (D, h, w), each at least 1")
    channels, rows, columns = (int(size) for size in shape)
    if channels * rows * columns > LARGEST_LENGTH:
        raise ValueError(
            f"shape is {tuple(shape)}; an embedding has at most {LARGEST_LENGTH} values, "
            "cut images into tiles"
        )
    return channels, rows, columns


def frozen_floats(values: NDArray[Any], name: str) -> Floats:
    """Return a read-only float32 copy; ValueError if a value is not finite."""
    copy = np.array(values, dtype=np.float32, order="C")
    if not np.isfinite(copy).all():
        raise ValueError(f"{name} holds NaN or infinities; every number of a codec is finite")
    copy.setflags(write=False)
    return copy


def frozen_halves(values: NDArray[Any], name: str) -> Floats:
    """Return a read-only float32 copy of the values, rounded to float16 as they are written."""
    with np.errstate(over="ignore"):
        return frozen_floats(np.asarray(values).astype(np.float16), name)


def counted(number: int, noun: str) -> str:
    """Return a number and its noun, plural if need be."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def stack_streams(streams: Sequence[bytes], dtype: np.dtype[Any], length: int) -> Symbols:
    """Streams of `length` fixed-size symbols each -> (N, length) int32."""
    size = length * dtype.itemsize
    for stream in streams:
        if len(stream) != size:
            raise CorruptStreamError(f"a stream has {len(stream)} bytes, this codec's have {size}")
    return np.frombuffer(b"".join(streams), dtype).reshape(len(streams), length).astype(np.int32)
