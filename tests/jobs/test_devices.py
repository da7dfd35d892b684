import pytest
import torch
from omegaconf import OmegaConf
from torch import cuda

from nec.jobs import devices


@pytest.fixture
def two_gpus(monkeypatch):
    """Torch sees two GPUs, of which nothing is asked but that."""
    monkeypatch.setattr(cuda, "is_available", lambda: True)
    monkeypatch.setattr(cuda, "device_count", lambda: 2)
    monkeypatch.setattr(cuda, "is_bf16_supported", lambda: True)


def trainer(accelerator="gpu", devices=1, **others):
    return OmegaConf.create({"accelerator": accelerator, "devices": devices, **others})


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        (1, [0]),
        ("2", [0, 1]),
        (-1, [0, 1]),
        ("-1", [0, 1]),
        ("auto", [0, 1]),
        ([1], [1]),
        ("1,", [1]),
        ("1, 0", [1, 0]),
    ],
)
@pytest.mark.usefixtures("two_gpus")
def test_gpus_are_a_number_a_list_or_all_and_the_first_is_that_of_rank_0(given, taken):
    asked = trainer(devices=given, precision="bf16-mixed")
    devices.check(asked)
    assert devices.indices(asked) == taken
    assert devices.first(asked) == torch.device("cuda", taken[0])


def test_heads_are_trained_where_rank_0_is():
    assert devices.options(torch.device("cuda", 1)) == {"accelerator": "gpu", "devices": [1]}
    assert devices.options(torch.device("cpu")) == {"accelerator": "cpu", "devices": 1}


@pytest.mark.parametrize(("given", "count"), [(1, 1), (3, 3), ("3", 3), ("auto", 1)])
def test_cpus_are_counted(given, count):
    asked = trainer("cpu", given)
    devices.check(asked)
    assert len(devices.indices(asked)) == count
    assert devices.first(asked) == torch.device("cpu")


@pytest.mark.parametrize("accelerator", ["foo", "auto", "cuda", "tpu"])
@pytest.mark.usefixtures("two_gpus")
def test_another_accelerator_is_refused(accelerator):
    with pytest.raises(ValueError, match=f"accelerator is {accelerator}; .* set trainer=cpu or"):
        devices.check(trainer(accelerator))


@pytest.mark.parametrize("given", [0, -2, "0", "a", "a,1", "", [], [0, 0], [-1]])
@pytest.mark.parametrize("accelerator", ["cpu", "gpu"])
@pytest.mark.usefixtures("two_gpus")
def test_what_is_no_number_of_devices_is_refused(accelerator, given):
    with pytest.raises(
        ValueError, match=r"trainer\.devices is .* 1 or more.* set trainer\.devices=1"
    ):
        devices.check(trainer(accelerator, given))


@pytest.mark.parametrize("given", [-1, [0], "0,1"])
def test_a_list_of_cpus_is_refused(given):
    with pytest.raises(ValueError, match=r"trainer\.devices is "):
        devices.check(trainer("cpu", given))


@pytest.mark.parametrize("given", [3, [2], "0,5"])
@pytest.mark.usefixtures("two_gpus")
def test_a_gpu_that_is_not_there_is_refused(given):
    with pytest.raises(ValueError, match=r"torch sees 2; set trainer\.devices=2"):
        devices.check(trainer(devices=given))


@pytest.mark.parametrize("precision", ["bf16-true", "16-true", "64", "bf17"])
def test_weights_stay_float32(precision):
    with pytest.raises(
        ValueError, match=rf"precision is {precision}; .* set trainer\.precision=32"
    ):
        devices.check(trainer("cpu", precision=precision))


def test_a_gpu_is_asked_for_in_vain_where_there_is_none(monkeypatch):
    monkeypatch.setattr(cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="needs a CUDA device and torch sees none"):
        devices.check(trainer())


def steps(**given):
    """Options of a trainer that are of its steps, with Lightning's defaults."""
    return {"max_epochs": None, "max_steps": -1, "gradient_clip_val": None, **given}


@pytest.mark.parametrize("given", [{"max_epochs": -1}, {"max_epochs": 0, "max_steps": 5}])
def test_a_training_without_end_or_epoch_is_refused(given):
    message = r"max_epochs is (-1|0); .* set trainer\.max_epochs=8, or -1 beside trainer\.max_steps"
    with pytest.raises(ValueError, match=message):
        devices.check_steps(steps(**given))


@pytest.mark.parametrize("given", [{}, {"max_epochs": 8}])
def test_a_training_of_no_step_is_refused(given):
    with pytest.raises(ValueError, match=r"trainer\.max_steps is 0; .* or -1"):
        devices.check_steps(steps(max_steps=0, **given))


@pytest.mark.parametrize("given", [{}, {"max_epochs": 1}, {"max_epochs": -1, "max_steps": 5}])
def test_a_training_of_epochs_or_steps_is_not(given):
    devices.check_steps(steps(**given, gradient_clip_val=0))
