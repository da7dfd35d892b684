"""Activations of a frozen prefix, computed once per image and kept on disk."""

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import cached_property
from pathlib import Path
from tokenize import TokenError
from typing import Any, Protocol, Self
from uuid import uuid4

import numpy as np
import torch
from rich.progress import track
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from nec.data.files import alone
from nec.data.images import ImageDataModule, Transformed
from nec.data.splits import BLOCK_SIZE, SplitDataModule


def padded(x: Tensor) -> Tensor:
    """Return a block (n, ...) with its last item repeated up to BLOCK_SIZE items."""
    return torch.cat([x, x[-1:].expand(BLOCK_SIZE - len(x), *x.shape[1:])])


class Activations(Dataset):
    """Activations of one split; an item is a dict(tokens, label, id).

    Args:
        images: The images that the activations are of.
        rows: Row of every id in the file.
        path: The .npy file that holds them, float32.
    """

    def __init__(self, images: Transformed, rows: dict[str, int], path: Path) -> None:
        self.ids = images.ids
        self.labels = images.labels
        self.rows = [rows[name] for name in images.ids]
        self.path = path
        self._values: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> dict[str, Any]:
        if self._values is None:  # opened by each worker for itself
            self._values = np.load(self.path, mmap_mode="r")
        tokens = torch.from_numpy(np.array(self._values[self.rows[index]]))
        return {"tokens": tokens, "label": self.labels[index], "id": self.ids[index]}


class HasPrefix(Protocol):
    """The part of an encoder that activations need."""

    def prefix(self, image: Tensor) -> Tensor:
        """Return the output of the frozen stages for pixels (B, C, S, S)."""

    def prefix_sha256(self) -> str:
        """Return a hash that identifies the prefix."""

    def to(self, device: torch.device) -> Self:
        """Move the encoder to a device."""


class ActivationDataModule(SplitDataModule):
    """Batches of activations in an image set's splits: tokens (B, ...) float32, label, id.

    A frozen prefix runs over all images once, in `prepare_data`, unless an earlier run left its
    file in the folder. Of several processes one computes it, and the others wait for it; where they
    lie on several machines, all of them see the folder, and its file system locks across them.

    Args:
        data: Images in splits; the file serves every way to split them.
        prefix: Pixels (B, C, S, S) -> activations (B, ...) float32.
        folder: Where files are kept; each may be deleted whenever nothing runs.
        key: Identifies the prefix: its weights, depth and preprocessing.
        device: Where the prefix runs.
    """

    def __init__(
        self,
        data: ImageDataModule,
        prefix: Callable[[Tensor], Tensor],
        folder: Path,
        key: str,
        device: torch.device,
    ) -> None:
        super().__init__(data.batch_size, workers=0, seed=data.seed)  # a memory map needs none
        self.data = data
        self._prefix = prefix
        self._folder = folder
        self._key = key
        self._device = device

    @classmethod
    def of(
        cls, encoder: HasPrefix, data: ImageDataModule, folder: Path, device: torch.device
    ) -> "ActivationDataModule":
        """Build it for an encoder, which is moved to the device only when its prefix runs."""

        def prefix(image: Tensor) -> Tensor:
            return encoder.to(device).prefix(image)

        kind = "" if device.type == "cpu" else device.type  # whose floats are others
        return cls(data, prefix, folder, encoder.prefix_sha256() + kind, device)

    @property
    def classes(self) -> list[str]:
        """Class names of the image set."""
        return self.data.classes

    def pixels_up_to(self, limit: int) -> int:
        """Return the image set's `pixels_up_to`."""
        return self.data.pixels_up_to(limit)

    @cached_property
    def places(self) -> dict[str, tuple[str, int]]:
        """Split and index of every image by id, in the order of ids, which the file has too."""
        datasets = self.data.datasets.items()
        return dict(sorted((name, (s, i)) for s, d in datasets for i, name in enumerate(d.ids)))

    @cached_property
    def path(self) -> Path:
        """Path of the file; it follows from the key, the ids and the images' stamps."""
        digest = hashlib.sha256(self._key.encode())
        for name, (split, index) in self.places.items():
            digest.update(repr((name, self.data.datasets[split].images.stamp(index))).encode())
        return self._folder / f"{digest.hexdigest()[:16]}.npy"

    @property
    def sizes_path(self) -> Path:
        """Path of the coded images' sizes, beside the activations and in the same order."""
        return self.path.with_suffix(".bytes.npy")

    def sizes(self, split: str) -> np.ndarray | None:
        """Return bytes (n, 2) float64 of each image's files and payload; None if not coded.

        Available once `prepare_data` has been called.
        """
        if self.data.pixel_codec is None:
            return None
        return np.load(self.sizes_path)[[self._rows[n] for n in self.data.datasets[split].ids]]

    def prepare_data(self) -> None:
        """Compute the file unless a whole one is there; images are read, and coded, once.

        Raises:
            OSError: The folder cannot be written to or is full; nothing of the file is kept.
        """
        if self._is_there():
            return
        with ExitStack() as held:
            with _named_errors(self.path):
                self.path.parent.mkdir(parents=True, exist_ok=True)
                held.enter_context(alone(self.path))
            if self._is_there():  # by another process, since we looked
                return
            sizes = self.sizes_path if self.data.pixel_codec else None
            ordered = _Ordered([(self.data.datasets[s], i) for s, i in self.places.values()])
            loader = DataLoader(ordered, batch_size=BLOCK_SIZE, num_workers=self.data.workers)
            _write(self.path, sizes, loader, self._prefix, self._device)

    def _is_there(self) -> bool:
        """Whether the activations, and the sizes of coded images, are whole."""
        count, coded = len(self.places), self.data.pixel_codec is not None
        return _is_whole(self.path, count, np.float32) and (
            not coded or _is_whole(self.sizes_path, count, np.float64)
        )

    def load_splits(self) -> dict[str, Dataset]:
        """Return the activations of each of the image set's splits."""
        return {k: Activations(v, self._rows, self.path) for k, v in self.data.datasets.items()}

    @cached_property
    def _rows(self) -> dict[str, int]:
        """Row of every id in the files."""
        return {name: row for row, name in enumerate(self.places)}


class _Ordered(Dataset):
    """Images of several data sets in one order, with their sizes where they are coded."""

    def __init__(self, places: list[tuple[Dataset, int]]) -> None:
        self.places = places

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        dataset, place = self.places[index]
        item = dataset[place]
        return {key: item[key] for key in ("image", "bytes") if key in item}


def _is_whole(path: Path, images: int, dtype: type) -> bool:
    """Whether a file exists and holds an array of this many images and this type."""
    try:
        found = np.load(path, mmap_mode="r") if path.is_file() else None
    except (ValueError, EOFError, SyntaxError, TokenError):  # damaged, or empty
        return False
    return found is not None and found.dtype == dtype and found.shape[:1] == (images,)


def _write(
    path: Path,
    sizes: Path | None,
    loader: DataLoader,
    prefix: Callable[[Tensor], Tensor],
    device: torch.device,
) -> None:
    """Write (images, ...) float32 beside the path and rename it there when it is complete.

    By plain writes: on a full disk a memory map dies of SIGBUS, while a write raises. Where images
    are coded, their sizes are written before.
    """
    for left in path.parent.glob(f".{path.name}.*.part"):
        with suppress(OSError):  # of somebody else
            left.unlink()  # of a killed process: whoever writes this file is alone
    part, taken = _part_of(path), []
    try:
        with _named_errors(path):
            part.touch()
        for start, block in enumerate(track(loader, "frozen prefix")):
            with torch.inference_mode():
                image = block["image"]
                values = prefix(padded(image).to(device))[: len(image)].float().cpu().numpy()
            taken.append(block.get("bytes"))
            # Opened for each block: closing writes too, and must do so where its errors are named.
            # "r+b" does not recreate a file that has gone, which would lack its beginning.
            with _named_errors(path), part.open("r+b") as file:
                file.seek(0, os.SEEK_END)
                if start == 0:
                    header = {
                        "descr": np.lib.format.dtype_to_descr(values.dtype),
                        "fortran_order": False,
                        "shape": (len(loader.dataset), *values.shape[1:]),
                    }
                    np.lib.format.write_array_header_2_0(file, header)
                file.write(values.tobytes())
        with _named_errors(path):
            if sizes:
                _save(sizes, torch.cat(taken).numpy())
            part.rename(path)
    finally:
        part.unlink(missing_ok=True)


def _part_of(path: Path) -> Path:
    """Name of a file until it is whole; unique to one process on one machine."""
    return path.with_name(f".{path.name}.{uuid4().hex}.part")


def _save(path: Path, values: np.ndarray) -> None:
    """Write a small array; it appears whole or not at all."""
    part = _part_of(path)
    try:
        with part.open("wb") as file:
            np.save(file, values)
        part.rename(path)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def _named_errors(path: Path) -> Iterator[None]:
    """Let an OSError from writing say what was written and where; only writes belong inside."""
    try:
        yield
    except OSError as error:
        raise type(error)(
            error.errno,
            f"{error.strerror or error} while activations of the frozen prefix were written; "
            "nothing was kept, make room there or run from another folder",
            str(path),
        ) from error
