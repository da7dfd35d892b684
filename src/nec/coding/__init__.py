"""Integers <-> bytes by static integer tables. numpy, and numba where it is installed."""

from nec.coding.streams import Decoder, decode, encode
from nec.coding.tables import CorruptStreamError, Tables

__all__ = ["CorruptStreamError", "Decoder", "Tables", "decode", "encode"]
