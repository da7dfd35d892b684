"""How many images a second one core codes, of embeddings and of pixels."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from threadpoolctl import threadpool_limits
from torch import Tensor

from nec.bottlenecks import Bottleneck
from nec.coding import at_most_threads
from nec.data.coded import CodedDataModule
from nec.data.pixels import Files
from nec.data.splits import BLOCK_SIZE
from nec.store.codec import Codec

TIMED_PASSES = 3


def speeds_of_embeddings(
    layers: dict[str, Bottleneck], codecs: dict[str, Codec], blocks: list[Tensor]
) -> np.ndarray:
    """Images per second to encode and to decode, for blocks of embeddings in memory."""

    def encoded() -> list[tuple[Codec, list[bytes]]]:
        with torch.inference_mode():
            return [
                (codecs[name], codecs[name].encode(layer.quantize(y).cpu().numpy()))
                for y in blocks
                for name, layer in layers.items()
            ]

    def decode(streams: list[tuple[Codec, list[bytes]]]) -> None:
        for codec, own in streams:
            codec.dequantize(codec.decode(own))

    return BLOCK_SIZE * len(blocks) / _fastest(encoded, decode)


def speeds_of_pixels(data: CodedDataModule) -> np.ndarray:
    """Images per second for a block of test images and their files, embedding not included."""
    native = data.data.datasets["test"].images
    rows = range(min(BLOCK_SIZE, len(native)))
    images = [native.read(index) for index in rows]
    count: float = len(images)
    if data.pixel_codec.whole:  # a larger image counts as many as fill its area
        area = images[0][0].numel()
        images = [*{name: pixels for name, pixels, _, _ in map(native.whole, rows)}.values()]
        count = sum(image[0].numel() for image in images) / area

    def compressed() -> list[Files]:
        return [data.pixel_codec.compress(image) for image in images]

    def restore(files: list[Files]) -> None:
        for each in files:
            data.pixel_codec.restore(each)

    return count / _fastest(compressed, restore)


def _fastest(encode: Callable[[], Any], decode: Callable[[Any], None]) -> np.ndarray:
    """Seconds of both on one core: the fastest of a few passes.

    The first pass compiles, and other processes may be at work on the machine.
    """
    passes = []
    with _one_thread():
        for _ in range(TIMED_PASSES):
            start = time.perf_counter()
            coded = encode()
            between = time.perf_counter()
            decode(coded)
            passes.append((between - start, time.perf_counter() - between))
    return np.min(passes, axis=0)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Let torch, numpy and the coder use one thread, as pixel codecs do."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1), at_most_threads(1):
            yield
    finally:
        torch.set_num_threads(before)
