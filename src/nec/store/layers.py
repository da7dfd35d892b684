"""One layer of a store: an array of embeddings with its own codec, decoded independently."""

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
        shards: Files of the layer.

    Args:
        files: Files of the store.
        name: Name of the layer's array.
        images: N, number of images.
        structure: Shape, layout and codec from the layer's metadata.

    Raises:
        ValueError: If the codec cannot be restored, or has another shape than the embeddings.
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
        """Return what a writer needs to continue the layer."""
        size, images = self.layout.images, self.shards.images
        held = HeldLayer()
        if images > size:
            held.fixed, held.shards = True, images // size
        last = np.arange(held.shards * size, images)
        held.place(self.shards.streams(last), self.layout)
        return held

    def symbols(self, images: Indices) -> Symbols:
        """Read the symbols (n, L) int32 of images (n,)."""
        streams = self.shards.streams(images)
        try:
            return self.codec.decode(streams)
        except CorruptStreamError as error:
            raise CorruptStreamError(f"{self.shards.files.url}: {error}") from None


def chosen_layers(url: str, there: Sequence[str], layers: Sequence[str] | None) -> list[str]:
    """Return names of layers in the order of the store; all of them if layers is None.

    Raises:
        ValueError: If a layer does not exist, or layers is empty.
    """
    names = there if layers is None else layers
    if not names or not set(names) <= set(there):
        raise ValueError(
            f"layers {list(names)} were asked for, {url} has {', '.join(there)}; name some of these"
        )
    return [name for name in there if name in names]


def checked_indices(indices: ArrayLike, images: int) -> Indices:
    """Integers (negative ones count from the end) or a mask (N,) -> (n,) integers in 0..N-1.

    Raises:
        IndexError: If an index is out of range.
        ValueError: If they are neither integers nor a mask.
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
    """Read parts in order, up to BATCHES_AHEAD of them ahead of use."""
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
