"""timm ViT -> grid of patch embeddings."""

import hashlib
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nec.backbones import create
from nec.checkpoints import RANDOM, check_there, load

# Pixel value that stands for 1.0, by integer type; floats are not scaled.
FULL_SCALE = {torch.uint8: 255.0, torch.int16: 32767.0, torch.uint16: 65535.0}


class Encoder(nn.Module):
    """A timm ViT up to a block; returns patch tokens as a grid, without CLS or register tokens.

    Everything is frozen until an adapter lowers `split`, and always stays in `eval()`:

    ```
    image ─ preprocess ─► pixels ─┬─ embed ─ attn₁ ─ mlp₁ ─ … ─┬─ … ─ attnₙ ─ mlpₙ ─┬─► y
    (C,H,W)              (B,C,S,S)└──── prefix, `split` stages ─┴──── suffix ────────┘ (B,D,h,w)
    ```

    A stage is the patch embedding, or half a block: attention or MLP with its norm and scale.

    Args:
        name: Name of a ViT in timm.
        pretrained: Download timm's weights.
        checkpoint: Local weights under timm's names, .safetensors or .pt (tensors only), loaded
            strictly; "nec:FILE" is one that ships with nec, "random" means untrained weights.
        block: Number of blocks that are run; None: all.
        normalized: Apply the ViT's final norm to the tokens.
        in_chans: C, bands of an image. A checkpoint for another number is adapted as timm does.
        image_size: S, side that a whole image is resized to (bicubic, antialiased), in pixels.
        full_scale: Pixel value that stands for 1.0; None: the largest of an integer type (255,
            65535), 1.0 for floats. Reflectances in 0..10000 take 10000.
        mean: One value or one per band, subtracted from scaled pixels; None: what the ViT was
            trained with if that has C bands, otherwise 0.5.
        std: Same form and default as mean; divides the pixels after that.
        architecture: Arguments of the ViT that differ from what its name implies.

    Raises:
        ValueError: If there is no such ViT, the weights are not its own, it has no such block, its
            patch size does not divide image_size, or full_scale is no number > 0.
    """

    def __init__(
        self,
        name: str,
        pretrained: bool = False,
        checkpoint: str | None = None,
        block: int | None = None,
        normalized: bool = False,
        in_chans: int = 3,
        image_size: int = 224,
        full_scale: float | None = None,
        mean: float | Sequence[float] | None = None,
        std: float | Sequence[float] | None = None,
        architecture: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if full_scale is not None and not 0 < full_scale < math.inf:
            raise ValueError(
                f"full_scale is {full_scale}; the pixel value that stands for 1.0 is a number > 0, "
                "set encoder.full_scale=255, or null for the largest of the images' type"
            )
        self.check_weights(name, pretrained, checkpoint)
        with torch.random.fork_rng(devices=[]):  # untrained weights are the same every time
            torch.manual_seed(0)
            hub = pretrained and checkpoint is None
            vit = create(name, hub, in_chans, image_size, architecture)
        if checkpoint is not None and checkpoint != RANDOM:
            load(vit, name, checkpoint)
        depth = len(vit.blocks)
        self.block = depth if block is None else block
        if not 1 <= self.block <= depth:
            raise ValueError(f"block is {block}; {name} has 1 to {depth}, set encoder.block")
        vit.blocks = vit.blocks[: self.block]
        vit.norm = vit.norm if normalized else nn.Identity()
        self.name, self.normalized, self.image_size = name, normalized, image_size
        self.full_scale = full_scale
        self.architecture = dict(architecture or {})
        self.vit = vit.requires_grad_(False).eval()
        self.channels: int = vit.embed_dim
        self.grid: tuple[int, int] = tuple(vit.patch_embed.grid_size)
        self.patch_size: int = vit.patch_embed.patch_size[0]
        self.bands = in_chans
        self.mean = _per_band("mean", mean, vit.pretrained_cfg.get("mean"), in_chans)
        self.std = _per_band("std", std, vit.pretrained_cfg.get("std"), in_chans)
        self.stages = 1 + 2 * self.block
        self.split = self.stages

    @staticmethod
    def check_weights(name: str, pretrained: bool, checkpoint: str | None) -> None:
        """Refuse arguments that name no weights, before anything is built.

        Raises:
            ValueError: If neither weights of the hub nor local ones are asked for.
            FileNotFoundError: If the local ones are missing.
        """
        if checkpoint is not None:
            check_there(checkpoint)
        elif not pretrained:
            raise ValueError(
                f"encoder {name} has no weights: set encoder.pretrained=true (downloads timm's), "
                f"encoder.checkpoint=FILE, or encoder.checkpoint={RANDOM} for an untrained one"
            )

    def preprocess(self, image: Tensor) -> Tensor:
        """Scale, normalize and resize an image (C, H, W) of any type to (C, S, S) float32.

        Raises:
            ValueError: If the number of bands is another, or a value is NaN or infinite.
        """
        if image.ndim != 3 or len(image) != self.bands:
            bands = len(image) if image.ndim == 3 else f"shape {tuple(image.shape)}, no"
            raise ValueError(
                f"has {bands} bands, encoder {self.name} takes {self.bands}; "
                "set encoder.in_chans, or give images of that many bands"
            )
        pixels = image.float()
        if not torch.isfinite(pixels).all():
            raise ValueError(
                f"has {int((~torch.isfinite(pixels)).sum())} values that are NaN or infinite; "
                "fill or drop them before encoding"
            )
        scale = self.full_scale or FULL_SCALE.get(image.dtype, 1.0)
        pixels = (pixels / scale - self.mean) / self.std
        size = (self.image_size, self.image_size)
        if pixels.shape[1:] == size:
            return pixels
        return F.interpolate(pixels[None], size, mode="bicubic", antialias=True)[0]

    def forward(self, image: Tensor, visible: Tensor | None = None) -> Tensor:
        """Embed pixels.

        Args:
            image: (B, C, S, S) float32, preprocessed.
            visible: (B, K) int64, indices of the patches to see, row-major; None: all patches.

        Returns:
            (B, D, h, w); (B, D, K, 1) if only K patches are visible.
        """
        return self._read_out(self._run(image, 0, self.stages, visible))

    def prefix(self, image: Tensor) -> Tensor:
        """Run the frozen stages on pixels (B, C, S, S): tokens (B, T, D), or pixels if no stage."""
        return self._run(image, 0, self.split)

    def suffix(self, tokens: Tensor) -> Tensor:
        """Run the remaining stages: the result of `prefix` -> embeddings (B, D, h, w)."""
        return self._read_out(self._run(tokens, self.split, self.stages))

    def embed(self, batch: Mapping[str, Any]) -> Tensor:
        """Embed a batch of `image` (B, C, S, S), or of its `tokens` from `prefix`."""
        if "tokens" in batch:
            return self.suffix(batch["tokens"])
        return self(batch["image"])

    @torch.inference_mode()
    def embed_all(self, batches: Iterable[Mapping[str, Any]], device: torch.device) -> Tensor:
        """Embed all batches: (N, D, h, w) float32, on the CPU.

        Raises:
            ValueError: If an embedding holds NaN or infinities; names its image.
        """
        self.to(device)
        parts = []
        for batch in batches:
            there = {k: batch[k].to(device) for k in ("image", "tokens") if k in batch}
            y = self.embed(there).float().cpu()
            check_finite(y, batch["id"])
            parts.append(y)
        return torch.cat(parts)

    def train(self, mode: bool = True) -> "Encoder":
        """Stay in `eval()`: an adapted encoder has no dropout either."""
        return super().train(False)

    def stage_parameters(self) -> list[list[nn.Parameter]]:
        """Return each stage's parameters; the final norm, if applied, belongs to the last."""
        halves: list[list[nn.Parameter]] = []
        for block in self.vit.blocks:
            halves.append([*_parameters(block.norm1, block.attn, block.ls1)])
            halves.append([*_parameters(block.norm2, block.mlp, block.ls2)])
        halves[-1] += _parameters(self.vit.norm)
        later = {id(p) for half in halves for p in half}
        embedding = [p for p in self.vit.parameters() if id(p) not in later]
        return [embedding, *halves]

    def open(self, stages: int) -> None:
        """Let the last `stages` stages learn."""
        self.split = self.stages - stages
        for index, parameters in enumerate(self.stage_parameters()):
            for parameter in parameters:
                parameter.requires_grad_(index >= self.split)

    def trainable_state(self) -> dict[str, Tensor]:
        """Return the parameters that an adapter opened, by name in the ViT."""
        return {n: p.detach() for n, p in self.vit.named_parameters() if p.requires_grad}

    def weights_sha256(self) -> str:
        """Hash the weights that are run; 64 hexadecimal digits."""
        digest = hashlib.sha256()
        for key, value in sorted(self.vit.state_dict().items()):
            digest.update(f"{key} {tuple(value.shape)}".encode())
            digest.update(value.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    def describe(self) -> dict[str, Any]:
        """Describe the origin of an embedding for its consumers (JSON)."""
        return {
            "name": self.name,
            "architecture": self.architecture,
            "weights_sha256": self.weights_sha256(),
            "block": self.block,
            "normalized": self.normalized,
            "bands": self.bands,
            "image_size": self.image_size,
            "patch_size": self.patch_size,
            "resize": "whole image, bicubic, antialiased",
            "full_scale": self.full_scale or "largest of the integer type, 1 for floats",
            "mean": self.mean.flatten().tolist(),
            "std": self.std.flatten().tolist(),
        }

    def prefix_sha256(self) -> str:
        """Hash what determines `preprocess` and `prefix`; 64 hexadecimal digits."""
        made = repr((sorted(self.describe().items()), self.split))
        return hashlib.sha256(made.encode()).hexdigest()

    def _run(self, x: Tensor, start: int, stop: int, visible: Tensor | None = None) -> Tensor:
        """Run stages start to stop - 1."""
        for stage in range(start, stop):
            if stage == 0:
                x = self._embed(x, visible)
                continue
            block = self.vit.blocks[(stage - 1) // 2]
            if stage % 2:
                x = x + block.ls1(block.attn(block.norm1(x)))
            else:
                x = x + block.ls2(block.mlp(block.norm2(x)))
        return x

    def _embed(self, image: Tensor, visible: Tensor | None) -> Tensor:
        """Pixels (B, C, S, S) -> tokens with positions (B, T, D), CLS and registers first."""
        with _float32_convolutions():
            tokens = self.vit._pos_embed(self.vit.patch_embed(image))
        if visible is not None:
            extra = self.vit.num_prefix_tokens
            index = visible[:, :, None].expand(-1, -1, tokens.shape[2])
            tokens = torch.cat([tokens[:, :extra], tokens[:, extra:].gather(1, index)], dim=1)
        return self.vit.norm_pre(tokens)

    def _read_out(self, tokens: Tensor) -> Tensor:
        """Tokens (B, T, D) -> grid (B, D, h, w), or (B, D, K, 1) of K visible patches."""
        patches = self.vit.norm(tokens)[:, self.vit.num_prefix_tokens :].transpose(1, 2)
        height, width = self.grid
        whole = patches.shape[2] == height * width
        return patches.unflatten(2, (height, width) if whole else (-1, 1))


def _per_band(
    name: str, given: float | Sequence[float] | None, trained: Sequence[float] | None, bands: int
) -> Tensor:
    """Return the mean or std of each band: (C, 1, 1) float32."""
    if given is None:
        given = trained if trained is not None and len(trained) == bands else 0.5
    values = [float(given)] * bands if isinstance(given, int | float) else [*map(float, given)]
    if len(values) != bands or (name == "std" and min(values) <= 0):
        raise ValueError(
            f"{name} is {values}; give one value for each of {bands} bands"
            f"{', each > 0' if name == 'std' else ''}, set encoder.{name}"
        )
    return torch.tensor(values)[:, None, None]


@contextmanager
def _float32_convolutions() -> Iterator[None]:
    """Switch TF32 off for a while: torch has it on for convolutions, with 10 bits of a factor."""
    cudnn = torch.backends.cudnn
    before, cudnn.allow_tf32 = cudnn.allow_tf32, False
    try:
        yield
    finally:
        cudnn.allow_tf32 = before


def _parameters(*modules: nn.Module) -> list[nn.Parameter]:
    return [p for module in modules for p in module.parameters()]


def check_finite(y: Tensor, ids: Sequence[str]) -> None:
    """Raise ValueError if embeddings (n, D, h, w) are not finite; names an image of ids (n)."""
    finite = y.flatten(1).isfinite().all(dim=1).tolist()
    if wrong := [name for name, good in zip(ids, finite, strict=True) if not good]:
        raise ValueError(
            f"the embedding of image {wrong[0]!r} holds NaN or infinities ({len(wrong)} of a batch "
            f"of {len(ids)} do); look for no-data values in it, and fill or leave it out"
        )
