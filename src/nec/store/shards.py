"""Reading the shards of a store: finding the bytes of each image's stream."""

from collections.abc import Iterator, Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from nec.coding import CorruptStreamError
from nec.store.chunks import (
    EMPTY,
    Header,
    header_bytes,
    index_bytes,
    read_chunk,
    read_header,
    read_index,
)
from nec.store.files import Files, Part
from nec.store.schema import Layout

Indices = NDArray[np.int64]

# Shards whose index claims more than this have it checked against their file size.
LARGE_SHARD_BYTES = 64 << 20
# Above this mean chunk size, only the headers are read; below, the whole shard at once.
LARGE_CHUNK_BYTES = 64 << 10


def shard_key(layer: str, shard: int) -> str:
    """Return the path of a layer's shard in the store."""
    return f"{layer}/c/{shard}/0/0/0"


class Shards:
    """The shard files of a layer.

    Args:
        files: Files of the store.
        layer: Name of the layer.
        images: N, number of images.
        layout: Images per chunk, chunks per shard.
    """

    def __init__(self, files: Files, layer: str, images: int, layout: Layout) -> None:
        self.files = files
        self.layer = layer
        self.images = images
        self.layout = layout
        self._entries: dict[int, Indices] = {}

    @property
    def keys(self) -> list[str]:
        """Paths of the shards, one file each.

        Raises:
            CorruptStreamError: If the last one is missing; metadata may claim any number.
        """
        count = -(-self.images // self.layout.images)
        self.files.sizes([self._key(count - 1)])
        return [self._key(shard) for shard in range(count)]

    @cached_property
    def size_bytes(self) -> int:
        """Bytes of all shards on disk."""
        size = sum(self.files.sizes(self.keys))
        self.files.check_as_opened()
        return size

    @cached_property
    def stream_bytes(self) -> Indices:
        """(N,) bytes of each stream, read from the headers of all chunks."""
        with self.files.as_opened():
            lengths = [self._lengths(shard) for shard in range(len(self.keys))]
        return np.concatenate(lengths).astype(np.int64)

    def streams(self, images: Indices) -> list[bytes]:
        """Read the streams of images (n,), in any order; each chunk is read and checked once."""
        chunks, places = np.unique(images // self.layout.chunk, return_inverse=True)
        with self.files.as_opened():
            self._load({int(chunk) // self.layout.shard for chunk in chunks})
            data = self.files.read([self._part(int(chunk)) for chunk in chunks])
            held = [self._open(int(c), d) for c, d in zip(chunks, data, strict=True)]
        return [
            held[place][image % self.layout.chunk]
            for place, image in zip(places.tolist(), images.tolist(), strict=True)
        ]

    def verify(self) -> Iterator[int]:
        """Check every shard's index and all chunks; yield the number of shards checked so far.

        Raises:
            CorruptStreamError: Names the file that is missing or damaged.
        """
        for shard in range(len(self.keys)):
            with self.files.as_opened():
                self._verify(shard)
            yield shard + 1

    def _verify(self, shard: int) -> None:
        """Check one shard's index and all its chunks."""
        key = self._key(shard)
        (data,) = self.files.read([Part(key)])
        end = len(data) - index_bytes(self.layout.shard)
        entries = self._parse_index(shard, data[max(end, 0) :])
        position = 0
        for chunk, (offset, size) in zip(self._chunks(shard), entries.tolist(), strict=False):
            position = offset + size
            self._open(chunk, data[offset:position])
        if position != end:
            raise CorruptStreamError(
                f"{self.files.name(key)} has chunks up to byte {position} and its index at "
                f"{end}; copy it anew"
            )

    def _key(self, shard: int) -> str:
        return shard_key(self.layer, shard)

    def _chunks(self, shard: int) -> range:
        """Numbers of a shard's chunks, counted through the layer."""
        total = -(-self.images // self.layout.chunk)
        first = shard * self.layout.shard
        return range(first, min(first + self.layout.shard, total))

    def _count(self, chunk: int) -> int:
        """Number of images in a chunk."""
        return min(self.layout.chunk, self.images - chunk * self.layout.chunk)

    def _load(self, shards: set[int]) -> None:
        """Read the indices of those shards whose index was not read before."""
        missing = sorted(shards - self._entries.keys())
        size = index_bytes(self.layout.shard)
        found = self.files.read([Part(self._key(shard), -size) for shard in missing])
        parsed = [self._parse_index(*each) for each in zip(missing, found, strict=True)]
        if missing and self.images <= self.layout.images:
            self.files.check_as_opened()  # an append to the only shard may move images in it
        self._entries |= zip(missing, parsed, strict=True)

    def _parse_index(self, shard: int, packed: bytes) -> Indices:
        """Parse and check a shard's index: (chunks in the shard, 2) offset and nbytes."""
        name = self.files.name(self._key(shard))
        try:
            entries = read_index(packed, self.layout.shard)[: len(self._chunks(shard))]
        except CorruptStreamError as error:
            raise CorruptStreamError(f"{name}: {error}") from None
        if (entries == EMPTY).any() or (entries > np.iinfo(np.int64).max).any():
            raise CorruptStreamError(f"{name} lacks a chunk that the store needs; copy it anew")
        found = entries.astype(np.int64)
        ends = np.cumsum(found[:, 1])  # the first that is too large for int64 is negative
        if (found[:, 0] != ends - found[:, 1]).any():
            raise CorruptStreamError(f"{name} has chunks with gaps between them; copy it anew")
        large = ends[-1] > LARGE_SHARD_BYTES
        if ends.min() < 0 or (large and ends[-1] > self.files.sizes([self._key(shard)])[0]):
            raise CorruptStreamError(f"{name} ends before its chunks do; copy it anew")
        return found

    def _entry(self, chunk: int) -> tuple[int, int]:
        shard, slot = divmod(chunk, self.layout.shard)
        offset, size = self._entries[shard][slot].tolist()
        return offset, size

    def _part(self, chunk: int) -> Part:
        offset, size = self._entry(chunk)
        return Part(self._key(chunk // self.layout.shard), offset, offset + size)

    def _open(self, chunk: int, data: bytes) -> list[bytes]:
        """Check a chunk and cut it into streams."""
        try:
            header, streams = read_chunk(data, self.layout.chunk)
        except CorruptStreamError as error:
            raise CorruptStreamError(f"{self._name(chunk)}: {error}") from None
        self._check(chunk, header)
        return streams

    def _check(self, chunk: int, header: Header) -> None:
        """Raise CorruptStreamError if a header is not that of the chunk looked for."""
        if header.number != chunk:
            raise CorruptStreamError(
                f"{self._name(chunk)} is chunk {header.number} of a store, in the place of "
                f"{chunk}; copy the shard anew"
            )
        if header.count != self._count(chunk):
            raise CorruptStreamError(
                f"{self._name(chunk)} holds {header.count} images instead of {self._count(chunk)}; "
                f"copy the shard anew"
            )

    def _name(self, chunk: int) -> str:
        shard, slot = divmod(chunk, self.layout.shard)
        return f"{self.files.name(self._key(shard))} chunk {slot}"

    def _lengths(self, shard: int) -> Indices:
        """Bytes of each stream of one shard."""
        self._load({shard})
        chunks = self._chunks(shard)
        lengths = []
        for chunk, head in zip(chunks, self._heads(shard, chunks), strict=True):
            try:
                header = read_header(head, self._entry(chunk)[1], self.layout.chunk)
            except CorruptStreamError as error:
                raise CorruptStreamError(f"{self._name(chunk)}: {error}") from None
            self._check(chunk, header)
            lengths.append(header.lengths)
        return np.concatenate(lengths)

    def _heads(self, shard: int, chunks: Sequence[int]) -> Iterator[bytes]:
        """Yield the first bytes of each chunk, at least its header."""
        entries = self._entries[shard]
        head = header_bytes(self.layout.chunk)
        if entries[:, 1].mean() > LARGE_CHUNK_BYTES:
            key = self._key(shard)
            starts = [self._entry(chunk)[0] for chunk in chunks]
            yield from self.files.read([Part(key, start, start + head) for start in starts])
            return
        (data,) = self.files.read([Part(self._key(shard))])
        for start, size in entries.tolist():
            yield data[start : start + min(head, size)]
