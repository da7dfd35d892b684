"""Where a run computes and how it learns: a trainer's options, checked before any work."""

from collections.abc import Mapping
from typing import Any

import torch
from omegaconf import DictConfig
from torch import cuda

# Weights stay float32, as embeddings, bottlenecks and heads are, also where products are not.
PRECISIONS = (None, 32, "32", "32-true", "16-mixed", "bf16-mixed")


def check(trainer: DictConfig) -> None:
    """Refuse a trainer that no job can run with here.

    Raises:
        ValueError: Its accelerator, devices or precision is nothing that nec can use, or that this
            machine has.
    """
    _check_accelerator(trainer.accelerator)
    taken, precision = indices(trainer), trainer.get("precision")
    if not taken or min(taken) < 0 or len({*taken}) < len(taken):
        gpus = ", or on gpu a list as [0,1] or -1 for all" if trainer.accelerator == "gpu" else ""
        raise ValueError(
            f"trainer.devices is {trainer.devices}; it is a number of them, 1 or more{gpus}, set "
            "trainer.devices=1"
        )
    if precision not in PRECISIONS:
        raise ValueError(
            f"trainer.precision is {precision}; weights stay float32, so it is 32-true, bf16-mixed "
            "or 16-mixed, set trainer.precision=32-true"
        )
    if trainer.accelerator == "gpu":
        _check_gpus(trainer, max(taken))


def _check_accelerator(accelerator: str) -> None:
    if accelerator not in ("cpu", "gpu"):
        raise ValueError(
            f"trainer.accelerator is {accelerator}; a run computes on cpu or gpu, set trainer=cpu "
            "or trainer=gpu"
        )
    if accelerator == "gpu" and not cuda.is_available():
        raise ValueError("accelerator gpu needs a CUDA device and torch sees none; set trainer=cpu")


def _check_gpus(trainer: DictConfig, last: int) -> None:
    if last >= cuda.device_count():
        raise ValueError(
            f"trainer.devices is {trainer.devices}, torch sees {cuda.device_count()}; set "
            f"trainer.devices={cuda.device_count()}"
        )
    if trainer.get("precision") == "bf16-mixed" and not cuda.is_bf16_supported():
        raise ValueError(
            f"trainer.precision is {trainer.precision}, which {cuda.get_device_name()} does not "
            "have; set trainer.precision=32-true"
        )


def check_steps(options: Mapping[str, Any]) -> None:
    """Refuse a trainer whose steps an adaptation cannot take.

    Args:
        options: Options of the trainer, with its defaults.

    Raises:
        ValueError: It has no end or no step, or clips gradients to less than nothing.
    """
    epochs, steps = options["max_epochs"], options["max_steps"]
    if steps == 0:
        raise ValueError(
            "trainer.max_steps is 0; a training has a step or more, set trainer.max_steps=1000, or "
            "-1 for as many as its epochs have"
        )
    if epochs is not None and epochs < 1 and not (epochs == -1 and steps > 0):
        raise ValueError(
            f"trainer.max_epochs is {epochs}; rates fall until the last step, so there is one: set "
            "trainer.max_epochs=8, or -1 beside trainer.max_steps=1000"
        )
    clip = options["gradient_clip_val"]
    if clip is not None and not clip >= 0:
        raise ValueError(
            f"trainer.gradient_clip_val is {clip}; it is the largest norm of a gradient, or 0 for "
            "any, set trainer.gradient_clip_val=1"
        )


def indices(trainer: DictConfig) -> list[int]:
    """Return the devices of a machine that a trainer takes: a number of them, a list, or all."""
    devices, gpu = trainer.devices, trainer.accelerator == "gpu"
    if devices == "auto" or (gpu and devices in (-1, "-1")):
        return list(range(cuda.device_count() if gpu else 1))
    if isinstance(devices, str) and devices.strip().isdigit():
        devices = int(devices)
    if isinstance(devices, int):
        return list(range(devices))
    if isinstance(devices, str):  # an empty list where it is no list of numbers
        words = devices.strip().rstrip(",").split(",")
        devices = [int(word) for word in words if all(each.strip().isdigit() for each in words)]
    return list(devices) if gpu else []  # CPUs are counted


def first(trainer: DictConfig) -> torch.device:
    """Return the device of rank 0, of a trainer that is checked."""
    if trainer.accelerator != "gpu":
        return torch.device("cpu")
    return torch.device("cuda", indices(trainer)[0])


def options(device: torch.device) -> dict[str, Any]:
    """Return the options of a trainer on one device."""
    if device.type == "cpu":
        return {"accelerator": "cpu", "devices": 1}
    return {"accelerator": "gpu", "devices": [device.index]}
