"""Pixel codecs: images to the bytes of a file and back, which embeddings compete with."""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from importlib import import_module
from types import ModuleType
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor

from nec.data.boxes import boxes, comment_bytes
from nec.data.levels import Pixels, resized, shrunk, stretched

# First bytes of a JPEG XL codestream.
SIGNATURE = b"\xff\x0a"
# In dB: the least step by which more quality is asked for, and where there is no more to ask.
LEAST_STEP, FINEST = 0.25, 100.0
GAIN_BYTES = 2  # of a uint16 image: the factor it was multiplied by


class CodedPixels(NamedTuple):
    """What is decoded from the files of an image, and the size of those files."""

    pixels: Tensor  # (C, H, W), of the type and size of the image
    file: float  # bytes of whole files
    payload: float  # bytes without their container


class Files(NamedTuple):
    """The files that an image is coded to."""

    coded: list[bytes]  # files
    gain: int  # what its pixels were multiplied by
    size: tuple[int, int]  # (H, W), of the image


class PixelCodec(ABC):
    """A format of image files at one quality and resolution.

    The bands of an image are dealt out to files (`groupings`). The same pixels give the same bytes
    on one build: one thread, nothing random.

    Args:
        quality: Quality on the format's own scale; a higher one costs more bytes.
        resolution: Share of an image's height and width at which it is coded. It is reduced before
            coding (bicubic, antialiased) and enlarged again after decoding (bicubic).
        whole: Code the larger images that images are cut out of, and cut afterwards; an image's
            share of their bytes is that of its area.

    Raises:
        ValueError: The quality or the resolution is out of range.
    """

    name: ClassVar[str]
    prefix: ClassVar[str]  # of the library's functions
    options: ClassVar[dict[str, Any]]  # for the encoder
    dtypes: ClassVar[tuple[str, ...]]
    qualities: ClassVar[tuple[float, float]]

    def __init__(self, quality: float, resolution: float = 1.0, whole: bool = False) -> None:
        low, high = self.qualities
        if not low <= quality <= high:
            raise ValueError(
                f"pixels.quality is {quality}; of {self.name} it is a number from {low:g} to "
                f"{high:g}, as in pixels.quality={(low + high) / 2:g}"
            )
        if not 0 < resolution <= 1:
            raise ValueError(
                f"pixels.resolution is {resolution}; it is a share of an image's side, above 0 and "
                "1 at most, as in pixels.resolution=0.5"
            )
        self.quality = quality
        self.resolution = resolution
        self.whole = whole

    def encode(self, pixels: Pixels) -> bytes:
        """Encode pixels (H, W) or (H, W, 3) to a file."""
        return self._encode(pixels, self.quality)

    def _encode(self, pixels: Pixels, level: float) -> bytes:
        """Encode pixels at what the library calls a level."""
        encode = getattr(_library(), f"{self.prefix}_encode")
        return bytes(encode(pixels, level=level, numthreads=1, **self.options))

    def decode(self, file: bytes) -> Pixels:
        """Decode a file to pixels of the shape and type that they had."""
        decode = getattr(_library(), f"{self.prefix}_decode")
        return np.asarray(decode(file, numthreads=1))

    @abstractmethod
    def payload(self, file: bytes) -> int:
        """Count the bytes of a file that hold coded pixels and what is needed to decode them."""

    def groupings(self, bands: int) -> list[list[int]]:
        """List ways to deal bands out to files, in their order: the number of bands of each file.

        Of several, each of which must reach the quality, an image takes that of least payload.
        """
        return [[3] * (bands // 3) + [1] * (bands % 3)]

    def describe(self) -> dict[str, Any]:
        """Return format, options and libraries (JSON): all that determines bytes, bar the image.

        Raises:
            ImportError: imagecodecs is not installed.
        """
        library = _library()
        version = getattr(library, f"{self.prefix}_version")()
        return {
            "format": self.name,
            "quality": self.quality,
            "resolution": self.resolution,
            "whole": self.whole,
            "files": "three bands each, the rest singly",
            **self.options,
            "library": f"{version}, imagecodecs {library.__version__}",
        }

    def code(self, image: Tensor) -> CodedPixels:
        """Code an image (C, H, W) and decode it.

        Raises:
            ValueError: The format does not code this type of pixels.
        """
        files = self.compress(image)
        extra = 0 if image.dtype == torch.uint8 else GAIN_BYTES
        file, payload = sum(map(len, files.coded)), sum(map(self.payload, files.coded))
        return CodedPixels(self.restore(files), file + extra, payload + extra)

    def check(self, dtype: torch.dtype) -> None:
        """Refuse a type of pixels.

        Raises:
            ValueError: The format does not code it.
        """
        if (name := str(dtype).removeprefix("torch.")) not in self.dtypes:
            raise ValueError(
                f"pixels of {name} are none that {self.name} codes, which are "
                f"{' or '.join(self.dtypes)}; of uint16 take pixels=jpeg2000 or jpegxl, "
                "others must be converted"
            )

    def compress(self, image: Tensor) -> Files:
        """Code an image, stretched to the range of its type.

        Args:
            image: (C, H, W).

        Raises:
            ValueError: The format does not code this type of pixels.
        """
        self.check(image.dtype)
        height, width = image.shape[1:]
        small = resized(image, [max(1, round(self.resolution * side)) for side in (height, width)])
        levels, gain = stretched(small.numpy())
        ways = (
            [self.encode(bands) for bands in _dealt(levels, counts)]
            for counts in self.groupings(len(levels))
        )
        coded = min(ways, key=lambda files: sum(map(self.payload, files)))
        return Files(coded, gain, (height, width))

    def restore(self, files: Files) -> Tensor:
        """Decode an image's files to its pixels (C, H, W)."""
        planes = [np.atleast_3d(self.decode(file)) for file in files.coded]
        decoded = np.concatenate(planes, axis=2).transpose(2, 0, 1)  # (C, h, w)
        pixels = np.ascontiguousarray(shrunk(decoded, files.gain))
        return resized(torch.from_numpy(pixels), list(files.size))


class AVIF(PixelCodec):
    """AV1 image files, by libavif and libaom.

    Chroma has full resolution: at equal bytes, embeddings of UC Merced are nearer to the original's
    than with 4:2:0, and so is RGB (by 0.3 to 0.5 dB); luma alone loses 0.1 dB. Speed 4 is as good
    as 3, 0.4 dB better than 6, and takes 0.04 to 0.2 s per image of 256 px; speed 0 gains another
    0.2 dB in five times that.

    Args:
        quality: Quality, 0 to 100.
        resolution: Share of an image's height and width at which it is coded.
        whole: Code the larger images that images are cut out of, and cut afterwards.
    """

    name = "avif"
    prefix = "avif"
    options: ClassVar[dict[str, Any]] = {"pixelformat": "444", "speed": 4}
    dtypes = ("uint8",)
    qualities = (0, 100)

    def __init__(self, quality: int = 50, resolution: float = 1.0, whole: bool = False) -> None:
        super().__init__(quality, resolution, whole)

    def encode(self, pixels: Pixels) -> bytes:
        """Encode pixels (H, W) or (H, W, 3) to a file."""
        if pixels.ndim == 3 or self.quality == self.qualities[1]:
            return super().encode(pixels)
        # The library codes one band without loss, whatever the quality, but not the luma of three.
        # At the highest quality it would code all three.
        options = {**self.options, "pixelformat": "400", "level": self.quality, "numthreads": 1}
        return bytes(_library().avif_encode(np.dstack([pixels] * 3), **options))

    def payload(self, file: bytes) -> int:
        """Count the AV1 units, including the sequence header: the content of `mdat`."""
        return sum(len(content) for kind, content in boxes(file) if kind == b"mdat")


class JPEGXL(PixelCodec):
    """JPEG XL files, by libjxl, as a codestream without container.

    Effort 8 is stronger than 7 (0.1 dB at equal bytes on UC Merced, and embeddings are nearer to
    the original's) and as good as 9 and 10.

    Args:
        quality: 0 to 100, as in cjxl; 0 is a distance of 25, the largest there is. Below 5, libjxl
            itself codes at half the height and width, so bytes may jump there.
        resolution: Share of an image's height and width at which it is coded.
        whole: Code the larger images that images are cut out of, and cut afterwards.
    """

    name = "jpegxl"
    prefix = "jpegxl"
    options: ClassVar[dict[str, Any]] = {"effort": 8, "usecontainer": False}
    dtypes = ("uint8", "uint16")
    qualities = (0, 100)

    def __init__(self, quality: float = 50, resolution: float = 1.0, whole: bool = False) -> None:
        super().__init__(quality, resolution, whole)

    def payload(self, file: bytes) -> int:
        """Count the codestream, less the signature that every file begins with."""
        return len(file.removeprefix(SIGNATURE))


class JPEG2000(PixelCodec):
    """JPEG 2000 files, by OpenJPEG: irreversible wavelet and colours, six resolutions, one tile.

    More than three bands make one file, or one for each three of them, whichever takes fewer bytes.
    Bands of a file share its headers and reach the quality together, so that bits go where they
    save most: of 13 bands at 24 dB one file has half the bytes or less. Three bands, and only
    three, are transformed to luma and chroma, which wins above 29 to 36 dB.

    OpenJPEG only estimates the error that it is to reach: it is 0.3 dB off for most files and up to
    10 dB for smooth ones, whose brightness is shifted. So a file is decoded, and coded again until
    it is as good as was asked for; speeds include that.

    Args:
        quality: Peak signal-to-noise ratio in dB that every file reaches, as far as the format
            goes (of noise in 8 bits 52 dB), the peak being the
            largest number of the type; with 8 bits, nothing is left to omit below 15.
        resolution: Share of an image's height and width at which it is coded.
        whole: Code the larger images that images are cut out of, and cut afterwards.
    """

    name = "jpeg2000"
    prefix = "jpeg2k"
    # Not planar: (H, W, C), which the library takes for (C, H, W) where H is small.
    options: ClassVar[dict[str, Any]] = {"codecformat": "jp2", "reversible": False, "planar": False}
    dtypes = ("uint8", "uint16")
    qualities = (1, 100)

    def __init__(self, quality: float = 30, resolution: float = 1.0, whole: bool = False) -> None:
        super().__init__(quality, resolution, whole)

    def encode(self, pixels: Pixels) -> bytes:
        """Encode pixels (H, W) or (H, W, C): no worse than `quality`, or as well as it goes."""
        level, step, file = self.quality, LEAST_STEP, b""
        while True:
            last, file = file, self._encode(pixels, level)
            missing = self.quality - _psnr(pixels, self.decode(file))
            if missing <= 0 or level >= FINEST:
                return file
            step = 2 * step if file == last else LEAST_STEP
            level += max(missing, step)

    def groupings(self, bands: int) -> list[list[int]]:
        """List one file for all bands; beside it, of more than three, one for each three."""
        threes, rest = divmod(bands, 3)
        return [[bands], [3] * threes + [rest] * bool(rest)][: 1 + (bands > 3)]

    def describe(self) -> dict[str, Any]:
        """Return format, options and libraries (JSON); `quality` is that of the decoded pixels."""
        files = "all bands, or three each and the rest, whichever is smaller"
        return {**super().describe(), "files": files, "reached": True}

    def payload(self, file: bytes) -> int:
        """Count the codestream, less the comment in which the library names itself."""
        streams = [content for kind, content in boxes(file) if kind == b"jp2c"]
        return sum(len(stream) - comment_bytes(stream) for stream in streams)


def _psnr(pixels: Pixels, decoded: Pixels) -> float:
    """Peak signal-to-noise ratio in dB; the peak is the largest number of the type."""
    error = float(np.square(pixels.astype(np.float64) - decoded).mean())
    peak = float(np.iinfo(pixels.dtype).max)
    return 10 * math.log10(peak**2 / error) if error else math.inf


def _dealt(pixels: Pixels, counts: list[int]) -> Iterator[Pixels]:
    """Yield bands (C, H, W) as files hold them: (H, W, count), or (H, W) of one."""
    for last, count in zip(np.cumsum(counts), counts, strict=True):
        bands = pixels[last - count : last].transpose(1, 2, 0)
        yield np.ascontiguousarray(bands if count > 1 else bands[:, :, 0])


def _library() -> ModuleType:
    """Import imagecodecs only where a pixel codec is used: it is an extra."""
    try:
        return import_module("imagecodecs")
    except ImportError as error:
        raise ImportError(
            "pixel codecs take imagecodecs, which is not installed; pip install 'nec[competitors]'"
        ) from error
