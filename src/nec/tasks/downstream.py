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

    The data module says the shape of an embedding and the classes. The head is built from them when
    a fit or a test is set up; what does not learn by gradient is fitted to its train split.

    Attributes:
        kind: What is asked of an image, "classification" or "segmentation".
        utility: The metric by which val chooses and a report compares.
        target: What of a batch the head is to say.

    Args:
        head: Maps features to logits; called with the shape and the number of classes.
        lr: Peak learning rate; falls to zero along a cosine.
        weight_decay: Of AdamW.
        seed: Of the initial weights.
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
        """The classes that a data module has for this task, of images or of their embeddings.

        Raises:
            ValueError: It has none.
        """

    @staticmethod
    @abstractmethod
    def check(head: Head, images: Any, image_size: int) -> None:
        """Refuse a head that cannot answer for images, which an encoder sees at a size (pixels)."""

    @staticmethod
    @abstractmethod
    def prepare(data: Any, head: Head) -> None:
        """Let a data module of embeddings give what the head learns from and is to say."""

    @staticmethod
    @abstractmethod
    def statistics(logits: Tensor, target: Tensor) -> Tensor:
        """What adds up to the metrics, per image (B, s) int64."""

    @staticmethod
    @abstractmethod
    def majority(train: Any, test: Any, classes: int) -> Tensor:
        """Statistics (n, s) of naming all of test what most of train is: the bound from below.

        Args:
            train: `Embeddings` of the train split, with what a head is to say of them.
            test: Of the test split.
            classes: Number of classes.
        """

    @staticmethod
    @abstractmethod
    def measured(statistics: Any, classes: Sequence[str]) -> dict[str, Any]:
        """Metrics (seeds,) by name of the statistics (seeds, n, s) of n images, as numpy arrays."""

    @abstractmethod
    def build_metrics(self, classes: int) -> dict[str, Metric]:
        """Metrics of a phase by name, updated with logits and target."""

    @abstractmethod
    def losses(self, logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Losses (B,), summed over what an image counts for, and that (B,)."""

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
        """The mean loss of a step."""
        losses, weights = self._step(batch, "train")
        return mean_over_ranks(losses, self.trainer, weights)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """The same on val, which chooses the weights."""
        self._step(batch, "val")

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """The same on test."""
        self._step(batch, "test")

    def predict_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> dict[str, Any]:
        """Predicted classes (B,) or (B, R, C) int64 and `statistics`, with `label` and `id`."""
        logits = self.head(batch["embedding"])
        return {
            "predicted": logits.argmax(dim=1),
            "statistics": self.statistics(logits, batch[self.target]),
            "label": batch["label"],
            "id": batch["id"],
        }

    def _step(self, batch: Batch, phase: str) -> tuple[Tensor, Tensor]:
        """Log a batch's means; its losses and weights (B,)."""
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
        """AdamW along a cosine."""
        optimizer = torch.optim.AdamW(self.parameters(), lr=self.lr, weight_decay=self.weight_decay)
        steps = int(self.trainer.estimated_stepping_batches)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }
