import pytest
import torch
from test_heads import split

from nec.tasks import FCN, TokenConvolution, TokenLinear, TokenMLP

HEADS = {
    "linear": TokenLinear,
    "convolution": TokenConvolution,
    "mlp": TokenMLP,
    "fcn": FCN,
    "fcn of blocks": lambda *shape: FCN(*shape, decoder_block=True),
}


@pytest.mark.parametrize("build", HEADS.values(), ids=HEADS)
def test_a_head_answers_for_its_cells_and_learns_in_every_part(build):
    torch.manual_seed(0)
    head = build((8, 3, 5), 4)
    y = 5 + torch.randn(6, 8, 3, 5)
    head.fit(split(y), split(y[:2]))
    logits = head(y)
    assert logits.shape == (6, 4, head.scale * 3, head.scale * 5)
    logits.square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in head.parameters())


@pytest.mark.parametrize("build", HEADS.values(), ids=HEADS)
def test_logits_do_not_depend_on_scale_and_offset_of_a_channel(build):
    torch.manual_seed(0)
    head = build((4, 4, 4), 3).eval()
    y = torch.randn(9, 4, 4, 4)
    moved = y * torch.tensor([1.0, 30, 0.1, 3])[:, None, None] + 2
    head.fit(split(y), split(y[:2]))
    expected = head(y)
    head.fit(split(moved), split(moved[:2]))
    torch.testing.assert_close(head(moved), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("name", "reach"), [("linear", 0), ("mlp", 0), ("convolution", 1), ("fcn", 1)]
)
def test_a_token_is_seen_as_far_as_the_head_says(name, reach):
    torch.manual_seed(0)
    head = HEADS[name]((4, 7, 7), 2).eval()
    y = torch.randn(1, 4, 7, 7)
    other = y.clone()
    other[..., 3, 3] += 1
    changed = (head(y) != head(other)).any(dim=1)[0]
    rows = changed.any(dim=1).nonzero().flatten() // head.scale
    assert (int(rows.min()), int(rows.max())) == (3 - reach, 3 + reach)


@pytest.mark.parametrize("build", HEADS.values(), ids=HEADS)
def test_one_vector_an_image_has_no_places(build):
    with pytest.raises(ValueError, match=r"\(16, 1, 1\) is one vector an image.*task=linear"):
        build((16, 1, 1), 3)


def test_a_cell_is_no_larger_than_a_token():
    with pytest.raises(ValueError, match=r"scale is 0; .*task\.NAME\.head\.scale=2"):
        FCN((8, 3, 3), 2, scale=0)


def test_a_layer_has_a_channel():
    with pytest.raises(ValueError, match=r"width is 0; .* set task\.NAME\.head\.width=64"):
        FCN((8, 3, 3), 2, width=0)
    with pytest.raises(ValueError, match=r"hidden is 0; .* set task\.NAME\.head\.hidden=256"):
        TokenMLP((8, 3, 3), 2, hidden=0)


def test_heads_of_a_block_divide_the_channels():
    with pytest.raises(ValueError, match="heads is 3; an embedding of 8 channels"):
        FCN((8, 3, 3), 2, decoder_block=True, heads=3)
