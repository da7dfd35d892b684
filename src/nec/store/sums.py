"""The codec of a sum: each codec adds what the ones before it leave of an embedding."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from nec.coding import CorruptStreamError
from nec.store.base import Codec, Floats, Numbers, Symbols, checked_shape
from nec.store.lengths import read_varint, varint

Restore = Callable[[Mapping[str, Any], Numbers], Codec]


@dataclass(frozen=True, eq=False, repr=False)
class SumCodec(Codec):
    """Parts of one shape whose y_hat are added up, in float32 and in order.

    The symbols of an image are those of its parts, concatenated. So are the streams, each but the
    last preceded by its length as a varint.

    Args:
        parts: Two codecs or more.
    """

    kind: ClassVar[str] = "sum"
    tables = None
    parts: tuple[Codec, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "parts", tuple(self.parts))
        shapes = {part.shape for part in self.parts}
        if len(self.parts) < 2 or len(shapes) != 1:
            raise ValueError(
                f"a sum has {len(self.parts)} parts of shapes {sorted(shapes)}; it takes two or "
                "more of one shape"
            )
        object.__setattr__(self, "shape", checked_shape(self.parts[0].shape))

    @property
    def length(self) -> int:
        """Number of symbols of all parts."""
        return sum(part.length for part in self.parts)

    def encode(self, symbols: Symbols) -> list[bytes]:
        """Symbols (N, L) -> streams."""
        parts = [
            part.encode(own) for part, own in zip(self.parts, self._split(symbols), strict=True)
        ]
        return [_joined(streams) for streams in zip(*parts, strict=True)]

    def code_length(self, symbols: Symbols) -> NDArray[np.float64]:
        """Bits (N,) of all parts, and of the lengths that precede all but the last."""
        split = zip(self.parts, self._split(symbols), strict=True)
        bits = [part.code_length(own) for part, own in split]
        lengths = [np.array([8.0 * len(varint(round(n / 8))) for n in own]) for own in bits[:-1]]
        return sum(lengths, start=sum(bits[1:], start=bits[0]))

    def decode(self, streams: Sequence[bytes]) -> Symbols:
        """Streams -> symbols (N, L)."""
        rows = [_parted(stream, len(self.parts)) for stream in streams]
        columns = zip(*rows, strict=True) if rows else [()] * len(self.parts)
        found = [part.decode(list(own)) for part, own in zip(self.parts, columns, strict=True)]
        return np.concatenate(found, axis=1)

    def dequantize(self, symbols: Symbols) -> Floats:
        """Symbols (N, L) -> y_hat (N, D, h, w), the sum of the parts' y_hat."""
        first, *others = zip(self.parts, self._split(symbols), strict=True)
        y_hat = first[0].dequantize(first[1])
        for part, own in others:
            y_hat += part.dequantize(own)
        return y_hat

    def code_counts(self, symbols: Symbols) -> NDArray[np.int64]:
        """Count the codes of each part: (N, sum of the parts' K)."""
        split = zip(self.parts, self._split(symbols), strict=True)
        return np.concatenate([part.code_counts(own) for part, own in split], axis=1)

    def rows(self) -> Iterator[tuple[str, str]]:
        """Yield the kinds of the parts."""
        yield "parts", ", then ".join(part.kind for part in self.parts)

    def _split(self, symbols: Symbols) -> list[Symbols]:
        """Split symbols (N, L) into those of each part."""
        edges = np.cumsum([part.length for part in self.parts])[:-1]
        return np.split(self.check(symbols), edges, axis=1)

    def _parts(self) -> tuple[dict[str, Any], bytes]:
        described = [part.described() for part in self.parts]
        headers = [{"header": header, "bytes": len(own)} for header, own in described]
        return {"parts": headers}, b"".join(own for _, own in described)

    @classmethod
    def restore(
        cls, header: Mapping[str, Any], numbers: Numbers, kinds: Mapping[str, Restore]
    ) -> "SumCodec":
        """Restore the codec from what `_parts` returned."""
        parts = []
        for part in header["parts"]:
            kind = part["header"]["kind"]
            if kind == cls.kind:
                raise ValueError("a sum has a sum, not the numbers of its parts; copy it anew")
            own = Numbers(numbers.take("u1", part["bytes"]).tobytes())
            parts.append(kinds[kind](part["header"], own))
            own.end()
        return cls(tuple(parts))


def _joined(streams: Sequence[bytes]) -> bytes:
    """Concatenate streams, each but the last preceded by its length."""
    *first, last = streams
    return b"".join([*(varint(len(stream)) + stream for stream in first), last])


def _parted(data: bytes, count: int) -> list[bytes]:
    """Take apart the streams that `_joined` concatenated."""
    streams, start = [], 0
    for _ in range(count - 1):
        size, start = read_varint(data, start)
        if start + size > len(data):
            raise CorruptStreamError("a stream ends before the first part of its sum does")
        streams.append(data[start : start + size])
        start += size
    return [*streams, data[start:]]
