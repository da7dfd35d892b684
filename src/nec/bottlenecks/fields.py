"""Choosing fields of codes that are near the tokens and cheap given their neighbours."""

from typing import NamedTuple

import torch
from torch import Tensor

from nec.coding import Neighbours

# Largest number of rounds over a grid; the bytes of most fields do not change after the third.
SWEEPS = 4
# Positions of one colour do not affect each other's costs, so they may change at once. A position
# affects those at (0, 1) and (1, 0) and, since a symbol's left and upper neighbours price it
# together, (1, -1).
COLOURS = 3


class Prices(NamedTuple):
    """Bits of codes given their neighbours, split into terms: left + up + norm."""

    left: Tensor  # (A + 1, K) float32, without the norm
    up: Tensor  # (A + 1, K) float32
    norm: Tensor  # (A + 1, A + 1) float32: log2 of the sum over codes, by classes left and up
    classes: Tensor  # (K,) int64

    @classmethod
    def of(cls, neighbours: Neighbours, device: torch.device) -> "Prices":
        """Compute prices from frequencies; a code that a table lacks gets a frequency of 1/16."""
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
    counting the bits that depend on it: its own, and those of the codes to its right and below.
    Every position starts at its nearest candidate; ties go to the nearer one.

    Args:
        candidates: (B, h, w, C) int64 codes, the nearest first.
        distortions: (B, h, w, C) float32, distortion of each candidate.
        prices: Prices of the codes.
        rate_weight: Distortion that a bit is worth.

    Returns:
        Codes (B, h, w) int64; an image's codes do not depend on the other images.
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
    """Sum the bits (B, n, C) that depend on candidates (B, n, C) at positions y, x (n,)."""
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
