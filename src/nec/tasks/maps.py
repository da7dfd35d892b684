"""Heads that answer for every place of an image: logits on the grid of tokens, or a finer one."""

import torch
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from nec.tasks.heads import Head, Read, Standardized, check_heads


class MapHead(Head):
    """A head on the grid of tokens, its channels standardized.

    Args:
        shape: (D, h, w) of an embedding.
        classes: Number of classes.

    Raises:
        ValueError: The embedding is one vector, which has no grid.
    """

    scale = 1

    def __init__(self, shape: tuple[int, int, int], classes: int) -> None:
        super().__init__(shape, classes)
        if shape[1] * shape[2] == 1:
            raise ValueError(
                f"an embedding of {shape} is one vector an image, and {type(self).__name__} "
                "answers for its places; choose a bottleneck that keeps the grid, or ask for "
                "scenes with task=linear"
            )
        self.norm = Standardized(shape[0])

    def fit(self, train: Read, val: Read) -> None:
        """Fit the standardization of channels to train embeddings (N, D, h, w)."""
        self.norm.fit(train.features.flatten(2))


class TokenLinear(MapHead):
    """Logistic regression on each token by itself."""

    def __init__(self, shape: tuple[int, int, int], classes: int) -> None:
        super().__init__(shape, classes)
        self.linear = nn.Conv2d(shape[0], classes, 1)

    def forward(self, features: Tensor) -> Tensor:
        """Embeddings (B, D, h, w) -> logits (B, classes, h, w)."""
        return self.linear(self.norm(features))


class TokenMLP(MapHead):
    """A perceptron with one hidden layer on each token by itself.

    Args:
        shape: (D, h, w) of an embedding.
        classes: Number of classes.
        hidden: Width of the hidden layer.
    """

    def __init__(self, shape: tuple[int, int, int], classes: int, hidden: int = 256) -> None:
        super().__init__(shape, classes)
        if hidden < 1:
            raise ValueError(
                f"hidden is {hidden}; a layer has a channel or more, set task.NAME.head.hidden=256"
            )
        self.layers = nn.Sequential(
            nn.Conv2d(shape[0], hidden, 1), nn.GELU(), nn.Conv2d(hidden, classes, 1)
        )

    def forward(self, features: Tensor) -> Tensor:
        """Embeddings (B, D, h, w) -> logits (B, classes, h, w)."""
        return self.layers(self.norm(features))


class TokenConvolution(MapHead):
    """Logistic regression on each token and its eight neighbours."""

    def __init__(self, shape: tuple[int, int, int], classes: int) -> None:
        super().__init__(shape, classes)
        self.convolution = nn.Conv2d(shape[0], classes, 3, padding=1)

    def forward(self, features: Tensor) -> Tensor:
        """Embeddings (B, D, h, w) -> logits (B, classes, h, w)."""
        return self.convolution(self.norm(features))


class FCN(MapHead):
    """A fully convolutional head on a finer grid, as NEC's: neck, convolution, classifier.

    The neck turns a token into s x s cells by a convolution and a pixel shuffle.

    Args:
        shape: (D, h, w) of an embedding.
        classes: Number of classes.
        scale: s, a divisor of the encoder's patch size.
        width: Number of channels after the neck.
        decoder_block: Put one ViT block before the neck, as NEC's decoders do.
        heads: Number of attention heads of that block; D must be a multiple of it.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        classes: int,
        scale: int = 2,
        width: int = 64,
        decoder_block: bool = False,
        heads: int = 4,
    ) -> None:
        super().__init__(shape, classes)
        if scale < 1:
            raise ValueError(
                f"scale is {scale}; a token has a cell or more, set task.NAME.head.scale=2"
            )
        if width < 1:
            raise ValueError(
                f"width is {width}; a layer has a channel or more, set task.NAME.head.width=64"
            )
        self.scale = scale
        self.context = GridBlock(shape, heads) if decoder_block else nn.Identity()
        self.layers = nn.Sequential(
            nn.Conv2d(shape[0], width * scale**2, 1),
            nn.PixelShuffle(scale),
            nn.GELU(),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, classes, 1),
        )

    def forward(self, features: Tensor) -> Tensor:
        """Embeddings (B, D, h, w) -> logits (B, classes, s h, s w)."""
        return self.layers(self.context(self.norm(features)))


class GridBlock(nn.Module):
    """A ViT block over a grid of tokens, with learned positions.

    Args:
        shape: (D, h, w) of the grid.
        heads: Number of attention heads; D must be a multiple of it.

    Raises:
        ValueError: The heads do not divide the channels.
    """

    def __init__(self, shape: tuple[int, int, int], heads: int) -> None:
        super().__init__()
        channels, height, width = shape
        check_heads(heads, channels)
        self.positions = nn.Parameter(torch.zeros(height * width, channels))
        self.block = Block(channels, heads)

    def forward(self, grid: Tensor) -> Tensor:
        """(B, D, h, w) -> (B, D, h, w)."""
        tokens = grid.flatten(2).transpose(1, 2) + self.positions  # (B, h w, D)
        return self.block(tokens).transpose(1, 2).reshape(grid.shape)
