"""Laws that every bottleneck keeps."""

import json
from functools import partial
from pathlib import Path

import nec.conf
import numpy as np
import pytest
import torch
from second_codecs import parse_streams

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
from nec.bottlenecks.factorized import Factorized
from nec.bottlenecks.residual import Residual
from nec.bottlenecks.transform import Transform
from nec.bottlenecks.vq import VQ
from nec.store.codec import codec_from_config

CHANNELS, GRID = 12, (4, 5)
FACTORIES = {
    "identity": Identity,
    "float16": Float16,
    "int8": Int8,
    "uniform": lambda c, g: Uniform(c, g, bits=3),
    "pooled": lambda c, g: Pooled(c, g, components=7, step=0.5),
    "identity_zstd": lambda c, g: Identity(c, g, packing=Zstd()),
    "float16_zstd": lambda c, g: Float16(c, g, packing=Zstd()),
    "int8_zstd": lambda c, g: Int8(c, g, packing=Zstd()),
    "uniform_plain": lambda c, g: Uniform(c, g, bits=2, packing=Plain()),
    "uniform_zstd": lambda c, g: Uniform(c, g, bits=5, packing=Zstd()),
    "pca": lambda c, g: Pca(c, g, components=7),
    "pca_coded": lambda c, g: Components(c, g, components=7, step=0.5),
    "sign": Sign,
    "sign_rotated": lambda c, g: Sign(c, g, rotated=True),
    "product": lambda c, g: Product(c, g, parts=4, bits=4),
    "pooled_mean": lambda c, g: Pooled(c, g, components=7, moments=1),
    "pooled_float16": lambda c, g: Moments(c, g, Float16),
    "pooled_int8": lambda c, g: Moments(c, g, Int8, moments=1),
    "pooled_sign": lambda c, g: Moments(c, g, Sign),
    "pooled_product": lambda c, g: Moments(c, g, partial(Product, parts=6, bits=3)),
    "factorized": lambda c, g: Factorized(c, g, latents=8),
    "transform": lambda c, g: Transform(c, g, step=0.1),
    "transform_target": lambda c, g: Transform(c, g, target_bytes=20, latents=10),
    "vq": lambda c, g: VQ(c, g, codes=16),
    "vq_transform": lambda c, g: Residual(c, g, partial(VQ, codes=16)),
    "vq_twice": lambda c, g: Residual(c, g, partial(VQ, codes=16), partial(VQ, codes=8)),
    "vq_nearest": lambda c, g: VQ(c, g, codes=16, rate_weight=0, latents=8),
}


NEED_FAISS = ("product", "pooled_product")


def make(name):
    if name in NEED_FAISS:
        pytest.importorskip("faiss")
    torch.manual_seed(0)
    return FACTORIES[name](CHANNELS, GRID)


def embeddings(count=64, seed=0):
    """Correlated channels of spreads from 0.01 to 10, with a mean that varies by image."""
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(CHANNELS, CHANNELS, generator=torch.Generator().manual_seed(9))
    mix *= torch.logspace(-2, 1, CHANNELS)[:, None]
    y = torch.randn(count, CHANNELS, *GRID, generator=generator)
    y += torch.randn(count, CHANNELS, 1, 1, generator=generator)
    return torch.einsum("cd,bdhw->bchw", mix, y) + 3


def moments(y):
    """Mean and standard deviation over positions (n, 2D, 1, 1)."""
    return torch.cat([y.mean(dim=(2, 3)), y.std(dim=(2, 3), correction=0)], dim=1)[..., None, None]


def test_every_choice_of_the_group_is_here():
    folder = Path(next(iter(nec.conf.__path__)), "bottleneck")
    layered = {"layered"}  # of two layers: test_layered
    assert {path.stem for path in folder.glob("*.yaml")} <= FACTORIES.keys() | layered


@pytest.fixture(params=FACTORIES, scope="module")
def fitted(request):
    bottleneck = make(request.param)
    bottleneck.fit(embeddings())
    return bottleneck


@torch.inference_mode()
def test_the_exported_codec_returns_the_symbols_and_y_hat(fitted):
    symbols = fitted.quantize(embeddings(20, seed=1))
    codec = fitted.export()
    assert symbols.dtype == torch.int32
    assert symbols.shape == (20, codec.length)
    streams = codec.encode(symbols.numpy())
    assert np.array_equal(codec.decode(streams), symbols.numpy())
    found, expected = parse_streams(streams, codec.to_config())  # by the second reader
    assert found == symbols.tolist()
    y_hat = fitted.dequantize(symbols).numpy()
    spread = expected.std(axis=(0, 2, 3), keepdims=True)
    float32 = np.spacing(np.abs(expected).max(axis=(0, 2, 3), keepdims=True).astype(np.float32))
    assert (np.abs(y_hat - expected) <= 1e-5 * spread + 4 * float32).all()


@torch.inference_mode()
def test_y_hat_has_the_shape_that_is_said(fitted):
    y_hat = fitted.dequantize(fitted.quantize(embeddings(20, seed=1)))
    assert fitted.shape == fitted.export().shape == y_hat.shape[1:]


@torch.inference_mode()
@pytest.mark.parametrize("name", ["factorized"])  # what learns
def test_training_shows_what_the_receiver_will_see(name):
    learned = make(name)
    learned.fit(embeddings())
    y = embeddings(20, seed=1)
    seen, stored = learned(y).y_hat, learned.dequantize(learned.quantize(y))
    spread = stored.flatten(2).transpose(0, 1).flatten(1).std(dim=1)[:, None, None]
    assert ((seen - stored).abs() <= 1e-5 * spread + 1e-7).all()


@torch.inference_mode()
def test_estimated_bytes_are_within_two_percent_and_three_bytes_of_coded(fitted):
    y = embeddings(64, seed=1)
    codec, symbols = fitted.export(), fitted.quantize(y).numpy()
    coded = np.mean([len(stream) for stream in codec.encode(symbols)])
    estimates = fitted(y).estimated_bits if fitted.learned else codec.code_length(symbols)
    estimated = float(estimates.mean()) / 8
    assert coded == pytest.approx(estimated, rel=0.02, abs=3)


@torch.inference_mode()
def test_an_image_is_quantized_alike_in_every_batch(fitted):
    y = embeddings(20, seed=1)
    alone = torch.cat([fitted.quantize(one[None]) for one in y])
    assert torch.equal(fitted.quantize(y), alone)


@torch.inference_mode()
def test_values_far_outside_the_train_range_survive(fitted):
    y = 50 * embeddings(5, seed=2)
    symbols = fitted.quantize(y).numpy()
    codec = fitted.export()
    assert np.array_equal(codec.decode(codec.encode(symbols)), symbols)


@torch.inference_mode()
def test_values_beyond_all_symbols_survive(fitted):
    y = embeddings(5, seed=2)
    y[1] *= 1e12
    symbols = fitted.quantize(y)
    codec = fitted.export()
    assert np.array_equal(codec.decode(codec.encode(symbols.numpy())), symbols.numpy())
    assert torch.equal(symbols[[0, 2, 3, 4]], fitted.quantize(y[[0, 2, 3, 4]]))
    assert np.isfinite(codec.dequantize(symbols.numpy())).all()


@torch.inference_mode()
def test_what_is_decoded_is_nearer_than_the_mean_of_train(fitted):
    y, train = embeddings(20, seed=1), embeddings()
    stored = torch.from_numpy(fitted.export().dequantize(fitted.quantize(y).numpy()))
    if fitted.shape[1:] != GRID:
        y, train = (moments(each)[:, : fitted.shape[0]] for each in (y, train))
    assert (stored - y).square().mean() < 0.9 * (y - train.mean(dim=0)).square().mean()


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_what_is_no_number_is_refused(fitted, number):
    y = embeddings(5, seed=2)
    y[3, 2, 1, 1] = number
    for ask in (fitted.quantize, fitted.fit):
        with pytest.raises(ValueError, match=r"of 5 embeddings 1 hold NaN .* first is number 3"):
            ask(y)


@pytest.mark.parametrize("shape", [(5, 12, 5, 4), (5, 13, 4, 5), (12, 4, 5), (0, 12, 4, 5)])
def test_embeddings_of_another_shape_are_refused(fitted, shape):
    for ask in (fitted.quantize, fitted.fit):
        with pytest.raises(ValueError, match=r"takes \(n, 12, 4, 5\)"):
            ask(torch.zeros(shape))


@pytest.mark.parametrize("grid", [(1, 1), (1, 7), (3, 1)])
@pytest.mark.parametrize("name", ["pca_coded", "transform", "vq", "factorized"])
@torch.inference_mode()
def test_grids_of_one_line_and_of_one_position_are_coded(name, grid):
    torch.manual_seed(0)
    bottleneck = FACTORIES[name](CHANNELS, grid)
    y = embeddings(64).flatten(2)[:, :, : grid[0] * grid[1]].unflatten(2, grid)
    bottleneck.fit(y)
    symbols, codec = bottleneck.quantize(y[:9]).numpy(), bottleneck.export()
    assert np.array_equal(codec.decode(codec.encode(symbols)), symbols)


@pytest.mark.parametrize("name", FACTORIES)
@torch.inference_mode()
def test_a_restored_bottleneck_quantizes_and_exports_alike(name):
    one, other = make(name), make(name)
    one.fit(embeddings())
    state = {key: value.clone() for key, value in one.state_dict().items()}
    texts = {name: json.dumps(layer.export().to_config()) for name, layer in one.layers().items()}
    other.restore(state, {name: codec_from_config(json.loads(t)) for name, t in texts.items()})
    y = embeddings(20, seed=1)
    for own, restored in zip(one.layers().values(), other.layers().values(), strict=True):
        assert torch.equal(own.quantize(y), restored.quantize(y))
        assert own.export().sha256 == restored.export().sha256


def test_what_was_fitted_to_another_shape_or_with_other_options_is_not_restored():
    one = Uniform(CHANNELS, GRID)
    one.fit(embeddings())
    codecs = {"embedding": one.export()}
    with pytest.raises(ValueError, match=r"\(12, 4, 5\).* do not fit .*\(12, 5, 4\)"):
        Uniform(CHANNELS, GRID[::-1]).restore(one.state_dict(), codecs)
    with pytest.raises(ValueError, match="weights are not of this bottleneck"):
        Pca(CHANNELS, GRID, components=5).restore(one.state_dict(), codecs)


@pytest.mark.parametrize("name", FACTORIES)
def test_a_constant_embedding_is_given_back(name):
    bottleneck = make(name)
    y = embeddings(1).mean(dim=(2, 3), keepdim=True).expand(32, -1, *GRID).contiguous()
    bottleneck.fit(y)
    with torch.inference_mode():
        stored = bottleneck.dequantize(bottleneck.quantize(y))
    assert torch.isfinite(stored).all()
    expected = y
    if bottleneck.shape[1:] != GRID:
        stored, expected = stored[:, :CHANNELS], y[:, :, :1, :1]
    torch.testing.assert_close(stored, expected, rtol=2e-3, atol=1e-4)


def test_a_sum_is_of_what_keeps_the_grid():
    with pytest.raises(ValueError, match=r"coarse part is a Pooled and makes \(24, 1, 1\)"):
        Residual(CHANNELS, GRID, partial(Pooled, components=7))
