"""Train the demo's encoder: a few patches of a scene in, land cover there and around them out.

The scenes come from another seed than the demo's, and their classes are never looked at.

    python experiments/scenes_encoder/train.py src/nec/weights/scenes_vit.safetensors
"""

import argparse
import math
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from rich.progress import track
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from nec.data.scenes import COVERS, SceneImages
from nec.encoders import Encoder

GENERATOR_SEED = 1  # the demo's scenes have 0
ARCHITECTURE = {"embed_dim": 160, "depth": 4, "patch_size": 8, "num_heads": 5}
VISIBLE = 0.35  # share of the patches that the encoder sees
PARTS = 2  # a patch's land cover is predicted in 2 x 2 parts
NEIGHBOURHOODS = (3, 7, 15)  # sides of squares around a patch, of which it also predicts, patches
LEARNING_RATE = 1.5e-3
WARM_UP = 0.05


class Pretraining(nn.Module):
    """An encoder that sees some patches, and what it is asked about them and around them."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder
        # Read off the encoder's own tokens by one matrix, so that heads can do so as well.
        self.cover = nn.Linear(encoder.channels, len(COVERS) * PARTS**2)
        self.surroundings = nn.Linear(encoder.channels, len(COVERS) * len(NEIGHBOURHOODS))

    def forward(self, image: Tensor, mask: Tensor) -> Tensor:
        """Mean loss of images (B, C, S, S) float32 with land cover (B, S, S) uint8."""
        patches = self.encoder.grid[0] * self.encoder.grid[1]
        seen = torch.rand(len(image), patches).argsort(1)[:, : round(VISIBLE * patches)]
        tokens = self.encoder(image, seen).flatten(2).transpose(1, 2)  # (B, K, D)
        own, around = cover_targets(mask, self.encoder.patch_size)
        near = shares_loss(self.surroundings(tokens), pick(around, seen))
        return near + shares_loss(self.cover(tokens), pick(own, seen))


def pick(tokens: Tensor, index: Tensor) -> Tensor:
    """Tokens (B, T, D) at places (B, K): (B, K, D)."""
    return tokens.gather(1, index[:, :, None].expand(-1, -1, tokens.shape[2]))


def cover_targets(mask: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Shares of covers in the parts of each patch, and in squares around it: both (B, T, n · 7)."""
    covers = len(COVERS)
    planes = (mask[:, None] == torch.arange(covers)[:, None, None]).float()
    parts = F.avg_pool2d(planes, size // PARTS)
    own = F.pixel_unshuffle(parts, PARTS).view(len(mask), covers, PARTS**2, -1)
    shares = F.avg_pool2d(parts, PARTS)
    around = [
        F.avg_pool2d(shares, side, 1, side // 2, count_include_pad=False).flatten(2)
        for side in NEIGHBOURHOODS
    ]
    # (B, covers, n, T) -> (B, T, n · covers)
    return tuple(x.permute(0, 3, 2, 1).flatten(2) for x in (own, torch.stack(around, 2)))


def shares_loss(logits: Tensor, shares: Tensor) -> Tensor:
    """Cross-entropy of shares (B, K, n · 7), 7 by 7."""
    covers = len(COVERS)
    return F.cross_entropy(
        logits.unflatten(2, (-1, covers)).flatten(0, 2),
        shares.unflatten(2, (-1, covers)).flatten(0, 2),
    )


def draw(per_class: int, encoder: Encoder, workers: int) -> tuple[Tensor, Tensor]:
    """Scenes (N, C, S, S) and their land cover (N, S, S), uint8."""
    scenes = SceneImages("train", per_class, encoder.image_size, (GENERATOR_SEED, 0))
    loader = DataLoader(scenes, batch_size=100, num_workers=workers)
    batches = [(b["image"], b["mask"]) for b in track(loader, "drawing scenes")]
    images, masks = zip(*batches, strict=True)
    return torch.cat(images), torch.cat(masks)


def batches(count: int, size: int, epochs: int) -> Iterator[Tensor]:
    """Indices of every batch of every epoch; the last, smaller one of an epoch is dropped."""
    for _ in range(epochs):
        yield from torch.randperm(count)[: count // size * size].split(size)


def turned(image: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """A batch in one of the eight positions of a square."""
    turns = int(torch.randint(4, ()))
    image, mask = image.rot90(turns, (-2, -1)), mask.rot90(turns, (-2, -1))
    return (image.mT, mask.mT) if torch.rand(()) < 0.5 else (image, mask)


def train(model: Pretraining, images: Tensor, masks: Tensor, args: argparse.Namespace) -> None:
    """AdamW with warm-up and a cosine."""
    steps = args.epochs * (len(images) // args.batch_size)
    optimizer = torch.optim.AdamW(model.parameters(), LEARNING_RATE, (0.9, 0.95), weight_decay=0.05)

    def rate(step: int) -> float:
        cosine = 0.5 + 0.5 * math.cos(math.pi * step / steps)
        return min((step + 1) / (WARM_UP * steps), cosine)

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
    encoder, mean_loss = model.encoder, float("nan")
    order = batches(len(images), args.batch_size, args.epochs)
    for step, index in enumerate(track(order, "training", total=steps)):
        image, mask = turned(images[index], masks[index])
        image = (image.float() / 255 - encoder.mean) / encoder.std
        loss = model(image, mask)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        mean_loss = loss.item() if step == 0 else 0.98 * mean_loss + 0.02 * loss.item()
        if (step + 1) % 100 == 0:
            print(f"step {step + 1} of {steps}, loss {mean_loss:.3f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="the .safetensors to write")
    parser.add_argument("--per-class", type=int, default=250, help="scenes that are drawn")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--workers", type=int, default=2, help="processes that draw")
    args = parser.parse_args()
    start = time.perf_counter()
    torch.manual_seed(0)
    encoder = Encoder(
        "vit_tiny_patch16_224",
        checkpoint="random",
        in_chans=4,
        image_size=96,
        architecture=ARCHITECTURE,
    )
    encoder.open(encoder.stages)
    model = Pretraining(encoder)
    train(model, *draw(args.per_class, encoder, args.workers), args)
    encoder.vit.norm = nn.LayerNorm(encoder.channels, eps=1e-6)  # as timm has it; not trained
    state = {name: value.half().contiguous() for name, value in encoder.vit.state_dict().items()}
    save_file(state, args.out, {"made_by": "experiments/scenes_encoder/train.py"})
    size = args.out.stat().st_size
    print(f"{args.out}: {size} bytes, {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
