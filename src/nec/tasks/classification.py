"""Scene classification from stored embeddings."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torchmetrics import Metric
from torchmetrics.classification import MulticlassAccuracy

from nec.tasks.downstream import Downstream
from nec.tasks.heads import Head


class SceneClassification(Downstream):
    """Predict the class of an image from features of its y_hat as it was stored."""

    kind = "classification"
    utility = "accuracy"
    target = "label"

    @staticmethod
    def classes_of(data: Any) -> list[str]:
        """Return the classes of the labels."""
        return list(data.classes)

    @staticmethod
    def check(head: Head, images: Any, image_size: int) -> None:
        """Refuse what cannot classify scenes; any size of image will do.

        Raises:
            ValueError: The head answers for places of an image, or no class of test is in train, as
                happens if labels are the groups that folds leave out.
        """
        if head.scale:
            raise ValueError(
                f"head {type(head).__name__} answers for places of an image, scene classification "
                "asks for one answer; set task=linear or task=attention"
            )
        train, test = (images.datasets[split].labels for split in ("train", "test"))
        if set(train).isdisjoint(test):
            raise ValueError(
                f"no class of the test images of {type(images).__name__} is in train, so scenes "
                "cannot be told apart; set task=segmentation, or give images labelled by scene"
            )

    @staticmethod
    def prepare(data: Any, head: Head) -> None:
        """Let the data module keep what the head reads."""
        data.keep(head)

    @staticmethod
    def statistics(logits: Tensor, target: Tensor) -> Tensor:
        """Return 1 where the answer is right, else 0: (B, 1) int64."""
        return (logits.argmax(dim=1) == target).long()[:, None]

    @staticmethod
    def answers(logits: Tensor) -> dict[str, Tensor]:
        """Return the predicted class of each image: (B,) int64."""
        return {"predicted": logits.argmax(dim=1)}

    @staticmethod
    def majority(train: Any, test: Any, classes: int) -> Tensor:
        """Return 1 where an image is of the class of most train images: (n, 1) int64."""
        most = torch.bincount(train.labels, minlength=classes).argmax()
        return (test.labels == most).long()[:, None]

    @staticmethod
    def measured(statistics: Any, classes: Sequence[str]) -> dict[str, Any]:
        """Return the share of right answers."""
        return {"accuracy": statistics[:, :, 0].mean(axis=1)}

    def build_metrics(self, classes: int) -> dict[str, Metric]:
        """Build the metric: the share of right answers."""
        return {"accuracy": MulticlassAccuracy(classes, average="micro")}

    def losses(self, logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Return the cross-entropy (B,); each image counts for one."""
        losses = F.cross_entropy(logits, target, reduction="none")
        return losses, losses.new_ones(len(losses))
