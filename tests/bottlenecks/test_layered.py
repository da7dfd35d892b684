"""A layered bottleneck is its layers, each fitted and stored by itself."""

from functools import partial

import numpy as np
import pytest
import torch

from nec.bottlenecks import Float16, Pooled
from nec.bottlenecks.layered import Layered
from nec.bottlenecks.transform import Transform
from nec.bottlenecks.vq import VQ

CHANNELS, GRID = 12, (4, 5)
TOKENS = partial(VQ, codes=16)
VECTOR = partial(Pooled, components=7, step=0.5)


def embeddings(count=64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(CHANNELS, CHANNELS, generator=torch.Generator().manual_seed(9))
    y = torch.randn(count, CHANNELS, *GRID, generator=generator)
    y += torch.randn(count, CHANNELS, 1, 1, generator=generator)
    return torch.einsum("cd,bdhw->bchw", mix, y) + 3


def fitted(factory):
    bottleneck = factory(CHANNELS, GRID)
    bottleneck.fit(embeddings())
    return bottleneck


@torch.inference_mode()
def test_each_layer_is_what_its_bottleneck_is_alone():
    layers = fitted(partial(Layered, tokens=TOKENS, pooled=VECTOR)).layers()
    y = embeddings(20, seed=1)
    assert list(layers) == ["embedding", "pooled"]
    for layer, alone in zip(layers.values(), (fitted(TOKENS), fitted(VECTOR)), strict=True):
        assert torch.equal(layer.quantize(y), alone.quantize(y))
        assert layer.export().sha256 == alone.export().sha256


@torch.inference_mode()
def test_bits_are_of_all_layers():
    layered = fitted(partial(Layered, tokens=TOKENS, pooled=VECTOR))
    y = embeddings(64, seed=1)
    coded = sum(
        len(stream)
        for layer in layered.layers().values()
        for stream in layer.export().encode(layer.quantize(y).numpy())
    )
    estimated = sum(
        layer.export().code_length(layer.quantize(y).numpy()).sum() / 8
        for layer in layered.layers().values()
    )
    assert coded == pytest.approx(estimated, rel=0.02, abs=3 * 64)


@torch.inference_mode()
def test_as_one_bottleneck_it_is_its_tokens():
    tokens = partial(Transform, step=0.1)
    layered, alone = fitted(partial(Layered, tokens=tokens, pooled=VECTOR)), fitted(tokens)
    y = embeddings(5, seed=1)
    assert layered.shape == alone.shape == (CHANNELS, *GRID)
    assert torch.equal(layered.quantize(y), alone.quantize(y))
    assert layered.export().sha256 == alone.export().sha256


@torch.inference_mode()
def test_another_one_takes_over_all_layers():
    factory = partial(Layered, tokens=TOKENS, pooled=VECTOR)
    first, second = fitted(factory), factory(CHANNELS, GRID)
    codecs = {name: layer.export() for name, layer in first.layers().items()}
    second.restore(first.state_dict(), codecs)
    y = embeddings(5, seed=1)
    for name, layer in second.layers().items():
        assert layer.export().sha256 == codecs[name].sha256
        assert np.array_equal(layer.quantize(y), first.layers()[name].quantize(y))


def test_a_pooled_layer_of_a_grid_is_refused():
    with pytest.raises(ValueError, match="it is one vector an image, set bottleneck"):
        Layered(CHANNELS, GRID, tokens=TOKENS, pooled=Float16)
