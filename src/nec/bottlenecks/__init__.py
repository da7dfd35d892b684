"""Bottlenecks: embedding <-> symbols, and how many bits that costs.

`nec.bottlenecks.factorized` is imported by name: CompressAI takes seconds, and only it needs it.
"""

from nec.bottlenecks.base import Bottleneck, Coded, LearnedBottleneck
from nec.bottlenecks.baselines import Float16, Identity, Int8, Pooled, Uniform

__all__ = [
    "Bottleneck",
    "Coded",
    "Float16",
    "Identity",
    "Int8",
    "LearnedBottleneck",
    "Pooled",
    "Uniform",
]
