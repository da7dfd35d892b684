"""A head on codes: how often each one occurs says what a scene is."""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from nec.tasks.heads import PooledHead, Read, Standardized


class CodesHead(PooledHead):
    """Logistic regression on mean and deviation over the grid, and on frequencies of codes.

    It reads all layers of a store: the moments of each, which a pooled layer holds already.
    Frequencies enter by their square roots (Hellinger), so that frequent codes do not outweigh the
    others. Weights start at zeros, as only a fit knows how many there are: seeds differ in the
    order of images alone. On one layer without codes it has the features of `LinearHead`, which
    starts at random weights, and so not quite its result.
    """

    def read(self, store: Any, rows: np.ndarray) -> Tensor:
        """Read of each layer mean and deviation (n, 2D), then a root for each code (n, K)."""
        found = []
        for name, codec in store.layers.items():
            symbols = store.layer(name).read_symbols(rows)
            moments = self.features(torch.from_numpy(codec.dequantize(symbols)))
            found += [moments, roots(codec.code_counts(symbols))]
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
        """Features (B, F), as they were read -> logits (B, classes)."""
        return self.linear(self.norm(features))


class HistogramHead(CodesHead):
    """Logistic regression on square roots of the frequencies of codes alone.

    Weights start as those of `CodesHead`. If no layer of a store holds codes, it reads what
    `LinearHead` does.
    """

    def read(self, store: Any, rows: np.ndarray) -> Tensor:
        """Read a root for each code of each layer (n, K) or, without codes, moments (n, 2D)."""
        layers = [(codec, store.layer(name)) for name, codec in store.layers.items()]
        counts = [codec.code_counts(layer.read_symbols(rows)) for codec, layer in layers]
        codes = torch.cat([roots(each) for each in counts], dim=1)
        return codes if codes.shape[1] else PooledHead.read(self, store, rows)


def roots(counts: np.ndarray) -> Tensor:
    """Square roots of the shares of codes, from how often each occurs: (n, K) float32."""
    values = torch.from_numpy(counts).float()
    return (values / values.sum(dim=1, keepdim=True).clamp_min(1)).sqrt()
