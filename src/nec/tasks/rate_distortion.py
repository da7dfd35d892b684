"""Adaptation: make embeddings cheaper while they stay what they were."""

import copy
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn

from nec import chance
from nec.adapters import Adapter
from nec.bottlenecks import LearnedBottleneck
from nec.distortions import Batch, Distortion
from nec.encoders import Encoder
from nec.tasks.means import mean_over_ranks

OptimizerFactory = Callable[[Iterable[Mapping[str, Any]]], torch.optim.Optimizer]
BottleneckFactory = Callable[[int, tuple[int, int]], LearnedBottleneck]
DistortionFactory = Callable[[Encoder], Distortion]


class RateDistortionAdaptation(LightningModule):
    """Adapt an encoder so that its embeddings cost fewer bits.

    Minimizes ``estimated bits per pixel + lmbda * distortion``, a mean over the images of a step,
    whichever ranks hold them. Gradients of the rate never reach the densities' quantiles and the
    auxiliary loss reaches only them, so one optimizer with parameter groups serves both.

    What has a closed form is fitted to the data module's train split when a first fit starts, on
    one process, and given to all. Noise, masks and order follow from seed, epoch and image, so that
    neither the number of processes nor an interruption changes what is learned.

    Args:
        encoder: Maps images (B, C, S, S) to embeddings (B, D, h, w).
        adapter: Opens the part of the encoder that may learn.
        bottleneck: Prices and quantizes embeddings; called with their channels and grid.
        distortion: What must be kept, a mean over elements; called with the encoder.
        lmbda: Weight of the distortion, > 0.
        seed: Seed of initial weights, of the sample to fit to, and of randomness in training.
        encoder_lr: Peak learning rate of the adapted encoder.
        lr: Peak learning rate of transforms and of the distortion's decoder.
        density_lr: Peak learning rate of gains, densities and quantiles.
        optimizer: Called with the parameter groups to train, which have learning rates and weight
            decay (0) of their own.

    Raises:
        ValueError: A lambda that weighs nothing, an adapter's share that fits nothing, or a rate
            below 0.
    """

    def __init__(
        self,
        encoder: Encoder,
        adapter: Adapter,
        bottleneck: BottleneckFactory,
        distortion: DistortionFactory,
        lmbda: float,
        seed: int = 0,
        encoder_lr: float = 1e-4,
        lr: float = 1e-3,
        density_lr: float = 1e-2,
        optimizer: OptimizerFactory = torch.optim.AdamW,
    ) -> None:
        super().__init__()
        self.lmbda = checked_lmbda(lmbda)
        _check_rates(encoder_lr=encoder_lr, lr=lr, density_lr=density_lr)
        self.seed = seed
        self.encoder = encoder
        self.encoder_sha256 = encoder.weights_sha256()
        self.opened = adapter.open(encoder)
        self.teacher = frozen_copy(encoder)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.bottleneck = bottleneck(encoder.channels, encoder.grid)
            self.distortion = distortion(encoder)
        # Pixels of an image, native or as the encoder gets it, whichever are fewer; 0: not fitted.
        self.register_buffer("pixels", torch.tensor(0.0))
        self.rates = {
            "encoder": encoder_lr,
            "transform": lr,
            "density": density_lr,
            "auxiliary": density_lr,
        }
        self.optimizer = optimizer
        self.validated_at: int | None = None  # step of the last validation

    def on_fit_start(self) -> None:
        """Fit what has a closed form, once, and give it to all ranks; a checkpoint holds it.

        Raises:
            RuntimeError: The ranks do not go on from the same checkpoint.
        """
        share = self.trainer.strategy.broadcast
        if share(bool(self.pixels)) != bool(self.pixels):
            raise RuntimeError(
                f"rank {self.trainer.global_rank} and rank 0 do not both find the checkpoint to go "
                "on from; all nodes must see the folder of the run"
            )
        if not self.pixels:
            if self.trainer.is_global_zero:
                self._start(self.trainer.datamodule)
            started = share({name: value.cpu() for name, value in self._trained_state().items()})
            self.load_state_dict(started, strict=False)

    def on_validation_start(self) -> None:
        """Refuse to measure what was never fitted."""
        self._check_fitted()

    def on_validation_end(self) -> None:
        """Remember which weights were validated."""
        if not self.trainer.sanity_checking:
            self.validated_at = self.trainer.global_step

    def on_test_start(self) -> None:
        """Refuse to test what was never fitted."""
        self._check_fitted()

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return rate + lmbda * distortion, plus the loss of what likelihood cannot train."""
        keys = chance.keys(self.seed, self.current_epoch, batch["id"]).to(self.device)
        loss = self._step(batch, "train", keys)
        return mean_over_ranks(loss, self.trainer) + self.bottleneck.auxiliary_loss()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Log means on val, with rounded symbols and the full grid."""
        self._step(batch, "val")

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Log means on test, with rounded symbols and the full grid."""
        self._step(batch, "test")

    def configure_optimizers(self) -> dict[str, Any]:
        """Return one optimizer with a group per learning rate, and a warm-up and cosine for all."""
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
        largest = gradient_clip_val or math.inf
        by_value = gradient_clip_algorithm == "value"
        for group in optimizer.param_groups:
            parameters = group["params"]
            norm = nn.utils.clip_grad_norm_(parameters, math.inf if by_value else largest)
            self.log(f"gradient_norm/{group['name']}", norm)
            if by_value:
                nn.utils.clip_grad_value_(parameters, largest)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep what was trained, and the frozen encoder by name and hash."""
        checkpoint["state_dict"] = self._trained_state()
        checkpoint["encoder"] = {"name": self.encoder.name, "weights_sha256": self.encoder_sha256}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint of another adaptation; add the frozen part, which is our own.

        Raises:
            ValueError: It is of another encoder, adapter, bottleneck or distortion.
        """
        way_out = "give the config that it was trained with, or begin anew without the checkpoint"
        found = checkpoint.get("encoder", {"name": "none", "weights_sha256": ""})
        if found["weights_sha256"] != self.encoder_sha256:
            raise ValueError(
                f"the checkpoint was trained on encoder {found['name']} with weights "
                f"{found['weights_sha256'][:12]}, this one is {self.encoder.name} with "
                f"{self.encoder_sha256[:12]}; {way_out}"
            )
        trained, own = checkpoint["state_dict"], self._trained_state()
        if foreign := sorted(trained.keys() ^ own.keys()):
            raise ValueError(
                f"the checkpoint is of another adapter, bottleneck or distortion ({foreign[0]}"
                f"{', …' if len(foreign) > 1 else ''}); {way_out}"
            )
        checkpoint["state_dict"] = {**self.state_dict(), **trained}

    def _start(self, data: Any) -> None:
        """Fit distortion and bottleneck to train embeddings, as they are before training."""
        if data is None:
            raise ValueError(
                "adaptation starts from the train split of a data module; call "
                "trainer.fit(task, datamodule=...)"
            )
        y = self.encoder.embed_all(data.sample(self.seed), self.device).to(self.device)
        self.distortion.fit(y)
        self.bottleneck.fit(y)
        self.pixels.fill_(data.pixels_up_to(self.encoder.image_size**2))

    def _check_fitted(self) -> None:
        if not self.pixels:
            raise ValueError("nothing is trained yet; give a checkpoint, as in --ckpt_path FILE")

    def _step(self, batch: Batch, phase: str, keys: Tensor | None = None) -> Tensor:
        """Log a batch's means; return its losses (B,)."""
        trade = self.distortion(batch, self.encoder, self.teacher, self.bottleneck, keys)
        bpp = trade.estimated_bits / self.pixels
        loss = bpp + self.lmbda * trade.distortion
        values = {"loss": loss, "bpp": bpp, "distortion": trade.distortion}
        self.log_dict(
            {f"{phase}/{name}": value.detach().mean() for name, value in values.items()},
            batch_size=len(loss),
            on_step=False,
            on_epoch=True,
            prog_bar=True,
            sync_dist=True,
        )
        return loss

    def _groups(self) -> dict[str, list[nn.Parameter]]:
        groups = self.bottleneck.parameter_groups()
        return {
            "encoder": [p for p in self.encoder.parameters() if p.requires_grad],
            **groups,
            "transform": groups["transform"] + list(self.distortion.parameters()),
        }

    def _trained_state(self) -> dict[str, Tensor]:
        """All but the teacher and the frozen part of the encoder, by name in the state dict."""
        opened = {f"encoder.vit.{name}" for name in self.encoder.trainable_state()}
        return {
            name: value
            for name, value in self.state_dict().items()
            if name in opened or not name.startswith(("encoder.", "teacher."))
        }


def checked_lmbda(lmbda: float | None) -> float:
    """Refuse a missing lambda and one that weighs nothing."""
    if lmbda is None:
        raise ValueError("lmbda is missing; a learned bottleneck needs a weight > 0, set lmbda=3")
    if not (math.isfinite(lmbda) and lmbda > 0):
        raise ValueError(f"lmbda is {lmbda}; it weighs the distortion and must be > 0, set lmbda=3")
    return float(lmbda)


def _check_rates(**rates: float) -> None:
    for name, rate in rates.items():
        if not (math.isfinite(rate) and rate >= 0):
            raise ValueError(
                f"{name} is {rate}; a learning rate is 0 or more, as in adaptation.{name}=0.001"
            )


def frozen_copy(encoder: Encoder) -> Encoder:
    """Return the teacher: the encoder before adaptation, or itself if nothing may learn."""
    if not any(p.requires_grad for p in encoder.parameters()):
        return encoder
    teacher = copy.deepcopy(encoder).requires_grad_(False).eval()
    return teacher
