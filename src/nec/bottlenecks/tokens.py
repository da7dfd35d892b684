"""Tokens before quantization: less the mean of their position, in principal axes."""

import torch
from torch import Tensor, nn

from nec.bottlenecks.base import SUMMED_IMAGES

SMALLEST_SHARE = 1e-3  # smallest scale, as a share of the mean's norm


class PositionedKLT(nn.Module):
    """The mean of each position, and the Karhunen–Loève transform of what is left of tokens.

    Whatever the image, a ViT's tokens depend on their position, for some percent of their variance.
    Latents are in units of `scale`, the root mean squared norm of a token less its mean or, where
    all images are alike, a small share of the mean's norm, so that float16 can hold the mean.

    Args:
        channels: D, the width of an embedding.
        grid: (h, w), number of token positions.
        latents: M, number of latents kept; at most D are.

    Raises:
        ValueError: If latents is less than 1.
    """

    def __init__(self, channels: int, grid: tuple[int, int], latents: int) -> None:
        super().__init__()
        if latents < 1:
            raise ValueError(
                f"latents is {latents}; a token has 1 or more, set latents (of the bottleneck or "
                "of its part)"
            )
        self.register_buffer("scale", torch.ones(()))
        self.register_buffer("mean", torch.zeros(grid[0] * grid[1], channels))
        self.register_buffer("basis", torch.zeros(min(latents, channels), channels))

    def fit(self, y: Tensor) -> None:
        """Fit to train embeddings (N, D, h, w)."""
        self.mean.copy_(y.double().mean(dim=0).flatten(1).T)
        channels = self.mean.shape[1]
        moment = torch.zeros(channels, channels, dtype=torch.float64, device=y.device)
        for block in y.split(SUMMED_IMAGES):
            tokens = (tokens_of(block) - self.mean).flatten(0, 1)
            moment += (tokens.T @ tokens).double()
        moment /= len(y) * len(self.mean)
        _, axes = torch.linalg.eigh(moment)  # ascending
        least = SMALLEST_SHARE * self.mean.double().square().sum(dim=1).mean().sqrt()
        self.scale.copy_(torch.maximum(moment.trace().sqrt(), least).clamp_min(1e-12))
        self.basis.copy_(axes.flip(1).T[: len(self.basis)])
        # As a receiver has it: the latents carry what float16 rounds off.
        self.mean.copy_((self.mean / self.scale).half())

    def forward(self, y: Tensor) -> Tensor:
        """Embeddings -> latents (B, h * w, M), image by image, so that none depends on others."""
        tokens = tokens_of(y) / self.scale - self.mean
        return torch.stack([each @ self.basis.T for each in tokens])


def tokens_of(y: Tensor) -> Tensor:
    """Embeddings (B, D, h, w) -> tokens (B, h * w, D) float32."""
    return y.float().flatten(2).transpose(1, 2)
