"""One bit per value: on which side of the mean it lies."""

import torch
from torch import Tensor

from nec.bottlenecks.linear import LinearQuantizer, principal

# Seed of the random rotation; a codec holds the matrix, so a reader needs no seed.
SEED = 0


class Sign(LinearQuantizer):
    """Stores the side of its train mean that a value lies on; y_hat is the train mean of that side.

    A rotation spreads the content of a few channels over all bits. It is random, and orthogonal on
    the standardized channels.

    Args:
        channels: D, the width of an embedding.
        grid: (h, w), number of token positions.
        rotated: Whether channels are rotated first.
    """

    def __init__(self, channels: int, grid: tuple[int, int], rotated: bool = False) -> None:
        super().__init__(channels, grid, latents=channels if rotated else None, packing=None)
        self.rotated = rotated
        self.register_buffer("thresholds", torch.zeros(channels))

    def _fit_transform(self, y: Tensor) -> None:
        if self.rotated:
            found = principal(y)
            generator = torch.Generator().manual_seed(SEED)
            normal = torch.randn(*found.axes.shape, generator=generator, dtype=torch.float64)
            rotation, upper = torch.linalg.qr(normal)
            rotation *= upper.diag().sign()  # makes all rotations equally likely
            self._take_axes(found._replace(axes=rotation.to(y.device)))

    def _fit_steps(self, latents: Tensor) -> None:
        thresholds = latents.mean(dim=1)
        above = latents >= thresholds[:, None]
        count = above.sum(dim=1)
        high = (latents * above).sum(dim=1) / count.clamp_min(1)
        low = (latents * ~above).sum(dim=1) / (latents.shape[1] - count).clamp_min(1)
        # A latent that does not vary lies on one side alone.
        low, high = (
            torch.where(count == latents.shape[1], high, low),
            torch.where(count == 0, low, high),
        )
        self.thresholds.copy_(thresholds)
        self.steps.copy_(high - low)
        self.offsets.copy_(low)

    def _rounded(self, latents: Tensor) -> Tensor:
        return latents >= self.thresholds[:, None, None]
