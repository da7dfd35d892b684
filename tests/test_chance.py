import numpy as np
import pytest
import torch

from nec import chance

IDS = [f"train/{index:05d}.tif" for index in range(64)]


def test_an_image_draws_the_same_in_every_batch_and_order():
    whole = chance.uniform(chance.keys(0, 3, IDS), "noise", (5, 7))
    order = torch.randperm(len(IDS), generator=torch.Generator().manual_seed(0))
    turned = chance.uniform(chance.keys(0, 3, [IDS[i] for i in order]), "noise", (5, 7))
    assert torch.equal(turned, whole[order])
    assert torch.equal(
        chance.uniform(chance.keys(0, 3, IDS[:1]), "noise", (35,))[0], whole[0].ravel()
    )


@pytest.mark.parametrize("other", [(1, 3, "noise"), (0, 4, "noise"), (0, 3, "masks")])
def test_seed_epoch_and_purpose_each_draw_anew(other):
    first = chance.uniform(chance.keys(0, 3, IDS), "noise", (500,)).ravel()
    second = chance.uniform(chance.keys(*other[:2], IDS), other[2], (500,)).ravel()
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.03  # 5 standard errors


def test_draws_are_uniform_and_independent():
    drawn = chance.uniform(chance.keys(0, 0, IDS), "noise", (2000,)).double()
    assert drawn.min() >= 0 and drawn.max() < 1
    assert float(drawn.mean()) == pytest.approx(1 / 2, abs=0.004)
    assert float(drawn.var()) == pytest.approx(1 / 12, abs=0.002)
    counts = torch.histc(drawn, 64, 0, 1)
    expected = drawn.numel() / 64
    assert float(((counts - expected) ** 2 / expected).sum()) < 63 + 5 * (2 * 63) ** 0.5
    for one, other in ((drawn[:, :-1], drawn[:, 1:]), (drawn[:-1], drawn[1:])):
        assert abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 0.015


def test_numbers_are_those_of_splitmix64():
    """Java's SplittableRandom with this seed gives these (Vigna's splitmix64.c, seed 1234567)."""
    states = torch.tensor([1234567]) + chance.GAMMA * torch.arange(1, 4)
    found = [value % 2**64 for value in chance._mixed(states).tolist()]
    assert found == [6457827717110365317, 3203168211198807973, 9817491932198370423]
