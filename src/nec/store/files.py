"""The files of a store, local or remote, read in parallel and in parts."""

import asyncio
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import contextmanager
from os import PathLike, fspath
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from zarr.abc.store import ByteRequest, RangeByteRequest, Store, SuffixByteRequest
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync
from zarr.storage import FsspecStore, LocalStore

from nec.coding import CorruptStreamError
from nec.store.commits import COMPLETE
from nec.store.schema import ID

CONCURRENT_READS = 64
# Every append changes it, after the shards; closing a store does not.
COUNT_KEY = f"{ID}/zarr.json"

Found = TypeVar("Found")


class Part(NamedTuple):
    """Bytes of a file: start to stop, the last `-start` if start is negative, or all."""

    key: str
    start: int = 0
    stop: int | None = None

    @property
    def size(self) -> int | None:
        """Largest number of bytes; None: the whole file."""
        if self.start < 0:
            return -self.start
        return None if self.stop is None else self.stop - self.start

    @property
    def request(self) -> ByteRequest | None:
        """The part as a zarr byte request; None: the whole file."""
        if self.start < 0:
            return SuffixByteRequest(-self.start)
        return None if self.stop is None else RangeByteRequest(self.start, self.stop)


class Files:
    """Read-only access to the files below a local path or an fsspec URL.

    Attributes:
        opened: `id/zarr.json` as it was when the store was opened; None before.

    Args:
        url: Local path, or an fsspec URL ("s3://bucket/store.zarr").

    Raises:
        FileNotFoundError: If a local path does not exist.
        ImportError: If a URL is given and fsspec is not installed.
    """

    def __init__(self, url: str | PathLike[str]) -> None:
        self.url = fspath(url)
        self.store: Store
        self.opened: bytes | None = None
        if "://" in self.url:
            try:
                self.store = FsspecStore.from_url(self.url, read_only=True)
            except ImportError as error:
                raise ImportError(
                    f"{self.url} cannot be opened: {error}; install that, or give a local path"
                ) from error
        elif Path(self.url).exists():
            self.store = LocalStore(self.url, read_only=True)
        else:
            raise FileNotFoundError(f"{self.url} does not exist; give the folder of a store")

    def name(self, key: str) -> str:
        """Return the path or URL of a file, for messages."""
        return f"{self.url.rstrip('/')}/{key}"

    def find(self, key: str) -> bytes | None:
        """Read a whole file; None if it does not exist."""
        return sync(self._find(Part(key)))

    def read(self, parts: Sequence[Part]) -> list[bytes]:
        """Read parts of files concurrently.

        Raises:
            CorruptStreamError: If a file is missing.
        """
        found = sync(_gather([self._find(part) for part in parts]))
        there = [self._there(part.key, data) for part, data in zip(parts, found, strict=True)]
        for part, data in zip(parts, there, strict=True):
            if part.size is not None and len(data) > part.size:
                raise ValueError(
                    f"{self.name(part.key)} was asked for {part.size} bytes and gave {len(data)}; "
                    "its server gives whole files only, copy the store to a disk"
                )
        return there

    def sizes(self, keys: Sequence[str]) -> list[int]:
        """Return the size of each file in bytes.

        Raises:
            CorruptStreamError: If a file is missing.
        """
        found = sync(_gather([self._size(key) for key in keys]))
        return [self._there(key, size) for key, size in zip(keys, found, strict=True)]

    @contextmanager
    def as_opened(self) -> Iterator[None]:
        """Let a read that fails since images were appended say so, rather than tell of damage."""
        try:
            yield
        except ValueError:
            self.check_as_opened()
            raise

    def check_as_opened(self) -> None:
        """Raise ValueError if images were appended, wholly or in part, since the store was opened.

        Only a local store tells of an append whose files are being moved into place.
        """
        local = isinstance(self.store, LocalStore)
        for key in (f"{COMPLETE}/{COUNT_KEY}", COUNT_KEY) if local else (COUNT_KEY,):
            if self.find(key) not in (None, self.opened):
                raise ValueError(f"{self.url} was written to since it was opened; open it again")

    def _there(self, key: str, found: Found | None) -> Found:
        if found is None:
            raise CorruptStreamError(f"{self.name(key)} is missing; copy it anew")
        return found

    async def _find(self, part: Part) -> bytes | None:
        data = await self.store.get(part.key, default_buffer_prototype(), part.request)
        return None if data is None else data.to_bytes()

    async def _size(self, key: str) -> int | None:
        try:
            return await self.store.getsize(key)
        except FileNotFoundError:
            return None


async def _gather(calls: Sequence[Coroutine[Any, Any, Found]]) -> list[Found]:
    limit = asyncio.Semaphore(CONCURRENT_READS)

    async def one(call: Coroutine[Any, Any, Found]) -> Found:
        async with limit:
            return await call

    return list(await asyncio.gather(*(one(call) for call in calls)))
