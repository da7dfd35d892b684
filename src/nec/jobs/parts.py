"""What a run is made of, and how that learns."""

from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from lightning.pytorch.loggers import Logger
from omegaconf import DictConfig

from nec import config as configs
from nec.adapters import Opened
from nec.bottlenecks import Bottleneck, Identity
from nec.data.activations import ActivationDataModule
from nec.data.coded import CodedDataModule
from nec.data.images import ImageDataModule
from nec.encoders import Encoder
from nec.jobs import devices, fitted, ranks
from nec.jobs.adapt import adapt, last_checkpoint, trainer_options
from nec.jobs.evaluate import Probe
from nec.tasks import RateDistortionAdaptation

# Where a training saves its state, in the folder of its run.
CHECKPOINTS = "checkpoints"


class Parts(NamedTuple):
    """What a run is made of."""

    encoder: Encoder
    bottleneck: Bottleneck
    task: RateDistortionAdaptation | None  # that adapts both, where something learns
    data: ImageDataModule
    cached: ActivationDataModule  # what the frozen prefix makes of the data
    probes: dict[str, Probe]
    opened: Opened  # what the adapter did
    device: torch.device

    def check_heads(self) -> None:
        """Refuse, before any long work, heads that cannot learn from this."""
        for probe in self.probes.values():
            probe.check(self.bottleneck.shape, self.data, self.encoder.image_size)


def build(composed: configs.Composed, cache: Path) -> Parts:
    """Build everything, and open what may learn.

    Args:
        composed: Config of the run, composed.
        cache: Folder of activations.
    """
    config = composed.config
    _check_pixels(composed)
    _check_codec(composed)
    encoder, adapter = configs.build(config.encoder), configs.build(config.adapter)
    probes = {str(name): configs.build(probe) for name, probe in config.task.items()}
    if configs.learns(config):
        task = configs.build(
            config.adaptation,
            encoder=encoder,
            adapter=adapter,
            bottleneck=partial(configs.build, config.bottleneck),
            distortion=partial(configs.build, config.distortion),
            lmbda=config.lmbda,
            seed=config.seed,
        )
        bottleneck, opened = task.bottleneck, task.opened
    else:
        task, opened = None, adapter.open(encoder)
        bottleneck = configs.build(config.bottleneck, encoder.channels, encoder.grid)
        _check_frozen(composed, opened.trainable)
        if config.codec:
            found = fitted.open_codec(config.codec)
            fitted.check_fits(found, encoder, configs.all_options(config)["bottleneck"])
            fitted.restore(found, bottleneck)
    data = _data(config, encoder)
    device = devices.first(config.trainer)
    cached = ActivationDataModule.of(encoder, data, cache, device)
    return Parts(encoder, bottleneck, task, data, cached, probes, opened, device)


def learn(
    config: DictConfig, parts: Parts, loggers: list[Logger], folder: Path
) -> dict[str, float]:
    """Fit a bottleneck, or train it and the encoder from where a stopped run left off.

    A bottleneck taken over from another run stays as it is.

    Args:
        config: Config of the run.
        parts: Parts of the run.
        loggers: Loggers that are shown the training.
        folder: Where the run is at work, and its checkpoint lies.

    Returns:
        Metrics of a training on val.
    """
    if config.codec:
        return {}
    if parts.task is None:
        parts.cached.prepare_data()
        sample = parts.cached.sample(config.seed)
        parts.bottleneck.fit(parts.encoder.embed_all(sample, parts.device))
        return {}
    checkpoints = folder / CHECKPOINTS
    trainer = configs.build(
        config.trainer,
        logger=loggers,
        strategy=configs.build(config.strategy) if config.strategy else "auto",
        enable_model_summary=False,
        **trainer_options(checkpoints),
    )
    data = parts.data if parts.task.distortion.needs_images else parts.cached
    left = last_checkpoint(checkpoints)
    if left and ranks.leads():
        print(f"goes on from {left}; to begin anew, remove {folder}", flush=True)
    return adapt(parts.task, trainer, data, left)


def _data(config: DictConfig, encoder: Encoder) -> ImageDataModule:
    """The images, as they are or as a pixel codec leaves them."""
    data = configs.build(config.data, transform=encoder.preprocess)
    return CodedDataModule(data, configs.build(config.pixels)) if config.pixels else data


def _check_pixels(composed: configs.Composed) -> None:
    """Refuse to count the bytes of pixels and those of embeddings in one run."""
    choices = composed.choices
    exact = configs.class_of(composed.config.bottleneck) is Identity
    if composed.config.pixels and not exact:
        raise ValueError(
            f"pixels={choices['pixels']} counts the bytes of image files and bottleneck="
            f"{choices['bottleneck']} those of embeddings; set bottleneck=identity or pixels=none"
        )


def _check_codec(composed: configs.Composed) -> None:
    """Refuse to take over what learns: it would go on learning."""
    if composed.config.codec and configs.learns(composed.config):
        raise ValueError(
            f"codec={composed.config.codec} is taken over as it is and bottleneck="
            f"{composed.choices['bottleneck']} learns; set codec=null, or encode other images with "
            "nec encode"
        )


def _check_frozen(composed: configs.Composed, trainable: int) -> None:
    """Refuse an adapter that has no rate to learn from."""
    if trainable:
        raise ValueError(
            f"bottleneck {composed.choices['bottleneck']!r} has no rate to learn from, so adapter "
            f"{composed.choices['adapter']!r} has nothing to do; set adapter=none"
        )
