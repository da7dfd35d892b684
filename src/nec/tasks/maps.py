"""Heads that answer for every place of an image: logits on the grid of tokens, or a finer one."""

from torch import Tensor, nn

from nec.tasks.heads import Head, Read, Standardized


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
