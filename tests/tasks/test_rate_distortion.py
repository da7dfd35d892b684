import copy

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from tests.conftest import tiny_encoder
from torch.utils.data import Dataset

from nec import chance
from nec.adapters import LastBlocks, NoAdapter
from nec.bottlenecks.factorized import Factorized
from nec.data.splits import SplitDataModule
from nec.distortions import EmbeddingDistortion, MaskedPixels
from nec.tasks import RateDistortionAdaptation

PIXELS = 16 * 16
BATCHES = 3  # of an epoch
EPOCHS = 3
# When a checkpoint is saved.
EACH_EPOCH = {"every_n_epochs": 1, "save_on_train_epoch_end": True}
EACH_STEP = {"every_n_train_steps": 1}
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Tensors this small take ten times as long where threads wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class Noise(Dataset):
    def __init__(self, split, count):
        generator = torch.Generator().manual_seed(count)
        self.images = torch.randn(count, 4, 16, 16, generator=generator)
        self.ids = [f"{split}{index}" for index in range(count)]

    def __len__(self):
        return len(self.ids)

    def __getitem__(self, index):
        return {"image": self.images[index], "label": 0, "id": self.ids[index]}


class NoiseDataModule(SplitDataModule):
    def __init__(self, batch_size=6, workers=0):
        super().__init__(batch_size, workers, seed=0)

    def pixels_up_to(self, limit):
        return min(PIXELS, limit)

    def load_splits(self):
        return {"train": Noise("train", 16), "val": Noise("val", 6), "test": Noise("test", 5)}


def build(encoder, lmbda=1.0, adapter=None, distortion=EmbeddingDistortion, **arguments):
    """A task on an encoder of its own."""
    return RateDistortionAdaptation(
        copy.deepcopy(encoder),
        adapter or LastBlocks(0.5),
        lambda channels, grid: Factorized(channels, grid, latents=8),
        distortion,
        lmbda,
        **arguments,
    )


def trainer(*callbacks, epochs=EPOCHS):
    return Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=any(isinstance(c, ModelCheckpoint) for c in callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
        gradient_clip_val=1.0,
        callbacks=list(callbacks),
        use_distributed_sampler=False,
    )


def fit(task, *callbacks, checkpoint=None, data=None, epochs=EPOCHS):
    """Train; give back the metrics."""
    made = trainer(*callbacks, epochs=epochs)
    data = data or NoiseDataModule()
    made.fit(task, datamodule=data, ckpt_path=checkpoint, weights_only=True)
    return {k: float(v) for k, v in made.callback_metrics.items()}


def assert_equal_weights(one, other):
    one, other = one.state_dict(), other.state_dict()
    assert one.keys() == other.keys()
    assert [name for name, value in one.items() if not torch.equal(value, other[name])] == []


@pytest.mark.parametrize("lmbda", [None, 0, -1.0, float("nan"), float("inf")])
def test_lambda_is_a_positive_number(encoder, lmbda):
    with pytest.raises(ValueError, match="lmbda is"):
        build(encoder, lmbda)


@pytest.mark.parametrize("name", ["encoder_lr", "lr", "density_lr"])
@pytest.mark.parametrize("rate", [-1.0, float("nan"), float("inf")])
def test_no_step_climbs_the_gradient(encoder, name, rate):
    with pytest.raises(
        ValueError, match=rf"^{name} is .*; .* 0 or more, as in adaptation\.{name}="
    ):
        build(encoder, 1.0, **{name: rate})


def test_the_loss_is_bits_per_pixel_plus_lambda_times_distortion(encoder):
    found = fit(build(encoder, lmbda=3.0), epochs=1)
    for phase in ("train", "val"):
        expected = found[f"{phase}/bpp"] + 3.0 * found[f"{phase}/distortion"]
        assert found[f"{phase}/loss"] == pytest.approx(expected, rel=1e-4)


class Gradients(Callback):
    """Of every step: what backward left, and the mean over images of what each alone would."""

    def __init__(self):
        self.found, self.expected, self.losses = [], [], []

    def on_train_batch_start(self, trainer, task, batch, batch_idx):
        keys = chance.keys(task.seed, trainer.current_epoch, batch["id"])
        losses = []
        for index in range(len(keys)):
            one = {"image": batch["image"][[index]], "id": [batch["id"][index]]}
            parts = (task.encoder, task.teacher, task.bottleneck, keys[[index]])
            bits, distortion = task.distortion(one, *parts)
            losses.append((bits / PIXELS + task.lmbda * distortion).squeeze())
        loss = torch.stack(losses).mean() + task.bottleneck.auxiliary_loss()
        task.zero_grad()
        loss.backward()
        self.losses.append(float(loss))
        self.expected.append(self.taken(task))
        task.zero_grad()

    def on_after_backward(self, trainer, task):
        self.found.append(self.taken(task))

    def on_train_batch_end(self, trainer, task, outputs, batch, batch_idx):
        assert float(outputs["loss"]) == pytest.approx(self.losses[-1], rel=1e-5)

    @staticmethod
    def taken(task):
        return {n: p.grad.clone() for n, p in task.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("distortion", [EmbeddingDistortion, MaskedPixels])
def test_a_step_follows_the_mean_over_its_images(encoder, distortion):
    gradients = Gradients()
    fit(build(encoder, distortion=distortion), gradients, epochs=1)
    assert len(gradients.found) == BATCHES
    for found, expected in zip(gradients.found, gradients.expected, strict=True):
        assert found.keys() == expected.keys()
        for name, value in found.items():
            scale = float(expected[name].abs().max())
            torch.testing.assert_close(value, expected[name], rtol=1e-3, atol=1e-4 * scale + 1e-9)


def test_only_what_was_opened_changes_and_the_teacher_never(encoder):
    task = build(encoder)
    fit(task, epochs=1)
    before, opened = encoder.state_dict(), task.encoder.trainable_state()
    for name, value in task.encoder.state_dict().items():
        changed = not torch.equal(value, before[name])
        assert changed == (name.removeprefix("vit.") in opened)
        assert torch.equal(task.teacher.state_dict()[name], before[name])


def test_nothing_is_copied_where_nothing_learns(encoder):
    task = build(encoder, adapter=NoAdapter())
    assert task.teacher is task.encoder


def test_every_parameter_that_may_learn_is_in_one_group(encoder):
    task = build(encoder, distortion=MaskedPixels)
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


def test_gradients_are_clipped_by_value_on_request(encoder):
    weights = torch.nn.Parameter(torch.zeros(2))
    optimizer = torch.optim.SGD([{"name": "a", "params": [weights]}], lr=1.0)
    weights.grad = torch.tensor([300.0, -0.5])
    build(encoder).configure_gradient_clipping(optimizer, 1.0, "value")
    assert weights.grad.tolist() == [1.0, -0.5]


def test_nothing_is_evaluated_before_something_is_fitted_or_loaded(encoder):
    for evaluate in (trainer().validate, trainer().test):
        with pytest.raises(ValueError, match="nothing is trained yet; give a checkpoint"):
            evaluate(build(encoder), datamodule=NoiseDataModule(), verbose=False)


@pytest.mark.parametrize("distortion", [EmbeddingDistortion, MaskedPixels])
def test_what_is_learned_follows_from_the_seed_alone(encoder, distortion):
    def trained(chance_of_others, **arguments):
        torch.manual_seed(chance_of_others)
        task = build(encoder, distortion=distortion, **arguments)
        torch.manual_seed(chance_of_others + 10)
        fit(task, epochs=2)
        return task

    first = trained(1)
    assert_equal_weights(trained(2), first)
    other = trained(1, seed=1).bottleneck
    assert not torch.equal(other.log_gain, first.bottleneck.log_gain)


def test_a_task_starts_at_the_images_pixels_and_its_own_statistics(encoder):
    task = build(encoder)
    fit(task, epochs=0)
    assert float(task.pixels) == PIXELS
    y = encoder(NoiseDataModule().datasets["train"].images)
    variance = y.transpose(0, 1).flatten(1).var(dim=1)
    torch.testing.assert_close(task.distortion.variance, variance)


def saved(folder, **when):
    return ModelCheckpoint(folder, filename="last", enable_version_counter=False, **when)


class Stopped(Exception):
    """As if the process were killed."""


class Stop(Callback):
    """Interrupts before a batch, counted from 0 over all epochs."""

    def __init__(self, batch):
        self.batch = batch

    def on_train_batch_start(self, trainer, task, batch, batch_idx):
        if trainer.global_step == self.batch:
            raise Stopped


@pytest.fixture
def checkpoint(encoder, tmp_path):
    """Of one epoch."""
    fit(build(encoder), saved(tmp_path, **EACH_EPOCH), epochs=1)
    return tmp_path / "last.ckpt"


def test_a_checkpoint_is_tensors_and_holds_what_was_trained(encoder, checkpoint):
    task = build(encoder)
    found = torch.load(checkpoint, weights_only=True)
    learned = {name for name, p in task.named_parameters() if p.requires_grad}
    assert learned <= found["state_dict"].keys()
    kept = {name for name in found["state_dict"] if name.startswith(("encoder.", "teacher."))}
    assert kept == {f"encoder.vit.{name}" for name in task.encoder.trainable_state()}
    assert found["encoder"] == {
        "name": "vit_tiny_patch16_224",
        "weights_sha256": encoder.weights_sha256(),
    }


def test_a_checkpoint_is_refused_by_another_encoder(encoder, checkpoint):
    with torch.no_grad():
        encoder.vit.cls_token.add_(1)
    task = build(encoder)
    with pytest.raises(ValueError, match="the checkpoint was trained on encoder"):
        fit(task, checkpoint=checkpoint)
    with pytest.raises(ValueError, match="the checkpoint was trained on encoder"):
        trainer().validate(task, datamodule=NoiseDataModule(), ckpt_path=checkpoint)


def test_a_checkpoint_of_other_parts_is_refused(encoder, checkpoint, tmp_path):
    state = torch.load(checkpoint, weights_only=True)
    del state["state_dict"]["bottleneck.analysis"]
    torch.save(state, tmp_path / "other.ckpt")
    with pytest.raises(
        ValueError, match=r"another adapter, bottleneck .* \(bottleneck\.analysis\)"
    ):
        trainer().validate(
            build(encoder), datamodule=NoiseDataModule(), ckpt_path=tmp_path / "other.ckpt"
        )


def test_a_checkpoint_is_evaluated_as_the_task_that_it_is_of(encoder, tmp_path):
    task = build(encoder)
    expected = fit(task, saved(tmp_path, **EACH_EPOCH), epochs=1)
    (found,) = trainer().validate(
        build(encoder),
        datamodule=NoiseDataModule(),
        ckpt_path=tmp_path / "last.ckpt",
        weights_only=True,
        verbose=False,
    )
    assert found == {name: expected[name] for name in found}


@pytest.fixture(scope="module")
def whole(one_thread):
    """What is learned without a stop, by distortion."""
    kinds = (EmbeddingDistortion, MaskedPixels)
    tasks = {kind: build(tiny_encoder(), distortion=kind) for kind in kinds}
    for task in tasks.values():
        fit(task)
    return tasks


@pytest.mark.parametrize(
    ("distortion", "when", "stop", "workers"),
    [
        (EmbeddingDistortion, EACH_EPOCH, BATCHES, 0),
        (EmbeddingDistortion, EACH_EPOCH, 2 * BATCHES + 1, 0),
        (EmbeddingDistortion, EACH_STEP, 1, 0),
        (EmbeddingDistortion, EACH_STEP, BATCHES, 0),
        (MaskedPixels, EACH_STEP, 2 * BATCHES - 1, 0),
        (EmbeddingDistortion, {"every_n_train_steps": 2}, 2 * BATCHES - 1, 0),
        (MaskedPixels, EACH_EPOCH, BATCHES, 1),
        (EmbeddingDistortion, EACH_STEP, 2 * BATCHES - 1, 1),
    ],
)
def test_what_was_stopped_ends_where_it_would_have(
    encoder, whole, tmp_path, distortion, when, stop, workers
):
    stopped, resumed = (build(encoder, distortion=distortion) for _ in range(2))
    with pytest.raises(Stopped):
        fit(stopped, saved(tmp_path, **when), Stop(stop))
    data = NoiseDataModule(workers=workers)
    fit(resumed, checkpoint=tmp_path / "last.ckpt", data=data)
    assert_equal_weights(resumed, whole[distortion])
