"""The index arrays of a store, ids, splits and labels, as the files that zarr keeps them in."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import zarr
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync
from zarr.storage import MemoryStore

from nec.store.schema import ID, INDEX_CHUNK, LABEL, SPLIT


def pack_columns(
    metadata: Mapping[str, Mapping[str, Any]],
    start: int,
    ids: Sequence[str],
    splits: Sequence[int],
    labels: Sequence[int],
) -> dict[str, bytes]:
    """The chunks of index arrays that hold the images from `start` on.

    Args:
        metadata: Name of each array -> its zarr.json, parsed.
        start: A multiple of INDEX_CHUNK.
        ids: Of the images from `start` on.
        splits: Of these, places among the names of splits.
        labels: Of these, places among the classes.

    Returns:
        Content by path in the store.
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
