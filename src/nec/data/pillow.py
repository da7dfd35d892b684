"""Images that Pillow opens, of any size."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image


@contextmanager
def opened(path: Path, formats: tuple[str, ...] | None = None) -> Iterator[Image.Image]:
    """Open an image file, and decode it within.

    Pillow refuses more than 179 megapixels, in case a stranger's file is to exhaust memory. Files
    here are the user's own, and aerial images have as many; the limit is back afterwards.

    Args:
        path: The file.
        formats: Pillow's names of the formats that it may have; None for any.
    """
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        with Image.open(path, formats=formats) as image:
            yield image
    finally:
        Image.MAX_IMAGE_PIXELS = limit
