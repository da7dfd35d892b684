import copy

import pytest
import torch

from nec import chance
from nec.bottlenecks import Coded
from nec.bottlenecks.factorized import Factorized
from nec.distortions import EmbeddingDistortion, MaskedPixels


class Exact(torch.nn.Module):
    """Keeps everything and says that it costs a bit a position."""

    def forward(self, y, keys=None):
        return Coded(y, torch.full((len(y),), float(y[0, 0].numel())))


def images(count=3):
    image = torch.randn(count, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    return {"image": image, "id": [f"image{index}" for index in range(count)]}


def keys(batch, epoch=0):
    return chance.keys(0, epoch, batch["id"])


def of(batch, indices):
    return {"image": batch["image"][indices], "id": [batch["id"][index] for index in indices]}


def test_an_unchanged_embedding_is_no_distortion(encoder):
    found = EmbeddingDistortion(encoder)(images(), encoder, encoder, Exact()).distortion
    assert found.tolist() == [0, 0, 0]


def test_the_mean_embedding_is_a_distortion_of_one_in_every_whitened_channel(encoder):
    y = encoder(images(64)["image"])
    distortion = EmbeddingDistortion(encoder)
    distortion.fit(y)

    class Mean(torch.nn.Module):
        def forward(self, y, keys=None):
            return Coded(y.mean(dim=(0, 2, 3), keepdim=True).expand_as(y), torch.zeros(len(y)))

    found = distortion(images(64), encoder, encoder, Mean()).distortion
    assert float(found.mean()) == pytest.approx(1.0, rel=0.01)


def test_cached_activations_serve_as_images_do(encoder):
    teacher = copy.deepcopy(encoder)
    encoder.open(2)
    teacher.split = encoder.split
    with torch.no_grad():
        encoder.vit.blocks[-1].mlp.fc2.bias.add_(0.1)
    distortion = EmbeddingDistortion(encoder)
    batch = images()
    cached = {"tokens": encoder.prefix(batch["image"]), "id": batch["id"]}
    whole = distortion(batch, encoder, teacher, Exact())
    assert (whole.distortion > 0).all()
    torch.testing.assert_close(distortion(cached, encoder, teacher, Exact()), whole)


def masked(encoder, ratio=0.75):
    torch.manual_seed(0)
    return MaskedPixels(encoder, masking_ratio=ratio, width=16, heads=2)


@pytest.mark.parametrize("kind", [EmbeddingDistortion, masked])
@pytest.mark.parametrize("draw", [keys, lambda batch: None], ids=["trained", "evaluated"])
@torch.no_grad()
def test_an_image_costs_and_loses_the_same_in_every_batch(encoder, kind, draw):
    batch = images(8)
    bottleneck, distortion = Factorized(32, (4, 4), latents=8), kind(encoder)
    bottleneck.fit(encoder(batch["image"]))
    whole = distortion(batch, encoder, encoder, bottleneck, draw(batch))
    for indices in ([5], [6, 2, 5]):
        part = of(batch, indices)
        found = distortion(part, encoder, encoder, bottleneck, draw(part))
        for side, all_of_it in zip(found, whole, strict=True):
            assert side.shape == (len(indices),)
            torch.testing.assert_close(side, all_of_it[indices])


def test_a_mask_follows_from_epoch_and_id_in_any_batch(encoder):
    distortion, batch = masked(encoder), images(8)
    visible = distortion._visible(keys(batch))
    assert visible.shape == (8, 4)
    assert len({tuple(row) for row in visible.tolist()}) > 1
    assert torch.equal(distortion._visible(keys(of(batch, [6, 2]))), visible[[6, 2]])
    assert not torch.equal(distortion._visible(keys(batch, epoch=1)), visible)


@torch.no_grad()
def test_an_image_is_masked_alike_in_every_evaluation(encoder):
    distortion, batch = masked(encoder), images()
    first = distortion(batch, encoder, encoder, Exact()).distortion
    torch.manual_seed(1)
    assert torch.equal(distortion(batch, encoder, encoder, Exact()).distortion, first)
    trained = [
        distortion(batch, encoder, encoder, Exact(), keys(batch, epoch)).distortion
        for epoch in (1, 2)
    ]
    assert not torch.equal(*trained)


def test_the_rate_is_of_the_full_grid_in_evaluation(encoder):
    distortion, batch = masked(encoder), images()
    evaluated = distortion(batch, encoder, encoder, Exact())
    trained = distortion(batch, encoder, encoder, Exact(), keys(batch))
    assert evaluated.estimated_bits.tolist() == [16] * 3
    assert trained.estimated_bits.tolist() == [4] * 3


@torch.no_grad()
def test_only_masked_patches_count(encoder):
    distortion, batch = masked(encoder), images()
    visible = distortion._visible(keys(batch))
    found = distortion(batch, encoder, encoder, Exact(), keys(batch)).distortion
    tokens = encoder(batch["image"], visible).flatten(2).transpose(1, 2)
    error = distortion._decode(tokens, visible) - distortion._patches(batch["image"])
    for index in range(3):
        hidden = sorted({*range(16)} - {*visible[index].tolist()})
        torch.testing.assert_close(found[index], error[index, hidden].square().mean())


def test_patches_are_cut_row_major(encoder):
    image = torch.arange(64.0).reshape(1, 1, 8, 8)  # of the encoder's 4x4 grid
    patches = masked(encoder)._patches(image)[0]
    assert patches.shape == (16, 4)
    assert patches[[0, 1, 4]].tolist() == [[0, 1, 8, 9], [2, 3, 10, 11], [16, 17, 24, 25]]


def test_training_moves_decoder_bottleneck_and_opened_encoder(encoder):
    encoder.open(2)
    bottleneck = Factorized(32, (4, 4), latents=8)
    bottleneck.fit(encoder(images(16)["image"]).detach())
    distortion, batch = masked(encoder), images()
    trade = distortion(batch, encoder, encoder, bottleneck, keys(batch))
    (trade.estimated_bits / 256 + trade.distortion).mean().backward()
    assert distortion.head.weight.grad.any()
    assert bottleneck.analysis.grad.any()
    assert encoder.vit.blocks[-1].mlp.fc2.weight.grad.any()
    assert encoder.vit.blocks[0].mlp.fc2.weight.grad is None


@pytest.mark.parametrize("ratio", [0, 1, -0.5, 0.99])
def test_a_masking_ratio_leaves_something_masked_and_something_visible(encoder, ratio):
    with pytest.raises(ValueError, match="masking_ratio is"):
        masked(encoder, ratio)


def test_heads_of_the_decoder_divide_its_width(encoder):
    with pytest.raises(ValueError, match=r"width is 16 and heads is 3; .* set distortion\.width"):
        MaskedPixels(encoder, width=16, heads=3)
    for none in ({"heads": 0}, {"width": 0}):
        with pytest.raises(ValueError, match="is 0"):
            MaskedPixels(encoder, **none)


def test_a_decoder_has_no_negative_number_of_blocks(encoder):
    with pytest.raises(ValueError, match=r"depth is -1; .* 0 blocks or more, set distortion.depth"):
        MaskedPixels(encoder, depth=-1)
    assert not len(MaskedPixels(encoder, depth=0).blocks)
