"""EmbeddingStore: embeddings of images with ids, splits and labels, decoded as they are read."""

import operator
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from copy import copy
from functools import cached_property
from os import PathLike
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nec.store.base import Codec, Floats, Symbols
from nec.store.columns import Columns
from nec.store.commits import settle
from nec.store.contents import Description, Held, HeldLayer
from nec.store.files import Files
from nec.store.folders import hold, is_held, is_taken, local, settle_at
from nec.store.layers import Layer, checked_indices, chosen_layers, read_ahead
from nec.store.metadata import Metadata, read_metadata
from nec.store.schema import EMBEDDING, LABEL, SPLIT, Extent, Layout
from nec.store.shards import Indices
from nec.store.writer import StoreWriter

# A store that is being written is tried again.
OPEN_TRIES = 20
SECONDS_BETWEEN = 0.05


class EmbeddingStore:
    """A store, open to be read, as it was when it was opened. `create` and `extend` write one.

    It has one or more *layers*: arrays of embeddings of the same images, each with a codec of its
    own, none needed to decode another. What is read is of the first one, `embedding` where that was
    not left out; `layer` gives another one. Bytes are of all that were opened, side bytes of all.

    Attributes:
        url: Where it lies.
        attrs: The user's attributes.
        split_names: Of all splits that the store may have.
        classes: Names; a label is a place among them.
        complete: Whether its writer said that all images are there.
        side_bytes: Paid once: all zarr.json, with tables and transforms.
    """

    def __init__(
        self, files: Files, metadata: Metadata, layers: Sequence[str] | None = None
    ) -> None:
        structure = metadata.structure
        self.url = files.url
        self.attrs = metadata.attributes
        self.split_names = structure.splits
        self.classes = structure.classes
        self.complete = metadata.complete
        self.side_bytes = metadata.size_bytes
        self._files = files
        self._columns = Columns(files, structure.images)
        chosen = chosen_layers(files.url, list(structure.layers), layers)
        self._layers = {
            name: Layer(files, name, structure.images, structure.layers[name]) for name in chosen
        }

    @staticmethod
    def create(
        path: str | PathLike[str],
        codec: Codec | Mapping[str, Codec],
        attrs: Mapping[str, Any],
        *,
        splits: Sequence[str] = ("train", "val", "test"),
        classes: Sequence[str],
    ) -> StoreWriter:
        """Begin a new store; see `StoreWriter`.

        Args:
            path: Local; must not exist, or hold nothing but what a writer left that was killed
                before its first image.
            codec: What the symbols are for; of several layers by their name, `embedding` the one
                that is read first.
            attrs: Your attributes, as JSON has them; they cannot be changed later.
            splits: Names of the splits that images may be of.
            classes: Names of the classes; a label is a place among them.

        Raises:
            FileExistsError: If path exists.
            RuntimeError: If another process is about to write it.
            ValueError: If attrs are not JSON, or a name occurs twice.
        """
        codecs = {EMBEDDING: codec} if isinstance(codec, Codec) else codec
        description = Description(codecs, attrs, splits, classes)
        folder = local(path)
        if is_taken(folder):
            raise FileExistsError(
                f"{folder} exists and is not overwritten; EmbeddingStore.extend adds to a store, "
                "or remove it or choose another path"
            )
        begun = not folder.exists()
        folder.mkdir(parents=True, exist_ok=True)
        with hold(folder) as lock:
            if is_taken(folder):  # by a writer that has ended since we looked
                raise FileExistsError(f"{folder} was written by another process; extend it")
            held = Held({name: HeldLayer() for name in description.codecs})
            return StoreWriter(folder, description, held, lock.pop_all(), begun)

    @classmethod
    def extend(cls, path: str | PathLike[str]) -> StoreWriter:
        """Go on writing a store, complete or left by a process that was killed.

        Raises:
            FileNotFoundError: If nothing is there.
            RuntimeError: If another process is writing it.
            ValueError: If it is not a store, or its metadata were changed.
        """
        folder = local(path)
        if not is_taken(folder):
            raise FileNotFoundError(
                f"{folder} holds no image; EmbeddingStore.create begins a store"
            )
        with hold(folder) as lock:
            settle(folder)
            store = cls._open(folder)
            held = store._held()
            description = Description(store.layers, store.attrs, store.split_names, store.classes)
            return StoreWriter(folder, description, held, lock.pop_all())

    @classmethod
    def open(
        cls, url: str | PathLike[str], layers: str | Sequence[str] | None = None
    ) -> "EmbeddingStore":
        """Open a store at a local path or fsspec URL, and check the hash of its metadata.

        Args:
            url: Where it lies.
            layers: Those to read, by name; all where it is None. Of others no shard is touched or
                counted; `side_bytes` are those of all, whose metadata the hash covers.

        Raises:
            FileNotFoundError: If nothing is there.
            OSError: If a killed writer left an append that cannot be put in its place.
            RuntimeError: If a writer is at work and leaves no moment to open it.
            ValueError: If it is not a store, has no such layer, is newer than this nec, or its
                metadata were changed.
        """
        chosen = [layers] if isinstance(layers, str) else layers
        tries = OPEN_TRIES if is_held(url) else 1
        for _ in range(tries - 1):
            with suppress(ValueError, RuntimeError, OSError):
                return cls._open(url, chosen)
            time.sleep(SECONDS_BETWEEN)  # its writer may be moving the files of a commit
        return cls._open(url, chosen)

    @classmethod
    def _open(
        cls, url: str | PathLike[str], layers: Sequence[str] | None = None
    ) -> "EmbeddingStore":
        settle_at(url)
        files = Files(url)
        return cls(files, read_metadata(files), layers)

    @property
    def layers(self) -> dict[str, Codec]:
        """The codec of each layer that was opened, by name."""
        return {name: layer.codec for name, layer in self._layers.items()}

    def layer(self, name: str) -> "EmbeddingStore":
        """The store with this layer alone, of those that were opened.

        Raises:
            ValueError: If there is no such layer.
        """
        (name,) = chosen_layers(self.url, list(self._layers), [name])
        alone = copy(self)
        alone._layers = {name: self._layers[name]}
        return alone

    @property
    def _first(self) -> Layer:
        return next(iter(self._layers.values()))

    @property
    def codec(self) -> Codec:
        """Streams -> symbols -> y_hat, of the first layer."""
        return self._first.codec

    @property
    def layout(self) -> Layout:
        """Images per chunk, chunks per shard, of the first layer."""
        return self._first.layout

    def __len__(self) -> int:
        return self._columns.images

    def __getitem__(self, index: int) -> Floats:
        """The y_hat (D, h, w) float32 of one image."""
        y_hat: Floats = self.read([operator.index(index)])[0]
        return y_hat

    def __repr__(self) -> str:
        codecs = self.codec if len(self._layers) == 1 else self.layers
        return f"EmbeddingStore({self.url!r}, {len(self)} images, {codecs!r})"

    def read(self, indices: ArrayLike) -> Floats:
        """Decode images.

        Args:
            indices: (n,) integers, negative ones count from the end; or a mask (N,).

        Returns:
            y_hat (n, D, h, w) float32.

        Raises:
            CorruptStreamError: Names the file that is missing or damaged, or the store where a
                stream is not one of its codec.
        """
        return self.codec.dequantize(self.read_symbols(indices))

    def read_symbols(self, indices: ArrayLike) -> Symbols:
        """Symbols (n, L) int32 of images; see `read`."""
        return self._first.symbols(checked_indices(indices, len(self)))

    def batches(self, size: int = 256, indices: ArrayLike | None = None) -> Iterator[Floats]:
        """Decode images batch by batch, the next ones while you use one.

        Images that lie together are read together: any order works, the stored one is fastest.

        Args:
            size: Images in a batch; the last may have fewer.
            indices: Of the images, as `read` takes them; all, in order, where there are none.

        Returns:
            y_hat (n, D, h, w) float32, one after the other.

        Raises:
            CorruptStreamError: Names the file that is missing or damaged, or the store where a
                stream is not one of its codec.
            ValueError: If size is less than 1.
        """
        if size < 1:
            raise ValueError(f"size is {size}; a batch has at least one image")
        every = range(len(self)) if indices is None else indices
        chosen = checked_indices(every, len(self))
        parts = [chosen[start : start + size] for start in range(0, len(chosen), size)]
        return read_ahead(self.read, parts)

    def stream_bytes(self) -> Indices:
        """(N,) bytes of each image's streams in all layers, from the headers of the chunks."""
        lengths = [layer.shards.stream_bytes for layer in self._layers.values()]
        return np.asarray(np.sum(lengths, axis=0), dtype=np.int64)

    @cached_property
    def ids(self) -> NDArray[np.object_]:
        """(N,) names, each once; str as objects, since one may be much longer than the others."""
        return self._columns.ids()

    @cached_property
    def splits(self) -> NDArray[np.str_]:
        """(N,) name of each image's split."""
        numbers = self._columns.numbers(SPLIT, len(self.split_names))
        names: NDArray[np.str_] = np.array(self.split_names)[numbers]
        return names

    @cached_property
    def labels(self) -> NDArray[np.int64]:
        """(N,) int64 places among the classes."""
        return self._columns.numbers(LABEL, len(self.classes))

    @property
    def bytes_per_image(self) -> float:
        """Mean streams of the test images (all, where there are none), plus an image's share.

        The share is of all else in the files of the layers, without their zarr.json.
        """
        streams = self.stream_bytes()
        test = self.splits == "test"
        chosen = streams[test] if test.any() else streams
        size = sum(layer.shards.size_bytes for layer in self._layers.values())
        return float(chosen.mean()) + (size - int(streams.sum())) / len(self)

    @cached_property
    def index_bytes_per_image(self) -> float:
        """What ids, splits and labels take per image, without their zarr.json."""
        return self._columns.size_bytes / len(self)

    def verify(self, progress: Callable[[int, int], None] = lambda done, total: None) -> Extent:
        """Check all that is there: the metadata anew, index arrays, and all shards of the layers.

        Args:
            progress: Called after every shard with how many are checked, and of how many.

        Returns:
            What was checked.

        Raises:
            ValueError: Metadata were changed since the store was written.
            CorruptStreamError: Names the file that is missing or damaged, or the store where a
                stream is not one of its codec.
        """
        # What this object read before may have changed since.
        fresh = EmbeddingStore.open(self.url, list(self._layers))
        fresh._columns.verify(len(fresh.split_names), len(fresh.classes))
        layers = fresh._layers.values()
        extents = [layer.layout.extent(len(fresh)) for layer in layers]
        total, before = sum(extent.shards for extent in extents), 0
        for layer, extent in zip(layers, extents, strict=True):
            for done in layer.shards.verify():
                progress(before + done, total)
            before += extent.shards
        return Extent(len(fresh), sum(extent.chunks for extent in extents), total)

    def _held(self) -> Held:
        """What a writer needs to go on."""
        splits = self._columns.numbers(SPLIT, len(self.split_names)).tolist()
        layers = {name: layer.held() for name, layer in self._layers.items()}
        return Held(layers, self.ids.tolist(), splits, self.labels.tolist())
