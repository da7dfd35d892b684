"""The learned bottleneck: linear transforms, and an entropy model independent per latent."""

import numpy as np
import torch
from compressai.entropy_models import EntropyBottleneck
from torch import Tensor, nn

from nec import chance
from nec.bottlenecks.base import SUMMED_IMAGES, Coded, LearnedBottleneck
from nec.bottlenecks.rounding import LARGEST_LEVEL
from nec.coding import Tables
from nec.store.codec import Band, Codec, LinearCodec

# Widths of the cumulative network in CompressAI's EntropyBottleneck (Ballé et al. 2018, 6.1).
FILTERS = (3, 3, 3, 3)
# Mass beyond both ends of a table, which is left to the escape.
TAIL_MASS = 2.0**-17
LARGEST_RADIUS = 4096
# Positions that a training step prices, drawn for each image and epoch; scaling their bits to all
# positions gives an unbiased rate. The density is most of a step's work; the distortion sees all.
PRICED_POSITIONS = 32
# Latents with a smaller scale are dead at any rate; a narrower density would only train slower.
SMALLEST_SCALE = 0.05


class Factorized(LearnedBottleneck):
    """Two bands, the grid's mean and the remainder, each transformed, rounded and priced.

    ```
    y ─┬─ mean over the grid ─ A₀ ─ round ─ S₀ ─┐
       └─ y − mean ─────────── A₁ ─ round ─ S₁ ─┴─ y_hat
    ```

    A and S are linear over channels, started at the Karhunen–Loève transform of the per-channel
    whitened train embeddings and at steps of one standard deviation. Rate: CompressAI's factorized
    density (Ballé et al. 2018, appendix 6.1) per latent and band, in float32 under any autocast,
    with uniform noise in training; the distortion sees rounded latents, straight through (Minnen
    and Singh 2020, section 3). The mean takes 1 / (h·w) of the symbols of the other band and is
    worth more bits per symbol.

    Args:
        channels: D, the width of an embedding.
        grid: (h, w), number of token positions.
        latents: Latents kept per band; more than D means D.

    Raises:
        ValueError: There is no latent.
    """

    def __init__(self, channels: int, grid: tuple[int, int], latents: int = 128) -> None:
        super().__init__(channels, grid)
        if latents < 1:
            raise ValueError(f"latents is {latents}; it is 1 or more, set bottleneck.latents=128")
        latents = min(latents, channels)
        self.latents = latents
        self.register_buffer("center", torch.zeros(channels))
        self.register_buffer("spread", torch.ones(channels))
        self.analysis = nn.Parameter(torch.zeros(2, latents, channels))
        self.synthesis = nn.Parameter(torch.zeros(2, latents, channels))
        self.log_gain = nn.Parameter(torch.zeros(2, latents))
        self.densities = nn.ModuleList(
            EntropyBottleneck(latents, filters=FILTERS) for _ in range(2)
        )

    def _fit(self, y: Tensor) -> None:
        """Start at the KLT of train embeddings (N, D, h, w), densities at the latents' spread."""
        tokens = y.transpose(0, 1).flatten(1)  # (D, N * h * w)
        self.center.copy_(tokens.mean(dim=1))
        self.spread.copy_(tokens.std(dim=1, correction=0).clamp_min(1e-6))
        with torch.no_grad():
            shape = (2, self.channels, self.channels)
            moments = torch.zeros(shape, dtype=torch.float64, device=y.device)
            for block in y.split(SUMMED_IMAGES):
                for band, part in enumerate(self._split(block)):
                    flat = part.transpose(0, 1).flatten(1).double()
                    moments[band] += flat @ flat.T
            for band, moment in enumerate(moments):
                _, axes = torch.linalg.eigh(moment)  # ascending
                kept = axes.flip(1).T[: self.latents].float()
                self.analysis[band].copy_(kept)
                self.synthesis[band].copy_(kept)
            # The mean is paid once and seen at every position: the step that balances rate and
            # distortion is sqrt(h·w) finer than that of a position.
            self.log_gain[0] = 0.5 * float(np.log(self.grid[0] * self.grid[1]))
            self.log_gain[1] = 0.0
            for band, part in enumerate(self._split(y)):
                latents = self._analyze(part, band).transpose(0, 1).flatten(1)
                spread = latents.std(dim=1, correction=0)
                _start_density(self.densities[band], latents.mean(dim=1), spread)

    def forward(self, y: Tensor, keys: Tensor | None = None) -> Coded:
        """Price a batch (B, D, h, w) and return what the receiver would see.

        For a masked grid (B, D, K, 1), the bits of K positions are scaled to all positions.

        Args:
            y: Embeddings.
            keys: (B,) int64 from `nec.chance`: price noisy latents at some of the positions;
                None: rounded latents at all positions.
        """
        with torch.autocast(y.device.type, enabled=False):
            bits = torch.zeros(len(y), device=y.device)
            whitened = torch.zeros_like(y, dtype=torch.float32)
            for band, part in enumerate(self._split(y.float())):
                latent = self._analyze(part, band)
                median = self._median(band)
                rounded = (latent - median).round() + median
                priced = rounded if keys is None else self._noisy(latent, keys, band)
                bits = bits + self._bits(priced.flatten(2), band)
                straight = latent + (rounded - latent).detach()
                whitened = whitened + self._synthesize(straight, band)
            y_hat = whitened * self.spread[:, None, None] + self.center[:, None, None]
        return Coded(y_hat, bits)

    def _quantize(self, y: Tensor) -> Tensor:
        """Round latents (B, latents + latents * h * w): those of the mean, then of positions."""
        parts = []
        with torch.autocast(y.device.type, enabled=False):
            for band, part in enumerate(self._split(y)):
                latent = self._analyze(part, band)
                rounded = (latent - self._median(band)).round()
                parts.append(rounded.clamp(-LARGEST_LEVEL, LARGEST_LEVEL).int().flatten(1))
        return torch.cat(parts, dim=1)

    def export(self) -> Codec:
        """Freeze densities into integer tables and the synthesis into numpy."""
        positions = self.grid[0] * self.grid[1]
        bands, pmfs, radii = [], [], []
        with torch.no_grad():
            for band in range(2):
                basis = self.synthesis[band] * torch.exp(-self.log_gain[band])[:, None]
                bands.append(
                    Band(
                        steps=np.ones(self.latents, np.float32),
                        offsets=self._median(band).flatten().cpu().numpy(),
                        basis=(basis * self.spread).cpu().numpy(),
                        pooled=band == 0 and positions > 1,
                    )
                )
                pmf, radius = _pmfs(self.densities[band])
                pmfs.append(pmf)
                radii.append(radius)
        radius = max(radii)
        padded = [
            np.pad(p, ((0, 0), (radius - r, radius - r))) for p, r in zip(pmfs, radii, strict=True)
        ]
        offsets = np.full(2 * self.latents, -radius, np.int32)
        return LinearCodec(
            shape=self.shape,
            bands=tuple(bands),
            bias=self.center.cpu().numpy(),
            tables=Tables.from_pmfs(np.concatenate(padded), offsets),
        )

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """Gains and densities; analysis and synthesis; quantiles, trained by their loss only."""
        quantiles = [density.quantiles for density in self.densities]
        known = {id(p) for p in quantiles}
        densities = [p for p in self.densities.parameters() if id(p) not in known]
        return {
            "density": [self.log_gain, *densities],
            "transform": [self.analysis, self.synthesis],
            "auxiliary": quantiles,
        }

    def auxiliary_loss(self) -> Tensor:
        """Distance of the quantiles, median and both tails, from those of the densities."""
        return sum(density.loss() for density in self.densities)

    def _noisy(self, latent: Tensor, keys: Tensor, band: int) -> Tensor:
        """Latents (B, M, h, w) -> with uniform noise, at up to PRICED_POSITIONS: (B, M, K)."""
        column = latent.flatten(2)
        count = column.shape[2]
        if count > PRICED_POSITIONS:
            order = chance.uniform(keys, "priced positions", (count,))
            order = order.argsort(dim=1, stable=True)
            chosen = order[:, None, :PRICED_POSITIONS].expand(-1, self.latents, -1)
            column = column.gather(2, chosen)
        return column + chance.uniform(keys, f"noise of band {band}", column.shape[1:]) - 0.5

    def _bits(self, latent: Tensor, band: int) -> Tensor:
        """Estimate bits (B,) of whole images from latents (B, M, K) at K of a band's positions."""
        density = self.densities[band]
        likelihood, _, _ = density._likelihood(latent.transpose(0, 1).flatten(1)[:, None])
        bits = -density.likelihood_lower_bound(likelihood).log2()  # (M, 1, B * K)
        per_image = bits.reshape(self.latents, len(latent), -1).sum(dim=(0, 2))
        return per_image * (self._positions(band) / latent.shape[2])

    def _positions(self, band: int) -> int:
        """Number of symbols of each latent in a whole image."""
        return 1 if band == 0 else self.grid[0] * self.grid[1]

    def _split(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """(B, D, h, w) -> whitened mean (B, D, 1, 1) and remainder (B, D, h, w)."""
        whitened = (y - self.center[:, None, None]) / self.spread[:, None, None]
        mean = whitened.mean(dim=(2, 3), keepdim=True)
        return mean, whitened - mean

    def _analyze(self, part: Tensor, band: int) -> Tensor:
        """(B, D, h, w) -> latents (B, M, h, w), step 1."""
        matrix = self.analysis[band] * torch.exp(self.log_gain[band])[:, None]
        return torch.einsum("md,bdhw->bmhw", matrix, part)

    def _synthesize(self, latent: Tensor, band: int) -> Tensor:
        """Latents (B, M, h, w) -> (B, D, h, w), whitened."""
        matrix = self.synthesis[band] * torch.exp(-self.log_gain[band])[:, None]
        return torch.einsum("md,bmhw->bdhw", matrix, latent)

    def _median(self, band: int) -> Tensor:
        """Latent values at symbol 0, the densities' medians: (M, 1, 1)."""
        return self.densities[band].quantiles[:, 0, 1].detach()[:, None, None]


def _start_density(density: EntropyBottleneck, mean: Tensor, std: Tensor) -> None:
    """Start a density at the latents' mean and spread, so that training starts at a true rate.

    CompressAI starts all channels alike, at a logistic of scale `init_scale`; its constructor's
    closed form with one scale per channel saves hundreds of steps. Its random biases are kept, as
    they make hidden units differ; the last one is shifted to put the median at the mean.
    """
    scale = (std / 1.8).clamp_min(SMALLEST_SCALE)  # of a logistic, whose std is 1.81 scales
    per_layer = scale ** (1 / len(density.matrices))
    for matrix in density.matrices:
        start = torch.log(torch.expm1(1 / per_layer / matrix.shape[1]))
        matrix.copy_(start[:, None, None].expand_as(matrix))
    median_logit = density._logits_cumulative(mean[:, None, None], stop_gradient=True)
    density.biases[-1].sub_(median_logit)
    reach = float(density.target[2])
    for column, side in enumerate((-reach, 0.0, reach)):
        density.quantiles[:, 0, column] = mean + side * scale


def _pmfs(density: EntropyBottleneck) -> tuple[np.ndarray, int]:
    """Return probabilities (M, 2 radius + 1) of the symbols -radius..radius, and the radius."""
    median = density.quantiles[:, :, 1:2].detach()  # (M, 1, 1)
    radius = 1
    while radius < LARGEST_RADIUS:
        ends = torch.tensor([-radius - 0.5, radius + 0.5], device=median.device)
        logits = density._logits_cumulative(median + ends, stop_gradient=True)
        outside = torch.sigmoid(logits[:, 0, 0]) + torch.sigmoid(-logits[:, 0, 1])
        if outside.max() < TAIL_MASS:
            break
        radius *= 2
    values = torch.arange(-radius, radius + 1, device=median.device, dtype=torch.float32)
    pmf, _, _ = density._likelihood(median + values, stop_gradient=True)
    return pmf[:, 0].clamp_min(0).double().cpu().numpy(), radius
