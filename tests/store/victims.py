"""Copies of the golden stores, what is in them, and how to look at one that is damaged."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import google_crc32c
import numpy as np
import zarr

from nec.store import EmbeddingStore
from nec.store.schema import metadata_hash

GOLDEN = Path(__file__).parents[1] / "golden"
INDEX = ("id", "split", "label")


class Victim:
    """A copy of a golden store. Looks say what came, or raise.

    Args:
        golden: The store that is copied.
        folder: Where to.
    """

    def __init__(self, golden: Path, folder: Path) -> None:
        self.path = folder / golden.name
        shutil.copytree(golden, self.path)
        self.name = golden.name.removesuffix("store_format_1.zarr").rstrip("_") or "plain"
        store = EmbeddingStore.open(self.path)
        self.codecs = store.layers
        images = range(len(store))
        self.symbols = {name: store.layer(name).read_symbols(images) for name in self.codecs}
        self.y_hat = {name: store.layer(name).read(images) for name in self.codecs}
        self.index = store.ids.tolist(), store.labels.tolist()
        self.described = store.splits.tolist(), store.attrs, store.classes
        self.files = sorted(file for file in self.path.rglob("*") if file.is_file())
        self.shards = {name: self.path / name / "c/0/0/0/0" for name in self.codecs}
        self.streams = {
            name: codec.encode(self.symbols[name]) for name, codec in store.layers.items()
        }

    def look(self, hashed: bool) -> str:
        """Open, verify and read everything through EmbeddingStore.

        Whoever makes the hash right again may say what they like in attributes and names.
        """
        store = EmbeddingStore.open(self.path)
        store.verify()
        exact = (store.ids.tolist(), store.labels.tolist()) == self.index
        for name, expected in self.y_hat.items():
            exact &= np.array_equal(store.layer(name).read(range(len(store))), expected)
        described = (store.splits.tolist(), store.attrs, store.classes) == self.described
        return "exact" if exact and (described or hashed) else "FAILED: other values"

    def look_unverified(self) -> str:
        """The same without `verify`, image by image, layer by layer: what a consumer does."""
        exact = True
        for name, expected in self.y_hat.items():
            store = EmbeddingStore.open(self.path, layers=name)
            exact &= np.array_equal(store[-1], expected[-1])
            exact &= (store.ids[-1], store.labels[-1]) == tuple(each[-1] for each in self.index)
        return "exact" if exact else "FAILED: other values"

    def look_by_zarr(self, name: str) -> str:
        """A layer by plain zarr."""
        values = np.asarray(zarr.open_group(self.path, mode="r")[name][:])
        shard = self.shards[name]
        if not shard.exists() or not shard.stat().st_size:
            return "NaN" if np.isnan(values).all() else "FAILED: numbers of a lost shard"
        return "exact" if np.array_equal(values, self.y_hat[name]) else "FAILED: other values"

    def look_at_index(self) -> str:
        """Ids, splits and labels, whatever they are."""
        store = EmbeddingStore.open(self.path)
        found = {len(column) for column in (store.ids, store.splits, store.labels)}
        return "some" if found == {len(store)} else "FAILED: another length"

    def rehash(self) -> None:
        """Make the hash of the metadata right again, so that it is not what finds a change."""
        names = (*self.codecs, *INDEX)
        file = self.path / "zarr.json"
        try:
            arrays = {n: json.loads((self.path / n / "zarr.json").read_bytes()) for n in names}
            group = json.loads(file.read_bytes())
            group["attributes"]["nec"]["sha256"] = metadata_hash(group, arrays)
        except (KeyError, TypeError, ValueError, AttributeError):
            return
        file.write_text(json.dumps(group))

    def with_damage(self, file: Path, content: bytes, look: Callable[[], None]) -> None:
        """Look while one file, and perhaps the metadata of the group, are others."""
        kept = {path: path.read_bytes() for path in (file, self.path / "zarr.json")}
        file.write_bytes(content)
        look()
        for path, good in kept.items():
            path.write_bytes(good)


def mended(data: bytes) -> bytes:
    """With the checksum of what it is now."""
    return data[:-4] + int(google_crc32c.value(data[:-4])).to_bytes(4, "little")


def victims(folder: Path) -> list[Victim]:
    """One for each golden store."""
    return [Victim(golden, folder) for golden in sorted(GOLDEN.glob("*.zarr"))]
