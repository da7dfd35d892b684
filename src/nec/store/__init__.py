"""Bytes on disk: stores of embeddings, and the codecs that read them. numpy and zarr only."""

from nec.coding import CorruptStreamError
from nec.store.store import EmbeddingStore
from nec.store.writer import StoreWriter

__all__ = ["CorruptStreamError", "EmbeddingStore", "StoreWriter"]
