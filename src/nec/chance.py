"""Random numbers for training, by seed, epoch and image; not by process, batch or device."""

import math
from collections.abc import Sequence
from hashlib import blake2b

import torch
from torch import Tensor

# SplitMix64 (Steele, Lea and Flood 2014, figure 16), in the signed integers that torch has.
GAMMA, FIRST, SECOND = (
    constant - 2**64 for constant in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
)
# Random bits of a number: as many as a float32 holds exactly.
MANTISSA_BITS = 24


def keys(seed: int, epoch: int, ids: Sequence[str]) -> Tensor:
    """Make one key per image (B,) int64, from which `uniform` draws what the image needs."""
    return torch.tensor([_hashed(f"{seed} {epoch} {name}") for name in ids], dtype=torch.int64)


def uniform(keys: Tensor, purpose: str, shape: Sequence[int]) -> Tensor:
    """Draw numbers in [0, 1) from each key and the purpose, the same on every device.

    Args:
        keys: (B,) int64.
        purpose: What the numbers are for; another purpose gives independent numbers.
        shape: Shape of the numbers for one key.

    Returns:
        (B, *shape) float32.
    """
    count = math.prod(shape)
    steps = GAMMA * torch.arange(1, count + 1, device=keys.device)
    states = _mixed(keys ^ _hashed(purpose))[:, None] + steps  # wraps around, as it must
    bits = _shifted(_mixed(states), 64 - MANTISSA_BITS)
    return (bits.float() * 2.0**-MANTISSA_BITS).reshape(len(keys), *shape)


def _hashed(text: str) -> int:
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "little", signed=True)


def _mixed(state: Tensor) -> Tensor:
    state = (state ^ _shifted(state, 30)) * FIRST
    state = (state ^ _shifted(state, 27)) * SECOND
    return state ^ _shifted(state, 31)


def _shifted(state: Tensor, count: int) -> Tensor:
    """Shift right, filling with zeros; torch's own shift repeats the sign bit."""
    return (state >> count) & (2 ** (64 - count) - 1)
