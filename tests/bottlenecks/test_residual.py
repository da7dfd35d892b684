"""Sums of two bottlenecks: what is left of images that the first has not seen."""

from functools import partial

import torch

from nec.bottlenecks.residual import Residual
from nec.bottlenecks.transform import Transform
from nec.bottlenecks.vq import VQ

CHANNELS, GRID = 6, (2, 3)


def noise(count: int, seed: int) -> torch.Tensor:
    return torch.randn(count, CHANNELS, *GRID, generator=torch.Generator().manual_seed(seed))


def error(bottleneck, y):
    return float((bottleneck.dequantize(bottleneck.quantize(y)) - y).square().mean())


def size(bottleneck, y):
    streams = bottleneck.export().encode(bottleneck.quantize(y).numpy())
    return sum(map(len, streams)) / len(y)


def test_fine_expects_what_is_left_of_images_that_coarse_has_not_seen() -> None:
    # A code for every second train token: of those nearly nothing is left, of others much.
    train, others = noise(10, seed=0), noise(40, seed=1)
    both = Residual(
        CHANNELS, GRID, partial(VQ, codes=30, rate_weight=0), partial(Transform, target_bytes=12)
    )
    both.fit(train)
    assert size(both, others) < 2 * size(both, train)  # of residuals of train: 4 times
    assert error(both, others) < 0.1 * error(both.coarse, others)


def test_coarse_is_that_of_all_train_images() -> None:
    train = noise(12, seed=0)
    alone = VQ(CHANNELS, GRID, codes=8)
    alone.fit(train)
    both = Residual(CHANNELS, GRID, partial(VQ, codes=8))
    both.fit(train)
    assert both.coarse.export().sha256 == alone.export().sha256


def test_one_image_is_enough() -> None:
    both = Residual(CHANNELS, GRID, partial(VQ, codes=4))
    both.fit(noise(1, seed=0))
    assert error(both, noise(1, seed=0)) < 1
