from functools import partial

import pytest
import torch

from nec.data.embeddings import Embeddings
from nec.tasks import AttentionHead, LinearHead
from nec.tasks.maps import FCN


def split(features, labels=None):
    """Features as a data module has them."""
    count = len(features)
    labels = torch.zeros(count, dtype=torch.int64) if labels is None else labels
    return Embeddings(features, labels, [str(i) for i in range(count)])


def test_linear_features_are_mean_and_std_over_the_grid():
    y = torch.randn(5, 3, 2, 4)
    features = LinearHead((3, 2, 4), 2).features(y)
    expected = torch.cat([y.mean(dim=(2, 3)), y.std(dim=(2, 3), correction=0)], dim=1)
    torch.testing.assert_close(features, expected)


def test_a_pooled_embedding_is_its_own_features():
    y = torch.randn(5, 6, 1, 1)
    assert torch.equal(LinearHead((6, 1, 1), 2).features(y), y.flatten(1))


def test_logits_of_the_linear_head_do_not_depend_on_a_features_scale():
    torch.manual_seed(0)
    head = LinearHead((3, 2, 2), 4)
    features = torch.randn(50, 6)
    scaled = features * torch.tensor([0.03, 1.0, 10.0, 3.0, 3.0, 7.0])
    head.fit(split(features), split(features[:9]))
    expected = head(features)
    head.fit(split(scaled), split(scaled[:9]))
    torch.testing.assert_close(head(scaled), expected, atol=1e-4, rtol=0)


def test_a_feature_that_hardly_varies_does_not_outweigh_the_others():
    head = LinearHead((3, 2, 2), 4)
    train = torch.randn(50, 6)
    train[:, 0] = 0
    head.fit(split(train), split(train[:9]))
    rare = torch.zeros(1, 6)
    rare[0, 0] = 0.01
    assert head.norm(rare)[0, 0].abs() < 3


@pytest.mark.parametrize("decoder_block", [False, True])
def test_attention_sees_arrangement_and_learns_from_every_part(decoder_block):
    torch.manual_seed(0)
    head = AttentionHead((8, 3, 3), 5, heads=2, decoder_block=decoder_block)
    with torch.no_grad():
        head.positions.normal_()
    y = torch.randn(16, 8, 3, 3)
    assert head.features(y) is y
    logits = head(y)
    assert logits.shape == (16, 5)
    assert not torch.allclose(head.eval()(y), head(y.flip(2)), atol=1e-4)
    logits.square().sum().backward()
    assert all(p.grad is not None for p in head.parameters())


@pytest.mark.parametrize("heads", [3, 0, -2])
def test_heads_of_attention_divide_the_channels(heads):
    message = rf"heads is {heads}; .* 8 channels .* task\.NAME\.head\.heads"
    for build in (AttentionHead, partial(FCN, decoder_block=True)):
        with pytest.raises(ValueError, match=message):
            build((8, 2, 2), 2, heads=heads)
