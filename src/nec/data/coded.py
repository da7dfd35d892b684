"""Image sets as a consumer of coded pixels sees them: decoded from files of known size."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from nec.data.images import ImageDataModule, ImageError, Images, Whole
from nec.data.pixels import CodedPixels, PixelCodec


class CodedImages(Images):
    """Images after a pixel codec.

    An item also holds `bytes`, the sizes of the image's files and of their payload, (2,) float64.

    Args:
        native: Images before coding.
        codec: Codec that every image passes through.
    """

    def __init__(self, native: Images, codec: PixelCodec) -> None:
        super().__init__(native.ids, native.labels, native.groups)
        self.native = native
        self.codec = codec
        self._codec = str(codec.describe())
        self._last: tuple[str, CodedPixels] | None = None  # whole image

    def check(self) -> None:
        """Refuse, by the first image, a type or layout that the codec does not code.

        Raises:
            ImageError: It is of such a type, or is whole where larger ones are to be coded.
        """
        try:
            self.codec.check(self.native.read(0).dtype)
            if self.codec.whole:
                self._whole(0)
        except ValueError as error:
            raise ImageError(f"image {self.ids[0]!r}: {error}") from error

    def read(self, index: int) -> Tensor:
        """Return the decoded pixels of an image."""
        return self[index]["image"]

    def read_mask(self, index: int) -> Tensor | None:
        """Return the mask of the native image."""
        return self.native.read_mask(index)

    def stamp(self, index: int) -> str:
        """Return the stamp of the native image, and the codec."""
        return f"{self.native.stamp(index)} {self._codec}"

    def __getitem__(self, index: int) -> dict[str, Any]:
        item = self.native[index]
        try:
            coded = self._code(index, item["image"])
        except ValueError as error:
            raise ImageError(f"image {item['id']!r}: {error}") from error
        sizes = torch.tensor([coded.file, coded.payload], dtype=torch.float64)
        return {**item, "image": coded.pixels, "bytes": sizes}

    def _code(self, index: int, image: Tensor) -> CodedPixels:
        if not self.codec.whole:
            return self.codec.code(image)
        name, pixels, top, left = self._whole(index)
        if self._last is None or self._last[0] != name:
            self._last = (name, self.codec.code(pixels))
        coded = self._last[1]
        height, width = image.shape[1:]
        share = height * width / (pixels.shape[1] * pixels.shape[2])
        cut = coded.pixels[:, top : top + height, left : left + width].clone()
        return CodedPixels(cut, share * coded.file, share * coded.payload)

    def _whole(self, index: int) -> Whole:
        whole = self.native.whole(index)
        if whole is None:
            raise ValueError("it is not cut out of a larger image; set pixels.whole=false")
        return whole


class CodedDataModule(ImageDataModule):
    """An image set after a pixel codec: the same splits, labels and masks, decoded pixels.

    Args:
        data: Images before coding.
        codec: Codec that every image passes through, in train as in test.
    """

    def __init__(self, data: ImageDataModule, codec: PixelCodec) -> None:
        super().__init__(data.transform, data.batch_size, data.workers, data.split, data.seed)
        self.data = data
        self.pixel_codec = codec

    @property
    def classes(self) -> list[str]:
        """Class names of the native images."""
        return self.data.classes

    @property
    def mask_classes(self) -> Sequence[str]:
        """Names of the classes of pixels of the native images."""
        return self.data.mask_classes

    @property
    def bands(self) -> int:
        """Number of channels of the native images."""
        return self.data.bands

    @property
    def raw_bytes_per_pixel(self) -> int:
        """Number of bands × bytes of their type."""
        return self.data.raw_bytes_per_pixel

    def pixels_up_to(self, limit: int) -> int:
        """Return the native images' `pixels_up_to`."""
        return self.data.pixels_up_to(limit)

    def load_splits(self) -> dict[str, CodedImages]:
        """Return the coded images of each of the native splits.

        Raises:
            ImageError: The codec does not code the first one (`CodedImages.check`).
        """
        native = self.data.datasets.items()
        coded = {name: CodedImages(split.images, self.pixel_codec) for name, split in native}
        coded["test"].check()
        return coded
