"""ViTs of timm: made by name, refused if nec does not run them block by block."""

from collections.abc import Mapping
from typing import Any

import timm
from timm.models.vision_transformer import Block, VisionTransformer
from torch import nn


def create(
    name: str,
    pretrained: bool,
    in_chans: int,
    image_size: int,
    architecture: Mapping[str, Any] | None,
) -> VisionTransformer:
    """Create a timm ViT of plain blocks for images of one size, without pooling and classifier.

    Args:
        name: Name of a ViT in timm.
        pretrained: Download timm's weights; otherwise they are drawn by torch's global generator.
        in_chans: Bands of an image.
        image_size: Side of an image, in pixels.
        architecture: Arguments of the ViT that differ from what its name implies.

    Raises:
        ValueError: If there is no such model, it is no plain ViT, it has no band or no block, its
            patch size does not divide image_size, or the hub does not give its weights.
    """
    if in_chans < 1:
        raise ValueError(
            f"in_chans is {in_chans}; an image has a band or more, set encoder.in_chans"
        )
    if not timm.is_model(name):
        near = timm.list_models(f"{name.split('_patch')[0]}*")[:5]
        raise ValueError(
            f"timm has no model {name!r}"
            + (f"; near it: {', '.join(near)}" if near else "; see timm.list_models('vit*')")
        )
    arguments = {"num_classes": 0, "in_chans": in_chans, "img_size": image_size}
    vit = _build(name, pretrained, arguments | dict(architecture or {}))
    if not isinstance(vit, VisionTransformer) or any(type(b) is not Block for b in vit.blocks):
        raise ValueError(f"{name} is not a plain ViT of timm; choose from timm.list_models('vit*')")
    if not len(vit.blocks):
        depth = dict(architecture or {}).get("depth")
        raise ValueError(
            f"depth is {depth}; a ViT has a block or more, set encoder.architecture.depth=12"
        )
    patch = vit.patch_embed.patch_size[0]
    if image_size % patch:
        raise ValueError(
            f"image_size is {image_size}; it must be a multiple of the patch size {patch} of "
            f"{name}, set encoder.image_size={image_size // patch * patch or patch}"
        )
    # Pooling and classifier are never run, so they do not count among the parameters.
    vit.attn_pool = None
    vit.fc_norm, vit.head = nn.Identity(), nn.Identity()
    return vit


def _build(name: str, pretrained: bool, arguments: dict[str, Any]) -> nn.Module:
    """Create a timm model, with weights from the hub or untrained."""
    try:
        return timm.create_model(name, pretrained=pretrained, **arguments)
    except (TypeError, AssertionError) as error:  # not a ViT, or wrong architecture arguments
        raise ValueError(f"encoder {name} cannot be built: {error}") from error
    except (OSError, RuntimeError) as error:
        if not pretrained:
            raise
        # The hub cannot be reached, has no weights of that name, or they do not fit.
        reason = " ".join(str(error).split()).partition(". ")[0]
        raise ValueError(
            f"encoder.pretrained=true, but timm's weights of {name} cannot be loaded from its hub "
            f"({reason}); give local ones, encoder.checkpoint=FILE"
        ) from error
