"""Nearest neighbours: a head that keeps the train split and learns nothing by gradient."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from nec.tasks.heads import PooledHead, Read

BLOCK = 1024  # images whose distances to all of train are held at once


class Nearest(NamedTuple):
    """Train images nearest to each of B, the nearest first."""

    closeness: Tensor  # (B, k) float32, cosine
    images: Tensor  # (B, k) int64


class NearestNeighbours(PooledHead):
    """Votes of the k nearest train images, by cosine of standardized mean and deviation.

    A vote weighs 1, plus at most a thousandth by its closeness, which settles ties. k is the choice
    with most right answers on val, the smallest of equals.

    Args:
        shape: (D, h, w) of an embedding.
        classes: Number of classes.
        choices: Candidates for k; more than there are train images means all of them.

    Raises:
        ValueError: There is no choice, or one is less than 1.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        classes: int,
        choices: Sequence[int] = (1, 3, 5, 10, 20),
    ) -> None:
        super().__init__(shape, classes)
        if not choices or min(choices) < 1:
            raise ValueError(
                f"choices is {list(choices)}; k is 1 or more, as in task.NAME.head.choices=[1,5]"
            )
        self.choices = sorted(choices)
        self.neighbours = 0  # k; 0 before the fit

    def fit(self, train: Read, val: Read) -> None:
        """Keep train features (N, 2D) and labels (N,); choose k on val."""
        super().fit(train, val)
        self.directions = self._directions(train.features)
        self.votes = F.one_hot(train.labels, self.classes).float()
        nearest = self._nearest(val.features, max(self.choices))
        right = []
        for choice in self.choices:
            self.neighbours = choice
            named = self._voted(nearest).argmax(dim=1)
            right.append(int((named == val.labels).sum()))
        self.neighbours = self.choices[right.index(max(right))]

    def forward(self, features: Tensor) -> Tensor:
        """Features (B, 2D) -> votes (B, classes)."""
        return self._voted(self._nearest(features, self.neighbours))

    def _nearest(self, features: Tensor, count: int) -> Nearest:
        """The train images nearest to each of B, in blocks: all pairs at once may be too many."""
        count = min(count, len(self.directions))
        blocks = [
            (self._directions(block) @ self.directions.T).topk(count)
            for block in features.split(BLOCK)
        ]
        closeness = torch.cat([block.values for block in blocks])
        return Nearest(closeness, torch.cat([block.indices for block in blocks]))

    def _voted(self, nearest: Nearest) -> Tensor:
        """Votes (B, classes) of the k nearest."""
        weights = 1 + 1e-3 * nearest.closeness[:, : self.neighbours]  # (B, k)
        votes = self.votes[nearest.images[:, : self.neighbours]]
        return torch.einsum("bk,bkc->bc", weights, votes)

    def _directions(self, features: Tensor) -> Tensor:
        return F.normalize(self.norm(features), dim=1)
