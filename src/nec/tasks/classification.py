"""Scene classification from stored embeddings."""

from collections.abc import Callable
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics.classification import MulticlassAccuracy

from nec.distortions import Batch
from nec.tasks.heads import Head
from nec.tasks.means import mean_over_ranks

HeadFactory = Callable[[tuple[int, int, int], int], Head]


class SceneClassification(LightningModule):
    """Train a head on features of y_hat, as it was stored.

    The data module says the shape of an embedding and the classes. The head is built from them when
    a fit or a test is set up; what does not learn by gradient is fitted to its train split.

    Args:
        head: Maps features to logits; called with the shape and the number of classes.
        lr: Peak learning rate; falls to zero along a cosine.
        weight_decay: Of AdamW.
        seed: Of the initial weights.
    """

    def __init__(self, head: HeadFactory, lr: float, weight_decay: float, seed: int = 0) -> None:
        super().__init__()
        self.build_head = head
        self.lr = lr
        self.weight_decay = weight_decay
        self.seed = seed
        self.head: Head | None = None
        self.metrics = nn.ModuleDict()

    def setup(self, stage: str) -> None:
        """Build the head for the data's embeddings, and fit its fixed part."""
        data = self.trainer.datamodule
        if self.head is None:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(self.seed)
                self.head = self.build_head(data.shape, len(data.classes))
            for phase in ("train", "val", "test"):
                accuracy = MulticlassAccuracy(len(data.classes), average="micro")
                self.metrics[f"{phase}/accuracy"] = accuracy
        data.keep_features(self.head)
        if stage == "fit":
            self.head.fit(data.datasets["train"].features)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Cross-entropy."""
        return mean_over_ranks(self._step(batch, "train"), self.trainer)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """The same on val, which chooses the weights."""
        self._step(batch, "val")

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """The same on test."""
        self._step(batch, "test")

    def predict_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> dict[str, Any]:
        """Predicted classes (B,) int64, with `label` and `id`."""
        predicted = self.head(batch["embedding"]).argmax(dim=1)
        return {"predicted": predicted, "label": batch["label"], "id": batch["id"]}

    def _step(self, batch: Batch, phase: str) -> Tensor:
        """Log a batch's means; its losses (B,)."""
        logits = self.head(batch["embedding"])
        loss = F.cross_entropy(logits, batch["label"], reduction="none")
        name = f"{phase}/accuracy"
        self.metrics[name].update(logits, batch["label"])
        shown = {"on_step": False, "on_epoch": True, "batch_size": len(logits)}
        self.log(f"{phase}/loss", loss.detach().mean(), sync_dist=True, **shown)
        self.log(name, self.metrics[name], prog_bar=phase == "val", **shown)
        return loss

    def configure_optimizers(self) -> dict[str, object]:
        """AdamW along a cosine."""
        optimizer = torch.optim.AdamW(self.parameters(), lr=self.lr, weight_decay=self.weight_decay)
        steps = int(self.trainer.estimated_stepping_batches)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }
