"""A chunk of images and a shard of chunks, byte by byte (docs/format.md, "The store")."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from nec.coding import CorruptStreamError
from nec.store.lengths import lengths_bytes, pack_lengths, read_lengths, read_varint, varint
from nec.store.schema import FORMAT_VERSION, Layout, check_version

CHECKSUM_BYTES = 4
ENTRY_BYTES = 16  # (offset, nbytes) of a chunk in the index of its shard
EMPTY = 2**64 - 1

# Bytes of a chunk besides its streams and the differences of their lengths: version, number,
# count, median, parameter, padding, checksum, index entry.
CHUNK_BYTES = 1 + 2 + 2 + 2 + 1 + 1 + CHECKSUM_BYTES + ENTRY_BYTES
CHUNK_SHARE = 0.004  # of the payload; two index entries, where a shard is half empty, stay < 1 %
LARGEST_CHUNK = 256  # images; reading one reads and checks the chunk
SHARD_BYTES = 4 << 20
LARGEST_SHARD = 1024  # chunks


def choose_layout(stream_bytes: float) -> Layout:
    """Return the layout with the smallest chunks whose overhead is small for this mean length."""
    needed = CHUNK_BYTES / (CHUNK_SHARE * max(stream_bytes, 1.0))
    chunk = 1
    while chunk < needed and chunk < LARGEST_CHUNK:
        chunk *= 2
    shard = int(SHARD_BYTES / (chunk * max(stream_bytes, 1.0)))
    return Layout(chunk, min(max(shard, 1), LARGEST_SHARD))


def checksum(data: bytes) -> bytes:
    """Return the CRC-32C of data: four bytes, little-endian."""
    return int(google_crc32c.value(data)).to_bytes(CHECKSUM_BYTES, "little")


@dataclass(frozen=True)
class Header:
    """Start of a chunk: its number, and where each stream lies."""

    number: int  # counted through the layer
    bounds: tuple[int, ...]  # count + 1 positions in the chunk: stream i is bounds[i]:bounds[i + 1]

    @property
    def count(self) -> int:
        """Images in the chunk."""
        return len(self.bounds) - 1

    @property
    def lengths(self) -> NDArray[np.int64]:
        """(count,) bytes of each stream."""
        return np.diff(np.asarray(self.bounds, dtype=np.int64))


def pack_chunk(number: int, streams: Sequence[bytes]) -> bytes:
    """Streams -> a chunk: version, number, count, lengths, streams, CRC-32C over all before."""
    head = bytes([FORMAT_VERSION]) + varint(number) + varint(len(streams))
    lengths = pack_lengths(np.array([len(stream) for stream in streams], dtype=np.int64))
    body = b"".join([head, lengths, *streams])
    return body + checksum(body)


def read_header(chunk: bytes, size_bytes: int, most: int) -> Header:
    """Read the header of a chunk from its first bytes; the checksum is not verified.

    Args:
        chunk: First bytes of the chunk, at least its header.
        size_bytes: Size of the whole chunk.
        most: Largest number of images that the chunk may hold.

    Raises:
        CorruptStreamError: If the header does not add up to size_bytes.
        ValueError: If the chunk has a version that this nec does not read.
    """
    if not chunk:
        raise CorruptStreamError("a chunk is empty; copy its shard anew")
    check_version(chunk[0], "a chunk")
    number, position = read_varint(chunk, 1)
    count, position = read_varint(chunk, position)
    if count > most:
        raise CorruptStreamError(
            f"a chunk holds {count} images and at most {most} may be there; copy its shard anew"
        )
    lengths, position = read_lengths(chunk, position, count)
    bounds = np.cumsum([position, *lengths]).tolist()
    if bounds[-1] + CHECKSUM_BYTES != size_bytes:
        raise CorruptStreamError(
            f"a chunk of {size_bytes} bytes says that it holds {count} streams up to byte "
            f"{bounds[-1]}; copy its shard anew"
        )
    return Header(number, tuple(bounds))


def read_chunk(chunk: bytes, most: int) -> tuple[Header, list[bytes]]:
    """Check a chunk of at most `most` images, and cut it into its streams.

    Raises:
        CorruptStreamError: If the checksum does not match, or the header is not valid.
        ValueError: If the chunk has a version that this nec does not read.
    """
    if len(chunk) <= CHECKSUM_BYTES or checksum(chunk[:-CHECKSUM_BYTES]) != chunk[-CHECKSUM_BYTES:]:
        raise CorruptStreamError(
            f"a chunk of {len(chunk)} bytes does not match its checksum; copy its shard anew"
        )
    header = read_header(chunk, len(chunk), most)
    return header, [chunk[start:stop] for start, stop in pairwise(header.bounds)]


def header_bytes(images: int) -> int:
    """Upper bound for the bytes in the header of a chunk of this many images."""
    return 1 + 5 + 5 + lengths_bytes(images)


def pack_shard(chunks: Sequence[bytes], slots: int) -> bytes:
    """Chunks -> a shard as zarr reads it: chunks, an index of `slots` entries, its checksum."""
    index = np.full((slots, 2), EMPTY, dtype="<u8")
    sizes = [len(chunk) for chunk in chunks]
    index[: len(chunks), 0] = np.cumsum([0, *sizes[:-1]])
    index[: len(chunks), 1] = sizes
    packed = index.tobytes()
    return b"".join([*chunks, packed, checksum(packed)])


def index_bytes(slots: int) -> int:
    """Number of bytes that the index takes at the end of a shard."""
    return ENTRY_BYTES * slots + CHECKSUM_BYTES


def read_index(packed: bytes, slots: int) -> NDArray[np.uint64]:
    """The last bytes of a shard -> (slots, 2) offset and nbytes of each chunk, EMPTY for none.

    Raises:
        CorruptStreamError: If the length or the checksum does not match.
    """
    entries, check = packed[:-CHECKSUM_BYTES], packed[-CHECKSUM_BYTES:]
    if len(packed) != index_bytes(slots) or checksum(entries) != check:
        raise CorruptStreamError(
            "the index of a shard does not match its checksum; copy the shard anew"
        )
    return np.frombuffer(entries, "<u8").reshape(slots, 2)
