"""Heads on a store: what its embeddings are worth downstream."""

import logging
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins.environments import LightningEnvironment
from rich.progress import track

from nec.data.embeddings import BATCH_SIZE, EmbeddingDataModule
from nec.data.images import SPLITS
from nec.tasks import SceneClassification
from nec.tasks.heads import Head

# Of the weights that a head had at any validation, those that are kept.
CHOSEN = {"monitor": "val/accuracy", "mode": "max"}


class Predictions(NamedTuple):
    """What the heads of all seeds say about the test images."""

    predicted: np.ndarray  # (seeds, n) int64
    label: np.ndarray  # (n,) int64
    ids: list[str]  # of the n test images

    @property
    def accuracy(self) -> np.ndarray:
        """Share of right answers per seed (seeds,) float64."""
        return (self.predicted == self.label).mean(axis=1)


class Probe:
    """Train a head on stored y_hat several times, choose its weights on val, predict test.

    Args:
        head: Called with the shape of an embedding and the number of classes.
        lr: Peak learning rate.
        weight_decay: Of AdamW.
        epochs: Of training.
        batch_size: Images a step.
        seeds: Heads trained, each from another start and in another order.
    """

    def __init__(
        self,
        head: Callable[..., Head],
        lr: float,
        weight_decay: float,
        epochs: int = 60,
        batch_size: int = BATCH_SIZE,
        seeds: int = 5,
    ) -> None:
        self.head = head
        self.lr = lr
        self.weight_decay = weight_decay
        self.epochs = epochs
        self.batch_size = batch_size
        self.seeds = seeds

    def check(self, shape: tuple[int, int, int], classes: int) -> None:
        """Refuse, before any long work, embeddings (D, h, w) that the head cannot take.

        Raises:
            ValueError: Of the head.
        """
        self.head(shape, classes)

    def trainer_options(self) -> dict[str, Any]:
        """How long a head trains, and how often val may choose its weights."""
        return {
            "max_epochs": self.epochs,
            "check_val_every_n_epoch": max(1, self.epochs // 12),
        }

    def __call__(self, store: Path, name: str, accelerator: str) -> Predictions:
        """Train and test on one store; what is read is what was decoded from it."""
        data = EmbeddingDataModule(str(store), self.batch_size)
        seeds = track(range(self.seeds), f"heads ({name})")
        predicted = [self._one(data, seed, accelerator) for seed in seeds]
        test = data.datasets["test"]
        return Predictions(np.stack(predicted), test.labels.numpy(), test.ids)

    def _one(self, data: EmbeddingDataModule, seed: int, accelerator: str) -> np.ndarray:
        data.seed = seed
        task = SceneClassification(self.head, self.lr, self.weight_decay, seed)
        with tempfile.TemporaryDirectory() as folder, quiet():
            best = ModelCheckpoint(Path(folder), **CHOSEN, save_weights_only=True)
            trainer = Trainer(
                **self.trainer_options(),
                callbacks=[best],
                accelerator=accelerator,
                devices=1,
                plugins=[LightningEnvironment()],  # one process, also where a launcher has many
                logger=False,
                enable_progress_bar=False,
                enable_model_summary=False,
            )
            trainer.fit(task, datamodule=data)
            state = torch.load(best.best_model_path, weights_only=True)
            task.load_state_dict(state["state_dict"])
            batches = trainer.predict(task, datamodule=data)[SPLITS.index("test")]
        return torch.cat([batch["predicted"] for batch in batches]).numpy()


class quiet:
    """Keep Lightning's advice on workers and devices out of the terminal for a while."""

    def __enter__(self) -> None:
        self.filters = warnings.catch_warnings()
        self.filters.__enter__()
        warnings.filterwarnings("ignore", module="lightning")
        self.logger = logging.getLogger("lightning.pytorch")
        self.level = self.logger.level
        self.logger.setLevel(logging.ERROR)

    def __exit__(self, *error: object) -> None:
        self.logger.setLevel(self.level)
        self.filters.__exit__(*error)
