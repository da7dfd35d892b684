"""The description of a store, and what a writer has to know about its contents."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nec.store.base import Codec
from nec.store.chunks import choose_layout
from nec.store.schema import (
    LOST_SPLIT,
    RESERVED,
    Layout,
    canonical,
    checked_layers,
)

FIRST_LAYOUT = Layout(1, 1)  # for a layer without images


@dataclass(frozen=True)
class Description:
    """Description of a store, independent of the images in it.

    Args:
        codecs: Codec of each layer, by name; `embedding` must be among them and becomes the first.
        attrs: The user's attributes, JSON values.
        splits: Names of the splits.
        classes: Names of the classes; a label is an index into them.

    Raises:
        ValueError: If attrs are not JSON, or a name occurs twice or is not valid.
    """

    codecs: Mapping[str, Codec]
    attrs: Mapping[str, Any]
    splits: Sequence[str]
    classes: Sequence[str]

    def __post_init__(self) -> None:
        layers = checked_layers(self.codecs)
        object.__setattr__(self, "codecs", {name: self.codecs[name] for name in layers})
        object.__setattr__(self, "attrs", _checked_attrs(self.attrs))
        object.__setattr__(self, "splits", _checked_names(self.splits, "splits", LOST_SPLIT))
        most = np.iinfo(np.int32).max
        object.__setattr__(self, "classes", _checked_names(self.classes, "classes", most))


@dataclass
class HeldLayer:
    """State of a layer up to its last shard, which is still being filled.

    Attributes:
        layout: Layout on disk.
        fixed: Whether the layout is final, because the images have filled a shard.
        shards: Number of full shards before the last.
        tail: Streams in the last shard or, until a shard is full, in the only one.
    """

    layout: Layout = FIRST_LAYOUT
    fixed: bool = False
    shards: int = 0
    tail: list[bytes] = field(default_factory=list)

    def place(self, tail: list[bytes], layout: Layout) -> None:
        """Record the streams from the last shard on, as they were written in this layout."""
        self.layout = layout
        self.fixed = self.fixed or is_full(tail)
        full = len(tail) // layout.images if self.fixed else 0
        self.shards += full
        self.tail = tail[full * layout.images :]

    def suited(self, tail: Sequence[bytes]) -> Layout:
        """Return the layout to use when the last shard, or the only one, holds these streams."""
        if self.fixed:
            return self.layout
        layout = layout_of(tail)
        if is_full(tail):
            return layout
        chunks = -(-len(tail) // layout.chunk)  # a shard needs no more slots than chunks
        return layout._replace(shard=min(layout.shard, chunks))


@dataclass
class Held:
    """Contents of a store for a writer: the index of all images, and the last shard of each layer.

    Attributes:
        layers: State of each layer, by name.
        ids: Ids of all images, in order.
        splits: Their splits, as indices into the names of splits.
        labels: Their labels, as indices into the classes.
    """

    layers: dict[str, HeldLayer]
    ids: list[str] = field(default_factory=list)
    splits: list[int] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)


def layout_of(tail: Sequence[bytes]) -> Layout:
    """Return the layout that suits the mean length of these streams."""
    return choose_layout(sum(map(len, tail)) / len(tail))


def is_full(tail: Sequence[bytes]) -> bool:
    """Whether streams fill a shard, so that the layout becomes final."""
    return len(tail) >= layout_of(tail).images


def is_unicode(name: str) -> bool:
    """Whether a text can be encoded as UTF-8; some file names cannot."""
    return not any(0xD800 <= ord(character) <= 0xDFFF for character in name)


def _checked_attrs(attrs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the attributes as they will be read back: tuples become lists."""
    if RESERVED in attrs:
        raise ValueError(f"attribute {RESERVED!r} is nec's own; choose another name")
    checked: dict[str, Any] = json.loads(canonical(dict(attrs)))
    if not all(isinstance(name, str) for name in attrs):
        raise ValueError(f"attributes are named {list(attrs)}; give texts")
    return checked


def _checked_names(names: Sequence[str], what: str, most: int) -> list[str]:
    if isinstance(names, str):
        raise ValueError(f"{what} are {names!r}, one text; give a list of names")
    for name in names:
        if not isinstance(name, str) or not name or not is_unicode(name):
            raise ValueError(f"{what} are {list(names)}; each is a text of Unicode, not empty")
    if len(set(names)) != len(names):
        raise ValueError(f"{what} are {list(names)}; give different names, none empty")
    if not 0 < len(names) <= most:
        raise ValueError(f"{len(names)} {what} are given; a store has 1 to {most}")
    return list(names)
