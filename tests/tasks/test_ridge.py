from typing import NamedTuple

import pytest
import torch
from sklearn.linear_model import Ridge
from torch import Tensor
from torch.nn import functional as F

from nec.tasks import TokenRidge

CLASSES = 3


class Split(NamedTuple):
    features: Tensor  # (N, D, h, w)
    labels: Tensor  # (N,)
    counts: Tensor  # (N, K, h, w)


def split(images, seed=0, channels=6, noise=1.0):
    """Draw images whose classes follow from a token's channels, with 0 to 4 pixels a cell."""
    generator = torch.Generator().manual_seed(seed)
    features = 3 + 2 * torch.randn(images, channels, 4, 5, generator=generator)
    away = features[:, :CLASSES] + noise * torch.randn(images, CLASSES, 4, 5, generator=generator)
    pixels = torch.randint(0, 5, (images, 1, 4, 5), generator=generator)
    counts = F.one_hot(away.argmax(dim=1), CLASSES).movedim(3, 1) * pixels
    return Split(features, torch.zeros(images, dtype=torch.int64), counts.int())


@pytest.mark.parametrize("neighbours", [False, True])
def test_the_solution_is_that_of_scikit_learn(neighbours):
    train, penalty = split(70), 0.03
    head = TokenRidge((6, 4, 5), CLASSES, neighbours, [penalty])
    head.fit(train, split(4, seed=1))
    tokens = (train.features - head.norm.mean[:, None, None]) / head.norm.spread[:, None, None]
    if neighbours:
        ones = F.pad(torch.ones(1, 1, 4, 5), (1, 1, 1, 1))
        padded = F.pad(tokens, (1, 1, 1, 1))
        windows = [(slice(i, i + 4), slice(j, j + 5)) for i in range(3) for j in range(3)]
        total = sum(padded[:, :, rows, columns] for rows, columns in windows)
        tokens = torch.cat([tokens, total / sum(ones[:, :, r, c] for r, c in windows)], dim=1)
    columns = tokens.movedim(1, 3).flatten(0, 2).numpy()
    counts = train.counts.movedim(1, 3).flatten(0, 2).numpy()
    pixels = counts.sum(axis=1)
    shares = counts / pixels.clip(1)[:, None]
    oracle = Ridge(alpha=penalty * pixels.sum()).fit(columns, shares, sample_weight=pixels)
    expected = torch.from_numpy(oracle.predict(columns)).float()
    found = head(train.features).movedim(1, 3).flatten(0, 2)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


def test_the_penalty_is_the_best_on_val():
    train, val = split(2, channels=60, noise=3.0), split(40, seed=1, channels=60, noise=3.0)
    chosen = TokenRidge((60, 4, 5), CLASSES)
    chosen.fit(train, val)
    alone = []
    for penalty in chosen.penalties:
        head = TokenRidge((60, 4, 5), CLASSES, penalties=[penalty])
        head.fit(train, val)
        alone.append(head)
    utilities = [head._utility(val) for head in alone]
    assert len(set(utilities)) > 1
    best = alone[utilities.index(max(utilities))]
    assert torch.equal(chosen.weights, best.weights) and torch.equal(chosen.offsets, best.offsets)


def test_tokens_without_pixels_that_count_change_nothing():
    train, val = split(8), split(4, seed=1)
    more = Split(
        torch.cat([train.features, train.features]),
        torch.cat([train.labels, train.labels]),
        torch.cat([train.counts, torch.zeros_like(train.counts)]),
    )
    head, other = (TokenRidge((6, 4, 5), CLASSES) for _ in range(2))
    head.fit(train, val)
    other.fit(more, val)
    torch.testing.assert_close(other(val.features), head(val.features), atol=1e-5, rtol=0)


def test_logits_do_not_depend_on_scale_and_offset_of_a_channel():
    train, val = split(9), split(4, seed=1)
    factors = torch.tensor([1.0, 30, 0.1, 3, 1, 2])[:, None, None]
    moved, other = (one._replace(features=one.features * factors + 2) for one in (train, val))
    head = TokenRidge((6, 4, 5), CLASSES, neighbours=True)
    head.fit(train, val)
    expected = head(val.features)
    head.fit(moved, other)
    torch.testing.assert_close(head(other.features), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("penalties", [[], [0.1, 0.0], [float("nan")], [float("inf")]])
def test_penalties_are_numbers_above_zero(penalties):
    with pytest.raises(ValueError, match=r"penalties is \[.*task\.NAME\.head\.penalties"):
        TokenRidge((6, 4, 5), CLASSES, penalties=penalties)
