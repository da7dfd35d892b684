"""Pixels of an image file as they are stored, and what its header says of them."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import rasterio
from PIL import Image
from rasterio.enums import ColorInterp
from rasterio.errors import NotGeoreferencedWarning

from nec.data.images import ImageError
from nec.data.pillow import opened

JPEG = (".jpg", ".jpeg")
SUFFIXES = (*JPEG, ".png", ".tif", ".tiff")
DTYPES = ("uint8", "uint16", "int16", "float32")

GDAL = {
    # Else every open lists the folder for sidecars: three times slower among thousands.
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    # Else a truncated PNG reads as zeros, without an error.
    "GDAL_PNG_WHOLE_IMAGE_OPTIM": "NO",
}


class PixelType(NamedTuple):
    """Number and type of bands, which all images of a data set have in common."""

    bands: int
    dtype: str

    @property
    def bytes_per_pixel(self) -> int:
        """Number of bands × bytes of their type."""
        return self.bands * np.dtype(self.dtype).itemsize

    def __str__(self) -> str:
        """Name it as errors do, "3 bands of uint8"."""
        return f"{self.bands} band{'s' * (self.bands != 1)} of {self.dtype}"


class Header(NamedTuple):
    """What a file says of its pixels before they are read; sizes in pixels."""

    height: int
    width: int
    type: PixelType


def read_header(path: Path) -> Header:
    """Read the size and type of an image.

    Raises:
        ImageError: The file cannot be read, or is of a type that nec does not read.
    """
    if path.suffix.lower() in JPEG:
        with reading(path), opened(path, ("JPEG",)) as image:
            return _jpeg_header(image)
    with reading(path), _raster(path) as source:
        return _raster_header(path, source)


def read_pixels(path: Path) -> tuple[PixelType, np.ndarray]:
    """Read the type and pixels (C, H, W) of an image.

    Raises:
        ImageError: The file cannot be read, or is of a type that nec does not read.
    """
    if path.suffix.lower() in JPEG:
        with reading(path), opened(path, ("JPEG",)) as image:
            pixels = np.atleast_3d(np.asarray(image)).transpose(2, 0, 1)  # (C, H, W)
            return _jpeg_header(image).type, pixels.copy(order="C")
    with reading(path), _raster(path) as source:
        return _raster_header(path, source).type, source.read()


def _jpeg_header(image: Image.Image) -> Header:
    return Header(image.height, image.width, PixelType(len(image.getbands()), "uint8"))


def _raster_header(path: Path, source: rasterio.DatasetReader) -> Header:
    dtype = source.dtypes[0]
    if dtype not in DTYPES:
        raise ImageError(
            f"{path} has pixels of {dtype}, nec reads {', '.join(DTYPES)}; convert the file"
        )
    if source.colorinterp[0] == ColorInterp.palette:
        raise ImageError(f"{path} has a palette, pixels must be values; convert the file to RGB")
    return Header(source.height, source.width, PixelType(source.count, dtype))


@contextmanager
def _raster(path: Path) -> Iterator[rasterio.DatasetReader]:
    """Open a file with GDAL, without a warning if it is not georeferenced."""
    with rasterio.Env(**GDAL), warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(path) as source:
            yield source


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Make a failure to read name the file."""
    try:
        yield
    except OSError as error:
        reason = " ".join(str(error.__cause__ or error).split())
        raise ImageError(
            f"{path} cannot be read as an image ({reason}); replace or remove the file"
        ) from error
