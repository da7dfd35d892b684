"""The metadata of a store, read and checked."""

import json
from typing import Any, NamedTuple

from nec.store.files import COUNT_KEY, Files, Part
from nec.store.schema import (
    EMBEDDING,
    INDEX_ARRAYS,
    RESERVED,
    Structure,
    check_version,
    checked_layers,
    metadata_hash,
    read_structure,
)


class Metadata(NamedTuple):
    """Metadata from all zarr.json of a store."""

    attributes: dict[str, Any]  # the user's
    complete: bool
    structure: Structure
    size_bytes: int


def read_metadata(files: Files) -> Metadata:
    """Read and check all zarr.json of a store.

    Raises:
        ValueError: If it is not a store, is newer than this nec, or its metadata were changed.
    """
    text = files.find("zarr.json")
    group = {} if text is None else _parse(files, "zarr.json", text)
    attributes = group.get("attributes")
    own = attributes.get(RESERVED) if isinstance(attributes, dict) else None
    if text is None or not isinstance(attributes, dict) or not isinstance(own, dict):
        found = "no zarr.json" if text is None else "a zarr.json without nec's attribute"
        raise ValueError(
            f"{files.url} is not a store of nec: it has {found}; give the folder that "
            "EmbeddingStore.create wrote, store.zarr where it is a run's (one on coded pixels "
            "keeps a store only if store=PATH names it)"
        )
    check_version(own.get("version"), files.url)
    layers = own.get("layers", [EMBEDDING])
    if not isinstance(layers, list) or checked_layers(layers) != layers:
        raise ValueError(f"{files.url} has the layers {layers!r}; copy it anew")
    keys = [f"{name}/zarr.json" for name in (*layers, *INDEX_ARRAYS)]
    texts = dict(zip(keys, files.read([Part(key) for key in keys]), strict=True))
    files.opened = texts[COUNT_KEY]
    arrays = {key.split("/")[0]: _parse(files, key, array) for key, array in texts.items()}
    if metadata_hash(group, arrays) != own.get("sha256"):
        raise ValueError(
            f"{files.url} was changed after it was written: its metadata do not match their "
            "sha256; copy it anew"
        )
    try:
        structure = read_structure(arrays)
    except ValueError as error:
        raise ValueError(f"{files.url}: {error}") from None
    users = {name: value for name, value in attributes.items() if name != RESERVED}
    size_bytes = len(text) + sum(map(len, texts.values()))
    return Metadata(users, own.get("complete") is True, structure, size_bytes)


def _parse(files: Files, key: str, text: bytes) -> dict[str, Any]:
    try:
        parsed = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{files.name(key)} is not JSON ({error}); copy it anew") from None
    if not isinstance(parsed, dict):
        raise ValueError(f"{files.name(key)} is not a JSON object; copy it anew")
    return parsed
