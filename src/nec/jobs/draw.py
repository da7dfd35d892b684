"""One embedding of a store as a picture, beside its source. Takes Pillow, not torch."""

import re
import warnings
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nec.jobs.pictures import Colours, enlarged, has_grid, rgb, tokens_of
from nec.store import EmbeddingStore

# The most that the colours of a store are fitted to: images, and tokens of all of them together.
SAMPLED_IMAGES = 64
SAMPLED_TOKENS = 8192
# A picture of an embedding is enlarged to at least this on its longer side; pixels.
SIDE = 512
GAP = 8  # white pixels between an image and its embedding
NEEDS_PILLOW = "pictures need Pillow, which is not installed; pip install pillow"
NEEDS_RASTERIO = "TIFF sources need rasterio, which is not installed; pip install rasterio"


class Picture(NamedTuple):
    """An embedding as a person sees it.

    Attributes:
        pixels: (H, W, 3).
        images: How many embeddings its colours were fitted to.
        share: Share of their variance that the colours show.
    """

    pixels: NDArray[np.uint8]
    images: int
    share: float


def draw(
    store: EmbeddingStore, file: Path, image: str | None, folder: Path | None
) -> dict[str, Any]:
    """Write one embedding as a picture.

    Args:
        store: Store that holds it.
        file: PNG to write.
        image: Its id, or its place in the store; None: the first.
        folder: Where its source lies, at its id; None: draw the embedding alone.

    Returns:
        What was drawn (JSON).

    Raises:
        FileNotFoundError: The source or the folder of the PNG does not exist.
        ImportError: A package that pictures need is not installed.
        ValueError: The file is not a PNG, the store has no such image or no grid, or the source is
            not an image.
    """
    if file.suffix.lower() != ".png":
        raise ValueError(f"--picture {file} is not a PNG; give a name that ends in .png")
    if not file.parent.is_dir():
        raise FileNotFoundError(f"{file.parent} is not a folder; make it or write {file.name} here")
    check_pillow()
    if not has_grid(store.codec):
        raise ValueError(
            f"{store.url} holds pooled embeddings, which have no grid to draw; --picture takes a "
            "store of another bottleneck"
        )
    index = 0 if image is None else find_image(store, image)
    name = str(store.ids[index])
    path = None if folder is None else _source(folder, name)
    made = picture_of(store, index, None if path is None else read_source(path))
    write_png(file, made.pixels)
    return {
        "file": str(file),
        "image": index,
        "id": name,
        "source": None if path is None else str(path),
        "fitted_images": made.images,
        "variance_share": made.share,
    }


def find_image(store: EmbeddingStore, image: str) -> int:
    """Return the place of an image named by its id or, if no id is the same, by its place.

    Raises:
        ValueError: There is no such id, or no such place.
    """
    (places,) = np.nonzero(store.ids == image)
    if len(places):
        return int(places[0])
    count = len(store)
    if not re.fullmatch(r"-?\d+", image):
        near = [name for name in store.ids.tolist() if image in name] or store.ids.tolist()
        raise ValueError(
            f"image {image!r} is not in {store.url}; there are {', '.join(map(repr, near[:3]))}"
            f"{', ...' if len(near) > 3 else ''}: give an id, or a place from 0 to {count - 1}"
        )
    if not -count <= int(image) < count:
        raise ValueError(
            f"image {image} is outside {store.url}; give a place from 0 to {count - 1}, or an id"
        )
    return int(image) % count


def _source(folder: Path, name: str) -> Path:
    """Where the source of an image lies."""
    relative = PurePosixPath(name)
    if relative.is_absolute() or ".." in relative.parts:
        raise ValueError(f"id {name!r} is not a path below --source {folder}; leave --source out")
    path = folder / relative
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} does not exist; give the folder that ids are relative to (data.root of its "
            "run) as --source, or leave it out"
        )
    return path


def picture_of(
    store: EmbeddingStore, index: int, source: NDArray[np.generic] | None = None
) -> Picture:
    """Draw an embedding of a store, right of its source if that is given.

    Colours are fitted to evenly spaced images of the store, the same ones for every picture of it.

    Args:
        store: Store of embeddings that have a grid.
        index: Place of the image.
        source: (C, H, W) any type; its first three bands are red, green and blue.
    """
    count = min(SAMPLED_IMAGES, len(store))
    sample = np.linspace(0, len(store) - 1, count).astype(int)
    _, rows, columns = store.codec.shape
    taken = min(rows * columns, SAMPLED_TOKENS // count)
    places = np.linspace(0, rows * columns - 1, taken).astype(int)
    parts = [
        tokens_of(y_hat).reshape(len(y_hat), rows * columns, -1)[:, places]
        for y_hat in store.batches(8, sample)
    ]
    colours = Colours(np.concatenate(parts).reshape(-1, store.codec.shape[0]))
    grid = colours(store.read([index]))[0]
    height = rows * -(-SIDE // max(rows, columns))
    if source is None:
        pixels = enlarged(grid, height, height * columns // rows)
    else:
        width = max(1, round(height * source.shape[2] / source.shape[1]))
        gap = np.full((height, GAP, 3), 255, np.uint8)
        image = _resized(rgb(source), height, width)
        pixels = np.concatenate([image, gap, enlarged(grid, height, width)], axis=1)
    return Picture(pixels, count, colours.share)


def read_source(path: Path) -> NDArray[np.generic]:
    """Read the pixels of an image (C, H, W): TIFF by rasterio, all else by Pillow.

    Raises:
        ImportError: The package that reads the file is not installed.
        ValueError: The file cannot be read as an image.
    """
    try:
        return _read_tiff(path) if path.suffix.lower() in (".tif", ".tiff") else _read(path)
    except (OSError, SyntaxError, ValueError) as error:  # Pillow's word for a broken PNG is Syntax
        reason = " ".join(str(error).split())
        raise ValueError(
            f"{path} cannot be read as an image ({reason}); replace it, or leave --source out"
        ) from error


def write_png(path: Path, pixels: NDArray[np.uint8]) -> None:
    """Write (H, W, 3) as a PNG.

    Raises:
        ImportError: Pillow is not installed.
    """
    check_pillow()
    from PIL import Image

    Image.fromarray(pixels).save(path, format="PNG")


def check_pillow() -> None:
    """Refuse to begin a picture without what writes it.

    Raises:
        ImportError: Pillow is not installed.
    """
    try:
        import PIL.Image  # noqa: F401
    except ImportError:
        raise ImportError(NEEDS_PILLOW) from None


def _resized(image: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """An image (H, W, 3) at another size, bicubic and antialiased, as an encoder sees it."""
    from PIL import Image

    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC))


def _read(path: Path) -> NDArray[np.generic]:
    check_pillow()
    from nec.data.pillow import opened

    with opened(path) as image:
        if image.mode.startswith(("I", "F")):  # one band of 16 or 32 bits
            return np.asarray(image)[None]
        return np.asarray(image.convert("RGB")).transpose(2, 0, 1)


def _read_tiff(path: Path) -> NDArray[np.generic]:
    try:
        import rasterio
    except ImportError:
        raise ImportError(NEEDS_RASTERIO) from None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an image need not be georeferenced
        with rasterio.open(path) as image:
            return np.asarray(image.read())
