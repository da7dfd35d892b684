"""Integers <-> bytes by static integer tables. Needs numpy, and uses numba if it is installed."""

from nec.coding.neighbours import Neighbours
from nec.coding.plain import CorruptStreamError
from nec.coding.streams import (
    Decoder,
    at_most_threads,
    decode,
    decode_grids,
    encode,
    encode_grids,
)
from nec.coding.tables import Tables

__all__ = [
    "CorruptStreamError",
    "Decoder",
    "Neighbours",
    "Tables",
    "at_most_threads",
    "decode",
    "decode_grids",
    "encode",
    "encode_grids",
]
