"""Which layers of a store a head reads."""

from functools import partial

import numpy as np
import pytest
import torch

from nec.bottlenecks import Identity, Pooled
from nec.bottlenecks.layered import Layered
from nec.bottlenecks.vq import VQ
from nec.data.embeddings import EmbeddingDataModule
from nec.store import EmbeddingStore
from nec.tasks.codes import CodesHead, HistogramHead
from nec.tasks.heads import AttentionHead, LinearHead
from nec.tasks.maps import TokenLinear
from nec.tasks.neighbours import NearestNeighbours

SHAPE = (8, 3, 4)
ROWS = np.array([5, 0, 17])


def stored(path, tokens, moments=2):
    """30 images in two layers."""
    y = torch.randn(30, *SHAPE, generator=torch.Generator().manual_seed(0))
    pooled = partial(Pooled, components=6, step=0.5, moments=moments)
    bottleneck = Layered(SHAPE[0], SHAPE[1:], tokens, pooled)
    bottleneck.fit(y)
    layers = bottleneck.layers()
    codecs = {name: layer.export() for name, layer in layers.items()}
    with torch.inference_mode():
        symbols = {name: layer.quantize(y).numpy() for name, layer in layers.items()}
    splits = [("train", "val", "test")[i % 3] for i in range(30)]
    with EmbeddingStore.create(path, codecs, {}, classes=["a", "b"]) as store:
        store.append(symbols, [str(i) for i in range(30)], splits, np.arange(30) % 2)
    return EmbeddingStore.open(path)


@pytest.mark.parametrize("head", [LinearHead, NearestNeighbours])
def test_heads_on_moments_read_the_layer_that_holds_them(tmp_path, head):
    store = stored(tmp_path / "s", Identity)
    found = head(SHAPE, 2).read(store, ROWS)
    assert np.array_equal(found, store.layer("pooled").read(ROWS)[:, :, 0, 0])
    for file in (tmp_path / "s/embedding/c").rglob("0"):
        if file.is_file():
            file.unlink()  # they need nothing else
    alone = EmbeddingStore.open(tmp_path / "s")
    assert torch.equal(head(SHAPE, 2).read(alone, ROWS), found)


def test_a_layer_of_means_alone_holds_no_moments(tmp_path):
    store = stored(tmp_path / "s", Identity, moments=1)
    grid = EmbeddingStore.open(tmp_path / "s", layers="embedding")
    head = LinearHead(SHAPE, 2)
    assert torch.equal(head.read(store, ROWS), head.read(grid, ROWS))


@pytest.mark.parametrize("head", [AttentionHead, TokenLinear])
def test_heads_on_places_read_the_grid(tmp_path, head):
    store = stored(tmp_path / "s", Identity)
    found = head(SHAPE, 2).read(store, ROWS)
    assert np.array_equal(found, store.layer("embedding").read(ROWS))


def test_a_head_on_codes_reads_all_layers_and_is_as_wide_as_they_are(tmp_path):
    store = stored(tmp_path / "s", partial(VQ, codes=10))
    head = CodesHead(SHAPE, 2)
    found = head.read(store, ROWS)
    parts = [head.read(store.layer(name), ROWS) for name in ("embedding", "pooled")]
    assert [part.shape[1] for part in parts] == [16 + 10, 16]
    assert torch.equal(found, torch.cat(parts, dim=1))
    data = EmbeddingDataModule(str(tmp_path / "s"))
    data.keep(head)
    head.fit(data.datasets["train"], data.datasets["val"])
    assert data.shape == SHAPE
    assert head(data.datasets["test"].features).shape == (10, 2)


def test_a_head_on_a_histogram_reads_codes_alone_and_moments_where_there_are_none(tmp_path):
    store = stored(tmp_path / "s", partial(VQ, codes=10))
    found = HistogramHead(SHAPE, 2).read(store, ROWS)
    assert torch.equal(found, CodesHead(SHAPE, 2).read(store, ROWS)[:, 16:26])
    torch.testing.assert_close(found.square().sum(dim=1), torch.ones(len(ROWS)))
    pooled = store.layer("pooled")
    vectors = HistogramHead(SHAPE, 2).read(pooled, ROWS)
    assert torch.equal(vectors, LinearHead((16, 1, 1), 2).read(pooled, ROWS))
