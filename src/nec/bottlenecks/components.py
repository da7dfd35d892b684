"""Principal components with one step for all of them, rounded by rate and distortion."""

import math
from functools import partial

import torch
from torch import Tensor

from nec.bottlenecks.linear import LinearQuantizer, check_components, principal
from nec.bottlenecks.rounding import cheapest

# Rounds of refitting tables to symbols, and choosing symbols by tables.
REFITS = 2


class Components(LinearQuantizer):
    """Standardized channels, PCA and one step; entropy coding decides a component's share of bits.

    A symbol is the one with the least distortion + bits (rate–distortion-optimized quantization)
    among the nearest, the next one towards 0, and 0.

    Args:
        channels: D, the width of an embedding.
        grid: (h, w), number of token positions.
        components: Principal components kept, at most D.
        step: Quantizer step, in standard deviations of the standardized channels.
    """

    def __init__(
        self,
        channels: int,
        grid: tuple[int, int],
        components: int = 64,
        step: float = 1.0,
    ) -> None:
        check_components(components, channels)
        super().__init__(channels, grid, latents=components, packing=None)
        if not 0 < step < math.inf:
            raise ValueError(f"step is {step}; it is a number > 0, set bottleneck.step")
        self.step = step

    def _fit(self, y: Tensor) -> None:
        """Fit to train embeddings (N, D, h, w): first to nearest symbols, then to chosen ones."""
        self.tables = None
        super()._fit(y)
        for _ in range(REFITS):
            self.tables = self._counted(y)

    def _fit_transform(self, y: Tensor) -> None:
        self._take_axes(principal(y))

    def _fit_steps(self, latents: Tensor) -> None:
        self.steps.fill_(self.step)

    def _rounded(self, latents: Tensor) -> Tensor:
        if self.tables is None:  # nothing has a price yet
            return self._nearest(latents)
        contexts = self._contexts().reshape(latents.shape[1:])
        bits = partial(self.tables.bits, contexts=contexts)
        symbols = cheapest(self._scaled(latents).detach().cpu().numpy(), bits)
        return torch.from_numpy(symbols).to(latents.device)
