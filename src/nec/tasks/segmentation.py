"""Semantic segmentation from stored embeddings: which class every pixel is of."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torchmetrics import Metric

from nec.scores import mean_iou, of_confusion, overall_accuracy
from nec.tasks.downstream import Downstream
from nec.tasks.heads import Head

# What the pixels of a split are for.
PURPOSES = {"train": "learn from", "val": "choose by", "test": "test on"}


def confusion(logits: Tensor, counts: Tensor) -> Tensor:
    """Count pixels by true and predicted class; all pixels of a cell share its prediction.

    Args:
        logits: (B, K, R, C).
        counts: (B, K, R, C) pixels of each class in a cell.

    Returns:
        (B, K, K) int64; rows are true classes.
    """
    predicted = F.one_hot(logits.argmax(dim=1).flatten(1), logits.shape[1])  # (B, R C, K)
    return (counts.flatten(2).double() @ predicted.double()).long()


class Confusion(Metric):
    """Confusion of pixels, summed over updates.

    Args:
        classes: Number of classes K.
    """

    def __init__(self, classes: int) -> None:
        super().__init__()
        zeros = torch.zeros(classes, classes, dtype=torch.int64)
        self.add_state("confusion", zeros, dist_reduce_fx="sum")

    def update(self, logits: Tensor, counts: Tensor) -> None:
        """Add logits (B, K, R, C) and pixels of each class (B, K, R, C)."""
        self.confusion += confusion(logits, counts).sum(dim=0)


class MeanIoU(Confusion):
    """Mean intersection over union of the classes that occur."""

    def compute(self) -> Tensor:
        """() float32."""
        return torch.tensor(mean_iou(self.confusion.cpu().numpy()).item())


class OverallAccuracy(Confusion):
    """Share of pixels that are classified correctly."""

    def compute(self) -> Tensor:
        """() float32."""
        return torch.tensor(overall_accuracy(self.confusion.cpu().numpy()).item())


class SemanticSegmentation(Downstream):
    """Predict the class of the pixels in each cell of a grid, from y_hat as it was stored.

    A cell is a token's patch, or a part of it (`Head.scale`). The loss is the cross-entropy of all
    pixels that count, under the prediction of their cell.
    """

    kind = "segmentation"
    utility = "miou"
    target = "counts"

    @staticmethod
    def classes_of(data: Any) -> list[str]:
        """Return the classes of the masks.

        Raises:
            ValueError: There are no masks.
        """
        if not data.mask_classes:
            raise ValueError(
                f"{type(data).__name__} has no masks, which segmentation learns from; set "
                "data=scenes, data=dubai or data=crops, or ask for scenes with task=linear"
            )
        return list(data.mask_classes)

    @staticmethod
    def check(head: Head, images: Any, image_size: int) -> None:
        """Refuse cells that are not whole pixels, and a split of which no pixel counts.

        Raises:
            ValueError: The head answers for whole images, its cells do not fit, or there is nothing
                to learn from, to choose by or to test on.
        """
        if not head.scale:
            raise ValueError(
                f"head {type(head).__name__} gives one answer an image, segmentation asks for one "
                "at every place; set task=segmentation"
            )
        for tokens in head.shape[1:]:
            if image_size % (tokens * head.scale):
                raise ValueError(
                    f"scale is {head.scale}, but a token is {image_size / tokens:g} pixels wide; "
                    "give a divisor of that, as in task.NAME.head.scale=1"
                )
        for split, dataset in images.datasets.items():
            if not dataset.images.any_counts():
                raise ValueError(
                    f"all pixels of the masks of {split} are ignored, so there is nothing to "
                    f"{PURPOSES[split]}; mend data.ignored, or remove these images with their masks"
                )

    @staticmethod
    def prepare(data: Any, head: Head) -> None:
        """Let the data module keep what the head reads, and pixel counts in its cells."""
        data.keep(head)
        data.keep_counts(head.scale)

    @staticmethod
    def statistics(logits: Tensor, target: Tensor) -> Tensor:
        """Return the confusion of an image's pixels, row by row: (B, K K) int64."""
        return confusion(logits, target).flatten(1)

    @staticmethod
    def majority(train: Any, test: Any, classes: int) -> Tensor:
        """Return the confusion of naming all pixels after most train pixels: (n, K K) int64."""
        most = train.counts.sum(dim=(0, 2, 3)).argmax()
        logits = torch.zeros(test.counts.shape)
        logits[:, most] = 1
        return confusion(logits, test.counts).flatten(1)

    @staticmethod
    def measured(statistics: Any, classes: Sequence[str]) -> dict[str, Any]:
        """Return mean IoU, overall accuracy and each class's IoU, of all pixels together."""
        counts = statistics.sum(axis=1).reshape(len(statistics), len(classes), len(classes))
        return of_confusion(counts, classes)

    def build_metrics(self, classes: int) -> dict[str, Metric]:
        """Build mean IoU and overall accuracy."""
        return {"miou": MeanIoU(classes), "accuracy": OverallAccuracy(classes)}

    def losses(self, logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Return cross-entropy summed over an image's pixels (B,), and how many count (B,)."""
        losses = -(target * logits.log_softmax(dim=1)).flatten(1).sum(dim=1)
        return losses, target.flatten(1).sum(dim=1)
