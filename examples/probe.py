"""What a store is worth downstream, to someone who has the store and no encoder.

    pip install nec scikit-learn
    python examples/probe.py runs/demo/RUN/store.zarr

Mean and standard deviation of each channel over the grid, standardized; logistic regression, its
strength chosen on val; accuracy on test. Everything is learned from what the store decodes to.
"""

import argparse

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from nec.store import EmbeddingStore

STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)  # C of scikit-learn
BLOCK = 256  # images decoded at a time


def pooled(store: EmbeddingStore) -> np.ndarray:
    """Mean and standard deviation over the grid: (N, 2D) float32; (N, D) where there is no grid."""
    features = []
    for start in range(0, len(store), BLOCK):
        y_hat = store.read(np.arange(start, min(start + BLOCK, len(store))))  # (n, D, h, w)
        grid = y_hat.reshape(*y_hat.shape[:2], -1)
        parts = [grid.mean(axis=2)] + ([grid.std(axis=2)] if grid.shape[2] > 1 else [])
        features.append(np.concatenate(parts, axis=1))
    return np.concatenate(features)


def probe(store: EmbeddingStore) -> tuple[float, float]:
    """The strength that is best on val, and its accuracy on test."""
    features, labels = pooled(store), store.labels
    train, val, test = (store.splits == name for name in ("train", "val", "test"))
    for name, mask in {"train": train, "val": val, "test": test}.items():
        if not mask.any():
            raise ValueError(f"{store.url} has no {name} images; a probe takes train, val and test")
    models = {}
    for strength in STRENGTHS:
        model = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=2000))
        models[strength] = model.fit(features[train], labels[train])
    best = max(STRENGTHS, key=lambda c: models[c].score(features[val], labels[val]))
    return best, models[best].score(features[test], labels[test])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("store", help="local path or fsspec URL")
    store = EmbeddingStore.open(parser.parse_args().store)
    strength, accuracy = probe(store)
    tested = int((store.splits == "test").sum())
    print(f"{store.bytes_per_image:.1f} bytes per image, accuracy {100 * accuracy:.1f} %")
    print(f"on {tested} test images of {len(store.classes)} classes, C = {strength:g}")


if __name__ == "__main__":
    main()
