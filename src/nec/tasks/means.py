"""Means over the images of a step, wherever they are."""

import torch
from lightning.pytorch import Trainer
from torch import Tensor


def mean_over_ranks(losses: Tensor, trainer: Trainer) -> Tensor:
    """The mean of a step's losses, as the averaging of gradients over ranks needs it.

    Ranks' shares of a step may differ by an image, so a mean of their means would weigh images
    unequally.

    Args:
        losses: (b,) of this rank's images.
        trainer: Whose ranks there are.

    Returns:
        (), whose mean over ranks is that over all images.
    """
    images = torch.tensor(float(len(losses)), device=losses.device)
    images = trainer.strategy.reduce(images, reduce_op="sum")
    return losses.sum() * (trainer.world_size / images)
