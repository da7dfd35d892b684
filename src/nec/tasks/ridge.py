"""Ridge regression on tokens: a head for places that is solved, not trained."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from nec.bottlenecks.base import SUMMED_IMAGES
from nec.scores import mean_iou
from nec.tasks.heads import Read
from nec.tasks.maps import MapHead
from nec.tasks.segmentation import confusion


class Moments(NamedTuple):
    """Sums over pixels of what a solution follows from, about the mean; float64."""

    inputs: Tensor  # (F, F) products of features
    answers: Tensor  # (F, K) products of features and classes
    mean: Tensor  # (F,) of features
    shares: Tensor  # (K,) of classes
    pixels: float  # number of them


class TokenRidge(MapHead):
    """Least squares from each token to the classes of its pixels, with a penalty on the weights.

    It has no start and no order of images, so that differences between codecs are theirs. The
    penalty is the choice of highest mean IoU on val, the largest of equals.

    Args:
        shape: (D, h, w) of an embedding.
        classes: Number of classes.
        neighbours: Regress on the mean of a token and its neighbours (up to nine) as well.
        penalties: Candidates, each a weight of squared weights beside a pixel's squared error.

    Raises:
        ValueError: The embedding has no grid, there is no penalty, or one is no number > 0.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        classes: int,
        neighbours: bool = False,
        penalties: Sequence[float] = (1.0, 0.1, 1e-2, 1e-3, 1e-4),
    ) -> None:
        super().__init__(shape, classes)
        if not penalties or not all(0 < penalty < torch.inf for penalty in penalties):
            raise ValueError(
                f"penalties is {list(penalties)}; it is numbers > 0, as in "
                "task.NAME.head.penalties=[0.1,0.01]"
            )
        self.neighbours = neighbours
        self.penalties = sorted(penalties, reverse=True)
        width = shape[0] * (2 if neighbours else 1)
        self.register_buffer("weights", torch.zeros(classes, width))
        self.register_buffer("offsets", torch.zeros(classes))

    def fit(self, train: Read, val: Read) -> None:
        """Solve for train features (N, D, h, w) and counts (N, K, h, w); choose on val."""
        super().fit(train, val)
        moments = self._moments(train)
        values, axes = torch.linalg.eigh(moments.inputs)
        along = axes.T @ moments.answers  # (F, K)
        utilities, solutions = [], []
        for penalty in self.penalties:
            scale = values.clamp_min(0) + penalty * moments.pixels
            weights = axes @ (along / scale[:, None])
            solutions.append((weights.T, moments.shares - moments.mean @ weights))
            self._take(*solutions[-1])
            utilities.append(self._utility(val))
        self._take(*solutions[utilities.index(max(utilities))])

    def forward(self, features: Tensor) -> Tensor:
        """Embeddings (B, D, h, w) -> estimated shares of classes (B, classes, h, w)."""
        inputs = self._inputs(features)
        return torch.einsum("kf,bfhw->bkhw", self.weights, inputs) + self.offsets[:, None, None]

    def _take(self, weights: Tensor, offsets: Tensor) -> None:
        self.weights.copy_(weights)
        self.offsets.copy_(offsets)

    def _inputs(self, features: Tensor) -> Tensor:
        """Embeddings (B, D, h, w) -> what the regression is on (B, F, h, w)."""
        tokens = self.norm(features)
        if not self.neighbours:
            return tokens
        around = F.avg_pool2d(tokens, 3, stride=1, padding=1, count_include_pad=False)
        return torch.cat([tokens, around], dim=1)

    def _moments(self, train: Read) -> Moments:
        """Sum over blocks of images; every pixel counts its cell's features once."""
        width = self.weights.shape[1]
        inputs = torch.zeros(width, width, dtype=torch.float64)
        answers = torch.zeros(width, self.classes, dtype=torch.float64)
        mean, shares = answers.new_zeros(width), answers.new_zeros(self.classes)
        for features, counts in _blocks(train):
            columns = self._inputs(features).transpose(0, 1).flatten(1)  # (F, cells)
            classes = counts.transpose(0, 1).flatten(1)  # (K, cells)
            weights = classes.sum(dim=0)
            inputs += (columns * weights) @ columns.T
            answers += columns @ classes.T
            mean += columns.double() @ weights.double()
            shares += classes.double().sum(dim=1)
        pixels = float(shares.sum())
        mean, shares = mean / pixels, shares / pixels
        inputs -= pixels * torch.outer(mean, mean)
        answers -= pixels * torch.outer(mean, shares)
        return Moments(inputs, answers, mean, shares, pixels)

    def _utility(self, val: Read) -> float:
        """Mean IoU of all pixels of val."""
        counted = sum(
            confusion(self(features), counts).sum(dim=0) for features, counts in _blocks(val)
        )
        return float(mean_iou(counted.numpy()))


def _blocks(split: Read) -> Iterator[tuple[Tensor, Tensor]]:
    """Features (n, D, h, w) and counts (n, K, h, w) float32 of blocks of images."""
    for features, counts in zip(
        split.features.split(SUMMED_IMAGES), split.counts.split(SUMMED_IMAGES), strict=True
    ):
        yield features, counts.float()
