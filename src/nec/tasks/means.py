"""Means over the images, or pixels, of a step, wherever they are."""

import torch
from lightning.pytorch import Trainer
from torch import Tensor


def mean_over_ranks(losses: Tensor, trainer: Trainer, weights: Tensor | None = None) -> Tensor:
    """The mean of a step's losses, as the averaging of gradients over ranks needs it.

    Ranks' shares of a step may differ by an image, so a mean of their means would weigh images
    unequally.

    Args:
        losses: (b,) of this rank's images, each the sum over what it counts for.
        trainer: Whose ranks there are.
        weights: (b,) what each image counts for, as its pixels; None: 1.

    Returns:
        (), whose mean over ranks is that over all images.
    """
    total = torch.ones_like(losses).sum() if weights is None else weights.sum()
    total = trainer.strategy.reduce(total.detach(), reduce_op="sum").clamp_min(1)
    return losses.sum() * (trainer.world_size / total)
