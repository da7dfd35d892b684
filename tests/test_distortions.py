import copy

import pytest
import torch

from nec.bottlenecks import Coded
from nec.bottlenecks.factorized import Factorized
from nec.distortions import EmbeddingDistortion, MaskedPixels


class Exact(torch.nn.Module):
    """Keeps everything and says that it costs a bit a position."""

    def forward(self, y):
        return Coded(y, torch.full((len(y),), float(y[0, 0].numel())))


def images(count=3):
    return {"image": torch.randn(count, 4, 16, 16, generator=torch.Generator().manual_seed(0))}


def test_an_unchanged_embedding_is_no_distortion(encoder):
    distortion = EmbeddingDistortion(32)
    assert float(distortion(images(), encoder, encoder, Exact()).distortion) == 0


def test_the_mean_embedding_is_a_distortion_of_one_in_every_whitened_channel(encoder):
    y = encoder(images(64)["image"])
    distortion = EmbeddingDistortion(32)
    distortion.fit(y)

    class Mean(torch.nn.Module):
        def forward(self, y):
            return Coded(y.mean(dim=(0, 2, 3), keepdim=True).expand_as(y), torch.zeros(len(y)))

    found = distortion(images(64), encoder, encoder, Mean()).distortion
    assert float(found) == pytest.approx(1.0, rel=0.01)


def test_cached_activations_serve_as_images_do(encoder):
    teacher = copy.deepcopy(encoder)
    encoder.open(2)
    teacher.split = encoder.split
    with torch.no_grad():
        encoder.vit.blocks[-1].mlp.fc2.bias.add_(0.1)
    distortion = EmbeddingDistortion(32)
    batch = images()
    cached = {"tokens": encoder.prefix(batch["image"])}
    whole = distortion(batch, encoder, teacher, Exact())
    assert whole.distortion.item() > 0
    torch.testing.assert_close(distortion(cached, encoder, teacher, Exact()), whole)


def masked(ratio=0.75):
    torch.manual_seed(0)
    return MaskedPixels(32, (4, 4), patch_values=64, masking_ratio=ratio, width=16, heads=2)


def test_masks_change_in_training_and_never_in_evaluation(encoder):
    distortion = masked()
    seen = [distortion.eval()._visible(images()["image"]) for _ in range(2)]
    assert torch.equal(*seen)
    assert not torch.equal(*(distortion.train()._visible(images(8)["image"]) for _ in range(2)))
    assert seen[0].shape == (3, 4)


def test_the_rate_is_of_the_full_grid_in_evaluation(encoder):
    assert masked().eval()(images(), encoder, encoder, Exact()).estimated_bits.tolist() == [16] * 3
    assert masked().train()(images(), encoder, encoder, Exact()).estimated_bits.tolist() == [4] * 3


def test_only_masked_patches_count(encoder):
    distortion = masked().eval()
    batch = images()
    visible = distortion._visible(batch["image"])
    before = float(distortion(batch, encoder, encoder, Exact()).distortion)
    patches = distortion._patches(batch["image"])
    decoded = distortion._decode(
        encoder(batch["image"], visible).flatten(2).transpose(1, 2), visible
    )
    hidden = torch.ones(3, 16, dtype=torch.bool).scatter(1, visible, False)
    expected = (decoded - patches).square()[hidden].mean()
    assert before == pytest.approx(float(expected), rel=1e-5)


def test_patches_are_cut_row_major():
    image = torch.arange(16.0).reshape(1, 1, 4, 4)
    distortion = MaskedPixels(8, (2, 2), 4, masking_ratio=0.5, width=8, heads=2)
    expected = [[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15]]
    assert distortion._patches(image)[0].tolist() == expected


def test_training_moves_decoder_bottleneck_and_opened_encoder(encoder):
    encoder.open(2)
    bottleneck = Factorized(32, (4, 4), latents=8)
    bottleneck.fit(encoder(images(16)["image"]).detach())
    distortion = masked().train()
    trade = distortion(images(), encoder, encoder, bottleneck.train())
    (trade.estimated_bits.mean() / 256 + trade.distortion).backward()
    assert distortion.head.weight.grad.any()
    assert bottleneck.analysis.grad.any()
    assert encoder.vit.blocks[-1].mlp.fc2.weight.grad.any()
    assert encoder.vit.blocks[0].mlp.fc2.weight.grad is None


@pytest.mark.parametrize("ratio", [0, 1, -0.5, 0.99])
def test_a_masking_ratio_leaves_something_masked_and_something_visible(ratio):
    with pytest.raises(ValueError, match="masking_ratio is"):
        masked(ratio)


def test_heads_of_the_decoder_divide_its_width():
    with pytest.raises(ValueError, match=r"width is 16 and heads is 3; .* set distortion\.width"):
        MaskedPixels(32, (4, 4), patch_values=64, width=16, heads=3)
