"""EmbeddingStore: embeddings of images with ids, splits and labels, decoded as they are read."""

import operator
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import cached_property
from os import PathLike, fspath
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nec.coding import CorruptStreamError
from nec.store.base import Codec, Floats, Symbols
from nec.store.codec import codec_from_config
from nec.store.columns import Columns
from nec.store.commits import is_unsettled, settle
from nec.store.contents import Description, Held
from nec.store.files import Files
from nec.store.folders import hold, is_held, is_taken, local
from nec.store.metadata import Metadata, read_metadata
from nec.store.schema import LABEL, SPLIT, Extent
from nec.store.shards import Indices, Shards
from nec.store.writer import StoreWriter

# A store that is being written is tried again.
OPEN_TRIES = 20
SECONDS_BETWEEN = 0.05
# Batches that are decoded ahead of the one in use.
BATCHES_AHEAD = 2


class EmbeddingStore:
    """A store, open to be read, as it was when it was opened. `create` and `extend` write one.

    Attributes:
        url: Where it lies.
        attrs: The user's attributes.
        codec: Streams -> symbols -> y_hat.
        layout: Images per chunk, chunks per shard.
        split_names: Of all splits that the store may have.
        classes: Names; a label is a place among them.
        complete: Whether its writer said that all images are there.
        side_bytes: Paid once: all zarr.json, with tables and transforms.
    """

    def __init__(self, files: Files, metadata: Metadata) -> None:
        structure = metadata.structure
        self.url = files.url
        self.attrs = metadata.attributes
        self.codec: Codec = codec_from_config(structure.codec)
        self.layout = structure.layout
        self.split_names = structure.splits
        self.classes = structure.classes
        self.complete = metadata.complete
        self.side_bytes = metadata.size_bytes
        self._files = files
        self._columns = Columns(files, structure.images)
        self._shards = Shards(files, structure.images, structure.layout)
        if self.codec.shape != structure.shape:
            raise ValueError(
                f"{files.url} has embeddings of shape {structure.shape} and {self.codec!r}; copy "
                "it anew"
            )

    @staticmethod
    def create(
        path: str | PathLike[str],
        codec: Codec,
        attrs: Mapping[str, Any],
        *,
        splits: Sequence[str] = ("train", "val", "test"),
        classes: Sequence[str],
    ) -> StoreWriter:
        """Begin a new store; see `StoreWriter`.

        Args:
            path: Local; must not exist, or hold nothing but what a writer left that was killed
                before its first image.
            codec: What the symbols are for.
            attrs: Your attributes, as JSON has them; they cannot be changed later.
            splits: Names of the splits that images may be of.
            classes: Names of the classes; a label is a place among them.

        Raises:
            FileExistsError: If path exists.
            RuntimeError: If another process is about to write it.
            ValueError: If attrs are no JSON, or a name occurs twice.
        """
        description = Description(codec, attrs, splits, classes)
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
            return StoreWriter(folder, description, Held(), lock.pop_all(), begun)

    @classmethod
    def extend(cls, path: str | PathLike[str]) -> StoreWriter:
        """Go on writing a store, complete or left by a process that was killed.

        Raises:
            FileNotFoundError: If nothing is there.
            RuntimeError: If another process is writing it.
            ValueError: If it is no store, or its metadata were changed.
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
            description = Description(store.codec, store.attrs, store.split_names, store.classes)
            return StoreWriter(folder, description, held, lock.pop_all())

    @classmethod
    def open(cls, url: str | PathLike[str]) -> "EmbeddingStore":
        """Open a store at a local path or fsspec URL, and check the hash of its metadata.

        Raises:
            FileNotFoundError: If nothing is there.
            OSError: If a killed writer left an append that cannot be put in its place.
            RuntimeError: If a writer is at work and leaves no moment to open it.
            ValueError: If it is no store, is newer than this nec, or its metadata were changed.
        """
        tries = OPEN_TRIES if is_held(url) else 1
        for _ in range(tries - 1):
            with suppress(ValueError, RuntimeError, OSError):
                return cls._open(url)
            time.sleep(SECONDS_BETWEEN)  # its writer may be moving the files of a commit
        return cls._open(url)

    @classmethod
    def _open(cls, url: str | PathLike[str]) -> "EmbeddingStore":
        _settle(url)
        files = Files(url)
        return cls(files, read_metadata(files))

    def __len__(self) -> int:
        return self._shards.images

    def __getitem__(self, index: int) -> Floats:
        """The y_hat (D, h, w) float32 of one image."""
        y_hat: Floats = self.read([operator.index(index)])[0]
        return y_hat

    def __repr__(self) -> str:
        return f"EmbeddingStore({self.url!r}, {len(self)} images, {self.codec!r})"

    def read(self, indices: ArrayLike) -> Floats:
        """Decode images.

        Args:
            indices: (n,) integers, negative ones count from the end; or a mask (N,).

        Returns:
            y_hat (n, D, h, w) float32.

        Raises:
            CorruptStreamError: Names the file that is missing or damaged.
        """
        return self.codec.dequantize(self.read_symbols(indices))

    def read_symbols(self, indices: ArrayLike) -> Symbols:
        """Symbols (n, L) int32 of images; see `read`."""
        streams = self._shards.streams(self._checked(indices))
        try:
            return self.codec.decode(streams)
        except CorruptStreamError as error:
            raise CorruptStreamError(f"{self.url}: {error}") from None

    def batches(self, size: int = 256, indices: ArrayLike | None = None) -> Iterator[Floats]:
        """Decode images batch by batch, the next ones while you use one.

        Images that lie together are read together: any order works, the stored one is fastest.

        Args:
            size: Images in a batch; the last may have fewer.
            indices: Of the images, as `read` takes them; all, in order, where there are none.

        Returns:
            y_hat (n, D, h, w) float32, one after the other.

        Raises:
            CorruptStreamError: Names the file that is missing or damaged.
            ValueError: If size is less than 1.
        """
        if size < 1:
            raise ValueError(f"size is {size}; a batch has at least one image")
        chosen = np.arange(len(self)) if indices is None else self._checked(indices)
        return self._ahead([chosen[start : start + size] for start in range(0, len(chosen), size)])

    def _ahead(self, parts: list[Indices]) -> Iterator[Floats]:
        """Read parts one after the other, some before they are asked for."""
        with ThreadPoolExecutor(1) as ahead:
            running: deque[Future[Floats]] = deque()
            try:
                for part in parts:
                    running.append(ahead.submit(self.read, part))
                    if len(running) > BATCHES_AHEAD:
                        yield running.popleft().result()
                while running:
                    yield running.popleft().result()
            finally:
                for future in running:
                    future.cancel()

    def stream_bytes(self) -> Indices:
        """(N,) bytes of each image's stream, from the headers of the chunks."""
        return self._shards.stream_bytes

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
        """Mean stream of the test images (all, where there are none), plus an image's share.

        The share is of all else in the files of the embedding array, without its zarr.json.
        """
        streams = self.stream_bytes()
        test = self.splits == "test"
        chosen = streams[test] if test.any() else streams
        return float(chosen.mean()) + (self._shards.size_bytes - int(streams.sum())) / len(self)

    @cached_property
    def index_bytes_per_image(self) -> float:
        """What ids, splits and labels take per image, without their zarr.json."""
        return self._columns.size_bytes / len(self)

    def verify(self, progress: Callable[[int, int], None] = lambda done, total: None) -> Extent:
        """Check all that is there: the metadata anew, every index array, shard and chunk.

        Args:
            progress: Called after every shard with how many are checked, and of how many.

        Returns:
            What was checked.

        Raises:
            ValueError: Metadata were changed since the store was written.
            CorruptStreamError: Names the file that is missing or damaged.
        """
        fresh = EmbeddingStore.open(self.url)  # what this object read before may have changed since
        fresh._columns.verify(len(fresh.split_names), len(fresh.classes))
        fresh._shards.verify(progress)
        return fresh.layout.extent(len(fresh))

    def _held(self) -> Held:
        """What a writer needs to go on."""
        splits = self._columns.numbers(SPLIT, len(self.split_names)).tolist()
        held = Held(self.ids.tolist(), splits, self.labels.tolist())
        if len(self) > self.layout.images:
            held.fixed, held.shards = True, len(self) // self.layout.images
        last = np.arange(held.shards * self.layout.images, len(self))
        held.place(self._shards.streams(last), self.layout)
        return held

    def _checked(self, indices: ArrayLike) -> Indices:
        """Integers (n,) in 0..N-1."""
        chosen = np.asarray(indices)
        if chosen.dtype == bool and chosen.shape == (len(self),):
            return np.flatnonzero(chosen)
        if chosen.ndim != 1 or (chosen.dtype.kind not in "iu" and len(chosen)):
            raise ValueError(
                f"indices are {chosen.dtype} {chosen.shape}; give integers (n,) or a mask "
                f"({len(self)},)"
            )
        outside = chosen[(chosen < -len(self)) | (chosen >= len(self))]
        if len(outside):
            raise IndexError(f"image {outside[0]} is outside a store of {len(self)} images")
        chosen = chosen.astype(np.int64)
        return np.where(chosen < 0, chosen + len(self), chosen)


def _settle(url: str | PathLike[str]) -> None:
    """Put in its place what a killed writer left of a complete append."""
    if "://" in fspath(url) or not is_unsettled(Path(url)):
        return
    try:
        with hold(Path(url)):
            settle(Path(url))
    except OSError as error:
        raise type(error)(
            error.errno,
            f"{error.strerror}: its writer was killed while it put files in their places; open it "
            "once where it can be written",
            fspath(url),
        ) from error
