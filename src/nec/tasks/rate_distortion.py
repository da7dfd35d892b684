"""Adaptation: make embeddings cheaper while they stay what they were."""

import copy
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn

from nec.bottlenecks import LearnedBottleneck
from nec.distortions import Batch, Distortion
from nec.encoders import Encoder

OptimizerFactory = Callable[[Iterable[Mapping[str, Any]]], torch.optim.Optimizer]


class RateDistortionAdaptation(LightningModule):
    """Adapt an encoder so that its embeddings cost fewer bits.

    Minimizes ``estimated bits per pixel + lmbda * distortion``. Gradients of the rate never reach
    the densities' quantiles and the auxiliary loss reaches only them, so one optimizer with
    parameter groups serves both.

    Args:
        encoder: Maps images (B, C, S, S) to embeddings (B, D, h, w); an adapter has opened what
            may learn.
        bottleneck: Prices and quantizes embeddings.
        distortion: What must be kept; a mean over elements.
        lmbda: Weight of the distortion, > 0.
        pixels: Of an image, native or as the encoder gets it, whichever has fewer.
        encoder_lr: Learning rate of the adapted encoder, at its peak.
        lr: Learning rate of transforms and of the distortion's decoder, at its peak.
        density_lr: Learning rate of gains, densities and quantiles, at its peak.
        optimizer: Called with the parameter groups to train.
    """

    def __init__(
        self,
        encoder: Encoder,
        bottleneck: LearnedBottleneck,
        distortion: Distortion,
        lmbda: float | None,
        pixels: float,
        encoder_lr: float = 1e-4,
        lr: float = 1e-3,
        density_lr: float = 1e-2,
        optimizer: OptimizerFactory = torch.optim.AdamW,
    ) -> None:
        super().__init__()
        check_lmbda(lmbda)
        self.encoder = encoder
        self.teacher = frozen_copy(encoder)
        self.bottleneck = bottleneck
        self.distortion = distortion
        self.lmbda = lmbda
        self.pixels = pixels
        self.rates = {
            "encoder": encoder_lr,
            "transform": lr,
            "density": density_lr,
            "auxiliary": density_lr,
        }
        self.optimizer = optimizer

    def start(self, y: Tensor) -> None:
        """Fit what has a closed form to train embeddings (N, D, h, w) float32, before training."""
        self.distortion.fit(y)
        self.bottleneck.fit(y)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Rate + lmbda * distortion, and what likelihood alone cannot train."""
        return self._step(batch, "train") + self.bottleneck.auxiliary_loss()

    def validation_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """On rounded symbols and the full grid."""
        return self._step(batch, "val")

    def _step(self, batch: Batch, phase: str) -> Tensor:
        trade = self.distortion(batch, self.encoder, self.teacher, self.bottleneck)
        bpp = trade.estimated_bits.mean() / self.pixels
        loss = bpp + self.lmbda * trade.distortion
        values = {"loss": loss, "bpp": bpp, "distortion": trade.distortion}
        self.log_dict(
            {f"{phase}/{name}": value.detach() for name, value in values.items()},
            batch_size=len(batch["label"]),
            on_step=False,
            on_epoch=True,
            prog_bar=True,
        )
        return loss

    def configure_optimizers(self) -> dict[str, Any]:
        """One optimizer, a group per learning rate, one cosine over the whole training."""
        groups = [
            {"name": name, "params": parameters, "lr": self.rates[name], "weight_decay": 0.0}
            for name, parameters in self._groups().items()
            if parameters
        ]
        optimizer = self.optimizer(groups)
        steps = int(self.trainer.estimated_stepping_batches)
        warmup = max(1, steps // 20)

        def factor(step: int) -> float:
            if step < warmup:
                return (step + 1) / warmup
            return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip each group by itself: the auxiliary loss must not shrink the others' steps."""
        for group in optimizer.param_groups:
            norm = nn.utils.clip_grad_norm_(group["params"], gradient_clip_val or math.inf)
            self.log(f"gradient_norm/{group['name']}", norm)

    def _groups(self) -> dict[str, list[nn.Parameter]]:
        groups = self.bottleneck.parameter_groups()
        return {
            "encoder": [p for p in self.encoder.parameters() if p.requires_grad],
            **groups,
            "transform": groups["transform"] + list(self.distortion.parameters()),
        }


def check_lmbda(lmbda: float | None) -> None:
    """Refuse a missing lambda and one that weighs nothing."""
    if lmbda is None:
        raise ValueError("lmbda is missing; a learned bottleneck needs a weight > 0, set lmbda=3")
    if not (math.isfinite(lmbda) and lmbda > 0):
        raise ValueError(f"lmbda is {lmbda}; it weighs the distortion and must be > 0, set lmbda=3")


def frozen_copy(encoder: Encoder) -> Encoder:
    """The teacher: the encoder as it was before adaptation, or itself where nothing may learn."""
    if not any(p.requires_grad for p in encoder.parameters()):
        return encoder
    teacher = copy.deepcopy(encoder).requires_grad_(False).eval()
    return teacher
