"""Images of all splits to a store, through a fitted codec, and what that takes."""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from rich.progress import track
from torch import Tensor

from nec.bottlenecks import Bottleneck
from nec.data.activations import ActivationDataModule, padded
from nec.data.splits import BLOCK_SIZE, SPLITS
from nec.encoders import Encoder, check_finite
from nec.jobs.speeds import speeds_of_embeddings, speeds_of_pixels
from nec.store import EmbeddingStore, StoreWriter
from nec.store.codec import Codec

# Images that a store is given at a time.
APPEND_SIZE = 512
TIMED_BLOCKS = 4  # blocks of test images that encoding and decoding are timed on


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
            check_finite(y, batch["id"])
            yield Embedded(split, y, batch["label"].numpy(), list(batch["id"]))


class EncodeSummary(NamedTuple):
    """Summary of an encoding."""

    images: int
    estimated_bytes_per_image: float  # mean over the test images
    encode_images_per_second: float  # to quantize and code, or to write image files
    decode_images_per_second: float  # to decode and dequantize, or to read image files


def encode(
    data: ActivationDataModule,
    encoder: Encoder,
    bottleneck: Bottleneck,
    path: Path,
    attrs: dict,
    device: torch.device,
) -> EncodeSummary:
    """Encode every split into one store, then read it back and compare every image's symbols.

    A store that a killed run of the same codec left unfinished is continued. It stays unfinished:
    whoever is done with all that it is for completes it (`complete`).

    Raises:
        FileExistsError: Something else is at the path.
        RuntimeError: A decoded image differs from what was quantized.
    """
    total = sum(len(data.datasets[split]) for split in SPLITS)
    digests: list[bytes] = []
    images: list[tuple[str, str, int]] = []  # id, split, label
    estimated: list[np.ndarray] = []
    timed: list[Tensor] = []
    bottleneck.eval().to(device)
    layers = bottleneck.layers()
    codecs = {name: layer.export() for name, layer in layers.items()}
    with ExitStack() as writing:
        store = open_writer(path, codecs, attrs, SPLITS, list(data.classes))
        writing.callback(store.release)
        waiting = _Waiting(store)
        blocks = embed(data, encoder, SPLITS, device)
        for block in track(blocks, "encode", total=-(-total // BLOCK_SIZE)):
            with torch.inference_mode():
                y, count = padded(block.y), len(block.y)
                found = {name: layer.quantize(y)[:count] for name, layer in layers.items()}
            symbols = {name: each.cpu().numpy() for name, each in found.items()}
            if block.split == "test":
                timed = [*timed, y][:TIMED_BLOCKS]
                estimated.append(_estimated_bits(bottleneck, codecs, y, symbols))
            digests += _digests(symbols)
            images += zip(block.ids, [block.split] * count, block.label.tolist(), strict=True)
            waiting.add(symbols, block)
        waiting.append()
    stored = EmbeddingStore.open(path)
    _check_index(stored, images)
    _check_decoded(stored, digests)
    bits = np.concatenate(estimated).mean()
    if data.data.pixel_codec:
        speeds = speeds_of_pixels(data.data)
    else:
        speeds = speeds_of_embeddings(layers, stored.layers, timed)
    return EncodeSummary(len(digests), float(bits) / 8, *speeds)


def _estimated_bits(
    bottleneck: Bottleneck, codecs: dict[str, Codec], y: Tensor, symbols: dict[str, np.ndarray]
) -> np.ndarray:
    """Bits (n,) float64 of n images, by learned likelihoods or under the codecs' tables."""
    if not bottleneck.learned:
        return np.sum([codec.code_length(symbols[n]) for n, codec in codecs.items()], axis=0)
    count = len(next(iter(symbols.values())))
    with torch.inference_mode():
        return bottleneck(y).estimated_bits[:count].cpu().double().numpy()


class _Waiting:
    """Blocks on their way to a store, which takes them by the hundreds."""

    def __init__(self, store: StoreWriter) -> None:
        self.store = store
        self.symbols: list[dict[str, np.ndarray]] = []  # by layer
        self.images: list[tuple[str, str, int]] = []  # id, split, label

    def add(self, symbols: dict[str, np.ndarray], block: Embedded) -> None:
        """Take a block, except what the store has already."""
        new = [i for i, name in enumerate(block.ids) if name not in self.store]
        self.symbols.append({name: own[new] for name, own in symbols.items()})
        self.images += [(block.ids[i], block.split, int(block.label[i])) for i in new]
        if len(self.images) >= APPEND_SIZE:
            self.append()

    def append(self) -> None:
        """Give all of them to the store."""
        if self.images:
            ids, splits, labels = zip(*self.images, strict=True)
            symbols = {
                name: np.concatenate([block[name] for block in self.symbols])
                for name in self.store.layers
            }
            self.store.append(symbols, ids, splits, labels)
        self.symbols, self.images = [], []


def is_unfinished(path: Path) -> bool:
    """Whether a store is there that its writer did not complete."""
    try:
        return not EmbeddingStore.open(path).complete
    except (FileNotFoundError, ValueError):
        return False


def complete(path: Path) -> None:
    """Mark a store as complete, if one is there that is not."""
    if is_unfinished(path):
        EmbeddingStore.extend(path).close()


def open_writer(
    path: Path,
    codecs: dict[str, Codec],
    attrs: dict,
    splits: Sequence[str],
    classes: Sequence[str],
) -> StoreWriter:
    """Create a store, or continue this one if it is unfinished."""
    if is_unfinished(path):
        store = EmbeddingStore.open(path)
        found = (_hashes(store.layers), store.attrs, [*store.split_names], [*store.classes])
        if found != (_hashes(codecs), attrs, [*splits], [*classes]):
            raise FileExistsError(
                f"{path} is an unfinished store of another codec or other data; remove it, or give "
                "another path for the store"
            )
        return EmbeddingStore.extend(path)
    return EmbeddingStore.create(path, codecs, attrs, splits=splits, classes=classes)


def _hashes(codecs: dict[str, Codec]) -> dict[str, str]:
    return {name: codec.sha256 for name, codec in codecs.items()}


def _check_index(store: EmbeddingStore, images: list[tuple[str, str, int]]) -> None:
    """Check that the index is what was given: another run's store may have been continued."""
    columns = (store.ids.tolist(), store.splits.tolist(), store.labels.tolist())
    if list(zip(*columns, strict=True)) != images:
        raise RuntimeError(
            f"{store.url} holds other images, splits or labels than were encoded; remove it and "
            "run again"
        )


def _check_decoded(store: EmbeddingStore, digests: list[bytes]) -> None:
    """Check that decoded symbols = quantized symbols, for every image and layer."""
    if len(store) != len(digests):
        raise RuntimeError(f"{len(digests)} images were encoded, the store holds {len(store)}")
    for start in track(range(0, len(store), 64), "verify"):
        indices = np.arange(start, min(start + 64, len(store)))
        decoded = {name: store.layer(name).read_symbols(indices) for name in store.layers}
        for index, digest in zip(indices, _digests(decoded), strict=True):
            if digest != digests[index]:
                raise RuntimeError(
                    f"image {store.ids[index]!r} decodes to other symbols than were quantized; "
                    "the store is not to be trusted, please report this"
                )


def _digests(symbols: dict[str, np.ndarray]) -> list[bytes]:
    """Digest of each image, over its symbols (n, L) in all layers."""
    rows = np.concatenate(list(symbols.values()), axis=1).astype(np.int32)
    return [hashlib.sha256(row.tobytes()).digest() for row in rows]
