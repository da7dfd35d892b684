import pytest
import torch

from nec.bottlenecks import Float16, Identity, Int8, Pooled, Uniform


def test_identity_is_exact_to_the_bit():
    y = torch.randn(4, 3, 2, 2)
    y[0, 0, 0] = torch.tensor([-0.0, 1e-40])
    bottleneck = Identity(3, (2, 2))
    stored = bottleneck.dequantize(bottleneck.quantize(y))
    assert torch.equal(stored.view(torch.int32), y.view(torch.int32))


def test_float16_saturates_beyond_its_range():
    y = torch.tensor([1e9, -1e9, 1.0]).reshape(1, 3, 1, 1)
    bottleneck = Float16(3, (1, 1))
    assert bottleneck.dequantize(bottleneck.quantize(y)).flatten().tolist() == [65504, -65504, 1]


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_uniform_errs_by_half_a_step_at_most_within_its_range(bits):
    y = torch.rand(64, 5, 4, 4) * torch.tensor([0.1, 1.0, 10.0, 100.0, 3.0])[:, None, None]
    bottleneck = Uniform(5, (4, 4), bits=bits)
    bottleneck.fit(y)
    stored = bottleneck.dequantize(bottleneck.quantize(y))
    steps = bottleneck.steps[:, None, None]
    inside = y.clamp(
        (bottleneck.offsets - 2 ** (bits - 1) * bottleneck.steps)[:, None, None],
        (bottleneck.offsets + (2 ** (bits - 1) - 1) * bottleneck.steps)[:, None, None],
    )
    assert ((stored - inside).abs() <= 0.5001 * steps).all()
    assert torch.unique(bottleneck.quantize(y)).numel() == 2**bits


def test_one_outlier_does_not_set_the_step():
    y = torch.rand(1000, 1, 4, 4)
    y[0, 0, 0, 0] = 1e6
    bottleneck = Uniform(1, (4, 4), bits=4)
    bottleneck.fit(y)
    assert float(bottleneck.steps) < 0.1


def test_int8_costs_a_byte_a_value():
    bottleneck = Int8(3, (4, 4))
    bottleneck.fit(torch.randn(50, 3, 4, 4))
    streams = bottleneck.export().encode(bottleneck.quantize(torch.randn(7, 3, 4, 4)).numpy())
    assert {len(s) for s in streams} == {3 * 16}


def test_pooled_keeps_mean_and_std_to_half_a_step_of_every_component():
    y = torch.randn(200, 4, 3, 3) * torch.tensor([1.0, 2.0, 3.0, 4.0])[:, None, None]
    bottleneck = Pooled(4, (3, 3), components=8, step=0.01)
    bottleneck.fit(y)
    stored = bottleneck.dequantize(bottleneck.quantize(y))
    positions = y.flatten(2)
    expected = torch.cat([positions.mean(dim=2), positions.std(dim=2, correction=0)], dim=1)
    assert stored.shape == (200, 8, 1, 1)
    torch.testing.assert_close(stored[:, :, 0, 0], expected, atol=0.03, rtol=0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Uniform(3, (2, 2), bits=0), "bits is 0"),
        (lambda: Uniform(3, (2, 2), bits=13), "bits is 13"),
        (lambda: Pooled(3, (2, 2), components=7), "components is 7"),
        (lambda: Pooled(3, (2, 2), components=0), "components is 0"),
        (lambda: Pooled(3, (2, 2), components=2, step=0.0), "step is 0.0"),
        (lambda: Uniform(3, (2, 2)).export(), "has no tables"),
    ],
)
def test_a_wrong_option_is_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
