"""Scene classification from stored embeddings."""

import torch
from lightning.pytorch import LightningModule
from torch import Tensor
from torch.nn import functional as F
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy

from nec.distortions import Batch
from nec.tasks.heads import Head


class SceneClassification(LightningModule):
    """Train a head on features of y_hat, as it was stored.

    Args:
        head: Maps features to logits.
        lr: Peak learning rate; falls to zero along a cosine.
        weight_decay: Of AdamW.
    """

    def __init__(self, head: Head, lr: float = 1e-3, weight_decay: float = 1e-2) -> None:
        super().__init__()
        self.head = head
        self.lr = lr
        self.weight_decay = weight_decay
        metrics = MetricCollection(
            {"accuracy": MulticlassAccuracy(head.classes, average="micro")}, compute_groups=False
        )
        self.train_metrics = metrics.clone(prefix="train/")
        self.val_metrics = metrics.clone(prefix="val/")
        self.test_metrics = metrics.clone(prefix="test/")

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Cross-entropy."""
        return self._step(batch, "train", self.train_metrics)

    def validation_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The same on val, which chooses the weights."""
        return self._step(batch, "val", self.val_metrics)

    def test_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The same on test."""
        return self._step(batch, "test", self.test_metrics)

    def predict_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Predicted classes (B,) int64."""
        return self.head(batch["embedding"]).argmax(dim=1)

    def _step(self, batch: Batch, phase: str, metrics: MetricCollection) -> Tensor:
        logits = self.head(batch["embedding"])
        loss = F.cross_entropy(logits, batch["label"])
        metrics.update(logits, batch["label"])
        self.log(f"{phase}/loss", loss, batch_size=len(logits), on_epoch=True, on_step=False)
        self.log_dict(metrics, on_epoch=True, on_step=False, prog_bar=phase == "val")
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
