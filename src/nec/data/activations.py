"""What a frozen prefix makes of images, computed once and kept on disk."""

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.progress import track
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from nec.data.images import ImageDataModule, SplitDataModule, Transformed

# Images that an encoder sees at once wherever bytes follow from it. Fixed, and the last block is
# padded to it: a product may round otherwise for another shape, and bytes must not depend on a
# batch size.
BLOCK_SIZE = 16


def padded(x: Tensor) -> Tensor:
    """A block (n, ...) with its last item repeated up to BLOCK_SIZE."""
    return torch.cat([x, x[-1:].expand(BLOCK_SIZE - len(x), *x.shape[1:])])


class Activations(Dataset):
    """Activations of one split; an item is a dict(tokens, label, id).

    Args:
        images: The images they are of.
        rows: Row of every id in the file.
        path: Of the .npy that holds them, float32.
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


class ActivationDataModule(SplitDataModule):
    """Batches of activations in an image set's splits: tokens (B, ...) float32, label, id.

    Args:
        data: The images.
        rows: Row of every id in the file.
        path: Of the file.
    """

    def __init__(self, data: ImageDataModule, rows: dict[str, int], path: Path) -> None:
        super().__init__(data.batch_size, workers=0, seed=data.seed)  # a map needs no reader
        self.classes = data.classes
        self._images = data.datasets
        self._rows = rows
        self._path = path

    def load_splits(self) -> dict[str, Dataset]:
        """The image set's own."""
        return {k: Activations(v, self._rows, self._path) for k, v in self._images.items()}


def cached_activations(
    data: ImageDataModule,
    prefix: Callable[[Tensor], Tensor],
    folder: Path,
    key: str,
    device: torch.device,
) -> ActivationDataModule:
    """Run a frozen prefix over all images, or take what an earlier run left in the folder.

    Args:
        data: Images in splits; the file serves every way to split them.
        prefix: Pixels (B, C, S, S) -> activations (B, ...) float32.
        folder: Where files are kept; each may be deleted whenever nothing runs.
        key: What tells this prefix from others: weights, depth, preprocessing.
        device: Where the prefix runs.

    Raises:
        OSError: The folder cannot be written to, or has no room left; nothing is kept of the file.
    """
    where = {name: (s, i) for s, d in data.datasets.items() for i, name in enumerate(d.ids)}
    ids = sorted(where)
    digest = hashlib.sha256(key.encode())
    for name in ids:
        split, index = where[name]
        digest.update(repr((name, data.datasets[split].images.stamp(index))).encode())
    path = folder / f"{digest.hexdigest()[:16]}.npy"
    if not path.is_file():
        ordered = _Ordered(
            [data.datasets[where[name][0]] for name in ids], [where[name][1] for name in ids]
        )
        loader = DataLoader(ordered, batch_size=BLOCK_SIZE, num_workers=data.workers)
        _write(path, loader, prefix, device)
    return ActivationDataModule(data, {name: row for row, name in enumerate(ids)}, path)


class _Ordered(Dataset):
    """Images of several data sets in one order, without labels."""

    def __init__(self, datasets: list[Dataset], indices: list[int]) -> None:
        self.datasets = datasets
        self.indices = indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Tensor:
        return self.datasets[index][self.indices[index]]["image"]


def _write(
    path: Path, loader: DataLoader, prefix: Callable[[Tensor], Tensor], device: torch.device
) -> None:
    """Write (images, ...) float32 beside the path and rename it there when it is complete.

    By plain writes: on a full disk a memory map dies of SIGBUS, a write says so.
    """
    with _named_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        for start, block in enumerate(track(loader, "frozen prefix")):
            with torch.inference_mode():
                values = prefix(padded(block).to(device))[: len(block)].float().cpu().numpy()
            # Opened for each block: closing writes too, and is inside what names its errors.
            with _named_errors(path), part.open("ab" if start else "wb") as file:
                if start == 0:
                    header = {
                        "descr": np.lib.format.dtype_to_descr(values.dtype),
                        "fortran_order": False,
                        "shape": (len(loader.dataset), *values.shape[1:]),
                    }
                    np.lib.format.write_array_header_2_0(file, header)
                file.write(values.tobytes())
        with _named_errors(path):
            part.rename(path)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def _named_errors(path: Path) -> Iterator[None]:
    """An OSError of writing says what was written and where; one of reading images is not ours."""
    try:
        yield
    except OSError as error:
        raise type(error)(
            error.errno,
            f"{error.strerror or error} while activations of the frozen prefix were written; "
            "nothing was kept, make room there or run from another folder",
            str(path),
        ) from error
