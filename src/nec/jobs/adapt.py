"""Adaptation: a trainer that shows, saves and shares what it does, and one fit with it."""

import os
import time
from collections import deque
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io import TorchCheckpointIO
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import LearningRateMonitor, ModelCheckpoint
from lightning.pytorch.plugins.environments import SLURMEnvironment, TorchElasticEnvironment
from torch import distributed

from nec.tasks import RateDistortionAdaptation

# Steps between saves within an epoch: the most that is lost when a run is killed.
SAVED_EVERY_STEPS = 500
# Steps over which a speed is averaged.
SPEED_STEPS = 20


class WholeCheckpointIO(TorchCheckpointIO):
    """Checkpoints that are whole if they exist, even if the process dies while writing one."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        """Write beside the path, then rename."""
        part = Path(path).with_suffix(".part")
        part.parent.mkdir(parents=True, exist_ok=True)
        torch.save(checkpoint, part)
        os.replace(part, path)


class ImagesPerSecond(Callback):
    """Log how many images a second all devices train on together, over the last steps."""

    def on_train_start(self, trainer: Trainer, task: LightningModule) -> None:
        """Begin; a training that goes on within an epoch does not start one."""
        self.steps = deque([(time.monotonic(), 0)], maxlen=SPEED_STEPS)

    def on_train_epoch_start(self, trainer: Trainer, task: LightningModule) -> None:
        """Begin anew: a validation was in between."""
        self.on_train_start(trainer, task)

    def on_train_batch_end(
        self, trainer: Trainer, task: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Log the speed; ranks' shares are equal, give or take an image."""
        count = self.steps[-1][1] + len(batch["label"]) * trainer.world_size
        self.steps.append((time.monotonic(), count))
        (start, before), (end, after) = self.steps[0], self.steps[-1]
        task.log("train/images_per_second", (after - before) / (end - start))


def trainer_options(folder: Path | None = None, logged: bool = True) -> dict[str, Any]:
    """Return what code sets for every trainer of an adaptation.

    Args:
        folder: Where its checkpoint lies; None: beside the trainer's logs.
        logged: Whether there is a logger to show learning rates and images per second to.
    """
    shown = [LearningRateMonitor("step"), ImagesPerSecond()]
    saved = [
        _checkpoints(folder, every_n_epochs=1, save_on_train_epoch_end=True),
        _checkpoints(folder, every_n_train_steps=SAVED_EVERY_STEPS),
    ]
    return {
        "callbacks": [*(shown if logged else ()), *saved],
        "plugins": [WholeCheckpointIO(), *_on_slurm()],
        "use_distributed_sampler": False,  # data modules know their rank
    }


def _on_slurm() -> list[SLURMEnvironment]:
    """SLURM's ranks, if it started this; whoever submitted a job decides on a requeue."""
    ours = SLURMEnvironment.detect() and not TorchElasticEnvironment.detect()
    return [SLURMEnvironment(auto_requeue=False)] if ours else []


def _checkpoints(folder: Path | None, **when: Any) -> ModelCheckpoint:
    return ModelCheckpoint(folder, filename="last", enable_version_counter=False, **when)


def last_checkpoint(folder: Path) -> Path | None:
    """Return the checkpoint that a training left in a folder, if it left one."""
    path = folder / "last.ckpt"
    return path if path.is_file() else None


def adapt(
    task: RateDistortionAdaptation,
    trainer: Trainer,
    data: LightningDataModule,
    checkpoint: Path | None = None,
) -> dict[str, float]:
    """Train what may learn, on all ranks; return its metrics on val.

    Args:
        task: Adaptation to train.
        trainer: Trainer of one fit.
        data: Images, or what the frozen prefix makes of them.
        checkpoint: Checkpoint to go on from.
    """
    trainer.fit(task, datamodule=data, ckpt_path=checkpoint, weights_only=True)
    if task.validated_at != trainer.global_step:
        trainer.validate(task, datamodule=data, verbose=False)
    history = dict(trainer.callback_metrics)
    if distributed.is_initialized():  # what comes next is for one process
        distributed.destroy_process_group()
    task.eval()
    return {name: float(value) for name, value in history.items() if name.startswith("val/")}
