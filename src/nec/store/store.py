"""EmbeddingStore: embeddings of images with ids, splits and labels, decoded as they are read."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from copy import copy
from functools import cached_property
from os import PathLike
from os.path import expanduser
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
from nec.store.schema import EMBEDDING, LABEL, SPLIT, Cost, Extent, Layout
from nec.store.shards import Indices
from nec.store.writer import StoreWriter

# While a store is being written, opening it is retried.
OPEN_TRIES = 20
SECONDS_BETWEEN = 0.05


class EmbeddingStore:
    """A store open for reading, as it was when opened. `create` and `extend` write one.

    Appending to a store may move the images in its files. Reads that this concerns give no other
    images: they raise ValueError, and the store is to be opened again.

    It has one or more *layers*: arrays of embeddings of the same images, each with its own codec
    and decoded without the others. Reads return the first layer that was opened, which is
    `embedding` unless that was left out; `layer` selects another. Byte counts cover all opened
    layers, `side_bytes` covers all layers.

    Attributes:
        url: Where the store lies.
        attrs: The user's attributes.
        split_names: Names of all splits that the store may have.
        classes: Names of the classes; a label is an index into them.
        complete: Whether the writer marked the store as complete.
        side_bytes: Bytes paid once: every zarr.json, with tables and transforms.
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
            path: A local path that does not exist, or holds only what a writer left behind that
                was killed before its first image.
            codec: The codec of the symbols (`RawCodec` of floats as they are); for several
                layers, a mapping from layer name to codec, in which `embedding` is read first.
            attrs: Your attributes, JSON values; they cannot be changed later.
            splits: Names of the splits that images may belong to.
            classes: Names of the classes; a label is an index into them.

        Raises:
            FileExistsError: If path exists.
            RuntimeError: If another process is about to write there.
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
            url: Where the store lies.
            layers: Names of the layers to read; None for all. Shards of other layers are neither
                read nor counted; `side_bytes` still covers all, as the metadata hash does.

        Raises:
            FileNotFoundError: If nothing is there.
            OSError: If a killed writer left an append whose files cannot be moved into place.
            RuntimeError: If a writer stays busy through all tries to open the store.
            ValueError: If it is not a store, has no such layer, is newer than this nec, or its
                metadata were changed.
        """
        url = expanduser(url)
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
        """Codec of each opened layer, by name."""
        return {name: layer.codec for name, layer in self._layers.items()}

    def layer(self, name: str) -> "EmbeddingStore":
        """Return the store with only this one of its opened layers.

        Raises:
            ValueError: If no opened layer has this name.
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
        """Codec of the first layer: streams -> symbols -> y_hat."""
        return self._first.codec

    @property
    def layout(self) -> Layout:
        """Layout of the first layer: images per chunk, chunks per shard."""
        return self._first.layout

    def __len__(self) -> int:
        return self._columns.images

    def __getitem__(self, index: slice | ArrayLike) -> Floats:
        """Return y_hat float32: (D, h, w) of one image, (n, D, h, w) of a slice or as by `read`."""
        if isinstance(index, tuple):  # of numpy's, the second part would be of channels
            raise ValueError(f"index is {index}; it is of images alone, as in store.read(images)")
        images = np.asarray(range(len(self))[index] if isinstance(index, slice) else index)
        y_hat = self.read(np.atleast_1d(images))
        return y_hat if images.ndim else np.asarray(y_hat[0])

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
            CorruptStreamError: Names the file that is missing or damaged, or the store if its
                codec cannot decode a stream.
            ValueError: If images were appended since the store was opened, and moved others.
        """
        return self.codec.dequantize(self.read_symbols(indices))

    def read_symbols(self, indices: ArrayLike) -> Symbols:
        """Read the symbols (n, L) int32 of images; see `read` for indices and errors."""
        return self._first.symbols(checked_indices(indices, len(self)))

    def batches(self, size: int = 256, indices: ArrayLike | None = None) -> Iterator[Floats]:
        """Decode images batch by batch, reading ahead while you use the current batch.

        Images stored together are read together: any order works, the stored order is fastest.

        Args:
            size: Images in a batch; the last may have fewer.
            indices: Which images, as for `read`; None for all, in order.

        Returns:
            Iterator over batches, y_hat (n, D, h, w) float32.

        Raises:
            CorruptStreamError: Names the file that is missing or damaged, or the store if its
                codec cannot decode a stream.
            ValueError: If size is less than 1.
        """
        if size < 1:
            raise ValueError(f"size is {size}; a batch has at least one image")
        every = range(len(self)) if indices is None else indices
        chosen = checked_indices(every, len(self))
        parts = [chosen[start : start + size] for start in range(0, len(chosen), size)]
        return read_ahead(self.read, parts)

    def stream_bytes(self) -> Indices:
        """(N,) bytes of each image's streams in all opened layers, from the chunk headers."""
        lengths = [layer.shards.stream_bytes for layer in self._layers.values()]
        return np.asarray(np.sum(lengths, axis=0), dtype=np.int64)

    @cached_property
    def ids(self) -> NDArray[np.object_]:
        """(N,) unique names; str objects, since one may be much longer than the others."""
        return self._columns.ids()

    @cached_property
    def splits(self) -> NDArray[np.str_]:
        """(N,) name of each image's split."""
        numbers = self._columns.numbers(SPLIT, len(self.split_names))
        names: NDArray[np.str_] = np.array(self.split_names)[numbers]
        return names

    @cached_property
    def labels(self) -> NDArray[np.int64]:
        """(N,) int64 indices into the classes."""
        return self._columns.numbers(LABEL, len(self.classes))

    @property
    def bytes_per_image(self) -> float:
        """Mean stream bytes of the test images (of all, if there are none), plus overhead.

        The overhead is each image's share of all other bytes in the layers' files, zarr.json
        excluded.
        """
        return self.cost().bytes_per_image

    def cost(self, measured: bool = False) -> Cost:
        """Return what an image costs, as `bytes_per_image`, and the streams that it is a mean of.

        Without test images that is the size of the shards by their images, which takes no reading.

        Args:
            measured: Whether to read the lengths of streams also where nothing depends on them.
        """
        size, test = self._shard_bytes, self.splits == "test"
        streams = self.stream_bytes() if measured or test.any() else np.empty(0, np.int64)
        if not test.any():
            return Cost(size / len(self), None, streams)
        rest = (size - int(streams.sum())) / len(self)
        return Cost(float(streams[test].mean()) + rest, "test", streams[test])

    @property
    def index_bytes_per_image(self) -> float:
        """Bytes of ids, splits and labels per image, zarr.json excluded."""
        return self._columns.size_bytes / len(self)

    @property
    def size_bytes(self) -> int:
        """Bytes of all files: shards of the opened layers, ids, splits, labels and metadata."""
        return self._shard_bytes + self._columns.size_bytes + self.side_bytes

    @property
    def _shard_bytes(self) -> int:
        return sum(layer.shards.size_bytes for layer in self._layers.values())

    def verify(self, progress: Callable[[int, int], None] = lambda done, total: None) -> Extent:
        """Check everything: the metadata afresh, index arrays, and all shards of opened layers.

        Args:
            progress: Called after every shard with the number checked and the total.

        Returns:
            The extent that was checked.

        Raises:
            ValueError: If the metadata were changed since the store was written.
            CorruptStreamError: Names the file that is missing or damaged.
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
        """Return what a writer needs to continue the store."""
        splits = self._columns.numbers(SPLIT, len(self.split_names)).tolist()
        layers = {name: layer.held() for name, layer in self._layers.items()}
        return Held(layers, self.ids.tolist(), splits, self.labels.tolist())
