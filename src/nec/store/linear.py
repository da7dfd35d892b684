"""The codec for linear transforms: bands of quantized latents, entropy-coded by tables."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from nec.coding import Tables, decode, encode
from nec.store.base import Codec, Floats, Numbers, Symbols, checked_shape, counted, frozen_floats
from nec.store.packing import PLAIN, Packing, packing_of

SHOWN_BANDS = 3


@dataclass(frozen=True, eq=False)
class Band:
    """A block of M latents, at one position or at all of them.

    Args:
        steps: (M,) float32, quantizer steps.
        offsets: (M,) float32, values of symbol 0.
        basis: (M, D) float32, one row per latent; None: M is D and the basis is the identity.
        pooled: True: one position, the grid's mean, broadcast over the grid. False: all h * w.
    """

    steps: Floats
    offsets: Floats
    basis: Floats | None
    pooled: bool

    def __post_init__(self) -> None:
        for name in ("steps", "offsets", "basis"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, frozen_floats(getattr(self, name), name))
        count = len(self.steps)
        if self.steps.shape != (count,) or self.offsets.shape != (count,) or not count:
            raise ValueError(
                f"steps are {self.steps.shape} and offsets {self.offsets.shape}; a band has one "
                "of each per latent, and at least one latent"
            )

    @cached_property
    def synthesis(self) -> Floats | None:
        """The basis transposed, (D, M), C-ordered."""
        return None if self.basis is None else np.ascontiguousarray(self.basis.T)


@dataclass(frozen=True, eq=False, repr=False)
class LinearCodec(Codec):
    """Bands of quantized latents, each with steps, offsets and a basis, entropy-coded by tables.

    ``y_hat[:, p] = bias + sum over bands of basis.T @ (symbol * step + offset)``, in float32. The
    symbols of an image are those of its bands in order, each latent-major, positions row-major.

    Args:
        shape: (D, h, w) of one y_hat.
        bands: One band or more.
        bias: (D,) float32, added at every position.
        tables: One context per latent of each band, in order; None: a symbol is stored as int8.
        packing: How int8 symbols are stored; must be PLAIN if there are tables.
    """

    kind: ClassVar[str] = "linear"
    shape: tuple[int, int, int]
    bands: tuple[Band, ...]
    bias: Floats
    tables: Tables | None
    packing: Packing = PLAIN

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", checked_shape(self.shape))
        object.__setattr__(self, "bands", tuple(self.bands))
        object.__setattr__(self, "bias", frozen_floats(self.bias, "bias"))
        channels = self.shape[0]
        if self.bias.shape != (channels,) or not self.bands:
            raise ValueError(
                f"bias is {self.bias.shape} with {len(self.bands)} bands; shape {self.shape} "
                f"takes ({channels},) and at least one band"
            )
        for band in self.bands:
            latents = len(band.steps)
            found = (latents, latents) if band.basis is None else band.basis.shape
            if found != (latents, channels):
                raise ValueError(
                    f"a band of {latents} latents has the basis {found}; shape {self.shape} takes "
                    f"({latents}, {channels}), or none where there are {channels} latents"
                )
        latents = sum(len(band.steps) for band in self.bands)
        if self.tables is not None and len(self.tables.offsets) != latents:
            raise ValueError(
                f"tables have {len(self.tables.offsets)} contexts; the bands have {latents} "
                "latents, one context each"
            )
        if self.tables is not None and self.packing != PLAIN:
            raise ValueError(f"tables code symbols, and {self.packing} packs bytes; give one alone")

    @property
    def length(self) -> int:
        """Sum over bands of latents times positions."""
        return sum(len(band.steps) * self._positions(band) for band in self.bands)

    @cached_property
    def contexts(self) -> NDArray[np.int64]:
        """(L,) context of each symbol: the number of its latent, counted through all bands."""
        latents = [len(band.steps) for band in self.bands]
        repeats = np.repeat([self._positions(band) for band in self.bands], latents)
        return np.repeat(np.arange(sum(latents)), repeats)

    def encode(self, symbols: Symbols) -> list[bytes]:
        """Symbols (N, L) -> streams: coded by the tables, or one packed byte per symbol."""
        symbols = self.check(symbols)
        if self.tables is not None:
            return encode(symbols, self.tables, self.contexts)
        if ((symbols < -128) | (symbols > 127)).any():
            raise ValueError(
                f"symbols reach from {symbols.min()} to {symbols.max()}; a codec without tables "
                "stores -128..127, give it tables or larger steps"
            )
        return self.packing.pack(symbols.astype(np.int8))

    def code_length(self, symbols: Symbols) -> NDArray[np.float64]:
        """Ideal bits (N,) under the tables or, without tables, the bits of the streams."""
        if self.tables is None:
            return super().code_length(symbols)
        return self.tables.code_length(self.check(symbols), self.contexts)

    def decode(self, streams: Sequence[bytes]) -> Symbols:
        """Streams -> symbols (N, L)."""
        if self.tables is None:
            return self.packing.unpack(streams, np.dtype(np.int8), self.length)
        return decode(list(streams), self.tables, self.contexts, self.length)

    def dequantize(self, symbols: Symbols) -> Floats:
        """Symbols (N, L) -> y_hat (N, D, h, w).

        Uses one matrix product of fixed shape per image and band: a product over a batch may add
        in another order, and then an image would depend on the others in its batch.
        """
        symbols = self.check(symbols)
        channels, rows, columns = self.shape
        y_hat = np.empty((len(symbols), channels, rows * columns), dtype=np.float32)
        for image, out in zip(symbols, y_hat, strict=True):
            out[:] = self.bias[:, None]
            start = 0
            for band in self.bands:
                stop = start + len(band.steps) * self._positions(band)
                latents = image[start:stop].reshape(len(band.steps), -1).astype(np.float32)
                latents = latents * band.steps[:, None] + band.offsets[:, None]  # (M, positions)
                out += latents if band.synthesis is None else band.synthesis @ latents
                start = stop
        return y_hat.reshape(-1, *self.shape)

    def rows(self) -> Iterator[tuple[str, str]]:
        """Yield the first bands, and that there are no tables if there are none."""
        bands = [
            f"{counted(len(band.steps), 'latent')} "
            + ("pooled" if band.pooled else f"at {self.grid}")
            + (", no basis" if band.basis is None else ", with a basis")
            for band in self.bands
        ]
        more = f"; {len(bands) - SHOWN_BANDS} more" if len(bands) > SHOWN_BANDS else ""
        yield "bands", "; ".join(bands[:SHOWN_BANDS]) + more
        if self.tables is None:
            yield "tables", "none: a symbol is a byte"

    def _positions(self, band: Band) -> int:
        return 1 if band.pooled else self.shape[1] * self.shape[2]

    def _parts(self) -> tuple[dict[str, Any], bytes]:
        header = {
            "bands": [
                {"latents": len(b.steps), "pooled": b.pooled, "basis": b.basis is not None}
                for b in self.bands
            ],
            "tables": self.tables is not None,
            **self.packing.header,
        }
        arrays = [self.bias]
        for band in self.bands:
            arrays += [band.steps, band.offsets, *([] if band.basis is None else [band.basis])]
        numbers = b"".join(array.astype("<f4").tobytes() for array in arrays)
        return header, numbers + (b"" if self.tables is None else self.tables.plain)

    @classmethod
    def restore(cls, header: Mapping[str, Any], numbers: Numbers) -> "LinearCodec":
        """Restore the codec from what `_parts` returned."""
        channels = header["shape"][0]
        bias = numbers.take("<f4", channels)
        bands = []
        for band in header["bands"]:
            count = band["latents"]
            steps, offsets = numbers.take("<f4", count), numbers.take("<f4", count)
            basis = numbers.take("<f4", count, channels) if band["basis"] else None
            bands.append(Band(steps, offsets, basis, band["pooled"]))
        tables = Tables.from_plain(numbers.rest()) if header["tables"] else None
        return cls(tuple(header["shape"]), tuple(bands), bias, tables, packing_of(header))
