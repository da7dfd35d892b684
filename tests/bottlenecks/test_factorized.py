import pytest
import torch

from nec import chance
from nec.bottlenecks.factorized import PRICED_POSITIONS, Factorized

GRID = (8, 8)


def latents(count=128, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return (
        torch.randn(count, 6, *GRID, generator=generator)
        * torch.tensor([4.0, 2.0, 1.0, 0.5, 0.2, 0.1])[:, None, None]
    )


def keys(count, epoch=0):
    return chance.keys(0, epoch, [f"image{index}" for index in range(count)])


@pytest.fixture
def bottleneck():
    torch.manual_seed(0)
    made = Factorized(6, GRID, latents=6)
    made.fit(latents())
    return made


def test_it_starts_at_the_axes_of_the_whole_train_split(bottleneck):
    y = latents().double()  # 128 images, more than are summed at a time
    whitened = (y - bottleneck.center[:, None, None]) / bottleneck.spread[:, None, None]
    mean = whitened.mean(dim=(2, 3), keepdim=True)
    for band, part in enumerate((mean, whitened - mean)):
        axes = bottleneck.analysis[band].detach().double()
        moment = part.transpose(0, 1).flatten(1)
        moment = moment @ moment.T / moment[0].numel()
        spread = axes @ moment @ axes.T
        torch.testing.assert_close(spread.diag(), torch.linalg.eigvalsh(moment).flip(0))
        assert (spread - spread.diag().diag()).abs().max() < 1e-6 * spread.max()


def test_training_prices_a_part_of_the_positions_without_bias(bottleneck):
    y = latents(16)
    assert GRID[0] * GRID[1] > PRICED_POSITIONS
    with torch.no_grad():
        drawn = [bottleneck(y, keys(16, epoch)).estimated_bits for epoch in range(60)]
        whole = bottleneck(y).estimated_bits.mean()
    assert not torch.equal(drawn[0], drawn[1])
    assert float(torch.stack(drawn).mean()) == pytest.approx(float(whole), rel=0.03)


@torch.no_grad()
def test_an_image_trains_alike_in_every_batch_and_place(bottleneck):
    y, drawn = latents(16), keys(16)
    whole = bottleneck(y, drawn)
    for indices in ([5], [11, 5, 2], [*range(15, -1, -1)]):
        found = bottleneck(y[indices], drawn[indices])
        torch.testing.assert_close(found.estimated_bits, whole.estimated_bits[indices])
        torch.testing.assert_close(found.y_hat, whole.y_hat[indices])


@torch.no_grad()
def test_noise_is_in_the_rate_alone(bottleneck):
    y = latents(16)
    noisy, rounded = bottleneck(y, keys(16)), bottleneck(y)
    assert torch.equal(noisy.y_hat, rounded.y_hat)
    assert not torch.equal(noisy.estimated_bits, rounded.estimated_bits)


@torch.no_grad()
def test_bits_are_those_of_compressais_own_forward(bottleneck):
    y = latents(16)
    expected = torch.zeros(16)
    for band, part in enumerate(bottleneck._split(y)):
        density = bottleneck.densities[band].eval()
        _, likelihood = density(bottleneck._analyze(part, band))
        expected -= likelihood.log2().sum(dim=(1, 2, 3))
    torch.testing.assert_close(bottleneck(y).estimated_bits, expected)


def test_bits_of_visible_positions_are_scaled_to_all(bottleneck):
    y = latents(64)
    y -= y.mean(dim=(2, 3), keepdim=True)  # so that a part has nearly the mean of the whole
    with torch.no_grad():
        some = bottleneck(y.flatten(2)[:, :, ::2, None]).estimated_bits.mean()
        whole = bottleneck(y).estimated_bits.mean()
    assert float(some) == pytest.approx(float(whole), rel=0.05)


def test_autocast_does_not_reach_the_entropy_model(bottleneck):
    y = latents(4)
    for drawn in (None, keys(4)):
        with torch.no_grad():
            expected = bottleneck(y, drawn)
            with torch.autocast("cpu", torch.bfloat16):
                found = bottleneck(y, drawn)
        assert torch.equal(found.estimated_bits, expected.estimated_bits)
        assert torch.equal(found.y_hat, expected.y_hat)


def test_the_rate_never_moves_quantiles_and_the_auxiliary_loss_only_them(bottleneck):
    quantiles = {id(d.quantiles) for d in bottleneck.densities}
    bottleneck(latents(8), keys(8)).estimated_bits.mean().backward()
    moved = {id(p) for p in bottleneck.parameters() if p.grad is not None and p.grad.any()}
    assert moved and not moved & quantiles
    bottleneck.zero_grad()
    bottleneck.auxiliary_loss().backward()
    moved = {id(p) for p in bottleneck.parameters() if p.grad is not None and p.grad.any()}
    assert moved <= quantiles


@pytest.mark.parametrize("latents", [0, -1])
def test_there_is_a_latent_at_least(latents):
    with pytest.raises(ValueError, match=f"latents is {latents}; it is 1 or more"):
        Factorized(6, GRID, latents=latents)


def test_a_larger_lambda_buys_a_smaller_distortion(bottleneck):
    def train(lmbda):
        torch.manual_seed(0)
        made = Factorized(6, GRID, latents=6)
        y = latents(64)
        made.fit(y)
        optimizer = torch.optim.Adam(made.parameters(), lr=2e-2)
        for epoch in range(60):
            coded = made(y, keys(64, epoch))
            loss = coded.estimated_bits.mean() / 64 + lmbda * (coded.y_hat - y).square().mean()
            optimizer.zero_grad()
            (loss + made.auxiliary_loss()).backward()
            optimizer.step()
        with torch.no_grad():
            coded = made(y)
        return float(coded.estimated_bits.mean()), float((coded.y_hat - y).square().mean())

    low, high = train(0.3), train(30.0)
    assert low[0] < high[0]
    assert low[1] > high[1]
