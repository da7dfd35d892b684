import pytest
import torch
from lightning.pytorch import Trainer
from torch.utils.data import DataLoader

from nec.adapters import LastBlocks
from nec.bottlenecks.factorized import Factorized
from nec.distortions import EmbeddingDistortion
from nec.tasks import RateDistortionAdaptation

PIXELS = 16 * 16


def images(count=16):
    generator = torch.Generator().manual_seed(0)
    return [
        {"image": torch.randn(4, 16, 16, generator=generator), "label": 0} for _ in range(count)
    ]


def build(encoder, lmbda=1.0):
    torch.manual_seed(0)
    bottleneck = Factorized(32, (4, 4), latents=8)
    distortion = EmbeddingDistortion(32)
    task = RateDistortionAdaptation(encoder, bottleneck, distortion, lmbda, PIXELS)
    task.start(encoder(torch.stack([i["image"] for i in images()])).detach())
    return task


def fit(task, epochs=2):
    trainer = Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        gradient_clip_val=1.0,
    )
    trainer.fit(task, DataLoader(images(), batch_size=4), DataLoader(images(), batch_size=4))
    return {k: float(v) for k, v in trainer.callback_metrics.items()}


@pytest.mark.parametrize("lmbda", [None, 0, -1.0, float("nan"), float("inf")])
def test_lambda_is_a_positive_number(encoder, lmbda):
    with pytest.raises(ValueError, match="lmbda is"):
        build(encoder, lmbda)


@pytest.mark.filterwarnings("ignore")
def test_the_loss_is_bits_per_pixel_plus_lambda_times_distortion(encoder):
    found = fit(build(encoder, lmbda=3.0))
    for phase in ("train", "val"):
        expected = found[f"{phase}/bpp"] + 3.0 * found[f"{phase}/distortion"]
        assert found[f"{phase}/loss"] == pytest.approx(expected, rel=1e-4)


def test_lambda_means_the_same_for_every_batch_size(encoder):
    task = build(encoder).eval()
    batch = torch.stack([i["image"] for i in images()])
    label = torch.zeros(16)
    with torch.no_grad():
        whole = task.distortion(
            {"image": batch, "label": label}, task.encoder, task.teacher, task.bottleneck
        )
        parts = [
            task.distortion(
                {"image": part, "label": label}, task.encoder, task.teacher, task.bottleneck
            )
            for part in batch.split(4)
        ]
    for index in range(2):
        mean = torch.stack([part[index].mean() for part in parts]).mean()
        torch.testing.assert_close(whole[index].mean(), mean)


@pytest.mark.filterwarnings("ignore")
def test_only_what_was_opened_changes_and_the_teacher_never(encoder):
    LastBlocks(0.5).open(encoder)
    task = build(encoder)
    before = {k: v.clone() for k, v in encoder.state_dict().items()}
    fit(task)
    opened = encoder.trainable_state()
    for name, value in encoder.state_dict().items():
        changed = not torch.equal(value, before[name])
        assert changed == (name.removeprefix("vit.") in opened)
        assert torch.equal(task.teacher.state_dict()[name], before[name])


def test_nothing_is_copied_where_nothing_learns(encoder):
    assert build(encoder).teacher is encoder


def test_every_parameter_that_may_learn_is_in_one_group(encoder):
    LastBlocks(0.5).open(encoder)
    task = build(encoder)
    grouped = [p for group in task._groups().values() for p in group]
    assert len(grouped) == len({id(p) for p in grouped})
    assert {id(p) for p in grouped} == {id(p) for p in task.parameters() if p.requires_grad}


def test_groups_are_clipped_one_by_one(encoder):
    task = build(encoder)
    first, second = (torch.nn.Parameter(torch.zeros(2)) for _ in range(2))
    groups = [{"name": "a", "params": [first]}, {"name": "b", "params": [second]}]
    optimizer = torch.optim.SGD(groups, lr=1.0)
    first.grad, second.grad = torch.tensor([300.0, 400.0]), torch.tensor([0.3, 0.4])
    task.configure_gradient_clipping(optimizer, 1.0, "norm")
    assert first.grad.norm().item() == pytest.approx(1.0, rel=1e-4)
    assert second.grad.norm().item() == pytest.approx(0.5)
