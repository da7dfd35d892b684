"""Writing a store: into a hidden folder beside it, renamed when it is complete."""

import errno
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from os import PathLike, fspath
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from nec.store.base import Codec, Symbols
from nec.store.chunks import (
    LARGEST_CHUNK,
    LARGEST_SHARD,
    SHARD_BYTES,
    choose_layout,
    pack_chunk,
    pack_shard,
)
from nec.store.schema import (
    EMBEDDING,
    ID,
    LABEL,
    LOST_SPLIT,
    RESERVED,
    SPLIT,
    Layout,
    canonical,
    embedding_metadata,
    group_metadata,
    index_metadata,
)
from nec.store.shards import shard_key


class StoreWriter:
    """Appends images to a new store. Leaving its `with` block completes the store.

    Until then nothing lies under the final name, and an error leaves nothing at all. The layout
    follows from the rate, so the first streams wait in memory until their mean length is known; a
    store smaller than one shard is written at the end.

    Args:
        path: Local; must not exist.
        codec: What the symbols are for.
        attrs: The user's attributes, as JSON has them.
        splits: Names of the splits.
        classes: Names of the classes; a label is a place among them.

    Raises:
        FileExistsError: If path exists.
        ValueError: If attrs are no JSON, or a name occurs twice.
    """

    def __init__(
        self,
        path: str | PathLike[str],
        codec: Codec,
        attrs: Mapping[str, Any],
        splits: Sequence[str],
        classes: Sequence[str],
    ) -> None:
        self.path = _checked_path(path)
        self.codec = codec
        self.attrs = _checked_attrs(attrs)
        self.splits = _checked_names(splits, "splits", LOST_SPLIT)
        self.classes = _checked_names(classes, "classes", np.iinfo(np.int32).max)
        self._ids: dict[str, None] = {}
        self._split: list[int] = []
        self._label: list[int] = []
        self._waiting: list[bytes] = []
        self._stream_bytes = 0
        self._layout: Layout | None = None
        self._shards = 0
        self.part = self.path.with_name(f".{self.path.name}.{os.getpid()}.part")
        with self._named_errors():
            self.part.mkdir(parents=True)

    def __len__(self) -> int:
        return len(self._ids)

    def append(
        self,
        symbols: Symbols,
        ids: Sequence[str],
        splits: Sequence[str],
        labels: NDArray[np.integer[Any]] | Sequence[int],
    ) -> None:
        """Encode images and add them.

        Args:
            symbols: (n, L) int32.
            ids: n names, each once in a store.
            splits: n names of splits.
            labels: (n,) places among the classes.

        Raises:
            ValueError: If something does not fit; then none of these images is added.
        """
        label = np.asarray(labels)
        if not len(symbols) == len(ids) == len(splits) == len(label):
            raise ValueError(
                f"{len(symbols)} images came with {len(ids)} ids, {len(splits)} splits and "
                f"{len(label)} labels; give one of each per image"
            )
        self._check_ids(ids)
        numbers = self._split_numbers(splits)
        self._check_labels(label)
        streams = self.codec.encode(symbols)
        self._waiting += streams
        self._stream_bytes += sum(map(len, streams))
        self._ids.update(dict.fromkeys(map(str, ids)))
        self._split += numbers
        self._label += label.tolist()
        with self._named_errors():
            self._write_full_shards()

    def close(self) -> None:
        """Write what waits and the metadata, and give the store its name.

        Raises:
            ValueError: If no image was appended.
            FileExistsError: If something took the name in the meantime.
        """
        try:
            if not self._ids:
                raise ValueError(
                    f"{self.path} got no image; append at least one, an empty store means nothing"
                )
            with self._named_errors():
                self._write_rest()
                self._write_metadata(self._layout or Layout(1, 1))
                self._write_index()
            _checked_path(self.path)
            self.part.rename(self.path)
        except BaseException:
            self.abort()
            raise

    def abort(self) -> None:
        """Remove what was written."""
        shutil.rmtree(self.part, ignore_errors=True)

    def __enter__(self) -> "StoreWriter":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()

    def _check_ids(self, ids: Sequence[str]) -> None:
        seen = set()
        for name in ids:
            if not isinstance(name, str) or not name:
                raise ValueError(f"id {name!r} is no name; an id is a text that is not empty")
            if name in self._ids or name in seen:
                raise ValueError(f"id {name!r} occurs twice; ids are unique in a store")
            try:
                name.encode()
            except UnicodeEncodeError:
                raise ValueError(f"id {name!r} is no Unicode; rename the image") from None
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
        if label.ndim != 1 or label.dtype.kind not in "iu":
            raise ValueError(f"labels are {label.dtype} {label.shape}; they are integers (n,)")
        wrong = label[(label < 0) | (label >= len(self.classes))]
        if len(wrong):
            raise ValueError(
                f"label {wrong[0]} is none of 0..{len(self.classes) - 1}; the store was created "
                f"with {len(self.classes)} classes"
            )

    def _write_full_shards(self) -> None:
        if self._layout is None:
            size_bytes = self._stream_bytes
            if size_bytes < SHARD_BYTES and len(self._waiting) < LARGEST_CHUNK * LARGEST_SHARD:
                return
            self._layout = choose_layout(size_bytes / len(self._waiting))
        while len(self._waiting) >= self._layout.images:
            self._write_shard(self._layout)

    def _write_rest(self) -> None:
        if self._layout is None:  # all images are here; a shard needs no slots beyond them
            layout = choose_layout(self._stream_bytes / len(self._waiting))
            chunks = -(-len(self._waiting) // layout.chunk)
            self._layout = layout._replace(shard=min(layout.shard, chunks))
        while self._waiting:
            self._write_shard(self._layout)

    def _write_shard(self, layout: Layout) -> None:
        streams = self._waiting[: layout.images]
        starts = range(0, len(streams), layout.chunk)
        chunks = [pack_chunk(streams[start : start + layout.chunk]) for start in starts]
        file = self.part / shard_key(self._shards)
        file.parent.mkdir(parents=True)
        file.write_bytes(pack_shard(chunks, layout.shard))
        self._shards += 1
        del self._waiting[: layout.images]

    def _write_metadata(self, layout: Layout) -> None:
        arrays = {
            EMBEDDING: embedding_metadata(
                len(self), self.codec.shape, layout, self.codec.to_config()
            ),
            **index_metadata(len(self), self.splits, self.classes),
        }
        _write_json(self.part, group_metadata(self.attrs, arrays))
        for name, metadata in arrays.items():
            _write_json(self.part / name, metadata)

    def _write_index(self) -> None:
        group = zarr.open_group(self.part, mode="r+", zarr_format=3, use_consolidated=False)
        columns = {
            ID: np.array(list(self._ids), dtype=object),
            SPLIT: np.array(self._split, dtype=np.uint8),
            LABEL: np.array(self._label, dtype=np.int32),
        }
        for name, values in columns.items():
            group[name][:] = values  # type: ignore[index]

    @contextmanager
    def _named_errors(self) -> Iterator[None]:
        """An OSError of writing says which store it hit, whatever file it was."""
        try:
            yield
        except OSError as error:
            way_out = "make room there" if error.errno in _NO_ROOM else "choose another path"
            raise type(error)(
                error.errno,
                f"{error.strerror or error}; nothing was kept, {way_out}",
                str(self.path),
            ) from error


_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def _checked_path(path: str | PathLike[str]) -> Path:
    if "://" in fspath(path):
        raise ValueError(f"{path} is a URL; write to a local path, then copy the folder there")
    path = Path(path)
    if os.path.lexists(path):
        raise FileExistsError(
            f"{path} exists and is not overwritten; remove it or choose another path"
        )
    return path


def _checked_attrs(attrs: Mapping[str, Any]) -> dict[str, Any]:
    """Attributes as they will be read: lists for tuples."""
    if RESERVED in attrs:
        raise ValueError(f"attribute {RESERVED!r} is nec's own; choose another name")
    checked: dict[str, Any] = json.loads(canonical(dict(attrs)))
    return checked


def _checked_names(names: Sequence[str], what: str, most: int) -> list[str]:
    if len(set(names)) != len(names) or not all(isinstance(n, str) and n for n in names):
        raise ValueError(f"{what} are {list(names)}; give different names, none empty")
    if not 0 < len(names) <= most:
        raise ValueError(f"{len(names)} {what} are given; a store has 1 to {most}")
    return list(names)


def _write_json(folder: Path, metadata: Mapping[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(metadata, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    (folder / "zarr.json").write_text(text, encoding="utf-8")
