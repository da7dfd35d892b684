"""The contract of a codec: symbols <-> bytes and symbols -> y_hat, in numpy.

A codec is frozen: it holds every number that decoding takes, and its configuration (JSON, with a
sha256) is all that has to travel with the bytes.
"""

import base64
import hashlib
import zlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from nec.coding import CorruptStreamError
from nec.store.schema import FORMAT_VERSION, canonical

# Bytes of a codec before they are deflated: a bound on what a file can make us allocate.
LARGEST_NUMBERS = 1 << 28
# Values of an embedding, and symbols of an image: likewise, whatever a shape says.
LARGEST_LENGTH = 1 << 26

Floats = NDArray[np.float32]
Symbols = NDArray[np.int32]


class Codec(ABC):
    """Symbols of images <-> streams of bytes, and symbols -> embeddings.

    Attributes:
        kind: The name of the class in a configuration.
        shape: (D, h, w) of one y_hat.
        length: L, symbols per image.
    """

    kind: ClassVar[str]
    shape: tuple[int, int, int]

    @property
    @abstractmethod
    def length(self) -> int:
        """L, symbols per image."""

    @abstractmethod
    def encode(self, symbols: Symbols) -> list[bytes]:
        """Symbols (N, L) int32 -> N streams."""

    @abstractmethod
    def decode(self, streams: Sequence[bytes]) -> Symbols:
        """N streams -> symbols (N, L) int32; CorruptStreamError if one cannot be a stream."""

    @abstractmethod
    def dequantize(self, symbols: Symbols) -> Floats:
        """Symbols (N, L) int32 -> y_hat (N, D, h, w) float32, the same for every batch size."""

    def code_length(self, symbols: Symbols) -> NDArray[np.float64]:
        """Bits (N,) of symbols (N, L): under the tables, or, where there are none, of streams."""
        return np.array([8.0 * len(stream) for stream in self.encode(symbols)])

    def code_counts(self, symbols: Symbols) -> NDArray[np.int64]:
        """How often each code of a codebook of tokens occurs in images (N, L): (N, K).

        K is 0 where symbols are not such codes.
        """
        return np.zeros((len(symbols), 0), dtype=np.int64)

    @abstractmethod
    def _parts(self) -> tuple[dict[str, Any], bytes]:
        """What tells this codec from others of its kind: a header (JSON), and its numbers."""

    def to_config(self) -> dict[str, Any]:
        """The configuration (JSON) that `codec_from_config` restores this codec from."""
        return dict(self._config)

    @cached_property
    def sha256(self) -> str:
        """The identity of the codec, over its header and its numbers."""
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
        """Header (JSON) and numbers: all that a codec is."""
        header, numbers = self._parts()
        own = {"version": FORMAT_VERSION, "kind": self.kind, "shape": list(self.shape)}
        return {**own, **header}, numbers

    def check_length(self) -> None:
        """Refuse more symbols of an image than a reader takes; ValueError."""
        if self.length > LARGEST_LENGTH:
            raise ValueError(
                f"{type(self).__name__} has {self.length} symbols of an image; a codec has at most "
                f"{LARGEST_LENGTH}, take fewer latents or cut images into tiles"
            )

    def check(self, symbols: Symbols) -> Symbols:
        """Symbols as C-ordered int32 (N, L).

        Raises:
            ValueError: If they are not integers, not L per image, or too large for int32.
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

    def __repr__(self) -> str:
        return f"{type(self).__name__}(shape={self.shape}, sha256={self.sha256[:12]})"


def config_hash(header: Mapping[str, Any], numbers: bytes) -> str:
    """Over the header and the inflated numbers, so that no deflate implementation is part of it."""
    return hashlib.sha256(canonical(dict(header)) + b"\0" + numbers).hexdigest()


def checked_shape(shape: Sequence[int]) -> tuple[int, int, int]:
    """The shape as three ints; ValueError if it is not (D, h, w)."""
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
    """A read-only copy in float32; ValueError where a value is not a number."""
    copy = np.array(values, dtype=np.float32, order="C")
    if not np.isfinite(copy).all():
        raise ValueError(f"{name} holds NaN or infinities; every number of a codec is finite")
    copy.setflags(write=False)
    return copy


def frozen_halves(values: NDArray[Any], name: str) -> Floats:
    """A read-only copy in float32 of values rounded to float16, as they are written."""
    with np.errstate(over="ignore"):
        return frozen_floats(np.asarray(values).astype(np.float16), name)


def stack_streams(streams: Sequence[bytes], dtype: np.dtype[Any], length: int) -> Symbols:
    """Streams of `length` fixed-size symbols each -> (N, length) int32."""
    size = length * dtype.itemsize
    for stream in streams:
        if len(stream) != size:
            raise CorruptStreamError(f"a stream has {len(stream)} bytes, this codec's have {size}")
    return np.frombuffer(b"".join(streams), dtype).reshape(len(streams), length).astype(np.int32)
