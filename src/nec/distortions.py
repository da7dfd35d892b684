"""What adaptation must preserve: the teacher's embedding, or what masked pixels need."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import torch
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from nec import chance

Batch = Mapping[str, Any]


class Encodes(Protocol):
    """The part of an encoder that a distortion uses."""

    channels: int
    grid: tuple[int, int]
    patch_size: int
    bands: int

    def __call__(self, image: Tensor, visible: Tensor | None = None) -> Tensor:
        """Map pixels to embeddings, of all patches or of the visible ones."""

    def embed(self, batch: Batch) -> Tensor:
        """Map images, or their tokens from the frozen prefix, to embeddings."""


class Trade(NamedTuple):
    """Both sides of the rate-distortion trade for a batch."""

    estimated_bits: Tensor  # (B,) float32, for a whole image
    distortion: Tensor  # (B,) float32, a mean over elements


class Distortion(nn.Module, ABC):
    """One forward pass of adaptation: what is encoded, what it costs, what is lost."""

    needs_images: bool = False  # whether cached activations of the frozen prefix do not suffice

    def fit(self, y: Tensor) -> None:
        """Fit statistics of the measure to the teacher's train embeddings (N, D, h, w)."""

    @abstractmethod
    def forward(
        self,
        batch: Batch,
        encoder: Encodes,
        teacher: Encodes,
        bottleneck: nn.Module,
        keys: Tensor | None = None,
    ) -> Trade:
        """Encode a batch and compare.

        Args:
            batch: Has `image` or `tokens`, and `id`.
            encoder: The encoder being adapted.
            teacher: The encoder before adaptation, frozen.
            bottleneck: Prices and decodes embeddings.
            keys: (B,) int64 from `nec.chance`, to train; None: as it will be coded.
        """


class EmbeddingDistortion(Distortion):
    """Squared error of y_hat against the frozen teacher's y, per channel in units of its variance.

    Whitening gives equal weight to the channels of a ViT, whose variances span orders of magnitude;
    1.0 is the error of the mean embedding.

    Args:
        encoder: Encoder whose embeddings are preserved.
        whitened: Divide by the variance of the channel; otherwise by the mean variance.
    """

    def __init__(self, encoder: Encodes, whitened: bool = True) -> None:
        super().__init__()
        self.whitened = whitened
        self.register_buffer("variance", torch.ones(encoder.channels))

    def fit(self, y: Tensor) -> None:
        """Fit channel variances to the teacher's train embeddings (N, D, h, w)."""
        variance = y.float().transpose(0, 1).flatten(1).var(dim=1).clamp_min(1e-12)
        self.variance.copy_(variance if self.whitened else variance.mean().expand_as(variance))

    def forward(
        self,
        batch: Batch,
        encoder: Encodes,
        teacher: Encodes,
        bottleneck: nn.Module,
        keys: Tensor | None = None,
    ) -> Trade:
        """Encode a batch and compare; with cached prefix activations, both encoders use them."""
        coded = bottleneck(encoder.embed(batch), keys)
        target = teacher.embed(batch).float()
        error = (coded.y_hat - target).square() / self.variance[:, None, None]
        return Trade(coded.estimated_bits, error.mean(dim=(1, 2, 3)))


class MaskedPixels(Distortion):
    """The NEC paper's distortion: a masked autoencoder fills in patches hidden from the encoder.

    Mean squared error over the pixels of masked patches, in units of the encoder's normalized
    input (He et al. 2022, section 3; NEC, section 3.2). Training uses the visible tokens, whose
    bits the bottleneck scales to a whole image; in evaluation the rate is that of the full grid,
    and an image's mask is the same every time.

    Args:
        encoder: Encoder whose embeddings the decoder reads.
        masking_ratio: Share of the patches that are hidden, in (0, 1).
        width: Width of the decoder.
        depth: Number of the decoder's blocks (timm).
        heads: Attention heads per block; width must be a multiple of it.

    Raises:
        ValueError: If no patch is masked or none is visible, heads do not divide width, or depth is
            negative.
    """

    needs_images = True

    def __init__(
        self,
        encoder: Encodes,
        masking_ratio: float = 0.75,
        width: int = 128,
        depth: int = 2,
        heads: int = 4,
    ) -> None:
        super().__init__()
        positions = encoder.grid[0] * encoder.grid[1]
        self.visible_count = round(positions * (1 - masking_ratio))
        if not 0 < self.visible_count < positions:
            raise ValueError(
                f"masking_ratio is {masking_ratio}; of {positions} patches at least one must be "
                "masked and one visible, set distortion.masking_ratio between 0 and 1"
            )
        if width < 1 or heads < 1 or width % heads:
            raise ValueError(
                f"width is {width} and heads is {heads}; the decoder's width must be a multiple of "
                "its heads, set distortion.width or distortion.heads"
            )
        if depth < 0:
            raise ValueError(
                f"depth is {depth}; the decoder has 0 blocks or more, set distortion.depth=2"
            )
        self.grid = encoder.grid
        self.embed = nn.Linear(encoder.channels, width)
        self.mask_token = nn.Parameter(torch.zeros(width))
        self.positions = nn.Parameter(0.02 * torch.randn(positions, width))
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, encoder.patch_size**2 * encoder.bands)

    def forward(
        self,
        batch: Batch,
        encoder: Encodes,
        teacher: Encodes,
        bottleneck: nn.Module,
        keys: Tensor | None = None,
    ) -> Trade:
        """Mask, encode the visible patches, predict the masked ones."""
        image = batch["image"]
        if keys is None:
            visible = self._visible(chance.keys(0, 0, batch["id"]).to(image.device))  # (B, K)
            coded = bottleneck(encoder(image, visible))
            bits = bottleneck(encoder(image)).estimated_bits
        else:
            visible = self._visible(keys)
            coded = bottleneck(encoder(image, visible), keys)
            bits = coded.estimated_bits
        predicted = self._decode(coded.y_hat.flatten(2).transpose(1, 2), visible)
        masked = torch.ones(predicted.shape[:2], device=image.device).scatter(1, visible, 0.0)
        error = (predicted - self._patches(image)).square().mean(dim=2)
        return Trade(bits, (error * masked).sum(dim=1) / masked.sum(dim=1))

    def _visible(self, keys: Tensor) -> Tensor:
        """Choose indices (B, K) of the patches that the encoder sees."""
        order = chance.uniform(keys, "masks", (len(self.positions),))
        order = order.argsort(dim=1, stable=True)
        return order[:, : self.visible_count].sort(dim=1).values

    def _decode(self, tokens: Tensor, visible: Tensor) -> Tensor:
        """Visible tokens (B, K, D) -> predicted patches (B, h * w, values)."""
        embedded = self.embed(tokens)  # (B, K, width)
        x = self.mask_token.to(embedded.dtype).expand(len(tokens), len(self.positions), -1)
        x = x.scatter(1, visible[:, :, None].expand_as(embedded), embedded) + self.positions
        return self.head(self.norm(self.blocks(x))).float()

    def _patches(self, image: Tensor) -> Tensor:
        """Images (B, C, S, S) -> (B, h * w, C * p * p), row-major over the grid."""
        height, width = self.grid
        size = image.shape[2] // height
        x = image.unfold(2, size, size).unfold(3, size, size)  # (B, C, h, w, p, p)
        return x.permute(0, 2, 3, 1, 4, 5).reshape(len(image), height * width, -1)
