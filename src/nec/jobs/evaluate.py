"""Heads on a store: what its embeddings are worth downstream."""

import logging
import tempfile
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins.environments import LightningEnvironment
from rich.progress import track

from nec.data.embeddings import EmbeddingDataModule, Embeddings, read_splits
from nec.store import EmbeddingStore
from nec.tasks import SceneClassification
from nec.tasks.heads import Head


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
        epochs: Of training.
        batch_size: Images a step.
        lr: Peak learning rate.
        weight_decay: Of AdamW.
        seeds: Heads trained, each from another start and in another order.
    """

    def __init__(
        self,
        head: Callable[..., Head],
        epochs: int = 60,
        batch_size: int = 128,
        lr: float = 1e-3,
        weight_decay: float = 1e-2,
        seeds: int = 5,
    ) -> None:
        self.head = head
        self.epochs = epochs
        self.batch_size = batch_size
        self.lr = lr
        self.weight_decay = weight_decay
        self.seeds = seeds

    def check(self, shape: tuple[int, int, int], classes: int) -> None:
        """Refuse, before any long work, embeddings (D, h, w) that the head cannot take.

        Raises:
            ValueError: Of the head.
        """
        self.head(shape, classes)

    def __call__(self, store: EmbeddingStore, name: str, accelerator: str) -> Predictions:
        """Train and test on one store; what is read is what was decoded from it."""
        seed_everything(0, verbose=False)
        build_head = partial(self.head, store.codec.shape, len(store.classes))
        splits = read_splits(store, build_head().features)
        seeds = track(range(self.seeds), f"heads ({name})")
        predicted = [self._one(splits, build_head, seed, accelerator) for seed in seeds]
        test = splits["test"]
        return Predictions(np.stack(predicted), test.labels.numpy(), test.ids)

    def _one(
        self,
        splits: dict[str, Embeddings],
        build_head: Callable[[], Head],
        seed: int,
        accelerator: str,
    ) -> np.ndarray:
        seed_everything(seed, verbose=False)
        head = build_head()
        head.fit(splits["train"].features)
        task = SceneClassification(head, self.lr, self.weight_decay)
        data = EmbeddingDataModule(splits, self.batch_size, seed)
        with tempfile.TemporaryDirectory() as folder, quiet():
            best = ModelCheckpoint(
                Path(folder), monitor="val/accuracy", mode="max", save_weights_only=True
            )
            trainer = Trainer(
                max_epochs=self.epochs,
                check_val_every_n_epoch=max(1, self.epochs // 12),
                callbacks=[best],
                accelerator=accelerator,
                devices=1,
                plugins=[LightningEnvironment()],  # one process, also where a launcher has many
                logger=False,
                enable_progress_bar=False,
                enable_model_summary=False,
            )
            trainer.fit(task, data.train_dataloader(), data.val_dataloader())
            state = torch.load(best.best_model_path, weights_only=True)
            task.load_state_dict(state["state_dict"])
            batches = trainer.predict(task, data.predict_dataloader())
        return torch.cat(batches).numpy()


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
