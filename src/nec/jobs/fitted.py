"""The codec folder that a run leaves: encoder and bottleneck come back from it as they were."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import OmegaConf
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from nec import config as configs
from nec.bottlenecks import Bottleneck
from nec.encoders import Encoder
from nec.store.codec import Codec, codec_from_config
from nec.store.schema import EMBEDDING

RECORD = "codec.json"


class Fitted(NamedTuple):
    """What a codec folder says."""

    folder: Path
    encoder: dict[str, Any]  # as `Encoder.describe` told it, once it was adapted
    options: dict[str, Any]  # of the nodes encoder and bottleneck, with their defaults
    codecs: dict[str, Codec]  # by layer


def open_codec(path: str | Path) -> Fitted:
    """Read the codec folder of a run.

    Args:
        path: The folder of a run, or `codec` in it.

    Raises:
        FileNotFoundError: There is no codec.json.
        ValueError: It is damaged, or an older nec wrote it.
    """
    folder = Path(path).expanduser()
    if not (folder / RECORD).is_file():
        folder = folder / "codec"
    record = folder / RECORD
    if not record.is_file():
        raise FileNotFoundError(
            f"{path} holds no {RECORD}; give the folder of a finished run, or codec in it (one on "
            "coded pixels has none)"
        )
    try:
        about = json.loads(record.read_text(encoding="utf-8"))
        layers = {EMBEDDING: about["codec"], **about.get("layers", {})}
        codecs = {name: codec_from_config(layer) for name, layer in layers.items()}
        return Fitted(folder, about["encoder"], about["options"], codecs)
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"{record} has no {error}, an older nec wrote it or it is none; run it again"
        ) from None
    except ValueError as error:
        raise ValueError(f"{record} cannot be read: {error}") from None


def build_encoder(fitted: Fitted, checkpoint: str | None = None) -> Encoder:
    """Build the encoder of a codec folder, with its adapted weights.

    Args:
        fitted: The codec folder.
        checkpoint: Where its weights lie now; None: where the run found them.

    Raises:
        ValueError: The weights are not those of the run.
    """
    node = dict(fitted.options["encoder"])
    if checkpoint is not None:
        node |= {"checkpoint": checkpoint, "pretrained": False}
    try:
        encoder: Encoder = configs.build(OmegaConf.create(node))
    except FileNotFoundError:
        raise FileNotFoundError(
            f"{node['checkpoint']}, the weights of encoder {node['name']}, is not a file here; "
            "give --checkpoint FILE"
        ) from None
    encoder.vit.load_state_dict(_tensors(fitted.folder / "encoder.safetensors"), strict=False)
    _check_encoder(fitted, encoder, "give --checkpoint FILE with those")
    return encoder


def build_bottleneck(fitted: Fitted, encoder: Encoder) -> Bottleneck:
    """Build the bottleneck of a codec folder, fitted."""
    node = OmegaConf.create(fitted.options["bottleneck"])
    bottleneck: Bottleneck = configs.build(node, encoder.channels, encoder.grid)
    restore(fitted, bottleneck)
    return bottleneck


def restore(fitted: Fitted, bottleneck: Bottleneck) -> None:
    """Restore a bottleneck from a codec folder, instead of fitting it.

    Raises:
        ValueError: The folder does not fit it, or its files do not belong together.
    """
    try:
        bottleneck.restore(_tensors(fitted.folder / "bottleneck.safetensors"), fitted.codecs)
    except ValueError as error:
        raise ValueError(f"{fitted.folder}: {error}") from error
    # Floats turn what was learned into tables, and another machine may round them differently.
    exported = {name: layer.export().sha256 for name, layer in bottleneck.layers().items()}
    found = {name: codec.sha256 for name, codec in fitted.codecs.items()}
    if not bottleneck.learned and exported != found:
        raise ValueError(
            f"{fitted.folder}: bottleneck.safetensors and {RECORD} are not of one run; copy the "
            "folder anew"
        )


def check_fits(fitted: Fitted, encoder: Encoder, options: Mapping[str, Any]) -> None:
    """Refuse a codec of another encoder, or of another bottleneck than a config names.

    Args:
        fitted: The codec.
        encoder: Encoder whose embeddings it is to code.
        options: Options of the node bottleneck, with its defaults.
    """
    _check_encoder(fitted, encoder, "set encoder to what it was fitted for")
    own = json.loads(json.dumps(options))
    if (name := _differing(own, fitted.options["bottleneck"])) is not None:
        found, given = fitted.options["bottleneck"].get(name), own.get(name)
        key = "bottleneck" if name == "_target_" else f"bottleneck.{name}"
        way = "choose that one" if name == "_target_" else f"set {key}={found}"
        raise ValueError(
            f"{key} is {given}, codec={fitted.folder} was fitted as {found}; {way}, or give "
            "another codec"
        )


def _check_encoder(fitted: Fitted, encoder: Encoder, way: str) -> None:
    own = json.loads(json.dumps(encoder.describe()))
    if (name := _differing(own, fitted.encoder)) is not None:
        raise ValueError(
            f"{name} of encoder {encoder.name} is {_short(own.get(name))}, {fitted.folder} was "
            f"fitted with {_short(fitted.encoder.get(name))}; {way}"
        )


def _short(value: Any) -> str:
    """A value as an error shows it; of a hash only the beginning."""
    return str(value)[:60] if len(str(value)) != 64 else str(value)[:12]


def _differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> str | None:
    """The first key that two mappings differ in."""
    keys = sorted(one.keys() | other.keys())
    return next((key for key in keys if one.get(key) != other.get(key)), None)


def _tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a file by name; none where there is no file."""
    if not path.is_file():
        return {}
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} cannot be read: {error}; copy it anew") from error
