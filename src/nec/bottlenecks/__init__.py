"""Bottlenecks: embedding <-> symbols, and how many bits that costs.

`nec.bottlenecks.factorized` is imported by name: CompressAI takes seconds, and only it needs it.
"""

from nec.bottlenecks.base import Bottleneck, Coded, LearnedBottleneck
from nec.bottlenecks.components import Components
from nec.bottlenecks.floats import Float16, Identity
from nec.bottlenecks.pooled import Moments, Pooled
from nec.bottlenecks.product import Product
from nec.bottlenecks.sign import Sign
from nec.bottlenecks.uniform import Int8, Pca, Uniform
from nec.store.packing import Plain, Zstd

__all__ = [
    "Bottleneck",
    "Coded",
    "Components",
    "Float16",
    "Identity",
    "Int8",
    "LearnedBottleneck",
    "Moments",
    "Pca",
    "Plain",
    "Pooled",
    "Product",
    "Sign",
    "Uniform",
    "Zstd",
]
