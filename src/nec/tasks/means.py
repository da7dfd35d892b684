"""Means over the images, or pixels, of a step, whichever ranks hold them."""

import torch
from lightning.pytorch import Trainer
from torch import Tensor


def mean_over_ranks(losses: Tensor, trainer: Trainer, weights: Tensor | None = None) -> Tensor:
    """Return the mean of a step's losses, scaled as the averaging of gradients over ranks needs.

    Ranks' shares of a step may differ by an image, so a mean of their means would weigh images
    unequally.

    Args:
        losses: (b,) losses of this rank's images, each the sum over what the image counts for.
        trainer: Trainer that knows the ranks.
        weights: (b,) what each image counts for, such as its pixels; None: 1 each.

    Returns:
        (), a value whose mean over ranks is the mean over all images.
    """
    total = torch.ones_like(losses).sum() if weights is None else weights.sum()
    total = trainer.strategy.reduce(total.detach(), reduce_op="sum").clamp_min(1)
    return losses.sum() * (trainer.world_size / total)
