"""Laws that every bottleneck keeps."""

import numpy as np
import pytest
import torch

from nec.bottlenecks import Float16, Identity, Int8, Pooled, Uniform
from nec.bottlenecks.factorized import Factorized

CHANNELS, GRID = 12, (4, 5)
FACTORIES = {
    "identity": Identity,
    "float16": Float16,
    "int8": Int8,
    "uniform": lambda c, g: Uniform(c, g, bits=3),
    "pooled": lambda c, g: Pooled(c, g, components=7, step=0.5),
    "factorized": lambda c, g: Factorized(c, g, latents=8),
}


def embeddings(count=64, seed=0):
    """Correlated channels of spreads from 0.01 to 10, with a mean that varies by image."""
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(CHANNELS, CHANNELS, generator=torch.Generator().manual_seed(9))
    mix *= torch.logspace(-2, 1, CHANNELS)[:, None]
    y = torch.randn(count, CHANNELS, *GRID, generator=generator)
    y += torch.randn(count, CHANNELS, 1, 1, generator=generator)
    return torch.einsum("cd,bdhw->bchw", mix, y) + 3


@pytest.fixture(params=FACTORIES, scope="module")
def fitted(request):
    torch.manual_seed(0)
    bottleneck = FACTORIES[request.param](CHANNELS, GRID)
    bottleneck.fit(embeddings())
    return bottleneck


@torch.inference_mode()
def test_the_exported_codec_returns_the_symbols_and_y_hat(fitted):
    symbols = fitted.quantize(embeddings(20, seed=1))
    codec = fitted.export()
    assert symbols.dtype == torch.int32
    assert symbols.shape == (20, codec.length)
    decoded = codec.decode(codec.encode(symbols.numpy()))
    assert np.array_equal(decoded, symbols.numpy())
    assert np.array_equal(codec.dequantize(decoded), fitted.dequantize(symbols).numpy())


@torch.inference_mode()
def test_forward_shows_what_the_receiver_will_see(fitted):
    y = embeddings(20, seed=1)
    seen, stored = fitted(y).y_hat, fitted.dequantize(fitted.quantize(y))
    spread = stored.flatten(2).transpose(0, 1).flatten(1).std(dim=1)[:, None, None]
    assert ((seen - stored).abs() <= 1e-5 * spread + 1e-7).all()
    assert fitted.shape == fitted.export().shape == seen.shape[1:]


@torch.inference_mode()
def test_estimated_bytes_are_within_two_percent_and_three_bytes_of_coded(fitted):
    y = embeddings(64, seed=1)
    streams = fitted.export().encode(fitted.quantize(y).numpy())
    coded = np.mean([len(stream) for stream in streams])
    estimated = float(fitted.estimated_bits(y).mean()) / 8
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


@pytest.mark.parametrize("name", FACTORIES)
def test_a_constant_embedding_is_given_back(name):
    torch.manual_seed(0)
    y = embeddings(1).mean(dim=(2, 3), keepdim=True).expand(32, -1, *GRID).contiguous()
    bottleneck = FACTORIES[name](CHANNELS, GRID)
    bottleneck.fit(y)
    with torch.inference_mode():
        stored = bottleneck.dequantize(bottleneck.quantize(y))
    assert torch.isfinite(stored).all()
    if name != "pooled":
        torch.testing.assert_close(stored, y, rtol=2e-3, atol=1e-4)
    else:
        torch.testing.assert_close(stored[:, :CHANNELS, 0, 0], y[:, :, 0, 0], rtol=1e-4, atol=1e-4)
