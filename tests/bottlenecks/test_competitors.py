"""What the competitors of a learned bottleneck are, beyond the laws that all keep."""

import sys
from functools import partial

import numpy as np
import pytest
import torch

from nec.bottlenecks import (
    Components,
    Float16,
    Identity,
    Int8,
    Moments,
    Pca,
    Plain,
    Pooled,
    Product,
    Sign,
    Uniform,
    Zstd,
)
from nec.bottlenecks.linear import principal, sampled
from nec.bottlenecks.product import _dealt, _tables
from nec.bottlenecks.rounding import RATE_WEIGHT

GRID = (4, 4)


def correlated(count=400, channels=8, seed=0):
    """Few strong directions in channels whose spreads reach from 0.01 to 100."""
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(channels, channels, generator=torch.Generator().manual_seed(7))
    mix = mix @ torch.diag(torch.logspace(0, -2, channels))
    y = torch.randn(count, channels, *GRID, generator=generator)
    spread = torch.logspace(-2, 2, channels)[:, None, None]
    return torch.einsum("cd,bdhw->bchw", mix, y) * spread + 3 * spread


def error(bottleneck, train, test):
    """Of what is stored of test, in units of each channel's variance."""
    bottleneck.fit(train)
    stored = bottleneck.dequantize(bottleneck.quantize(test))
    squares = (stored - test).square().mean(dim=(0, 2, 3))
    return float((squares / test.transpose(0, 1).flatten(1).var(dim=1)).mean())


def stream_bytes(bottleneck, y):
    streams = bottleneck.export().encode(bottleneck.quantize(y).numpy())
    return np.mean([len(stream) for stream in streams])


def test_identity_is_exact_to_the_bit():
    y = torch.randn(4, 3, 2, 2)
    y[0, 0, 0] = torch.tensor([-0.0, 1e-40])
    bottleneck = Identity(3, (2, 2))
    stored = bottleneck.dequantize(bottleneck.quantize(y))
    assert torch.equal(stored.view(torch.int32), y.view(torch.int32))


def test_float16_saturates_beyond_its_range():
    y = torch.tensor([1e9, -1e9, 1.0]).reshape(1, 3, 1, 1)
    bottleneck = Float16(3, (1, 1))
    assert bottleneck.dequantize(bottleneck.quantize(y)).flatten().tolist() == [65504, -65504, 1]


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_uniform_errs_by_half_a_step_at_most_within_its_range(bits):
    y = torch.rand(64, 5, 4, 4) * torch.tensor([0.1, 1.0, 10.0, 100.0, 3.0])[:, None, None]
    bottleneck = Uniform(5, (4, 4), bits=bits)
    bottleneck.fit(y)
    stored = bottleneck.dequantize(bottleneck.quantize(y))
    steps = bottleneck.steps[:, None, None]
    inside = y.clamp(
        (bottleneck.offsets - 2 ** (bits - 1) * bottleneck.steps)[:, None, None],
        (bottleneck.offsets + (2 ** (bits - 1) - 1) * bottleneck.steps)[:, None, None],
    )
    assert ((stored - inside).abs() <= 0.5001 * steps).all()
    assert torch.unique(bottleneck.quantize(y)).numel() == 2**bits


def test_one_outlier_does_not_set_the_step():
    y = torch.rand(1000, 1, 4, 4)
    y[0, 0, 0, 0] = 1e6
    bottleneck = Uniform(1, (4, 4), bits=4)
    bottleneck.fit(y)
    assert float(bottleneck.steps) < 0.1


def test_int8_costs_a_byte_a_value():
    bottleneck = Int8(3, (4, 4))
    bottleneck.fit(torch.randn(50, 3, 4, 4))
    streams = bottleneck.export().encode(bottleneck.quantize(torch.randn(7, 3, 4, 4)).numpy())
    assert {len(s) for s in streams} == {3 * 16}


def test_pooled_keeps_mean_and_std_to_a_step_of_every_component():
    y = torch.randn(200, 4, 3, 3) * torch.tensor([1.0, 2.0, 3.0, 4.0])[:, None, None]
    bottleneck = Pooled(4, (3, 3), components=8, step=0.01)
    bottleneck.fit(y)
    vector = bottleneck.vector
    latents = vector._scaled(vector._latents(bottleneck._pooled(y)))
    assert (bottleneck.quantize(y) - latents.flatten(1)).abs().max() < 1
    stored = bottleneck.dequantize(bottleneck.quantize(y))
    positions = y.flatten(2)
    expected = torch.cat([positions.mean(dim=2), positions.std(dim=2, correction=0)], dim=1)
    assert stored.shape == (200, 8, 1, 1)
    torch.testing.assert_close(stored[:, :, 0, 0], expected, atol=0.03, rtol=0)


def test_quantizers_see_every_column_of_a_grid():
    y = torch.arange(16.0).reshape(1, 1, 4, 4).expand(5000, 1, 4, 4)
    assert torch.unique(sampled(y, 2000)).numel() == 16


@pytest.mark.parametrize("kind", [Identity, Float16, Int8, partial(Uniform, bits=2)])
def test_zstd_changes_bytes_and_nothing_else(kind):
    y = correlated(50).cumsum(dim=3).round()
    plain, packed = kind(8, GRID, packing=Plain()), kind(8, GRID, packing=Zstd())
    plain.fit(y)
    packed.fit(y)
    assert torch.equal(*(each.dequantize(each.quantize(y)) for each in (plain, packed)))
    assert stream_bytes(packed, y) < 0.9 * stream_bytes(plain, y)


def test_components_are_those_of_standardized_channels():
    y = correlated().double()
    found = principal(y)
    flat = y.transpose(0, 1).flatten(1)
    values, _ = torch.linalg.eigh(torch.corrcoef(flat))
    torch.testing.assert_close(found.variances, values.flip(0))
    torch.testing.assert_close(found.center, flat.mean(dim=1))
    rotated = found.axes @ torch.corrcoef(flat) @ found.axes.T
    torch.testing.assert_close(rotated, found.variances.diag(), atol=1e-9, rtol=0)


def test_pca_errs_by_the_variance_of_the_components_it_drops():
    train, test = correlated(), correlated(seed=1)
    dropped = float(principal(train).variances[3:].sum()) / 8
    assert error(Pca(8, GRID, components=3), train, test) == pytest.approx(dropped, rel=0.05)
    assert error(Pca(8, GRID, components=8), train, test) < 1e-3


def test_sign_bits_of_a_normal_value_err_by_what_theory_says():
    y = torch.randn(500, 8, *GRID)  # 1 - 2 / pi
    for rotated in (False, True):
        bottleneck = Sign(8, GRID, rotated=rotated)
        assert error(bottleneck, y, torch.randn(200, 8, *GRID)) == pytest.approx(0.3634, rel=0.03)
        assert stream_bytes(bottleneck, y) <= 8 * 16 / 8 + 1


def test_a_rotation_keeps_distances_of_standardized_channels():
    bottleneck = Sign(8, GRID, rotated=True)
    bottleneck.fit(correlated())
    identity = bottleneck.synthesis.T @ bottleneck.analysis
    torch.testing.assert_close(identity, torch.eye(8), atol=1e-3, rtol=0)


def test_sign_bits_of_a_lopsided_value_mean_the_means_of_its_sides():
    y = torch.tensor([0.0, 0.0, 0.0, 8.0]).reshape(4, 1, 1, 1)
    bottleneck = Sign(1, (1, 1))
    bottleneck.fit(y)
    assert torch.equal(bottleneck.dequantize(bottleneck.quantize(y)), y)


def test_parts_of_a_product_have_as_much_to_say():
    order = _dealt([8.0, 4.0, 2.0, 1.0], parts=2)
    assert order == [0, 3, 1, 2]


def test_product_codes_are_shorter_where_some_are_likelier_and_never_longer():
    counts = np.array([[900, 50, 30, 20], [2, 1, 1, 1]])
    lengths = 24 - np.log2(_tables(counts).frequencies[:, :4])
    assert (counts[0] * lengths[0]).sum() / 1000 < 0.7
    assert lengths[1] == pytest.approx(2, abs=1e-3)


def test_product_errs_less_than_a_scalar_quantizer_of_its_bits():
    pytest.importorskip("faiss")
    train, test = correlated(), correlated(seed=1)
    product, sign = Product(8, GRID, parts=2, bits=4), Sign(8, GRID)
    assert error(product, train, test) < error(sign, train, test)
    assert stream_bytes(product, test) <= stream_bytes(sign, test)


def test_product_takes_no_more_centroids_than_there_are_vectors():
    pytest.importorskip("faiss")
    y = torch.randn(100, 8, 1, 1)
    with pytest.raises(ValueError, match=r"train has 100 vectors .* its part\) to 6 or less"):
        Product(8, (1, 1), parts=2).fit(y)
    Product(8, (1, 1), parts=2, bits=6).fit(y)


def test_product_names_the_extra_that_it_needs(monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(ImportError, match=r"nec\[competitors\]"):
        Product(8, GRID, parts=2, bits=2).fit(correlated())


def test_components_are_rounded_by_rate_and_distortion():
    """J = squared error in steps + RATE_WEIGHT * bits, under the same tables."""
    y = correlated(100)
    bottleneck = Components(8, GRID, components=6, step=1.5)
    bottleneck.fit(y)
    chosen, latents = bottleneck.quantize(y), bottleneck._latents(y)
    nearest = bottleneck._nearest(latents).int().flatten(1)
    assert torch.equal(chosen * nearest >= 0, torch.ones_like(chosen, dtype=torch.bool))
    assert (chosen.abs() <= nearest.abs()).all()
    assert (chosen != nearest).any()

    def cost(symbols):
        off = np.square(symbols.reshape(latents.shape) - latents.numpy() / 1.5).sum()
        contexts = bottleneck._contexts()
        return off + RATE_WEIGHT * bottleneck.tables.code_length(symbols, contexts).sum()

    assert cost(chosen.numpy()) < cost(nearest.numpy())


def test_components_fitted_again_forget_what_they_were_fitted_to():
    twice, once = (Components(8, GRID, components=6) for _ in range(2))
    y = correlated(100)
    twice.fit(9 * correlated(100, seed=1))
    for bottleneck in (twice, once):
        bottleneck.fit(y)
    assert twice.export().sha256 == once.export().sha256


def test_a_pooled_vector_is_stored_as_its_bottleneck_stores_it():
    y = correlated()
    positions = y.flatten(2)
    mean, std = positions.mean(dim=2), positions.std(dim=2, correction=0)
    for moments, vector in ((1, mean), (2, torch.cat([mean, std], dim=1))):
        pooled, alone = Moments(8, GRID, Int8, moments), Int8(8 * moments, (1, 1))
        pooled.fit(y)
        alone.fit(vector[:, :, None, None])
        assert torch.equal(pooled.quantize(y), alone.quantize(vector[:, :, None, None]))
        assert pooled.export().sha256 == alone.export().sha256


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Uniform(3, (2, 2), bits=0), "bits is 0"),
        (lambda: Uniform(3, (2, 2), bits=13), "bits is 13"),
        (lambda: Pooled(3, (2, 2), components=7), "components is 7"),
        (lambda: Pooled(3, (2, 2), components=0), "components is 0"),
        (lambda: Pooled(3, (2, 2), components=2, step=0.0), "step is 0.0"),
        (lambda: Uniform(3, (2, 2)).export(), "has no tables"),
        (lambda: Uniform(3, (2, 2), bits=9, packing=Zstd()), "bits is 9; .* 1 to 8"),
        (lambda: Pca(3, (2, 2), components=4), "components is 4"),
        (lambda: Product(3, (2, 2), parts=4), "parts is 4"),
        (lambda: Product(3, (2, 2), parts=3, bits=13), "bits is 13"),
        (lambda: Product(3, (2, 2), parts=3).export(), "has no tables"),
        (lambda: Moments(3, (2, 2), Float16, moments=3), "moments is 3"),
    ],
)
def test_a_wrong_option_is_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
