"""The index arrays of a store (ids, splits, labels): reading, and packing them for zarr."""

import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync
from zarr.storage import MemoryStore

from nec.coding import CorruptStreamError
from nec.store.files import Files
from nec.store.schema import ID, INDEX_ARRAYS, INDEX_CHUNK, LABEL, LOST_ID, SPLIT


class Columns:
    """The index arrays of a store of N images.

    Args:
        files: Files of the store.
        images: N, number of images.
    """

    def __init__(self, files: Files, images: int) -> None:
        self.files = files
        self.images = images

    @cached_property
    def size_bytes(self) -> int:
        """Bytes of all three arrays, without their zarr.json."""
        chunks = range(-(-self.images // INDEX_CHUNK))
        keys = [f"{name}/c/{i}" for name in INDEX_ARRAYS for i in chunks]
        size = sum(self.files.sizes(keys))
        self.files.check_as_opened()
        return size

    def ids(self) -> NDArray[np.object_]:
        """Read the ids: (N,) str.

        Raises:
            CorruptStreamError: If a file is missing or damaged.
        """
        with self.files.as_opened():
            ids = self._read(ID).astype(object)
        self._check(ID, ids == LOST_ID)
        return ids

    def numbers(self, name: str, names: int) -> NDArray[np.int64]:
        """Read splits or labels: (N,) indices into a list of names.

        Args:
            name: Name of the array.
            names: Length of the list; every index is below it.

        Raises:
            CorruptStreamError: If a file is missing or damaged.
        """
        with self.files.as_opened():
            numbers = self._read(name).astype(np.int64)
        self._check(name, (numbers < 0) | (numbers >= names))  # among them lost files' fill values
        return numbers

    def verify(self, splits: int, classes: int) -> None:
        """Read and check all three arrays, given the numbers of splits and classes.

        Raises:
            CorruptStreamError: If a file is missing or damaged, or an image is there twice.
        """
        if len(np.unique(self.ids())) != self.images:
            raise CorruptStreamError(f"{self.files.name(ID)} names an image twice; copy it anew")
        self.numbers(SPLIT, splits)
        self.numbers(LABEL, classes)

    def _read(self, name: str) -> NDArray[Any]:
        array = zarr.open_array(self.files.store, path=name, mode="r", zarr_format=3)
        if array.shape != (self.images,):
            raise CorruptStreamError(
                f"{self.files.name(name)} holds {array.shape} entries for {self.images} images; "
                "copy it anew"
            )
        # Metadata may claim any number of images: allocate room only after the last chunk is found.
        self.files.sizes([f"{name}/c/{(self.images - 1) // INDEX_CHUNK}"])
        try:
            return np.asarray(array[:])
        except (ValueError, RuntimeError) as error:
            raise CorruptStreamError(
                f"{self.files.name(name)} cannot be read ({error}); copy it anew"
            ) from error

    def _check(self, name: str, lost: NDArray[np.bool_]) -> None:
        if lost.any():
            key = f"{name}/c/{int(np.flatnonzero(lost)[0]) // INDEX_CHUNK}"
            raise CorruptStreamError(f"{self.files.name(key)} is missing or wrong; copy it anew")


def pack_columns(
    metadata: Mapping[str, Mapping[str, Any]],
    start: int,
    ids: Sequence[str],
    splits: Sequence[int],
    labels: Sequence[int],
) -> dict[str, bytes]:
    """Pack the chunks of the index arrays that hold the images from `start` on.

    Args:
        metadata: Name of each array -> its zarr.json, parsed.
        start: Index of the first image, a multiple of INDEX_CHUNK.
        ids: Ids of the images from `start` on.
        splits: Their splits, as indices into the names of splits.
        labels: Their labels, as indices into the classes.

    Returns:
        File contents by path in the store.
    """
    columns = {
        ID: np.array(ids, dtype=object),
        SPLIT: np.array(splits, dtype=np.uint8),
        LABEL: np.array(labels, dtype=np.int32),
    }
    files = {}
    for name, values in columns.items():
        memory = MemoryStore()
        _put(memory, "zarr.json", json.dumps(metadata[name]).encode())
        array = zarr.open_array(memory, mode="r+", zarr_format=3)
        array[start : start + len(values)] = values
        for chunk in range(start // INDEX_CHUNK, -(-(start + len(values)) // INDEX_CHUNK)):
            files[f"{name}/c/{chunk}"] = _get(memory, f"c/{chunk}")
    return files


def _put(memory: MemoryStore, key: str, content: bytes) -> None:
    sync(memory.set(key, default_buffer_prototype().buffer.from_bytes(content)))


def _get(memory: MemoryStore, key: str) -> bytes:
    found = sync(memory.get(key, default_buffer_prototype()))
    assert found is not None
    return bytes(found.to_bytes())
