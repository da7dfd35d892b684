"""Encode an archive of images to a store, through the codec that a run left."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.progress import track
from torch.utils.data import DataLoader, Subset

from nec.bottlenecks import Bottleneck
from nec.data.activations import padded
from nec.data.archive import ALL, Archive, find_archive
from nec.data.images import Transformed
from nec.data.splits import BLOCK_SIZE
from nec.encoders import Encoder, check_finite
from nec.jobs.fitted import Fitted, build_bottleneck, build_encoder, open_codec
from nec.jobs.record import store_attributes
from nec.jobs.stores import APPEND_SIZE, is_unfinished, open_writer
from nec.store import EmbeddingStore, StoreWriter


def encode_archive(
    codec: str, source: Path, path: Path, checkpoint: str | None, device: str, workers: int
) -> EmbeddingStore:
    """Do what `nec encode` does, from what was typed.

    Args:
        codec: The codec folder.
        source: Folder that holds images.
        path: Path of the store.
        checkpoint: The encoder's weights; None: where the run found them.
        device: Where encoder and bottleneck run, as torch names it.
        workers: Processes that read images.
    """
    fitted = open_codec(codec)
    archive = find_archive(source)
    encoder = build_encoder(fitted, checkpoint)
    if archive.type.bands != encoder.bands:
        raise ValueError(
            f"{source} has {archive.type}, the encoder of {fitted.folder} takes {encoder.bands}; "
            "give images of that many"
        )
    bottleneck = build_bottleneck(fitted, encoder)
    provide(archive, encoder, bottleneck, fitted, path, _device(device), workers)
    return EmbeddingStore.open(path)


def provide(
    archive: Archive,
    encoder: Encoder,
    bottleneck: Bottleneck,
    fitted: Fitted,
    path: Path,
    device: torch.device,
    workers: int = 0,
) -> None:
    """Encode an archive into a new store, or what an unfinished one lacks of it.

    Every append is read back and compared.

    Args:
        archive: The images.
        encoder: Encoder, as it was adapted.
        bottleneck: Fitted bottleneck.
        fitted: Its codec, which the store is given.
        path: Path of the store.
        device: Where encoder and bottleneck run.
        workers: Processes that read images.

    Raises:
        FileExistsError: Something else is at the path.
        ImageError: An image cannot be used; what was appended before stays.
        RuntimeError: A decoded image differs from what was quantized.
    """
    attrs, names, classes = {}, archive.split_names, archive.classes
    places = dict(zip(archive.ids, zip(archive.splits, archive.labels, strict=True), strict=True))
    if is_unfinished(path):
        begun = EmbeddingStore.open(path)
        names, classes, places = begun.split_names, begun.classes, _places_in(begun, archive)
        attrs = _sizes(begun, archive)
    encoder.to(device)
    bottleneck.eval().to(device)
    attrs = store_attributes(archive, encoder) | attrs
    with open_writer(path, fitted.codecs, attrs, names, classes) as store:
        missing = [i for i, name in enumerate(archive.ids) if name not in store]
        images = Subset(Transformed(archive, encoder.preprocess), missing)
        loader = DataLoader(images, BLOCK_SIZE, num_workers=workers)
        ids: list[str] = []
        blocks: list[dict[str, np.ndarray]] = []
        for batch in _tracked(loader, len(store)):
            ids += batch["id"]
            blocks.append(_symbols(batch, encoder, bottleneck, device))
            if len(ids) >= APPEND_SIZE:
                _append(store, ids, blocks, places)
                ids, blocks = [], []
        if ids:
            _append(store, ids, blocks, places)


def _tracked(loader: DataLoader, done: int) -> Iterator[dict]:
    """Yield batches, showing progress from those that are done."""
    done = -(-done // BLOCK_SIZE)
    yield from track(loader, "encode", total=done + len(loader), completed=done)


@torch.inference_mode()
def _symbols(
    batch: dict[str, Any], encoder: Encoder, bottleneck: Bottleneck, device: torch.device
) -> dict[str, np.ndarray]:
    """Symbols (n, L) int32 of images (n, C, S, S) by layer, in a block of one size."""
    count = len(batch["id"])
    y = encoder(padded(batch["image"]).to(device)).float()
    check_finite(y[:count], batch["id"])
    layers = bottleneck.layers().items()
    return {name: layer.quantize(y)[:count].cpu().numpy() for name, layer in layers}


def _append(
    store: StoreWriter,
    ids: list[str],
    blocks: list[dict[str, np.ndarray]],
    places: dict[str, tuple[str, int]],
) -> None:
    """Add images, and compare what is read back of them."""
    start = len(store)
    symbols = {name: np.concatenate([block[name] for block in blocks]) for name in store.layers}
    splits, labels = zip(*(places[name] for name in ids), strict=True)
    store.append(symbols, ids, splits, labels)
    written = EmbeddingStore.open(store.path)
    for name, own in symbols.items():
        found = written.layer(name).read_symbols(np.arange(start, len(store)))
        if not np.array_equal(found, own):
            raise RuntimeError(
                f"images {ids[0]!r} to {ids[-1]!r} decode to other symbols than were quantized; "
                f"{store.path} is not to be trusted, please report this"
            )


def _places_in(begun: EmbeddingStore, archive: Archive) -> dict[str, tuple[str, int]]:
    """Split and label of every image, as an unfinished store numbers them.

    A damaged file may have been removed since the store was begun. That moves the borders of a
    split by hash, may empty a class, and may leave class folders alone: the images that the store
    holds keep their split, the others get what the archive now says.
    """
    if gone := set(begun.ids).difference(archive.ids):
        raise FileExistsError(
            f"{begun.url} is unfinished and holds image {min(gone)!r}, which {archive.root} lacks; "
            "give the SOURCE that it was begun with, remove it, or name another STORE"
        )
    if [*begun.split_names] == [ALL]:
        return dict.fromkeys(archive.ids, (ALL, 0))
    labels = {name: label for label, name in enumerate(begun.classes)}
    if new := [n for n in archive.classes if n not in labels] + [
        n for n in archive.split_names if n not in begun.split_names
    ]:
        raise FileExistsError(
            f"{begun.url} is unfinished and has no class or split {new[0]!r}, which "
            f"{archive.root} has; give the SOURCE that it was begun with, remove it, or name "
            "another STORE"
        )
    numbers = [labels[archive.classes[label]] for label in archive.labels]
    return dict(zip(archive.ids, zip(archive.splits, numbers, strict=True), strict=True))


def _sizes(begun: EmbeddingStore, archive: Archive) -> dict[str, int]:
    """Attributes that are means over the images which an unfinished store was begun with."""
    pixels = begun.attrs.get("pixels_per_image")
    if not isinstance(pixels, int):  # another's store, which is refused for it
        return {}
    return {
        "pixels_per_image": pixels,
        "raw_bytes_per_image": pixels * archive.raw_bytes_per_pixel,
    }


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        said = " ".join(str(error).split()).partition(". ")[0]
        raise ValueError(f"--device is {name}: {said}; give cpu or cuda") from error
    return device
