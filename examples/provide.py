"""Embeddings of any model to a store, with nec's base alone: KLT, one step, tables from counts.

    pip install nec
    python examples/provide.py embeddings.npz store.zarr --step 1.0

The file holds y (N, D, h, w) float32, id (N,), split (N,) of train, val and test, and label (N,)
integers. All that is fitted is fitted on train: the mean, the axes of largest variance, how often
each symbol occurs. A step is in units of the embedding; twice the step saves about a bit a symbol.
What is interrupted goes on where it was by the same command.
"""

import argparse
from pathlib import Path

import numpy as np

from nec.coding import Tables
from nec.store import EmbeddingStore
from nec.store.codec import Band, LinearCodec

BLOCK = 512  # images encoded at a time


def fit(y: np.ndarray, step: float) -> LinearCodec:
    """A codec for embeddings like these, (n, D, h, w) float32."""
    channels = y.shape[1]
    tokens = y.transpose(0, 2, 3, 1).reshape(-1, channels)
    mean = tokens.mean(axis=0)
    # Rows are axes, orthonormal: y_hat = mean + basis.T @ (symbols * step).
    _, axes = np.linalg.eigh(np.cov((tokens - mean).T))
    band = Band(np.full(channels, step), np.zeros(channels), axes[:, ::-1].T, pooled=False)
    # Without tables a symbol is a byte: good enough to count symbols with.
    symbols = quantize(LinearCodec(y.shape[1:], (band,), mean, None), y)
    by_channel = symbols.reshape(len(y), channels, -1)
    low, high = int(symbols.min()), int(symbols.max())
    counts = [
        np.bincount(by_channel[:, c].ravel() - low, minlength=high - low + 1)
        for c in range(channels)
    ]
    return LinearCodec(
        y.shape[1:], (band,), mean, Tables.from_counts(counts, np.full(channels, low))
    )


def quantize(codec: LinearCodec, y: np.ndarray) -> np.ndarray:
    """Embeddings (n, D, h, w) -> symbols (n, L) int32."""
    (band,) = codec.bands
    centred = y.reshape(*y.shape[:2], -1) - codec.bias[:, None]  # (n, D, positions)
    latents = np.einsum("md,ndp->nmp", band.basis, centred) / band.steps[:, None]
    return np.rint(latents).astype(np.int32).reshape(len(y), -1)


def provide(path: Path, arrays: dict[str, np.ndarray], step: float) -> EmbeddingStore:
    """Write the store, or what is missing of it.

    Raises:
        ValueError: There is a store of another step.
    """
    y, ids, classes = arrays["y"], arrays["id"].tolist(), int(arrays["label"].max()) + 1
    try:
        writer = EmbeddingStore.extend(path)
    except FileNotFoundError:  # nothing is there, or what was killed before its first append
        codec = fit(y[arrays["split"] == "train"], step)
        names = [f"class {number}" for number in range(classes)]
        writer = EmbeddingStore.create(path, codec, {"source": "my model"}, classes=names)
    with writer as store:
        found = store.codec.bands[0].steps[0]
        if found != np.float32(step):
            raise ValueError(
                f"{path} has step {found:g} and was to get {step:g}, a store has one; give --step "
                f"{found:g}, or another path"
            )
        missing = np.array([i for i, name in enumerate(ids) if name not in store], dtype=int)
        for start in range(0, len(missing), BLOCK):
            part = missing[start : start + BLOCK]
            symbols = quantize(store.codec, y[part])
            names = [ids[i] for i in part]
            store.append(symbols, names, arrays["split"][part].tolist(), arrays["label"][part])
    return EmbeddingStore.open(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("embeddings", type=Path, help=".npz with y, id, split, label")
    parser.add_argument("store", type=Path, help="local path")
    parser.add_argument("--step", type=float, default=1.0)
    args = parser.parse_args()
    arrays = dict(np.load(args.embeddings))
    store = provide(args.store, arrays, args.step)
    store.verify()
    error = np.mean((store.read(range(len(store))) - arrays["y"]) ** 2) / arrays["y"].var()
    print(f"{len(store)} images, {store.bytes_per_image:.1f} bytes each, error {100 * error:.2f} %")


if __name__ == "__main__":
    main()
