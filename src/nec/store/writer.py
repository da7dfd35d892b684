"""Writing a store: every append is complete or did not happen."""

import errno
import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nec.store.base import Symbols
from nec.store.chunks import pack_chunk, pack_shard
from nec.store.columns import pack_columns
from nec.store.commits import prepare, settle
from nec.store.contents import Description, Held, is_full, is_unicode, layout_of
from nec.store.schema import (
    EMBEDDING,
    INDEX_CHUNK,
    Layout,
    embedding_metadata,
    group_metadata,
    index_metadata,
)
from nec.store.shards import shard_key


class StoreWriter:
    """Appends images to a store; `EmbeddingStore.create` and `extend` make one.

    An append that has returned is on disk, whatever happens then; one that fails, or whose process
    is killed, changes nothing. Leaving the `with` block marks the store as complete; leaving it by
    an error keeps what was appended, and the store can be extended.

    The layout follows from the rate, until the images fill more than one shard.

    Args:
        path: The folder of the store.
        description: Of the store.
        held: What is there already.
        lock: What to let go of in the end.
        begun: Whether the folder was made for this writer, who removes it without an image.
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
        self.codec = description.codec
        self.attrs = description.attrs
        self.splits = description.splits
        self.classes = description.classes
        self._held = held
        self._known = set(held.ids)
        self._lock = lock
        self._begun = begun
        self._closed = False

    def __len__(self) -> int:
        return len(self._held.ids)

    def __contains__(self, id_: str) -> bool:
        """Whether an image of this id is there already."""
        return id_ in self._known

    def append(
        self,
        symbols: Symbols,
        ids: Sequence[str],
        splits: Sequence[str],
        labels: NDArray[np.integer[Any]] | Sequence[int],
    ) -> None:
        """Encode images and add them.

        It rewrites the last shard (4 MiB at most) and the last chunk of the index arrays, and needs
        room for both beside the old ones: give hundreds of images at a time.

        Args:
            symbols: (n, L) int32.
            ids: n names, each once in a store.
            splits: n names of splits.
            labels: (n,) places among the classes.

        Raises:
            ValueError: If something does not fit; then none of these images is added.
            OSError: If they cannot be written; none of them is added either.
        """
        self._check_open()
        label = np.asarray(labels)
        if isinstance(ids, str) or isinstance(splits, str):
            raise ValueError(f"ids are {ids!r} and splits {splits!r}; give one of each per image")
        if not len(symbols) == len(ids) == len(splits) == len(label):
            raise ValueError(
                f"{len(symbols)} images came with {len(ids)} ids, {len(splits)} splits and "
                f"{len(label)} labels; give one of each per image"
            )
        self._check_ids(ids)
        numbers = self._split_numbers(splits)
        self._check_labels(label)
        streams = self.codec.encode(symbols)
        if streams:
            self._commit(streams, list(map(str, ids)), numbers, label.tolist())

    def close(self) -> None:
        """Mark the store as complete, and let another process write to it.

        Raises:
            ValueError: If it has no image.
        """
        self._check_open()
        try:
            if not self._held.ids:
                raise ValueError(
                    f"{self.path} got no image; append at least one, an empty store means nothing"
                )
            self._write(self._metadata(len(self), self._held.layout or Layout(1, 1), True))
        finally:
            self.release()

    def release(self) -> None:
        """Let another process write to the store as it is, and write no more."""
        self._closed = True
        self._lock.close()
        if self._held.ids or not self._begun:
            return
        with suppress(OSError):  # it may hold what is not ours
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
        return f"StoreWriter({str(self.path)!r}, {len(self)} images, {state}, {self.codec!r})"

    def _check_open(self) -> None:
        if self._closed:
            raise ValueError(
                f"{self.path} was closed by this writer; EmbeddingStore.extend opens another"
            )

    def _commit(
        self, streams: list[bytes], ids: list[str], splits: list[int], labels: list[int]
    ) -> None:
        """Put images on disk, then into what is held."""
        held = self._held
        tail = held.tail + streams
        layout = self._layout(tail)
        shards = [tail[i : i + layout.images] for i in range(0, len(tail), layout.images)]
        files = {
            shard_key(number): _pack(number, shard, layout)
            for number, shard in enumerate(shards, held.shards)
        }
        count = len(self)
        start = 0 if count < INDEX_CHUNK else count - count % INDEX_CHUNK
        index = index_metadata(count + len(ids), self.splits, self.classes)
        columns = held.ids[start:] + ids, held.splits[start:] + splits, held.labels[start:] + labels
        files |= pack_columns(index, start, *columns)
        files |= self._metadata(count + len(ids), layout, complete=False)
        self._write(files)
        held.ids += ids
        held.splits += splits
        held.labels += labels
        held.place(tail, layout)
        self._known.update(ids)
        self._closed = False

    def _write(self, files: Mapping[str, bytes]) -> None:
        """Put files on disk; what is held has to follow, until then nothing more is written."""
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

    def _layout(self, tail: Sequence[bytes]) -> Layout:
        """That of the store, when its last shard, or its only one, holds these streams."""
        if self._held.layout and self._held.fixed:
            return self._held.layout
        layout = layout_of(tail)
        if is_full(tail):
            return layout
        chunks = -(-len(tail) // layout.chunk)  # a shard needs no slots beyond them
        return layout._replace(shard=min(layout.shard, chunks))

    def _metadata(self, images: int, layout: Layout, complete: bool) -> dict[str, bytes]:
        arrays = {
            EMBEDDING: embedding_metadata(images, self.codec.shape, layout, self.codec.to_config()),
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
                raise ValueError(f"id {name!r} is no name; an id is a text that is not empty")
            if name in self._known or name in seen:
                raise ValueError(f"id {name!r} occurs twice; ids are unique in a store")
            if not is_unicode(name):
                raise ValueError(f"id {name!r} is no Unicode; rename the image")
            seen.add(name)

    def _split_numbers(self, splits: Sequence[str]) -> list[int]:
        known = {name: number for number, name in enumerate(self.splits)}
        for name in splits:
            if name not in known:
                raise ValueError(
                    f"split {name!r} is none of {self.splits}; name it when the store is created"
                )
        return [known[name] for name in splits]

    def _check_labels(self, label: NDArray[Any]) -> None:
        if label.ndim != 1 or (label.dtype.kind not in "iu" and len(label)):
            raise ValueError(f"labels are {label.dtype} {label.shape}; they are integers (n,)")
        wrong = label[(label < 0) | (label >= len(self.classes))]
        if len(wrong):
            raise ValueError(
                f"label {wrong[0]} is none of 0..{len(self.classes) - 1}; the store was created "
                f"with {len(self.classes)} classes"
            )


_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def _pack(number: int, streams: Sequence[bytes], layout: Layout) -> bytes:
    """A shard, counted through the store."""
    starts = range(0, len(streams), layout.chunk)
    parts = (streams[start : start + layout.chunk] for start in starts)
    chunks = [pack_chunk(n, part) for n, part in enumerate(parts, number * layout.shard)]
    return pack_shard(chunks, layout.shard)


def _json(metadata: Mapping[str, Any]) -> bytes:
    text = json.dumps(metadata, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.encode()
