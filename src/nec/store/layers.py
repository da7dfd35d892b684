"""One layer of a store: an array of embeddings with a codec of its own, decoded by itself."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
from numpy.typing import ArrayLike

from nec.coding import CorruptStreamError
from nec.store.base import Codec, Floats, Symbols
from nec.store.codec import codec_from_config
from nec.store.contents import HeldLayer
from nec.store.files import Files
from nec.store.schema import LayerStructure
from nec.store.shards import Indices, Shards

# Batches that are decoded ahead of the one in use.
BATCHES_AHEAD = 2


class Layer:
    """A layer of an open store.

    Attributes:
        codec: Streams -> symbols -> y_hat.
        layout: Images per chunk, chunks per shard.
        shards: Its files.

    Args:
        files: Of the store.
        name: Of its array.
        images: N.
        structure: What its metadata say.

    Raises:
        ValueError: If its embeddings are not those of its codec.
    """

    def __init__(self, files: Files, name: str, images: int, structure: LayerStructure) -> None:
        try:
            self.codec: Codec = codec_from_config(structure.codec)
        except ValueError as error:
            raise ValueError(f"{files.name(name)}: {error}") from None
        self.layout = structure.layout
        self.shards = Shards(files, name, images, structure.layout)
        if self.codec.shape != structure.shape:
            raise ValueError(
                f"{files.name(name)} has embeddings of shape {structure.shape} and "
                f"{self.codec!r}; copy it anew"
            )

    def held(self) -> HeldLayer:
        """What a writer needs to go on."""
        size, images = self.layout.images, self.shards.images
        held = HeldLayer()
        if images > size:
            held.fixed, held.shards = True, images // size
        last = np.arange(held.shards * size, images)
        held.place(self.shards.streams(last), self.layout)
        return held

    def symbols(self, images: Indices) -> Symbols:
        """Symbols (n, L) int32 of images (n,)."""
        streams = self.shards.streams(images)
        try:
            return self.codec.decode(streams)
        except CorruptStreamError as error:
            raise CorruptStreamError(f"{self.shards.files.url}: {error}") from None


def chosen_layers(url: str, there: Sequence[str], layers: Sequence[str] | None) -> list[str]:
    """Names of layers, in the order of the store; all that are there for None.

    Raises:
        ValueError: If one is not there, or none is named.
    """
    names = there if layers is None else layers
    if not names or not set(names) <= set(there):
        raise ValueError(
            f"layers {list(names)} were asked for, {url} has {', '.join(there)}; name some of these"
        )
    return [name for name in there if name in names]


def checked_indices(indices: ArrayLike, images: int) -> Indices:
    """Integers, negative ones from the end, or a mask (N,) -> (n,) integers in 0..N-1.

    Raises:
        IndexError: If an image is not there.
        ValueError: If they are neither.
    """
    chosen = np.asarray(indices)
    if chosen.dtype == bool and chosen.shape == (images,):
        return np.flatnonzero(chosen)
    if chosen.ndim != 1 or (chosen.dtype.kind not in "iu" and len(chosen)):
        raise ValueError(
            f"indices are {chosen.dtype} {chosen.shape}; give integers (n,) or a mask ({images},)"
        )
    outside = chosen[(chosen < -images) | (chosen >= images)]
    if len(outside):
        raise IndexError(f"image {outside[0]} is outside a store of {images} images")
    chosen = chosen.astype(np.int64)
    return np.where(chosen < 0, chosen + images, chosen)


def read_ahead(read: Callable[[Indices], Floats], parts: Iterable[Indices]) -> Iterator[Floats]:
    """Read parts one after the other, some before they are asked for."""
    with ThreadPoolExecutor(1) as ahead:
        running: deque[Future[Floats]] = deque()
        try:
            for part in parts:
                running.append(ahead.submit(read, part))
                if len(running) > BATCHES_AHEAD:
                    yield running.popleft().result()
            while running:
                yield running.popleft().result()
        finally:
            for future in running:
                future.cancel()
