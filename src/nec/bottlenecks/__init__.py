"""Bottlenecks: embedding <-> symbols, and how many bits that costs."""

from nec.bottlenecks.base import Bottleneck, Coded, LearnedBottleneck
from nec.bottlenecks.baselines import Float16, Identity, Int8, Pooled, Uniform
from nec.bottlenecks.factorized import Factorized

__all__ = [
    "Bottleneck",
    "Coded",
    "Factorized",
    "Float16",
    "Identity",
    "Int8",
    "LearnedBottleneck",
    "Pooled",
    "Uniform",
]
