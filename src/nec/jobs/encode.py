"""Images to a store, through a fitted codec."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from rich.progress import track
from torch import Tensor

from nec.bottlenecks import Bottleneck
from nec.data.activations import ActivationDataModule, padded
from nec.data.images import BLOCK_SIZE, SPLITS
from nec.encoders import Encoder
from nec.store import EmbeddingStore


class Embedded(NamedTuple):
    """A block of embeddings of one split."""

    split: str
    y: Tensor  # (n, D, h, w) float32
    label: np.ndarray  # (n,) int64
    ids: list[str]


def embed(
    data: ActivationDataModule, encoder: Encoder, splits: tuple[str, ...], device: torch.device
) -> Iterator[Embedded]:
    """Embed splits in order, in blocks of one size."""
    encoder.eval().to(device)
    for split in splits:
        for batch in data.loader(split, batch_size=BLOCK_SIZE):
            tokens = batch["tokens"]
            with torch.inference_mode():
                y = encoder.suffix(padded(tokens).to(device))[: len(tokens)].float()
            yield Embedded(split, y, batch["label"].numpy(), list(batch["id"]))


class EncodeSummary(NamedTuple):
    """What was encoded."""

    images: int
    estimated_bytes_per_image: float  # mean over the test images


def encode(
    data: ActivationDataModule,
    encoder: Encoder,
    bottleneck: Bottleneck,
    path: Path,
    attrs: dict,
    device: torch.device,
) -> EncodeSummary:
    """Encode every split into one new store, then read it back and compare every image's symbols.

    Raises:
        RuntimeError: A decoded image differs from what was quantized.
    """
    total = sum(len(data.datasets[split]) for split in SPLITS)
    digests: list[bytes] = []
    estimated: list[Tensor] = []
    bottleneck.eval().to(device)
    with EmbeddingStore.create(
        path, bottleneck.export(), attrs, splits=SPLITS, classes=list(data.classes)
    ) as store:
        blocks = embed(data, encoder, SPLITS, device)
        for block in track(blocks, "encode", total=-(-total // BLOCK_SIZE)):
            with torch.inference_mode():
                y, count = padded(block.y), len(block.y)
                symbols = bottleneck.quantize(y)[:count].cpu().numpy()
                if block.split == "test":
                    estimated.append(bottleneck.estimated_bits(y)[:count].cpu())
            digests += [_digest(row) for row in symbols]
            store.append(symbols, block.ids, [block.split] * len(block.ids), block.label)
    _check_decoded(EmbeddingStore.open(path), digests)
    bits = torch.cat(estimated).double().mean()
    return EncodeSummary(images=len(digests), estimated_bytes_per_image=float(bits) / 8)


def _check_decoded(store: EmbeddingStore, digests: list[bytes]) -> None:
    """Decoded symbols = quantized symbols, on every image."""
    if len(store) != len(digests):
        raise RuntimeError(f"{len(digests)} images were encoded, the store holds {len(store)}")
    for start in track(range(0, len(store), 64), "verify"):
        indices = np.arange(start, min(start + 64, len(store)))
        for index, row in zip(indices, store.read_symbols(indices), strict=True):
            if _digest(row) != digests[index]:
                raise RuntimeError(
                    f"image {store.ids[index]!r} decodes to other symbols than were quantized; "
                    "the store is not to be trusted, please report this"
                )


def _digest(symbols: np.ndarray) -> bytes:
    return hashlib.sha256(np.ascontiguousarray(symbols, np.int32).tobytes()).digest()
