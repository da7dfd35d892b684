"""A head on codes learns what only their frequencies show."""

from types import SimpleNamespace

import numpy as np
import torch

from nec.tasks.codes import CodesHead
from nec.tasks.heads import LinearHead


class Store:
    """Images of codes that all mean the same."""

    def __init__(self, counts):
        self.codec = SimpleNamespace(
            dequantize=lambda symbols: np.ones((len(symbols), 2, 3, 3), np.float32),
            code_counts=lambda symbols: counts[symbols[:, 0]],
            shape=(2, 3, 3),
        )
        self.layers = {"embedding": self.codec}

    def layer(self, name):
        return self

    def read_symbols(self, rows):
        return rows[:, None]

    def read(self, rows):
        return self.codec.dequantize(rows)


def test_features_are_moments_and_roots_of_frequencies():
    counts = np.array([[9, 0, 0], [1, 4, 4]])
    found = CodesHead((2, 3, 3), 2).read(Store(counts), np.arange(2))
    expected = [[1, 1, 0, 0, 1, 0, 0], [1, 1, 0, 0, 1 / 3, 2 / 3, 2 / 3]]
    assert torch.allclose(found, torch.tensor(expected))


def test_without_codes_it_sees_what_a_linear_head_sees():
    store = Store(np.zeros((4, 0), int))
    seen = CodesHead((2, 3, 3), 2).read(store, np.arange(4))
    assert torch.equal(seen, LinearHead((2, 3, 3), 2).read(store, np.arange(4)))


def test_logits_follow_the_features_that_there_are():
    head = CodesHead((2, 3, 3), 5)
    features = torch.randn(8, 9, generator=torch.Generator().manual_seed(0))
    head.fit(SimpleNamespace(features=features), None)
    assert head(features).shape == (8, 5)
    assert sum(each.numel() for each in head.parameters()) == 9 * 5 + 5
