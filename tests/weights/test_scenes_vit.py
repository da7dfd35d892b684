from importlib.resources import files

import torch
from safetensors.torch import load

from nec.encoders import Encoder

WEIGHTS = files("nec.weights") / "scenes_vit.safetensors"


def test_shipped_weights_are_small_half_precision_and_finite() -> None:
    content = WEIGHTS.read_bytes()
    assert len(content) <= 5_000_000
    for name, value in load(content).items():
        assert value.dtype == torch.float16, name
        assert torch.isfinite(value).all(), name


def test_shipped_weights_are_those_of_the_encoder_that_they_are_named_for() -> None:
    encoder = Encoder(
        "vit_tiny_patch16_224",
        checkpoint="nec:scenes_vit.safetensors",
        in_chans=4,
        image_size=96,
        architecture={"embed_dim": 160, "depth": 4, "patch_size": 8, "num_heads": 5},
    )
    assert (encoder.channels, encoder.grid, encoder.block) == (160, (12, 12), 4)
