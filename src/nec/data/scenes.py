"""Scenes made from a seed: what the demo, the tests and the docs look at."""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nec.data.camera import photograph
from nec.data.images import ImageDataModule, Images
from nec.data.layouts import LAYOUTS
from nec.data.splits import SPLITS
from nec.data.terrain import Canvas, Cover

CLASSES = [layout.__name__ for layout in LAYOUTS]
COVERS = [cover.name.lower() for cover in Cover]
# Raised whenever the same seed gives other pixels, so that nothing cached before is used.
GENERATOR_VERSION = 1


def draw_scene(
    label: int, entropy: tuple[int, ...], size: int
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Draw a scene of a class; the same from the same arguments, whatever was drawn before.

    Args:
        label: Class, an index into `CLASSES`.
        entropy: Seed: integers >= 0.
        size: Side S of the scene, pixels.

    Returns:
        Red, green, blue and near infrared (4, S, S); land cover (S, S), indices into `COVERS`.
    """
    canvas = Canvas(np.random.default_rng(entropy), size)
    LAYOUTS[label](canvas)
    return photograph(canvas), canvas.cover


class SceneImages(Images):
    """Scenes of one split, drawn when they are first read and kept; items also hold `mask`.

    Args:
        split: Name of the split.
        per_class: Number of scenes of each class; classes take turns.
        size: Side S of a scene, pixels.
        entropy: Seed, to which the split and the index are appended.
    """

    def __init__(self, split: str, per_class: int, size: int, entropy: tuple[int, ...]) -> None:
        labels = np.arange(per_class * len(CLASSES)) % len(CLASSES)
        ids = [f"{split}/{index:05d}_{CLASSES[label]}" for index, label in enumerate(labels)]
        super().__init__(ids, labels.tolist())
        self.size = size
        self.entropy = (*entropy, SPLITS.index(split))
        self._drawn: dict[int, tuple[Tensor, Tensor]] = {}

    def read(self, index: int) -> Tensor:
        """Red, green, blue, near infrared; (4, S, S) uint8."""
        return self._draw(index)[0].clone()

    def read_mask(self, index: int) -> Tensor:
        """Land cover (S, S) uint8, indices into `COVERS`."""
        return self._draw(index)[1].clone()

    def stamp(self, index: int) -> str:
        """Seed and version of the generator."""
        return f"{GENERATOR_VERSION} {self.size} {self.entropy} {index}"

    def _draw(self, index: int) -> tuple[Tensor, Tensor]:
        if index not in self._drawn:
            scene = draw_scene(self.labels[index], (*self.entropy, index), self.size)
            self._drawn[index] = (torch.from_numpy(scene[0]), torch.from_numpy(scene[1]))
        return self._drawn[index]


class Scenes(ImageDataModule):
    """Plausible overhead scenes of 12 classes, about 2 m a pixel, RGB and near infrared.

    Classes share land covers, colours, seasons and light, and differ by how covers are arranged;
    batches also hold `mask`, the land cover (B, S, S) uint8 of the untransformed image.

    Args:
        transform: Preprocessing for an encoder, native (C, H, W) -> (C, S, S); None for none.
        batch_size: Images in a batch.
        workers: Processes that draw images.
        split: Number of the split; another one gives other scenes.
        seed: Seed of the order of the train batches.
        train_per_class: Scenes of each class in train.
        val_per_class: Scenes of each class in val.
        test_per_class: Scenes of each class in test.
        size: Side S of a scene, pixels; at least 32.
        generator_seed: Seed of the scenes themselves.

    Raises:
        ValueError: The size is too small for a scene.
    """

    classes = CLASSES
    mask_classes = COVERS
    bands = 4
    raw_bytes_per_pixel = 4

    def __init__(
        self,
        transform: Callable[[Tensor], Tensor] | None = None,
        batch_size: int = 32,
        workers: int = 0,
        split: int = 0,
        seed: int = 0,
        train_per_class: int = 100,
        val_per_class: int = 33,
        test_per_class: int = 33,
        size: int = 96,
        generator_seed: int = 0,
    ) -> None:
        super().__init__(transform, batch_size, workers, split, seed)
        if size < 32:
            raise ValueError(f"size is {size}; a scene needs 32 pixels or more, set data.size=96")
        if generator_seed < 0:
            raise ValueError(
                f"generator_seed is {generator_seed}; it is 0 or more, set data.generator_seed=0"
            )
        self.per_class = dict(
            zip(SPLITS, (train_per_class, val_per_class, test_per_class), strict=True)
        )
        self.size = size
        self.generator_seed = generator_seed

    @property
    def native_pixels(self) -> int:
        """Pixels H · W of a scene."""
        return self.size**2

    def load_splits(self) -> dict[str, SceneImages]:
        """Return the scenes of each split, yet to be drawn."""
        entropy = (self.generator_seed, self.split)
        return {
            name: SceneImages(name, count, self.size, entropy)
            for name, count in self.per_class.items()
        }
