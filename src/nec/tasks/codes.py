"""A head on codes: how often each one occurs says what a scene is."""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from nec.tasks.heads import PooledHead, Read, Standardized


class CodesHead(PooledHead):
    """Logistic regression on mean and deviation over the grid, and on frequencies of codes.

    It reads all layers of a store: the moments of each, a pooled one being these already.
    Where a store holds no codes it is `LinearHead`. Of frequencies it takes the root (Hellinger),
    so that frequent codes do not outweigh the others.
    """

    def read(self, store: Any, rows: np.ndarray) -> Tensor:
        """Of each layer mean and deviation (n, 2D), then a root for each code (n, K)."""
        found = []
        for name, codec in store.layers.items():
            symbols = store.layer(name).read_symbols(rows)
            counts = torch.from_numpy(codec.code_counts(symbols)).float()
            total = counts.sum(dim=1, keepdim=True).clamp_min(1)
            moments = self.features(torch.from_numpy(codec.dequantize(symbols)))
            found += [moments, (counts / total).sqrt()]
        return torch.cat(found, dim=1)

    def fit(self, train: Read, val: Read) -> None:
        """Fit the standardization, and make room for as many features as there are."""
        width = train.features.shape[1]
        self.norm = Standardized(width).to(train.features.device)
        self.norm.fit(train.features)
        self.linear = nn.Linear(width, self.classes)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, features: Tensor) -> Tensor:
        """Features (B, 2D + K) -> logits (B, classes)."""
        return self.linear(self.norm(features))
