"""Fields of codes: cheap beside their neighbours, near the tokens, restored by a filter."""

import numpy as np
import pytest
import torch

from nec.bottlenecks.fields import Prices, settle
from nec.bottlenecks.vq import VQ, around, restoring
from nec.coding import Neighbours

CHANNELS, GRID = 6, (5, 7)


def patchy(count=48, seed=0):
    """Embeddings (N, D, h, w) of smooth patches of a few land covers, with noise."""
    rng = np.random.default_rng(seed)
    covers = 3 * np.random.default_rng(9).normal(size=(5, CHANNELS))
    coarse = rng.integers(0, 5, (count, 3, 3))
    field = coarse.repeat(3, axis=1).repeat(3, axis=2)[:, : GRID[0], : GRID[1]]
    y = covers[field] + 0.8 * rng.normal(size=(*field.shape, CHANNELS))
    return torch.from_numpy(y).float().movedim(3, 1)


def fitted(y=None, **options):
    bottleneck = VQ(CHANNELS, GRID, **{"codes": 16, **options})
    bottleneck.fit(patchy() if y is None else y)
    return bottleneck


def train_bytes(bottleneck, y):
    streams = bottleneck.export().encode(bottleneck.quantize(y).numpy())
    return sum(len(stream) for stream in streams)


def train_error(bottleneck, y):
    return float((bottleneck.dequantize(bottleneck.quantize(y)) - y).square().mean())


@pytest.mark.parametrize("grid", [(1, 1), (1, 6), (6, 1), (2, 2), (4, 5), (8, 8)])
@pytest.mark.parametrize("rate_weight", [0.01, 0.3, 10.0])
def test_settled_fields_never_cost_more_than_the_nearest_codes(grid, rate_weight):
    rng = np.random.default_rng(grid[0])
    size, classes = 9, rng.permutation(np.arange(9) % 4)
    counts = rng.gamma(0.3, 10, (2, 5, size)) + 1e-2
    neighbours = Neighbours.from_counts(*counts, classes)
    prices = Prices.of(neighbours, torch.device("cpu"))
    distances = torch.from_numpy(rng.gamma(1.0, 1.0, (20, *grid, size))).float()
    distortions, candidates = distances.sort(dim=3)
    codes = settle(candidates, distortions, prices, rate_weight)

    def cost(field):
        distortion = distances.gather(3, field[..., None]).sum(dim=(1, 2, 3)).numpy()
        return distortion + rate_weight * neighbours.code_length(field.numpy())

    before, after = cost(candidates[..., 0]), cost(codes)
    assert (after <= before + 1e-4 * before).all()
    assert after.sum() < before.sum()
    pairs = zip(candidates.split(1), distortions.split(1), strict=True)
    alone = torch.cat([settle(*pair, prices, rate_weight) for pair in pairs])
    assert torch.equal(alone, codes)


def test_without_a_rate_the_nearest_codes_are_kept():
    rng = np.random.default_rng(0)
    neighbours = Neighbours.from_counts(*rng.gamma(0.3, 10, (2, 5, 4)), np.arange(4))
    distortions, candidates = torch.rand(3, 4, 5, 4).sort(dim=3)
    prices = Prices.of(neighbours, torch.device("cpu"))
    assert torch.equal(settle(candidates, distortions, prices, 0.0), candidates[..., 0])


def test_a_larger_rate_weight_costs_no_more_bytes_and_no_less_error():
    y = patchy()
    found = [fitted(rate_weight=weight) for weight in (0.0, 0.02, 0.1, 0.5)]
    sizes = [train_bytes(each, y) for each in found]
    errors = [train_error(each, y) for each in found]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] < 0.6 * sizes[0]
    assert errors == sorted(errors)


def test_a_field_of_two_constant_halves_costs_a_few_bytes():
    """35 codes of 16 are 17 bytes without neighbours."""
    rng = np.random.default_rng(1)
    covers = torch.from_numpy(rng.normal(size=(16, CHANNELS))).float()
    halves = torch.from_numpy(rng.integers(0, 16, (400, 2)))
    y = covers[halves][:, :, :, None, None].repeat(1, 1, 1, *GRID)  # (N, 2, D, h, w)
    y = torch.where(torch.arange(GRID[1]) < 4, y[:, 0], y[:, 1])
    bottleneck = fitted(y)
    assert train_bytes(bottleneck, y) < 4 * len(y)
    assert train_error(bottleneck, y) < 1e-2 * float(y.var())


def test_filters_restore_tokens_better_than_centres():
    y = patchy()
    bottleneck = fitted(rate_weight=0.1)
    filtered = train_error(bottleneck, y)
    bottleneck.filters.zero_()
    bottleneck.filters[4] = torch.eye(CHANNELS)
    assert filtered < 0.99 * train_error(bottleneck, y)


def test_what_is_around_a_position_is_what_the_codec_takes():
    from nec.store.vectors import neighbourhoods

    grid = torch.randn(2, *GRID, 3)
    expected = np.stack([neighbourhoods(each.numpy()) for each in grid])
    assert np.array_equal(around(grid).numpy(), expected)


def test_the_mean_of_a_position_costs_nothing():
    """What all images have in common is not part of the codes."""
    y, common = patchy(), 5 * torch.randn(CHANNELS, *GRID, generator=torch.manual_seed(0))
    plain, shifted = fitted(), fitted(y + common)
    assert train_error(shifted, y + common) == pytest.approx(train_error(plain, y), rel=0.02)
    # The mean is rounded to halves, and k-means may end elsewhere.
    assert train_bytes(shifted, y + common) == pytest.approx(train_bytes(plain, y), rel=0.1)


def test_fits_are_deterministic():
    y = patchy()
    first, again = fitted(), fitted()
    assert first.export().sha256 == again.export().sha256
    again.fit(patchy(seed=1))
    again.fit(y)  # an earlier fit leaves no trace
    assert first.export().sha256 == again.export().sha256
    assert torch.equal(first.quantize(y), again.quantize(y))


def test_more_codes_than_classes_share_them():
    bottleneck = VQ(CHANNELS, GRID, codes=300)
    y = patchy(40)
    bottleneck.fit(y)
    codec = bottleneck.export()
    assert codec.neighbours.size == 300
    assert codec.neighbours.border <= 256
    symbols = bottleneck.quantize(y).numpy()
    assert np.array_equal(codec.decode(codec.encode(symbols)), symbols)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"codes": 1}, "2 to 4096"),
        ({"codes": 5000}, "2 to 4096"),
        ({"rate_weight": -1.0}, "a number >= 0"),
        ({"rate_weight": float("nan")}, "a number >= 0"),
    ],
)
def test_wrong_options_are_named(options, said):
    with pytest.raises(ValueError, match=said):
        VQ(CHANNELS, GRID, **options)


def test_too_few_tokens_and_no_fit_are_named():
    with pytest.raises(ValueError, match="codes is 80, train has 35 tokens"):
        VQ(CHANNELS, GRID, codes=80).fit(patchy(1))
    with pytest.raises(ValueError, match="fit"):
        VQ(CHANNELS, GRID).export()


def test_tokens_that_are_all_alike_are_fitted_without_a_warning(recwarn):
    y = torch.ones(4, CHANNELS, *GRID)
    bottleneck = fitted(y)
    assert torch.allclose(bottleneck.dequantize(bottleneck.quantize(y)), y, atol=1e-2)
    assert not [each for each in recwarn if "distinct clusters" in str(each.message)]


def test_filters_of_a_few_images_do_not_undo_others():
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(64, 16, generator=generator)
    few, many = (torch.randint(64, (n, 6, 6), generator=generator) for n in (8, 500))
    noisy = centres[few].flatten(1, 2) + torch.randn(8, 36, 16, generator=generator)
    truth = centres[many].flatten(1, 2)

    def error(fields, latents):  # on codes that the filters were not fitted to
        filters = restoring(centres, fields, latents).flatten(0, 1)
        return (around(centres[many]) @ filters - truth).square().mean()

    # 288 tokens for filters of 144 inputs: least squares alone is as far off as zeros, at 1.
    assert error(few, noisy) < 0.4
    doubled = error(many, 2 * truth)  # many tokens: the ridge is nothing
    assert doubled == pytest.approx(float(truth.square().mean()), rel=0.05)
