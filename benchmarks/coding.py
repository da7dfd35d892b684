"""Speed and rate of nec.coding beside CompressAI's entropy bottleneck, in one run.

python benchmarks/coding.py [IMAGES]

Laplace data, 384 channels x 256 positions, one table a channel, the same probabilities for both
coders. Seconds are the best of three, after one call that compiles and warms up.
"""

import math
import os
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from compressai.entropy_models import EntropyBottleneck

from nec.coding import Tables, decode, encode

CHANNELS, SIDE = 384, 16
RATES = (0.1, 1.0)  # bits per symbol
ROUNDS = 3
ROW = "{:>10} {:>6} {:>9} {:>9} {:>11} {:>11} {:>9} {:>9}"


def laplace_pmf(scale: float, radius: int) -> np.ndarray:
    """(2 * radius + 1,) probabilities of a rounded Laplace variable."""
    edges = np.arange(radius + 1) + 0.5
    upper = 0.5 * np.exp(-edges / scale)
    side = upper[:-1] - upper[1:]
    return np.concatenate([side[::-1], [1 - 2 * upper[0]], side])


def scale_of(rate_bits: float) -> float:
    """The Laplace scale whose rounded variable has this entropy."""
    low, high = 0.01, 10.0
    for _ in range(60):
        middle = math.sqrt(low * high)
        pmf = laplace_pmf(middle, 200)
        entropy = -(pmf[pmf > 0] * np.log2(pmf[pmf > 0])).sum()
        low, high = (middle, high) if entropy < rate_bits else (low, middle)
    return low


def compressai_coder(scale: float) -> EntropyBottleneck:
    """CompressAI's coder with Laplace tables in place of its learned ones."""
    radius = max(1, math.ceil(12 * scale))
    pmf = torch.from_numpy(laplace_pmf(scale, radius)).float().expand(CHANNELS, -1)
    coder = EntropyBottleneck(CHANNELS)
    coder.quantiles.data.zero_()
    length = torch.full((CHANNELS,), pmf.shape[1], dtype=torch.int32)
    tail = (1 - pmf.sum(dim=1, keepdim=True)).clamp_min(1e-9)
    coder._quantized_cdf = coder._pmf_to_cdf(pmf, tail, length, pmf.shape[1])
    coder._cdf_length = length + 2
    coder._offset = torch.full((CHANNELS,), -radius, dtype=torch.int32)
    return coder


def best_seconds(call: Callable[[], Any]) -> float:
    """The shortest of some rounds."""
    seconds = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def compare(rate_bits: float, images: int) -> None:
    """Print a row for each coder, and ours over CompressAI's."""
    scale = scale_of(rate_bits)
    noise = np.random.default_rng(0).laplace(0, scale, (images, CHANNELS * SIDE**2))
    symbols = np.rint(noise).astype(np.int32)
    contexts = np.repeat(np.arange(CHANNELS), SIDE**2)
    tables = Tables.from_laplace(np.full(CHANNELS, scale))
    ideal_bytes = tables.code_length(symbols, contexts).mean() / 8

    streams = encode(symbols, tables, contexts)
    assert (decode(streams, tables, contexts, symbols.shape[1]) == symbols).all()
    ours = (
        best_seconds(lambda: encode(symbols, tables, contexts)),
        best_seconds(lambda: decode(streams, tables, contexts, symbols.shape[1])),
    )
    coder = compressai_coder(scale)
    y = torch.from_numpy(symbols).float().reshape(images, CHANNELS, SIDE, SIDE)
    strings = coder.compress(y)
    assert torch.equal(coder.decompress(strings, (SIDE, SIDE)), y)
    theirs = (
        best_seconds(lambda: coder.compress(y)),
        best_seconds(lambda: coder.decompress(strings, (SIDE, SIDE))),
    )
    for name, times, coded in (("nec", ours, streams), ("compressai", theirs, strings)):
        size_bytes = np.mean([len(s) for s in coded])
        rates = [images / t for t in times]
        mega = [symbols.size / t / 1e6 for t in times]
        excess = f"{100 * (size_bytes / ideal_bytes - 1):+.3f}%"
        cells = [f"{size_bytes:.1f}", excess, *(f"{v:.0f}" for v in rates)]
        print(ROW.format(name, rate_bits, *cells, *(f"{v:.1f}" for v in mega)))
    encoding, decoding = (b / a for a, b in zip(ours, theirs, strict=True))
    print(f"nec encodes {encoding:.1f}x and decodes {decoding:.1f}x as fast as compressai\n")


def main() -> None:
    images = int(sys.argv[1]) if len(sys.argv) > 1 else 64
    print(f"{images} images, {CHANNELS} x {SIDE * SIDE} symbols, {os.cpu_count()} cores")
    print(
        ROW.format(
            "coder", "bits", "B/image", "to ideal", "enc img/s", "dec img/s", "enc MS/s", "dec MS/s"
        )
    )
    for rate_bits in RATES:
        compare(rate_bits, images)


if __name__ == "__main__":
    main()
