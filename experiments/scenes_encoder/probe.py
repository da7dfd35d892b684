"""What linear probes reach on the demo's scenes: colours, an untrained encoder, the trained one.

    python experiments/scenes_encoder/probe.py

Writes probes.csv and the contact sheet scenes.png beside this file.
"""

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from rich.progress import track
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits
from torch import Tensor
from train import ARCHITECTURE

from nec.data.scenes import CLASSES, Scenes
from nec.data.splits import SPLITS
from nec.encoders import Encoder

HERE = Path(__file__).parent
REGULARIZATIONS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
RANDOM_SEEDS = 3
COLUMNS = 6

Features = Callable[[Tensor], np.ndarray]  # images (N, 4, S, S) uint8 -> (N, F)


def band_moments(images: Tensor) -> np.ndarray:
    """Mean and std of each band: (N, 8)."""
    bands = images.numpy().reshape(len(images), 4, -1).astype(np.float32)
    return np.concatenate([bands.mean(2), bands.std(2)], 1)


def band_histograms(images: Tensor) -> np.ndarray:
    """Root of each band's histogram: (N, 4 · 32)."""
    bands = images.numpy().reshape(len(images), 4, -1) // 8
    counts = [[np.bincount(band, minlength=32) for band in image] for image in bands]
    return np.sqrt(np.reshape(counts, (len(images), -1)))


def joint_histogram(images: Tensor) -> np.ndarray:
    """Root of the joint histogram of the four bands: (N, 6 · 6 · 6 · 6)."""
    bins = np.ravel_multi_index(tuple(images.numpy().transpose(1, 0, 2, 3) // 43), (6,) * 4)
    return np.sqrt([np.bincount(image.ravel(), minlength=6**4) for image in bins])


def pooled(encoder: Encoder) -> Features:
    """Mean and std of an encoder's tokens over the grid: (N, 2D)."""

    @torch.inference_mode()
    def features(images: Tensor) -> np.ndarray:
        parts = []
        for batch in images.split(50):
            tokens = encoder(torch.stack([encoder.preprocess(x) for x in batch])).flatten(2)
            parts.append(torch.cat([tokens.mean(2), tokens.std(2, correction=0)], 1))
        return torch.cat(parts).numpy()

    return features


def scenes_vit(checkpoint: str) -> Encoder:
    """The demo's encoder with these weights."""
    return Encoder(
        "vit_tiny_patch16_224",
        checkpoint=checkpoint,
        in_chans=4,
        image_size=96,
        architecture=ARCHITECTURE,
    )


def accuracy(features: Features, images: dict[str, Tensor], labels: dict[str, list[int]]) -> float:
    """On test, of a logistic regression whose regularization is chosen on val."""
    x = {split: features(images[split]) for split in SPLITS}

    def fitted(strength: float) -> Pipeline:
        probe = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=200))
        return probe.fit(x["train"], labels["train"])

    with threadpool_limits(1):  # threads only wait for each other on such small matrices
        best = max(map(fitted, REGULARIZATIONS), key=lambda p: p.score(x["val"], labels["val"]))
    return best.score(x["test"], labels["test"])


def contact_sheet(images: Tensor) -> Image.Image:
    """A row of scenes for each class, in red, green and blue."""
    side = images.shape[2] + 4
    sheet = np.full((len(CLASSES) * side - 4, COLUMNS * side - 4, 3), 255, np.uint8)
    for label in range(len(CLASSES)):
        for column, image in enumerate(images[label :: len(CLASSES)][:COLUMNS, :3]):
            y, x = label * side, column * side
            sheet[y : y + side - 4, x : x + side - 4] = image.permute(1, 2, 0)
    return Image.fromarray(sheet)


def main() -> None:
    data = Scenes()
    images, labels = {}, {}
    for split in SPLITS:
        scenes = data.datasets[split].images
        order = track(range(len(scenes)), f"drawing {split}")
        images[split], labels[split] = torch.stack([scenes.read(i) for i in order]), scenes.labels
    contact_sheet(images["train"]).quantize(64).save(HERE / "scenes.png", optimize=True)
    rows = [
        ("mean and std of the bands", accuracy(band_moments, images, labels)),
        ("histograms of the bands", accuracy(band_histograms, images, labels)),
        ("joint histogram of the bands", accuracy(joint_histogram, images, labels)),
    ]
    for seed in range(RANDOM_SEEDS):
        torch.manual_seed(seed)
        encoder = scenes_vit("random")
        rows.append((f"untrained encoder {seed}", accuracy(pooled(encoder), images, labels)))
    trained = scenes_vit("nec:scenes_vit.safetensors")
    rows.append(("trained encoder", accuracy(pooled(trained), images, labels)))
    with (HERE / "probes.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("features", "test/accuracy"))
        writer.writerows((name, f"{value:.4f}") for name, value in rows)
    for name, value in rows:
        print(f"{name:32} {100 * value:5.1f} %")


if __name__ == "__main__":
    main()
