"""Writing a store: every append is complete or did not happen."""

import errno
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nec.store.base import Codec, Symbols
from nec.store.chunks import pack_chunk, pack_shard
from nec.store.columns import pack_columns
from nec.store.commits import prepare, settle
from nec.store.contents import Description, Held, is_unicode
from nec.store.schema import (
    EMBEDDING,
    INDEX_CHUNK,
    Layout,
    group_metadata,
    index_metadata,
    layer_metadata,
)
from nec.store.shards import shard_key


class StoreWriter:
    """Appends images to a store; `EmbeddingStore.create` and `extend` make one.

    Once an append returns, its images are on disk, whatever happens next; one that fails, or whose
    process is killed, changes nothing. Leaving the `with` block marks the store as complete;
    leaving it by an error keeps what was appended, and the store can be extended.

    The layout of a layer follows from its rate until its images fill a shard; then it is fixed.

    Args:
        path: The folder of the store.
        description: Codecs, attributes, splits and classes of the store.
        held: What the store holds already.
        lock: Released when the writer is closed.
        begun: Whether the folder was made for this writer, which removes it if no image was added.
    """

    def __init__(
        self,
        path: Path,
        description: Description,
        held: Held,
        lock: ExitStack,
        begun: bool = False,
    ) -> None:
        self.path = path
        self.layers = description.codecs
        self.attrs = description.attrs
        self.splits = description.splits
        self.classes = description.classes
        self._held = held
        self._known = set(held.ids)
        self._lock = lock
        self._begun = begun
        self._closed = False

    @property
    def codec(self) -> Codec:
        """Codec of the layer that is read first."""
        return self.layers[EMBEDDING]

    def __len__(self) -> int:
        return len(self._held.ids)

    def __contains__(self, id_: str) -> bool:
        """Whether the store already has an image with this id."""
        return id_ in self._known

    def append(
        self,
        symbols: Symbols | Mapping[str, Symbols],
        ids: Sequence[str],
        splits: Sequence[str],
        labels: NDArray[np.integer[Any]] | Sequence[int],
    ) -> None:
        """Encode images and add them.

        Each append rewrites the last shards (4 MiB at most) and the last chunk of the index
        arrays, and needs disk space for both beside the old ones: add hundreds of images at a time.

        Args:
            symbols: (n, L) int32, as the codec takes them (floats are viewed as integers for a
                `RawCodec`, which says how); for several layers, a mapping from layer name to them.
            ids: n names, unique in the store.
            splits: n names of splits.
            labels: (n,) indices into the classes.

        Raises:
            ValueError: If an argument does not fit the store; none of these images is added.
            OSError: If the images cannot be written; none of them is added.
        """
        self._check_open()
        label = np.asarray(labels)
        if isinstance(ids, str) or isinstance(splits, str):
            raise ValueError(f"ids are {ids!r} and splits {splits!r}; give one of each per image")
        given = symbols if isinstance(symbols, Mapping) else {EMBEDDING: symbols}
        if given.keys() != self.layers.keys():
            raise ValueError(
                f"symbols are of the layers {sorted(given)}; give those of {sorted(self.layers)}"
            )
        for own in given.values():
            if not len(own) == len(ids) == len(splits) == len(label):
                raise ValueError(
                    f"{len(own)} images came with {len(ids)} ids, {len(splits)} splits and "
                    f"{len(label)} labels; give one of each per image"
                )
        self._check_ids(ids)
        numbers = self._split_numbers(splits)
        self._check_labels(label)
        streams = {name: codec.encode(given[name]) for name, codec in self.layers.items()}
        if len(ids):
            self._commit(streams, list(map(str, ids)), numbers, label.tolist())

    def close(self) -> None:
        """Mark the store as complete, and let another process write to it.

        Raises:
            ValueError: If the store has no image.
        """
        self._check_open()
        try:
            if not self._held.ids:
                raise ValueError(
                    f"{self.path} got no image; append at least one, an empty store means nothing"
                )
            layouts = {name: layer.layout for name, layer in self._held.layers.items()}
            self._write(self._metadata(len(self), layouts, complete=True))
        finally:
            self.release()

    def release(self) -> None:
        """Stop writing, leave the store as it is, and let another process write to it."""
        self._closed = True
        self._lock.close()
        if self._held.ids or not self._begun:
            return
        with suppress(OSError):  # it may hold files that are not ours
            self.path.rmdir()

    def __enter__(self) -> "StoreWriter":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None and not self._closed:
            self.close()
        else:
            self.release()

    def __repr__(self) -> str:
        state = "closed" if self._closed else "open"
        codecs = self.codec if len(self.layers) == 1 else dict(self.layers)
        return f"StoreWriter({str(self.path)!r}, {len(self)} images, {state}, {codecs!r})"

    def _check_open(self) -> None:
        if self._closed:
            raise ValueError(
                f"{self.path} was closed by this writer; EmbeddingStore.extend opens another"
            )

    def _commit(
        self,
        streams: Mapping[str, list[bytes]],
        ids: list[str],
        splits: list[int],
        labels: list[int],
    ) -> None:
        """Write images to disk, then update what is held in memory."""
        held = self._held
        tails = {name: layer.tail + streams[name] for name, layer in held.layers.items()}
        layouts = {name: layer.suited(tails[name]) for name, layer in held.layers.items()}
        files: dict[str, bytes] = {}
        for name, layer in held.layers.items():
            shards = _shards(tails[name], layouts[name], layer.shards)
            files |= {shard_key(name, number): shard for number, shard in shards}
        count = len(self)
        start = 0 if count < INDEX_CHUNK else count - count % INDEX_CHUNK
        index = index_metadata(count + len(ids), self.splits, self.classes)
        columns = held.ids[start:] + ids, held.splits[start:] + splits, held.labels[start:] + labels
        files |= pack_columns(index, start, *columns)
        files |= self._metadata(count + len(ids), layouts, complete=False)
        self._write(files)
        held.ids += ids
        held.splits += splits
        held.labels += labels
        for name, layer in held.layers.items():
            layer.place(tails[name], layouts[name])
        self._known.update(ids)
        self._closed = False

    def _write(self, files: Mapping[str, bytes]) -> None:
        """Write files to disk, and refuse further appends until the caller has updated `_held`."""
        self._closed = True
        try:
            prepare(self.path, files)
        except OSError as error:
            self._closed = False  # nothing has changed
            way_out = "make room there" if error.errno in _NO_ROOM else "choose another path"
            raise type(error)(
                error.errno,
                f"{error.strerror or error}; {len(self)} images are complete and nothing further "
                f"was kept, {way_out} and go on",
                str(self.path),
            ) from error
        try:
            settle(self.path)
        except OSError as error:
            raise type(error)(
                error.errno,
                f"{error.strerror or error}; all is written but not yet in its place, which "
                "EmbeddingStore.open sees to where it can",
                str(self.path),
            ) from error

    def _metadata(
        self, images: int, layouts: Mapping[str, Layout], complete: bool
    ) -> dict[str, bytes]:
        arrays = {
            **{
                name: layer_metadata(name, images, codec.shape, layouts[name], codec.to_config())
                for name, codec in self.layers.items()
            },
            **index_metadata(images, self.splits, self.classes),
        }
        group = group_metadata(self.attrs, arrays, complete)
        return {
            "zarr.json": _json(group),
            **{f"{name}/zarr.json": _json(metadata) for name, metadata in arrays.items()},
        }

    def _check_ids(self, ids: Sequence[str]) -> None:
        seen = set()
        for name in ids:
            if not isinstance(name, str) or not name:
                raise ValueError(f"id {name!r} is not a name; an id is a text that is not empty")
            if name in self._known or name in seen:
                raise ValueError(f"id {name!r} occurs twice; ids are unique in a store")
            if not is_unicode(name):
                raise ValueError(f"id {name!r} is not Unicode; rename the image")
            seen.add(name)

    def _split_numbers(self, splits: Sequence[str]) -> list[int]:
        known = {name: number for number, name in enumerate(self.splits)}
        for name in splits:
            if name not in known:
                raise ValueError(
                    f"split {name!r} is not one of {self.splits}; name it when the store is created"
                )
        return [known[name] for name in splits]

    def _check_labels(self, label: NDArray[Any]) -> None:
        if label.ndim != 1 or (label.dtype.kind not in "iu" and len(label)):
            raise ValueError(f"labels are {label.dtype} {label.shape}; they are integers (n,)")
        wrong = label[(label < 0) | (label >= len(self.classes))]
        if len(wrong):
            raise ValueError(
                f"label {wrong[0]} is not one of 0..{len(self.classes) - 1}; the store was created "
                f"with {len(self.classes)} classes"
            )


_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def _shards(tail: Sequence[bytes], layout: Layout, first: int) -> Iterator[tuple[int, bytes]]:
    """Yield (number, bytes) of the shards that hold these streams, numbered from `first`."""
    for number, start in enumerate(range(0, len(tail), layout.images), first):
        yield number, _pack(number, tail[start : start + layout.images], layout)


def _pack(number: int, streams: Sequence[bytes], layout: Layout) -> bytes:
    """Pack streams into one shard; `number` counts the shards of the layer."""
    starts = range(0, len(streams), layout.chunk)
    parts = (streams[start : start + layout.chunk] for start in starts)
    chunks = [pack_chunk(n, part) for n, part in enumerate(parts, number * layout.shard)]
    return pack_shard(chunks, layout.shard)


def _json(metadata: Mapping[str, Any]) -> bytes:
    text = json.dumps(metadata, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.encode()
