"""Image files as tests write them."""

import warnings
from pathlib import Path

import numpy as np
import rasterio
from PIL import Image
from rasterio.errors import NotGeoreferencedWarning


def write(path: Path, array: np.ndarray) -> None:
    """(C, H, W) -> a file of the kind its name says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix in (".jpg", ".jpeg"):
        Image.fromarray(array.transpose(1, 2, 0).squeeze()).save(path, quality=95)
        return
    count, height, width = array.shape
    driver = "PNG" if path.suffix == ".png" else "GTiff"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(path, "w", driver=driver, count=count, height=height, width=width,
                           dtype=array.dtype) as file:  # fmt: skip
            file.write(array)
