"""Loading a ViT's weights from a file, with checks that they fit."""

import logging
from collections.abc import Mapping
from importlib.resources import as_file, files
from pathlib import Path
from pickle import UnpicklingError

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.layers import resample_abs_pos_embed
from timm.models import adapt_input_conv
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

log = logging.getLogger(__name__)

# Prefix in a config of a checkpoint that ships with nec.
SHIPPED = "nec:"
# Untrained weights instead of a file, as a baseline for what training the encoder is worth.
RANDOM = "random"
# Prefixes of pooling and classifier weights, which no embedding passes through.
UNUSED = ("head.", "fc_norm.", "attn_pool.")


def load(vit: VisionTransformer, name: str, checkpoint: str) -> None:
    """Load weights strictly; those that must be resampled to fit are, with a warning.

    Args:
        vit: The ViT to load into. Positions of another grid and patch weights for another number
            of bands are resampled to fit.
        name: Name of the ViT, for errors.
        checkpoint: A .safetensors file, or a .pt file of tensors only; "nec:FILE" ships with nec.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file cannot be read, or its weights are of another model.
    """
    state = _read(checkpoint)
    own = vit.state_dict()
    for key in [k for k in state if k.startswith(UNUSED) and k not in own]:
        del state[key]
    resampled = []
    for key, resample in (("pos_embed", _positions), ("patch_embed.proj.weight", _bands)):
        if key in state and key in own and state[key].shape != own[key].shape:
            before = tuple(state[key].shape)
            state[key] = resample(state[key].float(), own[key], vit)
            resampled.append(f"{key} {before} -> {tuple(own[key].shape)}")
    _check(state, own, name, checkpoint)
    vit.load_state_dict({k: v.float() for k, v in state.items()}, strict=True)
    if resampled:
        log.warning("checkpoint %s was resampled: %s", checkpoint, ", ".join(resampled))


def _check(
    state: Mapping[str, Tensor], own: Mapping[str, Tensor], name: str, checkpoint: str
) -> None:
    """Raise ValueError for weights that differ from the ViT's own in name or shape."""
    missing = sorted(own.keys() - state.keys())
    foreign = sorted(state.keys() - own.keys())
    shaped = [
        f"{k} {tuple(state[k].shape)} for {tuple(own[k].shape)}"
        for k in sorted(own.keys() & state.keys())
        if state[k].shape != own[k].shape
    ]
    if missing or foreign or shaped:
        found = [
            f"{len(keys)} {what} ({keys[0]}{', …' if len(keys) > 1 else ''})"
            for keys, what in ((missing, "missing"), (foreign, "foreign"), (shaped, "misshapen"))
            if keys
        ]
        raise ValueError(
            f"checkpoint {checkpoint} is not of {name}: {', '.join(found)}; give its own weights, "
            "or set encoder.name and encoder.architecture to what they are of"
        )


def check_there(checkpoint: str) -> None:
    """Refuse a local checkpoint whose file is missing.

    Raises:
        FileNotFoundError: If there is no such file.
    """
    local = checkpoint != RANDOM and not checkpoint.startswith(SHIPPED)
    if local and not Path(checkpoint).expanduser().is_file():
        raise FileNotFoundError(
            f"checkpoint {checkpoint} is not a file; set encoder.checkpoint to .safetensors or .pt"
        )


def _read(checkpoint: str) -> dict[str, Tensor]:
    """Read the tensors of a file by name; nothing else is unpickled."""
    if checkpoint.startswith(SHIPPED):
        with as_file(files("nec.weights") / checkpoint.removeprefix(SHIPPED)) as path:
            return _read(str(path))
    check_there(checkpoint)
    path = Path(checkpoint).expanduser()
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        raise ValueError(
            f"checkpoint {checkpoint} cannot be read: {str(error).splitlines()[0]}"
        ) from error
    for key in ("state_dict", "model"):
        if isinstance(state, dict):
            state = state.get(key, state)
    if not isinstance(state, dict):
        raise ValueError(
            f"checkpoint {checkpoint} holds a {type(state).__name__} where tensors by name are "
            "needed; save what state_dict() of the ViT returns"
        )
    return {k: v for k, v in state.items() if isinstance(k, str) and isinstance(v, Tensor)}


def _positions(found: Tensor, own: Tensor, vit: VisionTransformer) -> Tensor:
    """Resample positions (1, T, D) of another grid, bicubic, antialiased; CLS keeps its own."""
    extra = 0 if vit.no_embed_class else vit.num_prefix_tokens
    side = round((found.shape[1] - extra) ** 0.5)
    if found.ndim != 3 or found.shape[2] != own.shape[2] or side**2 + extra != found.shape[1]:
        return found  # another architecture: the strict check reports it
    return resample_abs_pos_embed(
        found, list(vit.patch_embed.grid_size), [side, side], num_prefix_tokens=extra
    )


def _bands(found: Tensor, own: Tensor, vit: VisionTransformer) -> Tensor:
    """Adapt patch weights (D, C', p, p) to another number of bands, as timm does."""
    if found.ndim != 4 or found.shape[1] != 3:
        return found
    return adapt_input_conv(own.shape[1], found)
