"""Fields of codes: those that are near the tokens and cheap beside their neighbours."""

from typing import NamedTuple

import torch
from torch import Tensor

from nec.coding import Neighbours

# Rounds over a grid, at most; the bytes of most fields no longer change behind the third.
SWEEPS = 4
# Positions of one colour are not neighbours of each other, so that they may change at once: what
# a code costs depends on it through (0, 1), (1, 0) and, since the symbol below left of it and it
# price their common neighbour together, (1, -1).
COLOURS = 3


class Prices(NamedTuple):
    """Bits of codes given their neighbours, taken apart so that they can be added up."""

    left: Tensor  # (A + 1, K) float32, less the norm
    up: Tensor  # (A + 1, K) float32
    norm: Tensor  # (A + 1, A + 1) float32: log2 of the sum over codes, by classes left and up
    classes: Tensor  # (K,) int64

    @classmethod
    def of(cls, neighbours: Neighbours, device: torch.device) -> "Prices":
        """Of frequencies; those of codes that a table does not have are a small part of one."""
        left, up = (torch.from_numpy(w).to(device).double() for w in neighbours.weights)
        left, up = left.clamp_min(2.0**-4), up.clamp_min(2.0**-4)
        return cls(
            -left.log2().float(),
            -up.log2().float(),
            (left @ up.T).log2().float(),
            torch.from_numpy(neighbours.places).to(device),
        )


def settle(candidates: Tensor, distortions: Tensor, prices: Prices, rate_weight: float) -> Tensor:
    """Choose codes by distortion and bits over the whole grid: iterated conditional modes.

    Besag 1986. Each position in turn takes the candidate of least distortion + rate_weight * bits,
    those bits counted that depend on it: its own, and of the codes to its right and below. It
    begins with the nearest, and of equals takes the nearest.

    Args:
        candidates: (B, h, w, C) int64, the nearest first.
        distortions: (B, h, w, C) float32.
        prices: Of codes.
        rate_weight: Distortion that a bit is worth.

    Returns:
        Codes (B, h, w) int64. An image's do not depend on the others'.
    """
    height, width = candidates.shape[1:3]
    codes = candidates[..., 0].clone()
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    colours = (rows - columns) % COLOURS
    for _ in range(SWEEPS):
        before = codes.clone()
        for colour in range(COLOURS):
            y, x = (each[colours == colour].to(codes.device) for each in (rows, columns))
            found, distortion = candidates[:, y, x], distortions[:, y, x]  # (B, n, C)
            if found.shape[1]:
                cost = distortion + rate_weight * _bits(codes, found, y, x, prices)
                best = cost.argmin(dim=2, keepdim=True)
                codes[:, y, x] = found.gather(2, best)[..., 0]
        if torch.equal(before, codes):
            break
    return codes


def _bits(codes: Tensor, found: Tensor, y: Tensor, x: Tensor, prices: Prices) -> Tensor:
    """Bits (B, n, C) that depend on candidates (B, n, C) for the positions (n,) of a grid."""
    border = len(prices.left) - 1
    height, width = codes.shape[1:]
    padded = torch.full((len(codes), height + 2, width + 2), border, device=codes.device)
    padded[:, 1:-1, 1:-1] = prices.classes[codes]
    y, x = y + 1, x + 1
    left, up = padded[:, y, x - 1, None], padded[:, y - 1, x, None]  # (B, n, 1)
    own = prices.classes[found]
    bits = prices.left[left, found] + prices.up[up, found]
    # The code to the right has this one on its left, the code below has it above.
    beside = codes[:, y - 1, x.clamp_max(width - 1), None]
    below = codes[:, y.clamp_max(height - 1), x - 1, None]
    to_right = prices.norm[own, padded[:, y - 1, x + 1, None]] + prices.left[own, beside]
    to_below = prices.norm[padded[:, y + 1, x - 1, None], own] + prices.up[own, below]
    bits += torch.where((x < width)[None, :, None], to_right, 0.0)
    return bits + torch.where((y < height)[None, :, None], to_below, 0.0)
