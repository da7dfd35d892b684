"""The codec that stores floats unchanged."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from nec.store.base import Codec, Floats, Numbers, Symbols, checked_shape
from nec.store.packing import PLAIN, Packing, packing_of


@dataclass(frozen=True, eq=False, repr=False)
class RawCodec(Codec):
    """Stores floats unchanged: a symbol is the bit pattern of a value, a stream the bytes of all.

    Symbols of embeddings y (n, D, h, w) are `y.reshape(n, -1).view(np.int32)` for float32, and
    `y.reshape(n, -1).view(np.uint16)` for float16.

    Args:
        shape: (D, h, w) of one y_hat.
        dtype: Stored type, "float32" or "float16"; y_hat is float32 in both cases, exactly.
        packing: How the bytes are stored.
    """

    kind: ClassVar[str] = "raw"
    tables = None
    shape: tuple[int, int, int]
    dtype: str
    packing: Packing = PLAIN

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", checked_shape(self.shape))
        if self.dtype not in ("float32", "float16"):
            raise ValueError(f"dtype is {self.dtype!r}; a raw codec stores float32 or float16")

    @property
    def length(self) -> int:
        """D * h * w."""
        return self.shape[0] * self.shape[1] * self.shape[2]

    def encode(self, symbols: Symbols) -> list[bytes]:
        """Bit patterns (N, L) -> their little-endian bytes, packed."""
        symbols = self.check(symbols)
        if self.dtype == "float16" and ((symbols < 0) | (symbols > 0xFFFF)).any():
            raise ValueError("a symbol is outside 0..65535, the bit patterns of float16")
        return self.packing.pack(symbols.astype(self._pattern))

    def decode(self, streams: Sequence[bytes]) -> Symbols:
        """Little-endian bytes, packed -> bit patterns (N, L)."""
        return self.packing.unpack(streams, self._pattern, self.length)

    def dequantize(self, symbols: Symbols) -> Floats:
        """Bit patterns (N, L) -> their values, y_hat (N, D, h, w) float32."""
        patterns = self.check(symbols).astype(self._pattern)
        values = patterns.view("<f2" if self.dtype == "float16" else "<f4")
        return values.astype(np.float32).reshape(-1, *self.shape)

    @property
    def _pattern(self) -> np.dtype[Any]:
        return np.dtype("<u2" if self.dtype == "float16" else "<i4")

    def _parts(self) -> tuple[dict[str, Any], bytes]:
        return {"dtype": self.dtype, **self.packing.header}, b""

    @classmethod
    def restore(cls, header: Mapping[str, Any], numbers: Numbers) -> "RawCodec":
        """Restore the codec from what `_parts` returned."""
        return cls(tuple(header["shape"]), header["dtype"], packing_of(header))
