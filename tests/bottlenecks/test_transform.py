"""Transform coding: one step, levels by rate and distortion, contexts that follow."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from nec.bottlenecks.rounding import RATE_WEIGHT
from nec.bottlenecks.transform import Transform
from nec.bottlenecks.vq import VQ
from nec.store.transform import ACTIVITIES, bands_of, cosines

CHANNELS, GRID = 12, (5, 7)


def embeddings(count=96, seed=0, grid=GRID):
    """Smooth fields (N, D, h, w) in correlated channels, more active in some images."""
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(CHANNELS, CHANNELS, generator=torch.Generator().manual_seed(9))
    mix *= torch.logspace(-1, 0.5, CHANNELS)
    rows, columns = (torch.from_numpy(cosines(n)).float() for n in grid)
    frequencies = torch.arange(grid[0])[:, None] + torch.arange(grid[1])
    z = torch.randn(count, CHANNELS, *grid, generator=generator) * 0.7**frequencies
    z *= torch.rand(count, 1, 1, 1, generator=generator) * 2
    return torch.einsum("dc,bchw->bdhw", mix, rows.T @ z @ columns) + 2


def fitted(y=None, **options):
    y = embeddings() if y is None else y
    bottleneck = Transform(CHANNELS, tuple(y.shape[2:]), **options)
    bottleneck.fit(y)
    return bottleneck


def coded_bytes(bottleneck, y):
    streams = bottleneck.export().encode(bottleneck.quantize(y).numpy())
    return np.mean([len(stream) for stream in streams])


def error(bottleneck, y):
    return float((bottleneck.dequantize(bottleneck.quantize(y)) - y).square().mean())


@pytest.mark.parametrize("target_bytes", [12, 40, 150])
def test_target_bytes_are_met_on_train(target_bytes):
    bottleneck = fitted(target_bytes=target_bytes)
    assert coded_bytes(bottleneck, embeddings()) == pytest.approx(target_bytes, rel=0.15)


def test_a_finer_step_costs_more_bytes_and_errs_less():
    y = embeddings()
    found = [fitted(step=step) for step in (4.0, 1.0, 0.25)]
    sizes, errors = [coded_bytes(each, y) for each in found], [error(each, y) for each in found]
    assert sizes == sorted(sizes)
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.02 * float(y.var())


def test_levels_of_rate_and_distortion_beat_the_nearest():
    """J = squared error in steps + RATE_WEIGHT * bits, under the same tables."""
    y = embeddings()
    codec = (bottleneck := fitted(step=1.0)).export()
    coefficients = bottleneck._coefficients(y)[:, : len(codec.basis)]
    chosen = bottleneck.quantize(y).numpy()
    nearest = np.rint(coefficients / codec.steps[codec.bands]).astype(np.int32)

    def cost(levels):
        values = codec.coefficients(levels.reshape(coefficients.shape))
        off = ((values - coefficients) / codec.steps[codec.bands]) ** 2
        return off.sum() + RATE_WEIGHT * codec.code_length(levels.reshape(chosen.shape)).sum()

    assert (chosen.reshape(nearest.shape) != nearest).any()
    assert cost(chosen) < 0.97 * cost(nearest)


def test_a_level_is_never_further_from_zero_than_the_nearest():
    y = embeddings()
    codec = (bottleneck := fitted(step=1.0)).export()
    coefficients = bottleneck._coefficients(y)[:, : len(codec.basis)]
    nearest = np.rint(coefficients / codec.steps[codec.bands])
    levels = bottleneck.quantize(y).numpy().reshape(nearest.shape)
    assert (np.abs(levels) <= np.abs(nearest)).all()
    assert (levels * nearest >= 0).all()


def test_shrinkage_restores_better_than_none():
    y = embeddings()
    codec = (bottleneck := fitted(step=2.0)).export()
    symbols = bottleneck.quantize(y).numpy()
    plain = replace(codec, shrinkage=0 * codec.shrinkage)
    errors = [np.square(each.dequantize(symbols) - y.numpy()).mean() for each in (codec, plain)]
    assert errors[0] < errors[1]


def test_contexts_of_activity_save_bits():
    """Against the same levels under tables of classes alone."""
    y = embeddings(200)
    codec = (bottleneck := fitted(y, step=0.5)).export()
    symbols = bottleneck.quantize(y).numpy()
    contexts = codec.all_contexts(symbols)
    assert len(np.unique(contexts % ACTIVITIES)) > 3

    def entropy(groups):
        pairs = np.unique(np.stack([groups.ravel(), symbols.ravel()]), axis=1, return_counts=True)
        totals = np.bincount(groups.ravel())
        return -(pairs[1] * np.log2(pairs[1] / totals[pairs[0][0]])).sum()

    assert codec.code_length(symbols).sum() < entropy(contexts // ACTIVITIES)


def test_the_mean_of_a_position_is_removed():
    y = embeddings()
    common = 5 * torch.randn(CHANNELS, *GRID, generator=torch.manual_seed(0))
    plain, shifted = fitted(step=1.0), fitted(y + common, step=1.0)
    assert error(shifted, y + common) == pytest.approx(error(plain, y), rel=0.02)
    assert coded_bytes(shifted, y + common) == pytest.approx(coded_bytes(plain, y), rel=0.02)


def test_a_mean_far_larger_than_the_spread_costs_no_precision():
    """A receiver has it in halves; what these round off is in the latents."""
    y = torch.randn(64, CHANNELS, *GRID, generator=torch.Generator().manual_seed(0))
    far = y.clone()
    far[:, 3] += 500
    assert error(fitted(far, step=0.05), far) == pytest.approx(
        error(fitted(y, step=0.05), y), rel=0.05
    )


@pytest.mark.parametrize("grid", [(1, 1), (1, 3), (5, 7), (18, 3)])
def test_grids_of_any_shape(grid):
    y = embeddings(40, grid=grid)
    bottleneck = fitted(y, step=0.3)
    codec, symbols = bottleneck.export(), bottleneck.quantize(y).numpy()
    assert np.array_equal(codec.decode(codec.encode(symbols)), symbols)
    assert error(bottleneck, y) < 0.05 * float(y.var())


def test_bands_are_of_the_larger_frequency():
    bands = bands_of((18, 5)).reshape(18, 5)
    assert bands[0].tolist() == [0, 1, 2, 3, 4]
    assert bands[:, 0].tolist() == [0, 1, 2, 3, 4, 4, 5, 5, 5] + [6] * 7 + [7] * 2
    assert bands[9, 3] == bands[9, 0]


def test_cosines_are_orthonormal():
    for size in (1, 2, 7, 16):
        np.testing.assert_allclose(cosines(size) @ cosines(size).T, np.eye(size), atol=1e-12)


def test_fits_are_deterministic():
    y = embeddings()
    first, again = fitted(target_bytes=30), fitted(target_bytes=30)
    assert first.export().sha256 == again.export().sha256
    assert torch.equal(first.quantize(y), again.quantize(y))


@pytest.mark.parametrize("options", [{"step": 0.0}, {"mean_step": -1.0}, {"target_bytes": 0.0}])
def test_wrong_options_are_named(options):
    (name,) = options
    with pytest.raises(ValueError, match=name):
        Transform(CHANNELS, GRID, **options)


def test_no_fit_is_named():
    with pytest.raises(ValueError, match="fit"):
        Transform(CHANNELS, GRID).export()


def test_the_state_of_one_fit_and_the_codec_of_another_are_neither():
    one, other = fitted(), fitted(embeddings(seed=1))
    mixed = Transform(CHANNELS, GRID)
    mixed.restore(one.state_dict(), {"embedding": other.export()})
    assert mixed.export().sha256 not in (one.export().sha256, other.export().sha256)


@pytest.mark.parametrize("latents", [0, -1])
@pytest.mark.parametrize("kind", [Transform, VQ])
def test_no_latents_are_refused(kind, latents):
    with pytest.raises(ValueError, match=f"latents is {latents}; .* set latents"):
        kind(CHANNELS, GRID, latents=latents)
