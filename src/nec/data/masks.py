"""Masks: what their colours or numbers mean, and how many pixels of each class a cell holds."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from nec.data.images import IGNORED, ImageError
from nec.data.pillow import opened
from nec.data.rasters import reading

# What a pixel is until its colour is found in the legend; classes are numbers below.
UNKNOWN = 254
HEX = "0123456789ABCDEF"


class Legend(NamedTuple):
    """The code of each class in masks: all are colours (0xRRGGBB), or all are numbers.

    Attributes:
        names: Names of the classes, in the order of their class numbers.
        codes: Code of each class.
        ignored: Codes of pixels that count nowhere.
        coloured: Whether codes are colours.
    """

    names: tuple[str, ...]
    codes: tuple[int, ...]
    ignored: tuple[int, ...]
    coloured: bool

    @classmethod
    def of(cls, classes: Mapping[str, str | int], ignored: Sequence[str | int] | None) -> "Legend":
        """Make a legend from its written form: colours as "#RRGGBB", numbers as such.

        By default IGNORED is ignored if classes are other numbers, and nothing if they are colours.

        Raises:
            ValueError: Fewer than two classes or more than UNKNOWN, a code used twice, numbers that
                are not whole, or colours among numbers.
        """
        if ignored is None:
            taken = any(isinstance(c, str) or c == IGNORED for c in classes.values())
            ignored = () if taken else (IGNORED,)
        written = [*classes.values(), *ignored]
        coloured = any(isinstance(code, str) for code in written)
        codes = tuple(_code(code, coloured) for code in written)
        if len(classes) < 2:
            raise ValueError(
                f"data.legend names {len(classes)} classes; masks need two or more, set "
                "data.legend={water: 0, land: 1} or, by colour, {water: '#E2A929', ...}"
            )
        if len(classes) > UNKNOWN:
            raise ValueError(
                f"data.legend names {len(classes)} classes; masks have {UNKNOWN} at most, put "
                "those that do not matter into data.ignored"
            )
        if twice := [w for w, code in zip(written, codes, strict=True) if codes.count(code) > 1]:
            raise ValueError(f"{twice[0]} stands twice in data.legend and data.ignored; keep one")
        return cls(tuple(classes), codes[: len(classes)], codes[len(classes) :], coloured)

    def read(self, path: Path) -> np.ndarray:
        """Read the class numbers of a mask, (H, W) uint8, IGNORED where pixels count nowhere.

        Raises:
            ImageError: The file cannot be read, or has codes that the legend does not know.
        """
        with reading(path), opened(path) as image:
            found = self._codes(path, image)  # (H, W) int32
        classes = np.full(found.shape, UNKNOWN, np.uint8)
        for number, code in enumerate(self.codes):
            classes[found == code] = number
        for code in self.ignored:
            classes[found == code] = IGNORED
        if (unknown := found[classes == UNKNOWN]).size:
            code = f"#{unknown[0]:06X}" if self.coloured else unknown[0]
            raise ImageError(
                f"mask {path} has {unknown.size} pixels of {code}, which the legend does not "
                "know; add it to data.legend or data.ignored"
            )
        return classes

    def _codes(self, path: Path, image: Image.Image) -> np.ndarray:
        if self.coloured:
            red, green, blue = np.moveaxis(np.asarray(image.convert("RGB"), np.int32), 2, 0)
            return (red << 16) | (green << 8) | blue
        if len(image.getbands()) != 1:
            raise ImageError(
                f"mask {path} has {len(image.getbands())} bands, class numbers have one; give "
                "data.legend={NAME: '#RRGGBB', ...} if its colours are classes"
            )
        found = np.asarray(image)
        with np.errstate(invalid="ignore"):  # NaN, and what is too large
            codes = found.astype(np.int32)
        if (broken := found[codes != found]).size:
            raise ImageError(
                f"mask {path} holds {broken[0]:g}, class numbers are whole; write it as integers"
            )
        return codes


def _code(written: str | int, coloured: bool) -> int:
    """A colour or a number of the legend as an integer."""
    if not coloured:
        if not isinstance(written, int) or isinstance(written, bool):
            raise ValueError(
                f"{written!r} in data.legend or data.ignored is not a whole number, which a mask "
                "holds; write the number of each class, or '#RRGGBB'"
            )
        return written
    digits = str(written).removeprefix("#")
    if not isinstance(written, str) or len(digits) != 6 or set(digits.upper()) - set(HEX):
        raise ValueError(
            f"{written!r} in data.legend or data.ignored is not a colour, as others are; write "
            "'#RRGGBB', or numbers alone"
        )
    return int(digits, 16)


def cell_side(size: int, cells: int) -> int:
    """Return the side of a cell in pixels, if a side of `size` pixels is cut into cells.

    Raises:
        ValueError: If it is not a whole number.
    """
    if size % cells:
        raise ValueError(
            f"{size} pixels are not cut into {cells} cells a side evenly; the scale of a head must "
            "divide the encoder's patch size, set task.NAME.head.scale"
        )
    return size // cells


def count_cells(mask: Tensor, size: int, cells: tuple[int, int], classes: int) -> Tensor:
    """Count the pixels of each class in every cell of a mask.

    The mask is first resized to the size of the encoder's input, by nearest neighbour.

    Args:
        mask: (H, W) uint8, class numbers; IGNORED counts nowhere.
        size: S, side of the encoder's input, pixels.
        cells: Numbers of rows R and columns C.
        classes: Number of classes K.

    Returns:
        (K, R, C) int32.
    """
    rows, columns = cells
    seen = F.interpolate(mask[None, None], (size, size), mode="nearest-exact")[0, 0]
    blocks = seen.reshape(rows, cell_side(size, rows), columns, cell_side(size, columns))
    counts = [(blocks == number).sum(dim=(1, 3), dtype=torch.int32) for number in range(classes)]
    return torch.stack(counts)
