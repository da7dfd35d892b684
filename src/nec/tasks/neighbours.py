"""Nearest neighbours: a head that keeps the train split and learns nothing by gradient."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from nec.tasks.heads import PooledHead, Read


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
        right = []
        for choice in self.choices:
            self.neighbours = choice
            right.append(int((self(val.features).argmax(dim=1) == val.labels).sum()))
        self.neighbours = self.choices[right.index(max(right))]

    def forward(self, features: Tensor) -> Tensor:
        """Features (B, 2D) -> votes (B, classes)."""
        closeness = self._directions(features) @ self.directions.T  # (B, N)
        nearest = closeness.topk(min(self.neighbours, len(self.directions)))
        weights = 1 + 1e-3 * nearest.values  # (B, k)
        return torch.einsum("bk,bkc->bc", weights, self.votes[nearest.indices])

    def _directions(self, features: Tensor) -> Tensor:
        return F.normalize(self.norm(features), dim=1)
