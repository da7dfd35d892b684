"""Principal components with one step for all of them."""

from torch import Tensor

from nec.bottlenecks.linear import LinearQuantizer, check_components, principal


class Components(LinearQuantizer):
    """Standardized channels, PCA, one step, entropy-coded; a component's share of bits follows.

    Args:
        channels: D, the width of an embedding.
        grid: (h, w), its positions.
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
        if not step > 0:
            raise ValueError(f"step is {step}; it must be > 0, set bottleneck.step")
        self.step = step

    def _fit_transform(self, y: Tensor) -> None:
        self._take_axes(principal(y))

    def _fit_steps(self, latents: Tensor) -> None:
        self.steps.fill_(self.step)

    def _rounded(self, latents: Tensor) -> Tensor:
        return self._nearest(latents)
