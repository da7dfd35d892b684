"""What every downstream task has in common: a head, trained on what was stored."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torchmetrics import Metric

from nec.distortions import Batch
from nec.tasks.heads import Head
from nec.tasks.means import mean_over_ranks

HeadFactory = Callable[[tuple[int, int, int], int], Head]


class Downstream(LightningModule, ABC):
    """Train a head on features of y_hat, as it was stored.

    The data module gives the shape of an embedding and the classes. The head is built from them
    when a fit or a test is set up; what does not learn by gradient is fitted to the train split.

    Attributes:
        kind: What is asked of an image, "classification" or "segmentation".
        utility: The metric by which val chooses and a report compares.
        target: Key of what the head is to predict in a batch.

    Args:
        head: Builds what maps features to logits; called with the shape and number of classes.
        lr: Peak learning rate; falls to zero along a cosine.
        weight_decay: Weight decay of AdamW.
        seed: Seed of the initial weights.
    """

    kind: ClassVar[str]
    utility: ClassVar[str]
    target: ClassVar[str]

    def __init__(self, head: HeadFactory, lr: float, weight_decay: float, seed: int = 0) -> None:
        super().__init__()
        self.build_head = head
        self.lr = lr
        self.weight_decay = weight_decay
        self.seed = seed
        self.head: Head | None = None
        self.metrics = nn.ModuleDict()

    @staticmethod
    @abstractmethod
    def classes_of(data: Any) -> list[str]:
        """Return the classes for this task of a data module of images or of their embeddings.

        Raises:
            ValueError: It has none.
        """

    @staticmethod
    @abstractmethod
    def check(head: Head, images: Any, image_size: int) -> None:
        """Refuse a head that cannot answer for images that an encoder sees at a size (pixels)."""

    @staticmethod
    @abstractmethod
    def prepare(data: Any, head: Head) -> None:
        """Let a data module of embeddings give what the head learns from and is to predict."""

    @staticmethod
    @abstractmethod
    def statistics(logits: Tensor, target: Tensor) -> Tensor:
        """Return what adds up to the metrics, per image (B, s) int64."""

    @staticmethod
    def answers(logits: Tensor) -> dict[str, Tensor]:
        """Return what is kept of each image's logits beside `statistics`, by name."""
        return {}

    @classmethod
    def answer(cls, head: Head, batch: Batch) -> dict[str, Tensor]:
        """Return `answers` and `statistics` of a head on a batch."""
        logits = head(batch["embedding"])
        return {**cls.answers(logits), "statistics": cls.statistics(logits, batch[cls.target])}

    @staticmethod
    @abstractmethod
    def majority(train: Any, test: Any, classes: int) -> Tensor:
        """Return statistics (n, s) of naming all of test after most of train: the lower bound.

        Args:
            train: `Embeddings` of the train split, with what a head is to predict.
            test: `Embeddings` of the test split, with this too.
            classes: Number of classes.
        """

    @staticmethod
    @abstractmethod
    def measured(statistics: Any, classes: Sequence[str]) -> dict[str, Any]:
        """Return metrics (seeds,) by name from statistics (seeds, n, s) of n images, all numpy."""

    @abstractmethod
    def build_metrics(self, classes: int) -> dict[str, Metric]:
        """Build the metrics of a phase by name, to be updated with logits and target."""

    @abstractmethod
    def losses(self, logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Return losses (B,), summed over what an image counts for, and its count (B,)."""

    def setup(self, stage: str) -> None:
        """Build the head for the data's embeddings, and fit its fixed part."""
        data = self.trainer.datamodule
        fresh = self.head is None
        if fresh:
            classes = len(self.classes_of(data))
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(self.seed)
                self.head = self.build_head(data.shape, classes)
            for phase in ("train", "val", "test"):
                for name, metric in self.build_metrics(classes).items():
                    self.metrics[f"{phase}/{name}"] = metric
        self.prepare(data, self.head)
        if fresh or stage == "fit":  # before a checkpoint is loaded: it may make room for weights
            self.head.fit(data.datasets["train"], data.datasets["val"])

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the mean loss of a step."""
        losses, weights = self._step(batch, "train")
        return mean_over_ranks(losses, self.trainer, weights)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Log loss and metrics on val, which chooses the weights."""
        self._step(batch, "val")

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Log loss and metrics on test."""
        self._step(batch, "test")

    def predict_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> dict[str, Any]:
        """Return what `answer` says, `label` and `id`."""
        return {**self.answer(self.head, batch), "label": batch["label"], "id": batch["id"]}

    def _step(self, batch: Batch, phase: str) -> tuple[Tensor, Tensor]:
        """Log a batch's means; return its losses and weights (B,)."""
        logits, target = self.head(batch["embedding"]), batch[self.target]
        losses, weights = self.losses(logits, target)
        total = weights.sum().clamp_min(1)
        shown = {"on_step": False, "on_epoch": True, "batch_size": int(total)}
        self.log(f"{phase}/loss", losses.detach().sum() / total, sync_dist=True, **shown)
        for name, metric in self.metrics.items():
            if name.startswith(phase):
                metric.update(logits.detach(), target)
                self.log(name, metric, prog_bar=phase == "val", **shown)
        return losses, weights

    def configure_optimizers(self) -> dict[str, object]:
        """Return AdamW, its learning rate falling along a cosine."""
        optimizer = torch.optim.AdamW(self.parameters(), lr=self.lr, weight_decay=self.weight_decay)
        steps = int(self.trainer.estimated_stepping_batches)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }
